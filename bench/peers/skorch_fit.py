"""skorch: torch's modules with scikit-learn's methods, fed by torch's DataLoader."""

import torch
from skorch import NeuralNetClassifier
from torch import nn

from bench.peers.torch_loop import network
from bench.suite.workloads import Contender, Task


def make(task: Task) -> Contender:
    torch.set_num_threads(task.threads)
    torch.manual_seed(0)
    rule = torch.optim.Adam if task.net.solver == "adam" else torch.optim.SGD
    model = NeuralNetClassifier(
        network(task),
        criterion=nn.CrossEntropyLoss,
        optimizer=rule,
        optimizer__fused=True,
        **{f"optimizer__{name}": value for name, value in task.net.momentum.items()},
        lr=task.net.learning_rate,
        batch_size=task.net.batch_size,
        iterator_train__shuffle=True,
        iterator_valid__batch_size=1024,
        train_split=None,
        verbose=0,
    )
    y = task.y.astype("int64")  # The criterion needs this dtype.
    model.initialize()

    def train(epochs: int) -> float:
        model.partial_fit(task.x, y, epochs=epochs)
        return model.history[-1, "train_loss"]

    return Contender(train, model.predict)
