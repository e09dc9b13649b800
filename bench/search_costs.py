"""Divide the time of a search into the steps of its models and what there is around them."""

from __future__ import annotations

import math
import statistics
import time
import warnings
from typing import Any

import numpy as np
from rates import product_rate
from report import seconds, table
from roofline import operations
from turns import Result

__all__ = ["costs", "costs_section"]

# A search of a case whose epochs are limited by early stopping trains for about so many.
_EPOCHS = 17
_TURNS, _LONGER = 3, 3
TERMS = (
    "What our searches take their time for. Without early stops the time of a search grows by that "
    "of its steps with its epochs, and of what is done after each, such as validation; the rest "
    "does not: it checks, prepares and scores each fit. *a step* is the time of all steps by their "
    "number; two processors take two at once. "
    "*products* is the least time of all products, at the rate of a large one on all processors. "
    "The *first* search in a process takes so much longer: it loads machine code, or compiles."
)


def costs(case: Any) -> Result:
    """Return the seconds of a step, of its products, of the rest, and of a first search."""
    warnings.simplefilter("ignore")
    import mlp_xp
    from mlp_xp.model_selection import GridSearchCV

    X, y = case.data()
    model = case.model(mlp_xp)
    few = case.network.get("max_iter", _EPOCHS)

    def seconds_of(epochs: int) -> float:
        model.set_params(max_iter=epochs, n_iter_no_change=np.inf)
        search = GridSearchCV(model, case.grid, cv=case.cv, refit=False)
        start = time.perf_counter()
        search.fit(X, y)
        return time.perf_counter() - start

    first = seconds_of(few)
    turns = [(seconds_of(few), seconds_of(_LONGER * few)) for _ in range(_TURNS)]
    short, long = (statistics.median(column) for column in zip(*turns, strict=True))
    n_samples = len(X) * (case.cv - 1) // case.cv
    if model.early_stopping:
        n_samples -= math.ceil(model.validation_fraction * n_samples)
    batch = min(200 if model.batch_size == "auto" else model.batch_size, n_samples)
    n_fits = case.cv * math.prod(len(values) for values in case.grid.values())
    n_steps = n_fits * few * -(-n_samples // batch)
    widths = (X.shape[1], *model.hidden_layer_sizes, len(np.unique(y)))
    n_operations = operations(widths, batch, train=True)
    steps = (long - short) / (_LONGER - 1)
    return {
        "n_fits": n_fits,
        "n_steps": n_steps,
        "steps": steps,
        "products": n_steps * n_operations / product_rate(X.dtype),
        "rest": short - steps,
        "first": first - short,
    }


def costs_section(results: Result) -> str:
    """Return the terms and the table."""
    rows = []
    for result in results.values():
        found = result.get("costs", {})
        if "steps" not in found:
            continue
        n_steps, fits = found["n_steps"], found["n_fits"]
        times = [found["steps"] / n_steps, found["steps"], found["products"], found["rest"]]
        times += [found["rest"] / fits, max(found["first"], 0.0)]
        rows.append([result["title"], f"{n_steps:,}", *map(seconds, times)])
    names = ["search", "steps", "a step", "all steps", "products", "rest", "rest of a fit", "first"]
    return f"{TERMS}\n\n{table(names, 'lrrrrrrr', rows)}"
