"""Checks of training data that are an iterable of batches, such as torch's DataLoader."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from scipy import sparse

from mlp_xp._utils.columns.streams import is_table_stream
from mlp_xp.backends import host, to_numpy
from mlp_xp.estimators.checks.unusable import is_stream
from mlp_xp.estimators.checks.validation import (
    Sample,
    SampleArguments,
    asks_for_table,
    check_held_out,
    check_sample,
    check_weights,
    check_x,
    check_y,
)
from mlp_xp.training.data.rows import Batches, Triple, take_rows
from mlp_xp.training.processes import SingleProcess

_PAIR = "(X, y) or (X, y, sample_weight)"
_KINDS = dict.fromkeys("biuf", "numbers") | dict.fromkeys("USO", "text")
_CLASS = "a list of batches, a torch DataLoader, or an object whose __iter__ starts again"


def has_batches(X: Any, y: Any) -> bool:
    """Whether X, given without y, is an iterable of batches."""
    if y is not None or X is None:
        return False
    first = X[0] if isinstance(X, list | tuple) and X else None
    is_list = isinstance(first, list | tuple) and len(first) in (2, 3) and np.ndim(first[0]) > 1
    return is_list or is_stream(X)


def refuse_batches(X: Any, y: Any, what: str) -> None:
    """Raise TypeError if X is an iterable of batches; ``what`` is e.g. "an ensemble"."""
    if has_batches(X, y):
        found, cure = f"batches ({type(X).__name__})", "join them"
    elif hasattr(X, "open_blocks"):
        found, cure = repr(X), "read the files"
    else:
        return
    raise TypeError(
        f"X must be an array or a data frame for {what}, which takes some of its rows, got "
        f"{found}: {cure}, or fit an MLPClassifier or MLPRegressor."
    )


def check_training(
    model: Any, given: SampleArguments, *, reset: bool, processes: SingleProcess
) -> Sample:
    """Return the checked training samples, given as arrays, as batches, or as a stream."""
    X, y, _ = given
    if hasattr(X, "open_blocks") or (isinstance(y, str) and is_table_stream(X)):
        from mlp_xp.estimators.checks.streams import check_stream  # Import only for streams.

        return check_stream(model, given, reset=reset)
    if has_batches(*given[:2]):
        return check_batches(model, given, reset=reset)
    return check_sample(model, given, reset=reset, processes=processes)


def check_validation(model: Any, given: SampleArguments, processes: SingleProcess) -> Sample | None:
    """Return the checked validation samples as arrays, or None if none are given."""
    if not has_batches(*given[:2]):
        return check_held_out(model, given, processes)
    sample = check_batches(model, given, reset=False, suffix="_val")
    return sample._replace(X=np.concatenate([x for x, *_ in sample.X.read()]))


def without_order(sample: Sample) -> Sample:
    """Return sorted targets and weights of batches, which may come in another order next time."""
    if not isinstance(sample.X, Batches):
        return sample
    weights = None if sample.weights is None else np.sort(sample.weights)
    return Sample(sample.X, np.sort(sample.y, axis=0), weights)


def check_batches(model: Any, given: SampleArguments, *, reset: bool, suffix: str = "") -> Sample:
    """Read all batches once; return targets and weights of all samples, and X as `Batches`."""
    X, _, sample_weight = given
    name = f"X{suffix}"
    if isinstance(X, Iterator):
        raise TypeError(
            f"{name} is a {type(X).__name__}, which can be read only once, but each epoch reads "
            f"all batches: pass {_CLASS}."
        )
    if sample_weight is not None:
        raise ValueError(
            f"sample_weight{suffix} must be None if {name} has batches: yield the weights of each "
            "batch as its third part, (X, y, sample_weight)."
        )
    for setting, is_wrong, needed in (
        ("distributed", model.distributed is not None, "None"),
        ("solver", model.solver == "lbfgs", "e.g. 'adam'"),
    ):
        if is_wrong and not suffix:
            raise ValueError(
                f"`{setting}` must be {needed} if X has batches, got {getattr(model, setting)!r}: "
                "change it, or pass arrays."
            )
    if asks_for_table(model):
        raise ValueError(
            "Categories, missing values and input_scaling='robust' or 'quantile' are learned from "
            f"whole columns, but {name} has batches: pass a data frame, or encode the batches."
        )
    counts: list[int] = []
    targets: list[np.ndarray] = []
    weights: list[Any] = []
    first: list[Triple] = []
    for batch in _read(model, X, first, (), name, reset=reset):
        counts.append(batch[0].shape[0])
        targets.append(batch[1])
        weights.append(batch[2])
    if not counts:
        raise ValueError(f"{name} has no batches: pass {_CLASS}.")
    y = check_y(model, np.concatenate(targets), sum(counts), f"y{suffix}")
    joined = None if weights[0] is None else np.concatenate(weights)
    total = check_weights(joined, len(y), name=f"the sample weights of {name}")
    x = first[0][0]

    def read() -> Iterator[Triple]:
        for x, y_part, part in _read(model, X, first, tuple(counts), name, reset=False):
            yield x, y_part.reshape(len(y_part), *y.shape[1:]), part

    return Sample(Batches(x, tuple(counts), read), y, total)


def _read(
    model: Any,
    batches: Iterable[Any],
    first: list[Triple],
    counts: tuple[int, ...],
    name: str,
    *,
    reset: bool,
) -> Iterator[Triple]:
    """Yield checked batches; add the first to ``first``, or compare each with it.

    ``counts`` are the numbers of samples in the first pass, or empty in the first pass.
    """
    number, rest = -1, iter(batches)
    for number, batch in enumerate(rest):
        with in_batch(number, name):
            checked = _check(model, batch, reset=reset and not first)
            if first:
                _compare(checked, first[0])
            else:
                first.append(checked)
            if counts and checked[0].shape[0] != counts[number]:
                raise ValueError(
                    f"it has {checked[0].shape[0]} samples, but had {counts[number]} when all "
                    "batches were first read: the batches must have the same sizes each time."
                )
        if counts:  # Copy X, since the iterable may write its next batch into the same memory.
            copied = np.array(to_numpy(take_rows(checked[0], slice(None))))
            checked = copied, *checked[1:]
        # After the last batch, a step may not ask for another one: look for more batches now.
        if number + 1 == len(counts) and next(rest, None) is not None:
            number += 1
            break
        yield checked
    if counts and number + 1 != len(counts):
        found = "more than" if number == len(counts) else f"{number + 1} of"
        raise ValueError(
            f"{name} has {found} the {len(counts)} batches that were first read: each epoch reads "
            f"all batches again, so pass {_CLASS}."
        )


@contextlib.contextmanager
def in_batch(number: int, name: str = "X") -> Iterator[None]:
    """Prefix errors with the number of the batch."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"Batch {number} of {name} (counted from 0): {error}") from error


