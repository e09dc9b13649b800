"""Permutation importance of groups of columns, with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from narwhals.stable import v2 as narwhals
from scipy import sparse
from scipy.stats import t as student_t
from sklearn.base import is_classifier
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from mlp_xp._utils.columns.streams import is_table_stream
from mlp_xp._utils.columns.table import as_matrix
from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.names import error_end, list_names
from mlp_xp.backends import get_backend, host, namespace_backend
from mlp_xp.estimators.checks.target_column import take_target
from mlp_xp.estimators.fitted.groups import names_of_columns
from mlp_xp.estimators.fitted.state import fitted_state
from mlp_xp.estimators.tables.frames import as_frame
from mlp_xp.estimators.targets import Targets
from mlp_xp.estimators.targets._labels import encode_labels


@dataclass(frozen=True, eq=False)
class PermutationImportance:
    """How much the loss rises if columns are permuted.

    Attributes
    ----------
    names : list of str
        The groups, then the columns that are in no group.
    importances : (groups, repeats) array
        The rise of the mean loss for each permutation.
    standard_errors : (groups,) array
        The standard errors of ``importances_mean``.
    intervals : (groups, 2) array
        The ends of the confidence intervals.
    level : float
        The intervals' confidence level.
    """

    names: list[str]
    importances: np.ndarray
    standard_errors: np.ndarray
    intervals: np.ndarray
    level: float

    @property
    def importances_mean(self) -> np.ndarray:
        """The mean over the permutations, (groups,)."""
        return np.mean(self.importances, axis=1)

    @property
    def importances_std(self) -> np.ndarray:
        """The standard deviation over the permutations, (groups,)."""
        return np.std(self.importances, axis=1)


def measure_importance(
    model: Any,
    X: Any,
    y: Any,
    groups: Any,
    *,
    loss: Callable[[Any, Any], Any] | None,
    n_repeats: int,
    level: float,
    random_state: Any,
) -> PermutationImportance:
    """Return the importance of groups; see `ExplanationMixin.permutation_importance`."""
    check_is_fitted(model)
    if not (isinstance(n_repeats, Integral) and n_repeats >= 1):
        raise ValueError(f"`n_repeats` must be an integer of at least 1, got {n_repeats!r}.")
    if not (isinstance(level, Real) and 0.0 < level < 1.0):
        raise ValueError(f"`level` must be between 0 and 1, e.g. 0.9, got {level!r}.")
    if is_table_stream(X):
        raise ValueError(
            "`permutation_importance` needs all rows of X in memory: pass a data frame with a "
            "sample of the rows."
        )
    X, y = take_target(X, y)
    rows = _Rows(model, X)
    predict = model.predict_proba if is_classifier(model) else model.predict
    targets = fitted_state(getattr(model, "estimators_", [model])[0]).targets
    y = targets.check(y, type(model).__name__, len(rows))
    if loss is None:
        targets.encode(y, "float64")  # Raise an error for another shape, or unknown classes.
    if len(rows) < 2:
        raise ValueError("`permutation_importance` needs at least 2 rows of X, got 1.")
    chosen = _read_groups(groups, rows.names)

    def losses(x: Any) -> np.ndarray:
        predicted = predict(x)
        predicted = [*map(host, predicted)] if isinstance(predicted, list) else host(predicted)
        if loss is None:
            return _losses(targets, y, predicted)
        found = np.asarray(loss(y, predicted), np.float64)
        if found.shape != (len(rows),):
            raise ValueError(
                f"`loss` must return one number for each of {len(rows)} rows, got the shape "
                f"{found.shape}: do not average over the rows."
            )
        return found

    before, generator = losses(rows.x), check_random_state(random_state)
    donors = [_cycle(len(rows), generator) for _ in range(n_repeats)]
    rises = [
        np.stack([losses(rows.swap(columns, order)) - before for order in donors])
        for columns in chosen.values()
    ]
    importances = np.stack([np.mean(rise, axis=1) for rise in rises])
    errors = np.asarray([_standard_error(rise, donors) for rise in rises])
    reach = student_t.ppf((1.0 + level) / 2.0, len(rows) - 1) * errors
    mean = np.mean(importances, axis=1)
    intervals = np.stack([mean - reach, mean + reach], axis=1)
    return PermutationImportance([*chosen], importances, errors, intervals, float(level))


class _Rows:
    """Rows of a data frame, an array or a sparse matrix, whose columns can be permuted."""

    def __init__(self, model: Any, X: Any) -> None:
        self._is_frame = narwhals.dependencies.is_into_dataframe(X)
        if self._is_frame:
            frame = as_frame(X)
            given = dict(zip(map(str, frame.columns), frame.columns, strict=True))
            known = names_of_columns(model)
            # Without names in the fit, all columns are used.
            self.names = [name for name in known if name in given] or [*given]
            self._given = [given[name] for name in self.names]
            others = [column for name, column in given.items() if name not in self.names]
            self._frame, self.x = frame.drop(others), X  # Predictions warn about others once.
            return
        x = as_matrix(X)
        self.x = x if sparse.issparse(x) or namespace_backend(x) is not None else np.asarray(x)
        n_columns = self.x.shape[1] if len(self.x.shape) == 2 else 0
        self.names = names_of_columns(model)[:n_columns]

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def swap(self, columns: Sequence[int], donors: np.ndarray) -> Any:
        """Return the rows with the values of some columns taken from the ``donors : (rows,)``."""
        if self._is_frame:
            series = [self._frame.get_column(self._given[i]) for i in columns]
            return self._frame.with_columns(*(one[donors] for one in series)).to_native()
        is_in = np.isin(np.arange(self.x.shape[1]), columns)
        if sparse.issparse(self.x):
            kept, swapped = (sparse.diags(m.astype(self.x.dtype)) for m in (~is_in, is_in))
            x = self.x.tocsr()
            return x @ kept + x[donors] @ swapped
        backend = get_backend(self.x)
        with backend.scope():
            taken = backend.xp.take(self.x, backend.put(donors), axis=0)
            return backend.xp.where(backend.put(is_in), taken, self.x)


def _read_groups(groups: Any, names: list[str]) -> dict[str, list[int]]:
    """Return the positions of each group's columns, then of each other column."""
    if groups is None:
        groups = {}
    if not isinstance(groups, Mapping):
        raise TypeError(
            "`groups` must be a dict from a group's name to a list of columns, e.g. "
            f"{{'both': {names[:2]}}}, got {groups!r}."
        )
    found: dict[str, list[int]] = {}
    owners: dict[int, str] = {}
    for group, given in groups.items():
        columns = [given] if isinstance(given, str | Integral) else [*(given or ())]
        if not columns:
            raise ValueError(f"`groups[{group!r}]` has no columns: name some, or leave it out.")
        found[str(group)] = [_position(column, group, names) for column in columns]
        for i in found[str(group)]:
            if i in owners:
                raise ValueError(
                    f"`groups` must have each column once, got {names[i]!r} in {owners[i]!r} and "
                    f"in {group!r}: remove it from one, or call the method once for each."
                )
            owners[i] = group
    others = {name: [i] for i, name in enumerate(names) if i not in owners}
    if twice := [name for name in others if name in found]:
        raise ValueError(
            f"`groups` has groups that are named like columns outside them, {list_names(twice)}: "
            "choose other names."
        )
    return found | others


