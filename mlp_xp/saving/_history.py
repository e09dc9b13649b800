"""The training history in ``model.json``."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlp_xp.saving._files import expect
from mlp_xp.saving._json import decode, encode, is_number
from mlp_xp.training.loop.history import History
from mlp_xp.training.loop.records import Record

_NUMBERS = ("loss", "best_loss", "best_validation_score")
_CURVES = ("loss_curve", "validation_scores", "validation_loss_curve")
_OPTIONAL = ("accuracy", "validation_loss", "validation_score")


def encode_history(estimator: Any) -> dict[str, Any]:
    """Return the JSON form of the training history of an estimator."""
    attributes = History.read(vars(estimator)).attributes()
    return {
        "n_iter": int(attributes["n_iter_"]),
        "t": int(attributes["t_"]),
        # A network has no loss if an error ended its first epoch.
        **{name: encode(f"{name}_", attributes.get(f"{name}_")) for name in (*_NUMBERS, *_CURVES)},
        "history": [
            {name: encode("history_", value) for name, value in record._asdict().items()}
            for record in attributes["history_"]
        ],
    }


def decode_history(training: dict[str, Any]) -> History:
    """Decode the JSON form of a training history."""
    counts = training["n_iter"], training["t"]
    expect(all(map(_is_count, counts)), "n_iter and t must be integers of at least 0")
    values: dict[str, Any] = {"n_iter_": counts[0], "t_": counts[1]}
    for name in _CURVES:
        curve = decode(training[name])
        is_known = isinstance(curve, list) and all(map(is_number, curve))
        is_known |= curve is None and name != "loss_curve"
        expect(is_known, f"{name} is not a list of numbers")
        if name == "loss_curve":  # Use NumPy floats, as in a fitted estimator.
            curve = [np.float64(value) for value in curve]
        values[f"{name}_"] = curve
    for name in _NUMBERS:
        value = decode(training[name])
        expect(value is None or is_number(value), f"{name} is {value!r}, not a number")
        if value is not None and name != "best_validation_score":
            value = np.float64(value)
        values[f"{name}_"] = value
    values["history_"] = [_decode_record(row) for row in training["history"]]
    return History.read(values)


def _decode_record(row: dict[str, Any]) -> Record:
    record = Record(**{name: decode(value) for name, value in row.items()})
    is_valid = all(
        _is_count(value)
        if name in ("epoch", "n_samples")
        else is_number(value) or (value is None and name in _OPTIONAL)
        for name, value in record._asdict().items()
    )
    expect(is_valid, f"history has {record}, which is not a valid record of an epoch")
    return record


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63
