"""thinc: layers in a chain, a loop over `begin_update` and `finish_update`."""

import numpy as np
from thinc.api import SGD, Adam, Relu, Sigmoid, Softmax, chain, fix_random_seed, to_categorical

from bench.suite.workloads import Contender, Task


def make(task: Task) -> Contender:
    fix_random_seed(0)
    layer = {"relu": Relu, "logistic": Sigmoid}[task.net.activation]
    model = chain(*[layer(width) for width in task.net.widths[1:-1]], Softmax(task.net.widths[-1]))
    y = to_categorical(task.y, n_classes=task.net.widths[-1])
    model.initialize(task.x[:16], y[:16])
    # thinc's SGD has no momentum. Clipping and averaging are off, as in the other contenders.
    kind = Adam if task.net.solver == "adam" else SGD
    rule = kind(task.net.learning_rate, L2=0.0, grad_clip=0.0, use_averages=False)

    def train(epochs: int) -> float:
        for _ in range(epochs):
            for x, target in model.ops.multibatch(task.net.batch_size, task.x, y, shuffle=True):
                p, backprop = model.begin_update(x)
                backprop((p - target) / len(x))
                model.finish_update(rule)
        return float(-np.log((p * target).sum(axis=1)).mean())

    return Contender(train, lambda rows: model.predict(rows).argmax(1))