def _position(column: Any, group: Any, names: list[str]) -> int:
    if isinstance(column, Integral) and int(column) in range(len(names)):
        return int(column)
    if column in names:
        return names.index(column)
    raise ValueError(
        f"`groups[{group!r}]` has {column!r}, which is no column of X{error_end(column, names)} X "
        f"has {list_names(names)}."
    )


def _losses(targets: Targets, y: np.ndarray, predicted: Any) -> np.ndarray:
    """Return each row's log loss, summed over targets, or mean squared error, (rows,)."""
    n = len(y)
    if targets.classes is None:
        errors = y - predicted.reshape(y.shape)
        return np.mean(np.reshape(errors * errors, (n, -1)), axis=1)
    if targets.kind == "multilabel":
        is_label = targets.encode(y, "float64") == 1.0
        chances = np.where(is_label, predicted, 1.0 - predicted)
    elif isinstance(targets.classes, list):
        codes = targets.encode(y, "float64").T
        pairs = zip(predicted, codes, strict=True)
        chances = np.stack([p[np.arange(n), code] for p, code in pairs], axis=1)
    else:
        chances = predicted[np.arange(n), encode_labels(y, targets.classes)][:, None]
    smallest = np.finfo(chances.dtype).eps  # As in scikit-learn's log loss.
    losses = -np.log(np.maximum(chances, smallest), dtype=np.float64)
    return np.asarray(np.sum(losses, axis=1))


def _cycle(n: int, generator: np.random.RandomState) -> np.ndarray:
    """Return a random permutation of n rows that leaves none in its place, (rows,)."""
    order, donors = generator.permutation(n), np.empty(n, np.int64)
    donors[order] = np.roll(order, 1)
    return donors


def _standard_error(rises: np.ndarray, donors: Sequence[np.ndarray]) -> float:
    r"""Return the standard error of the mean of ``rises : (repeats, rows)``.

    The mean over all pairs of rows is a U-statistic. A row affects it as the row that receives
    values, with the mean rise :math:`a_i`, and as the row that gives them, :math:`b_i`, so its
    variance is :math:`\mathrm{Var}(a + b) / n` for n rows. With few permutations, this is too
    large rather than too small, since the chance of each pair is in :math:`a` and in :math:`b`.
    """
    given = np.empty_like(rises)
    for own, rise, order in zip(given, rises, donors, strict=True):
        own[order] = rise
    effects = np.mean(rises + given, axis=0)
    return float(np.std(effects, ddof=1) / np.sqrt(len(effects)))
