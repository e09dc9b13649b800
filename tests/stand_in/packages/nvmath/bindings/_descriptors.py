"""Handles, and descriptors whose attributes are set through pointers."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import numpy as np

from nvmath.bindings._rules import cuBLASLtError
from nvmath.bindings.cublas import Status

Attributes = dict[Any, tuple[Any, int]]

_objects: dict[int, dict[Any, Any]] = {}
_addresses = itertools.count(0x5500_0000_0000, 64)


def add(kind: str, attributes: Attributes, values: dict[Any, Any]) -> int:
    """Return the address of a new object, with attributes at their first values."""
    address = next(_addresses)
    start = {attribute: initial for attribute, (_, initial) in attributes.items()}
    _objects[address] = {"kind": kind} | start | values
    return address


def get(address: int, kind: str) -> dict[Any, Any]:
    """Return what is at an address."""
    found = _objects.get(address)
    if found is None or found["kind"] != kind:
        is_handle = kind == "handle"
        raise cuBLASLtError(Status.NOT_INITIALIZED if is_handle else Status.INVALID_VALUE)
    return found


def destroy(address: int, kind: str) -> None:
    """Delete an object; a second time is an error."""
    get(address, kind)
    del _objects[address]


def dtype_of(attributes: Attributes, attr: int) -> np.dtype:
    """Return the dtype of an attribute."""
    if attr not in attributes:
        raise NotImplementedError(f"the stand-in for cuBLASLt has no attribute {attr}")
    return np.dtype(attributes[attr][0])


def write(thing: dict[Any, Any], attributes: Attributes, attr: int, buf: int, size: int) -> None:
    """Set an attribute from memory of the host."""
    dtype = dtype_of(attributes, attr)
    if size != dtype.itemsize or not buf:
        raise cuBLASLtError(Status.INVALID_VALUE)
    thing[attr] = np.frombuffer(ctypes.string_at(buf, size), dtype)[0].item()


def read(
    thing: dict[Any, Any], attributes: Attributes, attr: int, buf: int, size: int, written: int
) -> None:
    """Copy an attribute to memory of the host, and its size where that is asked for."""
    value = np.array([thing[attr]], dtype_of(attributes, attr))
    if size < value.nbytes:
        raise cuBLASLtError(Status.INVALID_VALUE)
    ctypes.memmove(buf, value.ctypes.data, value.nbytes)
    if written:
        ctypes.memmove(written, np.array([value.nbytes], np.uint64).ctypes.data, 8)