def _check(model: Any, batch: Any, *, reset: bool) -> Triple:
    """Return a batch's checked X, and its targets and weights on the host."""
    if not isinstance(batch, list | tuple) or len(batch) not in (2, 3):
        size = f" of {len(batch)}" if isinstance(batch, list | tuple) else ""
        raise ValueError(f"it must be {_PAIR}, got a {type(batch).__name__}{size}.")
    x, y, *weights = batch
    x = check_x(model, x, reset=reset)
    y = y.toarray() if sparse.issparse(y) else np.array(host(y))
    weight = np.array(host(weights[0]), dtype=np.float64) if weights else None
    for what, array in (("y", y), ("sample_weight", weight)):
        if array is not None and (not array.ndim or len(array) != x.shape[0]):
            size = str(len(array)) if array.ndim else "no values"
            raise ValueError(f"X has {x.shape[0]} samples, but {what} has {size}.")
    return x, y, weight


def _compare(batch: Triple, first: Triple) -> None:
    """Raise ValueError if a batch has other dtypes, columns or parts than the first."""
    for what, array, expected in zip(("X", "y", "sample_weight"), batch, first, strict=True):
        found, known = (_kind(one, is_x=what == "X") for one in (array, expected))
        if found != known:
            raise ValueError(f"{what} has {found}, but {known} in batch 0.")


def _kind(array: Any, *, is_x: bool) -> str:
    """Describe what must be equal in all batches: library and dtype of X, and columns."""
    if array is None:
        return "no values"
    columns = f" and {array.shape[1]} columns" if array.ndim > 1 else ""
    if is_x:
        return f"dtype {array.dtype} of {type(array).__module__.partition('.')[0]}{columns}"
    return f"{_KINDS.get(array.dtype.kind, array.dtype)}{columns}"
