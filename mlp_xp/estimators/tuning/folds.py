"""Folds: which rows train the networks, and which rows are held out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold
from sklearn.utils import _safe_indexing

from mlp_xp.backends import host
from mlp_xp.estimators.tuning.clock import Clock

# The default numbers of folds. With few rows there are more, so that networks learn from more rows.
_N_FOLDS = 8, 5, 3
_FEW_ROWS = 1500
# The largest fraction of the time that the folds of the first configuration may take.
_FRACTION = 0.35


class Fold(NamedTuple):
    """The positions of the rows to train on, and of the rows that are held out."""

    train: np.ndarray
    held_out: np.ndarray


class Folds(NamedTuple):
    """The folds, and notes about rows that are treated differently from what was asked."""

    folds: list[Fold]
    notes: list[str]


def default_folds(n_rows: int, clock: Clock) -> int:
    """Return the default number of folds: fewer if the folds of one configuration take long."""
    most = _N_FOLDS[0] if n_rows < _FEW_ROWS else _N_FOLDS[1]
    return next(
        (n for n in _N_FOLDS if n <= most and n * clock.first_fit < _FRACTION * clock.left),
        _N_FOLDS[-1],
    )


def random_folds(
    labels: Sequence[np.ndarray], n_rows: int, n_folds: int, groups: np.ndarray | None, seed: int
) -> Folds:
    """Return folds of rows, or of whole groups of rows, in random order.

    ``labels`` are the class numbers of the rows for each target, if any. Each fold has about the
    same fraction of each class of the first target. Every fold trains on all classes: rows without
    which it would not are held out by no fold.
    """
    notes: list[str] = []
    parts = groups if groups is not None else np.arange(n_rows)
    n_parts = len(np.unique(parts))
    if n_parts < 2:
        raise ValueError(
            f"Folds need at least 2 rows, got n_samples={n_rows}."
            if groups is None
            else "Folds need at least 2 groups, got 1: leave out groups."
        )
    if n_parts < n_folds:
        what = "rows" if groups is None else "groups"
        notes.append(
            f"There are {n_parts} {what}, so {n_parts} folds are used instead of {n_folds}."
        )
        n_folds = n_parts
    strata, number = labels[0] if labels else None, np.zeros(n_rows, np.intp)
    for i, (_, held_out) in enumerate(_splits(strata, n_rows, n_folds, groups, seed)):
        number[held_out] = i
    always = np.zeros(n_rows, bool)  # Rows that every fold trains on.
    for column in labels:
        _keep_classes(column, number, always, parts)
    if np.any(always):
        notes.append(
            f"{int(np.sum(always))} rows are trained on in every fold and held out by none, "
            "because the fold that holds them out would not learn all classes."
        )
    found = [
        Fold(np.flatnonzero((number != i) | always), np.flatnonzero((number == i) & ~always))
        for i in range(n_folds)
    ]
    return Folds([fold for fold in found if len(fold.held_out)], notes)


def _splits(
    labels: np.ndarray | None, n_rows: int, n_folds: int, groups: np.ndarray | None, seed: int
) -> Iterator[Any]:
    settings: Any = {"n_splits": n_folds, "shuffle": True, "random_state": seed}
    x = np.empty((n_rows, 0))
    if labels is not None and np.bincount(labels).max() < n_folds:
        labels = None  # scikit-learn needs one class with a row for each fold.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")
        if labels is None:
            kind = KFold if groups is None else GroupKFold
            yield from kind(**settings).split(x, groups=groups)
        elif groups is None:
            yield from StratifiedKFold(**settings).split(x, labels)
        else:
            yield from StratifiedGroupKFold(**settings).split(x, labels, groups)


def _keep_classes(
    labels: np.ndarray, number: np.ndarray, always: np.ndarray, parts: np.ndarray
) -> None:
    """Mark the rows that every fold must train on, so that each fold trains on all classes."""
    for label in np.unique(labels):
        is_label = labels == label
        if len(np.unique(number[is_label])) == 1:
            # All its rows are in one fold: train all folds on them, and on the rest of their group.
            always |= np.isin(parts, np.unique(parts[is_label]))


def time_folds(labels: Sequence[np.ndarray], times: np.ndarray, n_folds: int) -> Folds:
    """Return folds in the order of time, newest first: each trains on all rows before it.

    ``labels`` are as for `random_folds`. Rows with the same time stay together; the oldest rows are
    held out by no fold. A fold that would not train on all classes is left out, but the newest fold
    trains on the rows of classes that appear only in it.
    """
    order = np.argsort(times, kind="stable")
    edges = np.flatnonzero(times[order][1:] != times[order][:-1]) + 1
    n_times, notes = len(edges) + 1, []
    if n_times < 2:
        raise ValueError(
            "The times of all rows are equal, so there is nothing to hold out: leave out split and "
            "time_column."
        )
    if n_times <= n_folds:
        notes.append(f"There are {n_times} times, so {n_times - 1} folds are used.")
        n_folds = n_times - 1
    wanted = len(times) * np.arange(1, n_folds + 1) / (n_folds + 1)
    starts = np.unique([edges[np.argmin(np.abs(edges - w))] for w in wanted]).tolist()
    stops = [*starts[1:], len(times)]
    folds = [
        Fold(np.sort(order[:start]), np.sort(order[start:stop]))
        for start, stop in zip(starts, stops, strict=True)
    ]
    newest, *others = reversed(folds)
    is_new = np.zeros(len(times), bool)
    for column in labels:
        is_new |= ~np.isin(column, column[newest.train])
    if np.any(is_new):
        moved = np.flatnonzero(is_new)
        notes.append(
            f"{len(moved)} rows are trained on and not held out, because their classes appear only "
            "in the newest fold."
        )
        held_out = np.setdiff1d(newest.held_out, moved)
        if not len(held_out):
            raise ValueError(
                "The newest rows only have classes that do not appear before, so nothing can be "
                "held out: use split='random'."
            )
        newest = Fold(np.union1d(newest.train, moved), held_out)
    kept = [fold for fold in others if _has_classes(labels, fold.train)]
    if len(kept) < len(others):
        notes.append(
            f"{len(others) - len(kept)} folds are left out, because the rows before them do not "
            "have all classes."
        )
    return Folds([newest, *kept], notes)


def _has_classes(labels: Sequence[np.ndarray], rows: np.ndarray) -> bool:
    """Whether some rows have all classes of each target."""
    return all(len(np.unique(column[rows])) == len(np.unique(column)) for column in labels)


def group_numbers(groups: Any, n_rows: int) -> np.ndarray:
    """Return the number of each row's group."""
    values = np.asarray(host(groups))
    if values.shape != (n_rows,):
        raise ValueError(f"`groups` must have shape ({n_rows},), got {values.shape}.")
    return _ranks(values.astype(str) if values.dtype == object else values)


def time_numbers(X: Any, column: Any) -> np.ndarray:
    """Return the rank of each row's time, which is in a column of X, given by name or position."""
    if column is None:
        raise ValueError(
            "`time_column` must be the name or position of a column of X with split='time', got "
            "None."
        )
    try:
        values = np.asarray(host(_safe_indexing(X, column, axis=1)))
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(f"`time_column` must be a column of X, got {column!r}.") from error
    is_missing = values != values if values.dtype != object else [value is None for value in values]
    if np.any(is_missing):
        row = int(np.argmax(is_missing))
        raise ValueError(
            f"The time in column {column!r} is missing in row {row}: leave out such rows."
        )
    try:
        return _ranks(values)
    except TypeError as error:
        raise ValueError(
            f"The times in column {column!r} cannot be sorted: convert them to dates or numbers."
        ) from error


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return the position of each value among the sorted values."""
    return np.unique(values, return_inverse=True)[1]
