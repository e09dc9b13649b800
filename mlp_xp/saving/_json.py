"""JSON forms of parameters, results and classes.

JSON has no infinity, no tuples, and no numbers as keys. These are written as ``{"float": "inf"}``,
``{"tuple": [...]}`` and ``{"items": [[key, value], ...]}``. An object of `mlp_xp.recipes.objects`,
alone or in a list, is written as ``{"class": "SGD", "momentum": 0.9}``.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from mlp_xp.recipes.objects import OBJECTS, make
from mlp_xp.saving._files import SavingError, expect

_LONGEST_DTYPE = 16  # The maximum length of the name of a dtype, e.g. "<U1000".
# The maximum size in bytes, because NumPy pads all strings to the length of the longest string.
_MOST_CLASSES = 64 << 20


def encode(what: str, value: Any, place: str | None = None) -> Any:
    """Return the JSON form of a value, which is called ``what`` in errors.

    ``place`` is the name of the parameter or field that contains the value.
    """
    if type(value) in OBJECTS.get(place, {}).values():
        fields = dataclasses.fields(value)
        settings = {f.name: encode(what, getattr(value, f.name), f.name) for f in fields}
        return {"class": type(value).__name__, **settings}
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if what == "categorical_features" and hasattr(value, "to_list"):
        value = value.to_list()  # A pandas or polars object.
    if isinstance(value, tuple):
        return {"tuple": [encode(what, item, place) for item in value]}
    if isinstance(value, list):
        return [encode(what, item, place) for item in value]
    if isinstance(value, dict):
        return {"items": [[encode(what, k), encode(what, v)] for k, v in value.items()]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, str | int | float | None):
        return value
    cure = "use a string, a number, or an object of mlp_xp.optimizers, "
    cure += "mlp_xp.optimizers.schedules, mlp_xp.nn.losses, mlp_xp.nn.hidden or mlp_xp.augmentation"
    if what == "scoring":
        cure = "leave it out with set_params(scoring=None)"
    raise SavingError(
        f"{what} is {value!r}, which has no JSON form: {cure}, or save with pickle or joblib"
    )


def decode(value: Any, place: str | None = None) -> Any:
    """Decode the JSON form of a value."""
    if isinstance(value, list):
        return [decode(item, place) for item in value]
    if not isinstance(value, dict):
        return value
    if "class" in value:
        return make(value, place, decode)
    [(form, content)] = value.items()
    if form == "tuple":
        return tuple(decode(item, place) for item in content)
    if form == "items":
        return {_decode_key(key): decode(item) for key, item in content}
    expect(form == "float" and content in ("inf", "-inf", "nan"), f"{value!r} is not a JSON form")
    return float(content)


def _decode_key(form: Any) -> Any:
    """Decode a class label; reject large integers and tuples, whose hashes can collide."""
    key = decode(form)
    is_label = isinstance(key, str | bool | float) or (type(key) is int and -(2**63) <= key < 2**64)
    expect(is_label, f"{key!r} is not a class label")
    return key


def encode_classes(classes: Any) -> Any:
    if isinstance(classes, list):
        return [encode_classes(labels) for labels in classes]
    values = classes.tolist()
    expect(
        classes.dtype.kind in "biufU" or (classes.dtype.kind == "O" and _are_text(values)),
        f"classes_ are of dtype {classes.dtype}, which has no JSON form: fit on strings or "
        "numbers, e.g. y.astype(str)",
    )
    return {"dtype": classes.dtype.str, "values": values}


def decode_classes(form: Any) -> Any:
    if isinstance(form, list):
        return [decode_classes(labels) for labels in form]
    values, name = form["values"], form["dtype"]
    expect(isinstance(values, list), "the values of classes are not a list")
    dtype = np.dtype(name) if isinstance(name, str) and len(name) <= _LONGEST_DTYPE else None
    if dtype is None or dtype.str != name or dtype.kind not in "biufUO":
        said = "the dtype of classes must be one such as '<i8' or '<U5'"
        raise SavingError(f"{said}, got {name!r}")
    size = dtype.itemsize * len(values)
    expect(
        size <= _MOST_CLASSES,
        f"classes must take at most {_MOST_CLASSES >> 20} MiB, got {size >> 20} MiB for "
        f"{len(values)} of dtype {name!r}: fit on y.astype(object)",
    )
    expect(dtype.kind != "O" or _are_text(values), "classes of dtype object are not all strings")
    classes = np.asarray(values, dtype=dtype)
    is_same = classes.ndim == 1 and classes.tolist() == values
    expect(is_same, f"classes are {values!r}, not values of dtype {name!r}")
    expect(bool(np.all(classes[1:] > classes[:-1])), "classes are not sorted and unique")
    return classes


def _are_text(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number, not true or false."""
    return type(value) in (int, float)
