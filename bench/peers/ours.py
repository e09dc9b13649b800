"""This library as its README uses it; an epoch is a `partial_fit`, input checks included."""

from typing import Any

import numpy as np

from bench.peers.contest import MOMENTUM, Contender, Task
from bench.peers.plain_numpy import initial
from mlp_xp import MLPClassifier
from mlp_xp.backends import get_backend
from mlp_xp.lab import train_mlp


def make(task: Task, **options: Any) -> Contender:
    if task.solver == "descent":
        return _make_lab(task)
    classes = np.arange(task.widths[-1])
    # On the device, as for the peers. Only JAX copies them.
    x = get_backend(options.get("backend")).put(task.x)
    model = MLPClassifier(
        task.widths[1:-1],
        task.activation,
        solver="adam" if task.solver == "adam" else "sgd",
        alpha=0.0,  # No contender penalizes the weights.
        batch_size=task.batch_size,
        learning_rate_init=task.learning_rate,
        momentum=MOMENTUM if task.solver == "sgd" else 0.0,
        random_state=0,
        n_iter_no_change=np.inf,  # All epochs are meant: compiled from the first one on.
        # Pixels are scaled by the library per batch; scaled data are not scaled again.
        input_scaling="standardize" if task.x.dtype == np.uint8 else None,
        **options,
    )

    def train(epochs: int) -> float:
        for _ in range(epochs):
            model.partial_fit(x, task.y, classes=classes)
        return float(model.loss_)

    return Contender(train, model.predict)


def _make_lab(task: Task) -> Contender:
    """Return `mlp_xp.lab` on the full batch."""
    weights = tuple(array.astype(np.float32) for array in initial(task.widths))

    def train(epochs: int) -> float:
        nonlocal weights
        *weights, _, losses = train_mlp(*weights, task.x, task.y, task.learning_rate, epochs)
        return losses[-1]

    return Contender(train)
