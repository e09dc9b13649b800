"""Shapley values of 1,000 rows beside shap's KernelExplainer, which explains a part of them."""

import os
import time
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bench.suite.records import Result
from bench.suite.tables import Table, reasons, seconds
from bench.suite.turns import Announce, Options, Part, call, in_turns

OURS, SHAP = "mlp_xp", "shap KernelExplainer"
N_ROWS, QUICK_ROWS, N_BACKGROUND = 1_000, 20, 100
THEIR_ROWS = 4  # The rows that shap explains.
HIDDEN = (64, 64)


class Case(NamedTuple):
    """The columns and the dtype of a table, and the time limit in seconds on two cores."""

    n_columns: int
    dtype: str
    most: float


CASES = {
    "exact": Case(10, "float32", 10.0),
    "exact, float64": Case(10, "float64", 10.0),
    "sampled": Case(25, "float32", 60.0),
}


def explain(name: str, case: str, n_rows: int) -> Result:
    """Return the time of an explanation, its additivity, and its largest standard error.

    The errors are relative to the standard deviation of the predictions.
    """
    from sklearn.datasets import make_friedman1

    from mlp_xp import MLPRegressor

    X, y = make_friedman1(4_000, CASES[case].n_columns, noise=1.0, random_state=0)
    X = X.astype(CASES[case].dtype)
    settings: Any = {"input_scaling": "standardize", "learning_rate": "cosine", "random_state": 0}
    model = MLPRegressor(hidden_layer_sizes=HIDDEN, max_iter=20, **settings).fit(X, y)
    rows, background = X[:n_rows], X[-N_BACKGROUND:]
    predicted = model.predict(rows)
    spread = np.std(model.predict(X))
    start, before = time.perf_counter(), os.times()
    error = 0.0
    if name == OURS:
        found: Any = model.shap_values(rows, background, random_state=0)
        taken, values, base = time.perf_counter() - start, found.values, found.base_values
        error = 0.0 if found.error_std is None else np.max(found.error_std) / spread
    else:
        import shap

        explainer = shap.KernelExplainer(model.predict, background)
        values = explainer.shap_values(rows, silent=True)
        taken, base = time.perf_counter() - start, explainer.expected_value
    used = sum(after - b for after, b in zip(os.times()[:2], before[:2], strict=True))
    additivity = np.max(np.abs(base + values.sum(axis=1) - predicted)) / spread
    return {
        "rows": n_rows,
        "seconds": taken,
        "processor_seconds": used,
        "additivity": float(additivity),
        "standard_error": float(error),
    }


def measure(options: Options, announce: Announce) -> Result:
    """Return the times of each case, one entry for each round."""
    n_rows = QUICK_ROWS if options.quick else N_ROWS
    found: Result = {}
    for case in options.chosen(CASES):
        turns = {
            name: partial(call, explain, name, case, n_rows if name == OURS else THEIR_ROWS)
            for name in options.listed((OURS, SHAP))
        }
        found[case] = in_turns(turns, options.rounds, announce)
    return found


def tables(found: Result) -> list[Table]:
    rows, missing = [], {}
    for case, runs in found.items():
        missing |= reasons({name: run for name, run in runs.items() if isinstance(run, dict)})
        for name, turns in runs.items():
            if isinstance(turns, dict):
                continue
            run = min(turns, key=lambda turn: turn["seconds"])
            factor = N_ROWS / run["rows"]
            most = seconds(CASES[case].most) if name == OURS else ""
            per_row = [run["seconds"] * factor, run["processor_seconds"] * factor]
            error = f"{run['standard_error']:.2%}" if run["standard_error"] else ""
            cells = [*map(seconds, per_row), most, f"{run['additivity']:.0e}", error]
            rows.append([f"{case}, {CASES[case].n_columns} columns", name, *cells])
    columns = ["values", "library", f"{N_ROWS:,} rows", "processor time", "target"]
    return [Table(PART.title, [*columns, "additivity", "error"], rows, missing, terms=TERMS)]


TERMS = (
    f"A regressor with the hidden layers {HIDDEN} explains {N_ROWS:,} rows, compared with "
    f"{N_BACKGROUND} background rows; the fastest round counts, and the target is for two cores. "
    f"*{SHAP}* explains {THEIR_ROWS} rows, so its time is multiplied by {N_ROWS // THEIR_ROWS}. "
    "*additivity* is the largest difference between a prediction and its values' sum, and *error* "
    "the largest standard error, as fractions of the predictions' standard deviation."
)
PART = Part("Shapley values", measure, tables)
