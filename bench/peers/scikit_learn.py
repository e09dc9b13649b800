"""scikit-learn's MLPClassifier; an epoch is a `partial_fit`."""

import numpy as np
from sklearn.neural_network import MLPClassifier

from bench.peers.contest import MOMENTUM, Contender, Task


def make(task: Task) -> Contender:
    model = MLPClassifier(
        task.widths[1:-1],
        task.activation,
        solver="adam" if task.solver == "adam" else "sgd",
        alpha=0.0,  # No contender penalizes the weights.
        batch_size=task.batch_size,
        learning_rate_init=task.learning_rate,
        momentum=MOMENTUM if task.solver == "sgd" else 0.0,
        random_state=0,
    )
    classes = np.arange(task.widths[-1])

    def train(epochs: int) -> float:
        for _ in range(epochs):
            model.partial_fit(task.x, task.y, classes=classes)
        return float(model.loss_)

    return Contender(train, model.predict)
