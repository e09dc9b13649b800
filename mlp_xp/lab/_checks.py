"""Argument checks for the lab functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from numbers import Integral
from typing import Any, TypeVar, cast

from array_api_compat import array_namespace, device

from mlp_xp._utils.array_types import Array, DType, Namespace
from mlp_xp.backends import get_backend
from mlp_xp.nn.layers import Dense
from mlp_xp.nn.network import Params

F = TypeVar("F", bound=Callable[..., Any])


def in_scope(function: F) -> F:
    """Wrap a function to run in the scope of its first argument's backend.

    The scope sets the device and the precision, and turns off autograd.
    """
    name = next(iter(signature(function).parameters))

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        first = args[0] if args else kwargs.get(name)
        with get_backend(first).scope():
            return function(*args, **kwargs)

    return cast(F, call)


def check_count(name: str, value: Any, least: int) -> None:
    """Raise ValueError unless a value is an integer of at least ``least``."""
    if not isinstance(value, Integral) or value < least:
        raise ValueError(f"`{name}` must be an integer of at least {least}, got {value!r}.")


def check_axes(name: str, array: Array) -> None:
    """Raise ValueError unless the array has two axes."""
    if array.ndim != 2:
        raise ValueError(
            f"`{name}` must have two axes, got shape {tuple(array.shape)}. A bias is a row: "
            f"{name}[None, :]. Data have one row per sample: reshape({name}, (n, -1))."
        )


def prepare(
    w1: Array, b1: Array, w2: Array, b2: Array, name: str, data: Array, targets: Array
) -> tuple[Namespace, Params]:
    """Check that weights and data match; return the namespace and both layers."""
    xp = array_namespace(w1, b1, w2, b2, data, targets)
    arrays = {"w1": w1, "b1": b1, "w2": w2, "b2": b2, name: data}
    for array_name, array in arrays.items():
        check_axes(array_name, array)
    n_samples, (d_in, d_h), d_out = data.shape[0], w1.shape, w2.shape[1]
    expected = {"b1": (1, d_h), "w2": (d_h, d_out), "b2": (1, d_out), name: (n_samples, d_in)}
    for array_name, shape in expected.items():
        given = tuple(arrays[array_name].shape)
        if given != shape:
            raise ValueError(
                f"`{array_name}` must have shape {shape} to fit w1 {tuple(w1.shape)} and w2 "
                f"{tuple(w2.shape)}, got {given}: use w1 (d_in, d_h), b1 (1, d_h), "
                f"w2 (d_h, d_out), b2 (1, d_out) and {name} (n, d_in)."
            )
    if n_samples == 0:
        raise ValueError(f"{name} has no rows: pass at least one sample.")
    dtypes = {str(weight.dtype) for weight in (w1, b1, w2, b2)}
    if len(dtypes) > 1 or not xp.isdtype(w1.dtype, "real floating"):
        raise ValueError(
            "The weights must have the same real floating dtype, got "
            f"{' and '.join(sorted(dtypes))}: create all four with e.g. dtype=xp.float32."
        )
    return xp, (Dense(w1, b1[0, :]), Dense(w2, b2[0, :]))


def default_dtype(kind: str, x: Array, *, xp: Namespace) -> DType:
    """Return the namespace's default dtype of this kind on the device that holds ``x``."""
    return xp.__array_namespace_info__().default_dtypes(device=device(x))[kind]


def check_range(name: str, labels: Array, *, xp: Namespace) -> tuple[Array, int]:
    """Check that labels are integers of at least 0; return the labels and the largest label.

    The labels are converted to the default integer dtype, because the number of classes may exceed
    the range of uint8.
    """
    if not xp.isdtype(labels.dtype, "integral"):
        raise ValueError(
            f"`{name}` must contain integers, got dtype {labels.dtype}: "
            f"use xp.astype({name}, xp.int64) if they are whole numbers."
        )
    if 0 in labels.shape:
        raise ValueError(f"`{name}` must not be empty, got shape {tuple(labels.shape)}.")
    smallest = int(xp.min(labels))
    if smallest < 0:
        raise ValueError(
            f"`{name}` must be at least 0, got {smallest}: renumber the classes from 0, e.g. by "
            f"xp.unique_inverse({name}).inverse_indices."
        )
    return xp.astype(labels, default_dtype("integral", labels, xp=xp)), int(xp.max(labels))


def prepare_labels(
    w1: Array, b1: Array, w2: Array, b2: Array, part: str, data: Array, labels: Array
) -> tuple[Namespace, Params, Array]:
    """Check that weights, data and labels match; return the results of `prepare` and the labels.

    ``part`` is the suffix of argument names in messages, e.g. ``"_train"``.
    """
    xp, params = prepare(w1, b1, w2, b2, f"data{part}", data, labels)
    name = f"labels{part or '_train'}"
    if tuple(labels.shape) != data.shape[:1]:
        raise ValueError(
            f"`{name}` must have shape ({data.shape[0]},), got {tuple(labels.shape)}: one label "
            "per row of data."
        )
    labels, largest = check_range(name, labels, xp=xp)
    if largest >= w2.shape[1]:
        raise ValueError(
            f"`{name}` must be at most {w2.shape[1] - 1}, since w2 has shape {tuple(w2.shape)}, "
            f"got {largest}: give w2 and b2 {largest + 1} columns, or renumber the labels."
        )
    return xp, params, labels
