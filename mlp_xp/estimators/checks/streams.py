"""Checks of tables that do not fit into memory, such as Parquet files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mlp_xp._utils.columns.arrow import read_text
from mlp_xp._utils.optional import optional
from mlp_xp.datasets._arrow import open_blocks
from mlp_xp.datasets.parquet import Block
from mlp_xp.estimators.checks.validation import Sample, SampleArguments, check_x, check_y
from mlp_xp.training.data.streams import Stream

_MOST_ROWS = 200_000  # The maximum number of rows from which columns are learned.
_EMPTY = "X has no rows: choose files that have rows, or change the filters."


class _Scan(NamedTuple):
    """The blocks' numbers of rows, the target of each row, and a frame of some rows."""

    sizes: tuple[int, ...]
    y: np.ndarray
    frame: Any


def check_stream(model: Any, given: SampleArguments, *, reset: bool) -> Sample:
    """Read all rows once; return their targets, and X as a `Stream`."""
    X, y, sample_weight = given
    if not isinstance(y, str):
        raise TypeError(
            f"`y` must be the name of a column if X is {_kind(X)}, got a {type(y).__name__}."
        )
    for setting, is_wrong, needed in (
        ("distributed", model.distributed is not None, "None"),
        ("solver", model.solver == "lbfgs", "e.g. 'adam'"),
        ("placement", model.placement == "resident", "'auto'"),
    ):
        if is_wrong:
            raise ValueError(
                f"`{setting}` must be {needed} if X is {_kind(X)}, got {getattr(model, setting)!r}."
            )
    if sample_weight is not None:
        raise ValueError(f"`sample_weight` must be None if X is {_kind(X)}: use `class_weight`.")
    blocks, buffer_rows = open_blocks(X, y)
    scan = _scan(blocks, y)
    x = check_x(model, scan.frame, reset=reset)
    target = check_y(model, scan.y, len(scan.y))

    def read(number: int) -> Iterator[np.ndarray]:
        block, size, n_read = blocks[number], scan.sizes[number], 0
        for frame in block.read():
            with block.naming():
                piece = check_x(model, frame.drop_columns([y]), reset=False)
            n_read += len(piece)
            if n_read > size:
                break
            yield piece.astype(x.dtype, copy=False)
        if n_read != size:
            raise ValueError(
                f"{block.where} has {'more' if n_read > size else 'fewer'} rows than the {size:,} "
                "that were first read: each epoch must read the same rows."
            )

    return Sample(Stream(x, scan.sizes, read, buffer_rows), target, None)


def map_frames(model: Any, X: Any, function: Callable[[Any], Any]) -> Iterator[Any]:
    """Yield a function of each part of a stream, which has only the columns of the model's fit.

    Raise ValueError if the stream has no rows.
    """
    names = getattr(model, "feature_names_in_", None)
    is_empty = True
    for block in open_blocks(X, inputs=None if names is None else names.tolist())[0]:
        for frame in block.read():
            with block.naming():
                found = function(frame)
            is_empty = False
            yield found
    if is_empty:
        raise ValueError(_EMPTY)


def read_target(X: Any, y: str) -> np.ndarray:
    """Return the column ``y`` of a stream; raise ValueError if a value is missing."""
    targets: list[Any] = []
    for block in open_blocks(X, y, ())[0]:
        n_before = 0
        for frame in block.read():
            with block.naming():
                targets.append(_target(frame, y, n_before))
            n_before += len(frame)
    if not targets:
        raise ValueError(_EMPTY)
    return _join(y, targets)


def _kind(X: Any) -> str:
    return "a function" if hasattr(X, "__name__") else f"a {type(X).__name__}"


def _scan(blocks: Sequence[Block], y: str) -> _Scan:
    """Read all blocks; the frame has all rows of a small table, and evenly spaced ones otherwise.

    The first row without a value in each column is added, so that the fit expects missing values.
    """
    arrow = optional("pyarrow", "parquet")
    sizes: list[int] = []
    targets: list[Any] = []
    kept: list[tuple[np.ndarray, Any]] = []
    gaps: dict[str, tuple[int, Any]] = {}
    n_rows, every = 0, 1
    for block in blocks:
        start = n_rows
        for frame in block.read():
            with block.naming():
                targets.append(_target(frame, y, n_rows - start))
            frame = frame.drop_columns([y])
            rows = np.arange(-n_rows % every, len(frame), every)
            kept.append((n_rows + rows, frame.take(rows) if every > 1 else frame))
            for name in frame.column_names:
                if name not in gaps and (row := _first_gap(frame[name])) is not None:
                    gaps[name] = n_rows + row, frame.slice(row, 1).take([0])
            n_rows += len(frame)
            while sum(len(rows) for rows, _ in kept) > _MOST_ROWS:
                every *= 2
                kept = [_thin(rows, frame, every) for rows, frame in kept]
        sizes.append(n_rows - start)
    if not n_rows:
        raise ValueError(_EMPTY)
    frames = [frame for _, frame in kept]
    frames += [frame for row, frame in dict(gaps.values()).items() if row % every]
    joined = arrow.concat_tables(frames, promote_options="permissive")
    return _Scan(tuple(sizes), _join(y, targets), joined)


def _thin(rows: np.ndarray, frame: Any, every: int) -> tuple[np.ndarray, Any]:
    places = np.flatnonzero(rows % every == 0)
    return rows[places], frame.take(places)


def _first_gap(column: Any) -> int | None:
    """Return the first row without a value, or None."""
    is_gap = column.is_null(nan_is_null=True).to_numpy()
    row = int(np.argmax(is_gap))
    return row if is_gap[row] else None


def _target(frame: Any, y: str, n_before: int) -> Any:
    """Return the targets, text as codes; raise ValueError if one is missing."""
    column = frame[y]
    if (row := _first_gap(column)) is not None:
        raise ValueError(
            f"{y!r}, the target, is missing in row {n_before + row}: leave out such rows, e.g. "
            f"filters=~pyarrow.dataset.field({y!r}).is_null()."
        )
    return column.dictionary_encode() if str(column.type).endswith("string") else column


def _join(y: str, targets: Sequence[Any]) -> np.ndarray:
    """Return the targets of all rows."""
    arrow = optional("pyarrow", "parquet")
    joined = arrow.chunked_array([chunk for column in targets for chunk in column.chunks])
    if hasattr(joined.type, "value_type"):
        return read_text(y, joined).plain_values
    found: np.ndarray = joined.to_numpy(zero_copy_only=False)
    return found
