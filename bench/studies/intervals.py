"""The share of test targets in "90 %" intervals, for the table of docs/intervals.md.

Five real tables that scikit-learn brings, two of them for its tests; each of 20 splits takes 60 %
to fit, 20 % to calibrate and 20 % to test.
"""

from __future__ import annotations

import csv
import gzip
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.datasets
from sklearn.compose import make_column_transformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import OneHotEncoder

from bench.suite.records import Result
from bench.suite.tables import Table
from bench.suite.turns import Announce, Options, Part
from mlp_xp import MLPRegressor
from mlp_xp.nn.losses import Quantile

N_SPLITS = 20
LEVELS = 0.05, 0.95
SETTINGS: dict[str, Any] = {
    "hidden_layer_sizes": (64, 64),
    "input_scaling": "standardize",
    "target_scaling": "standardize",
    "learning_rate_init": 0.005,
    "batch_size": 32,
}
Data = tuple[Any, np.ndarray]


def penguins() -> Data:
    """Return species, island, sex, sizes of bill and flipper, and as target the body mass."""
    rows = [row for row in _arff(42585) if row[5] != "?"]
    kept = [[row[k] for k in (0, 1, 6, 2, 3, 4)] for row in rows]
    return _encoded(kept, 3), np.asarray([float(row[5]) for row in rows])


def titanic() -> Data:
    """Return sex, port, class, survival, age, siblings, parents, and as target the fare."""
    rows = [row for row in _arff(40945) if row[8] != "?"]
    kept = [[row[k] for k in (3, 10, 0, 1, 4, 5, 6)] for row in rows]
    return _encoded(kept, 2), np.asarray([float(row[8]) for row in rows])


def _arff(number: int) -> list[list[str]]:
    """Return the rows of a file that scikit-learn's tests read."""
    folder = Path(sklearn.datasets.__file__).parent / f"tests/data/openml/id_{number}"
    with gzip.open(next(folder.glob("data*.gz")), "rt", encoding="utf-8") as file:
        lines = [line for line in file if line.strip() and line[0] not in "%@"]
    return list(csv.reader(lines))


def _encoded(rows: list[list[str]], n_texts: int) -> np.ndarray:
    """Return numbers: the first columns are one-hot, and holes in the others the median."""
    cells = np.asarray([[np.nan if cell == "?" else cell for cell in row] for row in rows], object)
    numbers = list(range(n_texts, cells.shape[1]))
    encoder = make_column_transformer(
        (OneHotEncoder(sparse_output=False), list(range(n_texts))),
        (SimpleImputer(strategy="median"), numbers),
    )
    text = cells[:, :n_texts].astype(str)
    found: np.ndarray = encoder.fit_transform(np.concatenate([text, cells[:, n_texts:]], axis=1))
    return found.astype(float)


def column(load: Callable[..., Any], name: str) -> Data:
    """Return the other columns of a table of classes, and one to predict."""
    table = load()
    place = list(table.feature_names).index(name)
    return np.delete(table.data, place, axis=1), table.data[:, place]


TABLES: dict[str, Callable[[], Data]] = {
    "diabetes, progression": lambda: sklearn.datasets.load_diabetes(return_X_y=True),
    "breast cancer, mean texture": lambda: column(
        sklearn.datasets.load_breast_cancer, "mean texture"
    ),
    "wine, proline": lambda: column(sklearn.datasets.load_wine, "proline"),
    "penguins, body mass": penguins,
    "Titanic, fare": titanic,
}
LOSSES: dict[str, Any] = {"quantiles": Quantile((0.05, 0.5, 0.95)), "gaussian": "gaussian"}


def coverages(X: np.ndarray, y: np.ndarray, loss: Any, seed: int) -> Iterator[float]:
    """Yield the shares after 200 epochs, with early stopping, and calibrated."""
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.2, random_state=seed)
    X, X_cal, y, y_cal = train_test_split(X, y, test_size=0.25, random_state=seed)

    def share(model: MLPRegressor) -> float:
        low, high = model.predict(X_test, quantiles=LEVELS).T
        return float(np.mean((low <= y_test) & (y_test <= high)))

    yield share(MLPRegressor(loss, random_state=seed, **SETTINGS).fit(X, y))
    stopped = MLPRegressor(loss, random_state=seed, early_stopping=True, **SETTINGS).fit(X, y)
    yield share(stopped)
    yield share(stopped.calibrate_intervals(X_cal, y_cal))


def measure(options: Options, announce: Announce) -> Result:
    """Return the mean shares of each table and loss, and the number of rows."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    found: Result = {}
    for name in options.chosen(TABLES):
        X, y = TABLES[name]()
        for what, loss in LOSSES.items():
            announce(f"{name}, {what}")
            shares = [list(coverages(X, y, loss, seed)) for seed in range(N_SPLITS)]
            own = {"n": len(y), "shares": np.mean(shares, axis=0).tolist()}
            found.setdefault(name, {})[what] = own
    return found


def tables(found: Result) -> list[Table]:
    rows = [
        [name, f"{own['n']:,}", what, *(f"{100 * share:.1f} %" for share in own["shares"])]
        for name, losses in found.items()
        for what, own in losses.items()
    ]
    columns = ["table and target", "rows", "loss", "200 epochs", "early stopping", "calibrated"]
    return [Table(PART.title, columns, rows)]


PART = Part("Intervals", lambda o: len(o.chosen(TABLES)) * len(LOSSES), measure, tables)
