"""The numbers of a model card, computed from a run's folder and the data that it names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np

from mlp_xp._utils.columns.table import as_matrix
from mlp_xp.cli.run_folder.config import DataInfo
from mlp_xp.datasets import Dataset
from mlp_xp.estimators.averaging import networks_of
from mlp_xp.estimators.fitted.groups import TooFewHeldOutError
from mlp_xp.estimators.tables.drift import DRIFT_LIMIT, UNSEEN_LIMIT
from mlp_xp.plotting import CalibrationDisplay

LEVELS = (0.5, 0.8, 0.9, 0.95)
_N_REPEATS, _MOST_PREDICTED, _N_GROUPS = 5, 200_000, 5


class Measured:
    """A run's predictions on its test rows, and each row's loss.

    The loss is the log loss for classes, and the squared error for numbers.
    """

    def __init__(self, model: Any, info: DataInfo, data: Dataset) -> None:
        self.model, self.info, self.y = model, info, data.y_test
        self.x = data.x_test
        self.is_classifier = bool(info.class_names)
        self.outputs = self.predict(self.x)
        self.losses = self.loss_of(self.outputs, self.y)

    def predict(self, x: Any) -> np.ndarray:
        """Return a probability per class, (rows, classes), or the predicted numbers, (rows,)."""
        predict = self.model.predict_proba if self.is_classifier else self.model.predict
        return self._as_outputs(predict(x))

    def _as_outputs(self, predicted: Any) -> np.ndarray:
        if not self.is_classifier:
            return np.asarray(predicted, np.float64)
        found = np.zeros((len(predicted), len(self.info.class_names)))
        found[:, self.model.classes_] = predicted
        return found

    def loss_of(self, outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the loss of each row, (rows,)."""
        if not self.is_classifier:
            return (y - outputs) ** 2
        p = outputs[np.arange(len(y)), y]
        return -np.log(np.clip(p, np.finfo(np.float64).eps, 1.0))

    def scores(self, rows: np.ndarray) -> dict[str, Any]:
        """Return the scores of some rows, given as a mask."""
        n, loss = int(np.count_nonzero(rows)), self.losses[rows]
        error = float(np.std(loss, ddof=1) / np.sqrt(n)) if n > 1 else None
        found: dict[str, Any] = {"rows": n}
        y, outputs = self.y[rows], self.outputs[rows]
        if self.is_classifier:
            if outputs.shape[1] == 2:
                found |= {"fraction": float(np.mean(y)), "predicted": float(outputs[:, 1].mean())}
            found |= {"accuracy": float(np.mean(np.argmax(outputs, axis=1) == y))}
            return found | {"log_loss": float(loss.mean()), "standard_error": error}
        found |= {"mean": float(y.mean()), "predicted": float(outputs.mean())}
        found |= {"mae": float(np.mean(np.abs(y - outputs)))}
        return found | {"mean_squared_error": float(loss.mean()), "standard_error": error}

    def groups(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the scores by class, and by the categories or intervals of columns."""
        for label, name in enumerate(self.info.class_names):
            if np.any(rows := self.y == label):
                yield {"column": self.info.target, "group": name, **self.scores(rows)}
        for name in names:
            for group, rows in self._parts(name):
                if np.any(rows):
                    yield {"column": name, "group": group, **self.scores(rows)}

    def _parts(self, name: str) -> Iterator[tuple[str, np.ndarray]]:
        table, place = networks_of(self.model)[0].columns_, self.info.feature_names.index(name)
        column, known = table.columns[place], table.distributions[place]
        raw = table.convert(table.read(self.x))[place][1]
        yield "missing", np.asarray(raw.is_missing)
        if known is None:
            return
        if known.low is None:
            codes, found = raw.factors
            values = np.asarray([*found, None], dtype=object)[codes]
            for value in known.categories[:_N_GROUPS]:
                yield str(value), values == value
            others = {*known.categories[:_N_GROUPS], None}
            yield "other", np.asarray([value not in others for value in values.tolist()])
            return
        line = column.on_line(raw)
        n = len(known.edges)
        nearest = np.round(np.arange(1, _N_GROUPS) * (n + 1) / _N_GROUPS).clip(1, n)
        edges = [known.edges[int(place) - 1] for place in np.unique(nearest) if n]
        rounded = sorted({float(f"{edge:.4g}") for edge in edges})
        if column.kind == "number" and len(rounded) == len(edges):
            edges = rounded  # They are easier to read.
        for low, high in pairwise([-np.inf, *edges, np.inf]):
            above, upto = (column.shown(x) if np.isfinite(x) else None for x in (low, high))
            text = "all" if above is None else f"> {above}"
            if upto is not None:
                text = f"<= {upto}" if above is None else f"({above}, {upto}]"
            yield text, (line > low) & (line <= high)

    def importances(self) -> list[dict[str, Any]]:
        """Return how much the loss rises if a column is permuted, the most important first."""
        n_columns = len(self.info.feature_names)
        n = min(len(self.y), max(100, _MOST_PREDICTED // (_N_REPEATS * n_columns)))
        rows = np.random.RandomState(0).permutation(len(self.y))[:n]

        def loss(y: np.ndarray, predicted: Any) -> np.ndarray:
            return self.loss_of(self._as_outputs(predicted), y)

        settings: Any = {"loss": loss, "n_repeats": _N_REPEATS, "random_state": 0}
        x, y = as_matrix(self.x)[rows], self.y[rows]
        found = self.model.permutation_importance(x, y, **settings)
        numbers = found.importances_mean.tolist(), found.standard_errors.tolist()
        means = zip(self.info.feature_names, *numbers, strict=True)
        return [
            {"column": name, "loss_increase": mean, "standard_error": error}
            for name, mean, error in sorted(means, key=itemgetter(1), reverse=True)
        ]

    def calibration(self) -> tuple[CalibrationDisplay | None, list[dict[str, float]]]:
        """Return the reliability diagram, and its points; None and [] for regression."""
        if not self.is_classifier:
            return None, []
        is_binary = self.outputs.shape[1] == 2
        p = self.outputs[:, 1] if is_binary else self.outputs
        display = CalibrationDisplay.of_predictions(self.y, p, pos_label=1 if is_binary else None)
        display.pos_label = self.info.class_names[1] if is_binary else None
        pairs = zip(display.prob_pred.tolist(), display.prob_true.tolist(), strict=True)
        return display, [{"predicted": p, "fraction": fraction} for p, fraction in pairs]

    def coverage(self) -> list[dict[str, float]]:
        """Return how many test rows are in the intervals or sets, and their mean size.

        Levels for which the fit held out no or too few rows are left out.
        """
        found = []
        for level in LEVELS:
            with suppress(TooFewHeldOutError):
                if self.is_classifier:
                    sets = np.zeros(self.outputs.shape, bool)
                    sets[:, self.model.classes_] = self.model.predict_set(self.x, level)
                    is_in, size = sets[np.arange(len(self.y)), self.y], sets.sum(axis=1)
                else:
                    low, high = self.model.predict(self.x, interval=level).T
                    is_in, size = (low <= self.y) & (self.y <= high), high - low
                row = {"level": level, "coverage": float(np.mean(is_in))}
                found.append(row | {"mean_size": float(np.mean(size))})
        return found


def describe_columns(model: Any, x_test: Any) -> list[dict[str, Any]]:
    """Return each column's kind, range, missing values, constraint, and drift in the test rows."""
    table = networks_of(model)[0].columns_
    found = {column.name: column for column in model.check(x_test).columns}
    rows = []
    for column, known in zip(table.columns, table.distributions, strict=True):
        row: dict[str, Any] = {"column": column.name, "kind": column.kind}
        row["direction"] = column.direction
        if known is not None and (now := found.get(column.name)) is not None:
            row |= {"low": now.low_in_fit, "high": now.high_in_fit}
            row |= {"categories": [*map(str, known.categories)]}
            row |= {"missing": known.n_missing, "fraction_missing": known.fraction_missing}
            row |= {"stability_index_of_test": now.stability_index}
        rows.append(row)
    return rows


def drift_limits() -> dict[str, float]:
    """Return the limits that `check` compares with."""
    return {"stability_index": DRIFT_LIMIT, "fraction_unseen": UNSEEN_LIMIT}
