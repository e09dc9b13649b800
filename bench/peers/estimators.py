"""scikit-learn's interface: this library and scikit-learn's MLP; an epoch is a `partial_fit`."""

import importlib
from typing import Any

import numpy as np

from bench.suite.workloads import MOMENTUM, Contender, Task


def make(
    task: Task, *, library: str = "mlp_xp", in_one_fit: bool = False, **options: Any
) -> Contender:
    """Return the contender; if ``in_one_fit`` is true, each turn is one fit with warm start."""
    if task.net.solver == "descent":
        return _make_lab(task)
    x = task.x
    if library == "mlp_xp":
        from mlp_xp.backends import get_backend

        # The data are on the device before timing, as for the peers.
        x = get_backend(options.get("backend")).put(x)
        # The library scales pixels batch by batch; scaled data are not scaled again.
        scaling = "standardize" if task.x.dtype == np.uint8 else None
        # All epochs are run, so they are compiled from the first one on.
        options |= {"input_scaling": scaling, "warm_start": True, "n_iter_no_change": np.inf}
    model = importlib.import_module(library).MLPClassifier(
        task.net.widths[1:-1],
        task.net.activation,
        solver="adam" if task.net.solver == "adam" else "sgd",
        alpha=0.0,  # No contender penalizes weights.
        batch_size=task.net.batch_size,
        learning_rate_init=task.net.learning_rate,
        momentum=MOMENTUM if task.net.solver == "sgd" else 0.0,
        random_state=0,
        **options,
    )
    classes = np.arange(task.net.widths[-1])

    def train(epochs: int) -> float:
        if in_one_fit:
            model.set_params(max_iter=epochs).fit(x, task.y)
        else:
            for _ in range(epochs):
                model.partial_fit(x, task.y, classes=classes)
        return float(model.loss_)

    return Contender(train, model.predict)


def _make_lab(task: Task) -> Contender:
    """Return `mlp_xp.lab` on the full batch."""
    from bench.peers.plain_numpy import initial
    from mlp_xp.lab import train_mlp

    weights = tuple(array.astype(np.float32) for array in initial(task.net.widths))

    def train(epochs: int) -> float:
        nonlocal weights
        *weights, _, losses = train_mlp(*weights, task.x, task.y, task.net.learning_rate, epochs)
        return losses[-1]

    return Contender(train)
