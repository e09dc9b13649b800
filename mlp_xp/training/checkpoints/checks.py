"""Validate a checkpoint's values; the digest only proves that the files are unchanged."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mlp_xp.training.checkpoints.snapshot import Snapshot, SnapshotError
from mlp_xp.training.loop.records import Record

# Arrays with these names must be finite. An optimizer's averages of squares may overflow.
_FINITE = ("state.params.", "state.batch_stats.", "best.", "scaling.")


def check_snapshot(snapshot: Snapshot) -> None:
    """Raise `SnapshotError` if a snapshot read from files contains invalid values."""
    for name, array in snapshot.arrays.items():
        if name.startswith(_FINITE) and not (
            array.dtype.kind == "f" and np.all(np.isfinite(array))
        ):
            raise SnapshotError(f"array {name!r} must contain finite floating-point values")
    _check_metadata(snapshot.metadata)


def _check_metadata(metadata: Any) -> None:
    """Raise `SnapshotError` unless metadata read from a file is valid."""
    if not isinstance(metadata, dict):
        raise SnapshotError(f"its metadata must be a JSON object, got {metadata!r:.80}")
    _check("", metadata, _VALID)
    history = metadata["history"]
    _check("history.", history, _VALID_HISTORY)
    curves = [history[name] is not None for name in ("validation_losses", "scores", "best_score")]
    if any(curves) != all(curves):
        raise SnapshotError("history contains only part of the validation results")
    if metadata["rule_start"] > metadata["steps"]:
        raise SnapshotError(f"rule_start is above steps, {metadata['steps']}")


def _check(prefix: str, values: dict[str, Any], valid: dict[str, Callable[[Any], bool]]) -> None:
    for name in sorted(values.keys() | valid.keys()):
        if name not in values or name not in valid:
            raise SnapshotError(f"{prefix}{name} is {'unknown' if name in values else 'missing'}")
        if not valid[name](values[name]):
            raise SnapshotError(f"{prefix}{name} is {values[name]!r:.80}, which is not valid")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_float(value: Any) -> bool:
    """Whether a value is a number, or the text for infinity or NaN."""
    return type(value) in (int, float) or value in ("inf", "-inf", "nan")


def _is_float_or_none(value: Any) -> bool:
    return value is None or _is_float(value)


def _is_duration(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


def _is_list(*valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether a value is a list with one element of each kind."""
    return lambda value: (
        type(value) is list
        and len(value) == len(valid)
        and all(is_valid(item) for is_valid, item in zip(valid, value, strict=True))
    )


def _is_curve(value: Any) -> bool:
    return type(value) is list and all(map(_is_float, value))


def _is_curve_or_none(value: Any) -> bool:
    return value is None or _is_curve(value)


_is_short_position = _is_list(_is_count, _is_duration, _is_count)
_is_long_position = _is_list(_is_count, _is_duration, _is_count, _is_count)


def _is_position(value: Any) -> bool:
    """Whether a value is a `LoopPosition`, which had no ``n_epochs`` in earlier checkpoints."""
    return _is_short_position(value) or _is_long_position(value)


_is_record = _is_list(
    *(_is_count if name in ("epoch", "n_samples") else _is_float_or_none for name in Record._fields)
)
_VALID: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("epoch", "step", "steps", "samples", "rule_start"), _is_count),
    **dict.fromkeys(("with_accuracy", "has_best", "is_over"), _is_flag),
    **dict.fromkeys(("seconds", "epoch_seconds"), _is_duration),
    "rule": _is_text,
    "seed": lambda value: _is_count(value) and value < 2**32,
    "position": _is_position,
    "plateau": _is_list(_is_float, _is_count),
    "history": lambda value: type(value) is dict,
    "fit": lambda value: type(value) is dict and all(map(_is_text, value.values())),
}
_VALID_HISTORY: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("loss", "best_loss", "best_score"), _is_float_or_none),
    **dict.fromkeys(("n_epochs", "n_samples"), _is_count),
    "records": lambda value: type(value) is list and all(map(_is_record, value)),
    "losses": _is_curve,
    **dict.fromkeys(("validation_losses", "scores"), _is_curve_or_none),
}
