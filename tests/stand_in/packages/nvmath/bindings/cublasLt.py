# ruff: noqa: N999 - the library's names
"""cuBLASLt on the stand-in: descriptors, the search for an algorithm, and products on a stream.

A product goes through `launch` on the stream whose pointer is given: it is counted, captured, and
checked against accesses on other streams.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from cupy import _errors, _launch
from cupy._errors import CUDARuntimeError

__all__ = [
    "Epilogue",
    "MatmulAlgo",
    "MatmulDescAttribute",
    "MatmulHeuristicResult",
    "MatmulPreferenceAttribute",
    "MatrixLayoutAttribute",
    "Order",
    "PointerMode",
    "check_status",
    "create",
    "cuBLASLtError",
    "destroy",
    "get_matmul_desc_attribute_dtype",
    "get_matmul_preference_attribute_dtype",
    "get_matrix_layout_attribute_dtype",
    "get_version",
    "matmul",
    "matmul_algo_check",
    "matmul_algo_dtype",
    "matmul_algo_get_heuristic",
    "matmul_desc_create",
    "matmul_desc_destroy",
    "matmul_desc_get_attribute",
    "matmul_desc_set_attribute",
    "matmul_heuristic_result_dtype",
    "matmul_preference_create",
    "matmul_preference_destroy",
    "matmul_preference_get_attribute",
    "matmul_preference_set_attribute",
    "matrix_layout_create",
    "matrix_layout_destroy",
    "matrix_layout_get_attribute",
    "matrix_layout_set_attribute",
]

from nvmath.bindings import _descriptors
from nvmath.bindings._descriptors import add, dtype_of, get, read, write
from nvmath.bindings._enums import (
    DESC_ATTRIBUTES,
    LAYOUT_ATTRIBUTES,
    PREFERENCE_ATTRIBUTES,
    Epilogue,
    MatmulDescAttribute,
    MatmulPreferenceAttribute,
    MatrixLayoutAttribute,
    Order,
    PointerMode,
)
from nvmath.bindings._problem import Pointers, Problem, find_problem
from nvmath.bindings._product import place
from nvmath.bindings._rules import cuBLASLtError, refuse
from nvmath.bindings.cublas import Status

matmul_algo_dtype = np.dtype([("data_", "<u8", (8,))])
matmul_heuristic_result_dtype = np.dtype(
    [
        ("algo", matmul_algo_dtype),
        ("workspace_size", "<u8"),
        ("state", "<i4"),
        ("waves_count", "<f4"),
        ("reserved", "<i4", (4,)),
    ]
)

_PREF = MatmulPreferenceAttribute
_WORKSPACE = 1 << 16
_ALGORITHM = 0xB1A5


def check_status(status: int) -> None:
    if status != Status.SUCCESS:
        raise cuBLASLtError(status)


class _Structs:
    """Structs in memory of the host, uninitialized."""

    _dtype: np.dtype

    def __init__(self, size: int = 1) -> None:
        self._data = np.empty(size, self._dtype)
        self._data.view(np.uint8).fill(0xAB)

    @property
    def ptr(self) -> int:
        return int(self._data.ctypes.data)

    def __len__(self) -> int:
        return len(self._data)

    def __int__(self) -> int:
        return self.ptr

    def _wrap(self, data: np.ndarray) -> Any:
        structs = object.__new__(type(self))
        structs._data = data
        return structs

    def __getitem__(self, key: int | slice) -> Any:
        return self._wrap(self._data[key] if isinstance(key, slice) else self._data[key : key + 1])


class MatmulAlgo(_Structs):
    """An algorithm."""

    _dtype = matmul_algo_dtype

    @property
    def data_(self) -> Any:
        return self._data["data_"]


class MatmulHeuristicResult(_Structs):
    """What the search has found."""

    _dtype = matmul_heuristic_result_dtype

    @property
    def algo(self) -> MatmulAlgo:
        algo = object.__new__(MatmulAlgo)
        algo._data = self._data["algo"]
        return algo

    def _field(self, name: str) -> Any:
        return self._data[name].item() if len(self) == 1 else self._data[name]

    @property
    def workspace_size(self) -> Any:
        return self._field("workspace_size")

    @property
    def state(self) -> Any:
        return self._field("state")

    @property
    def waves_count(self) -> Any:
        return self._field("waves_count")


# --- handles and descriptors ---------------------------------------------------------------------


def create() -> int:
    return add("handle", {}, {"device": _launch.state.device})


def destroy(light_handle: int) -> None:
    _descriptors.destroy(light_handle, "handle")


def get_version() -> int:
    return 120_905


def matmul_desc_create(compute_type: int, scale_type: int) -> int:
    given = MatmulDescAttribute.COMPUTE_TYPE, MatmulDescAttribute.SCALE_TYPE
    values = dict(zip(given, (compute_type, scale_type), strict=True))
    return add("product", DESC_ATTRIBUTES, values)


def matmul_desc_destroy(matmul_desc: int) -> None:
    _descriptors.destroy(matmul_desc, "product")


def matmul_desc_set_attribute(matmul_desc: int, attr: int, buf: int, size_in_bytes: int) -> None:
    write(get(matmul_desc, "product"), DESC_ATTRIBUTES, attr, buf, size_in_bytes)


def matmul_desc_get_attribute(
    matmul_desc: int, attr: int, buf: int, size_in_bytes: int, size_written: int
) -> None:
    desc = get(matmul_desc, "product")
    read(desc, DESC_ATTRIBUTES, attr, buf, size_in_bytes, size_written)


def get_matmul_desc_attribute_dtype(attr: int) -> Any:
    return dtype_of(DESC_ATTRIBUTES, attr).type


def matrix_layout_create(type: int, rows: int, cols: int, ld: int) -> int:
    given = (
        MatrixLayoutAttribute.TYPE,
        MatrixLayoutAttribute.ROWS,
        MatrixLayoutAttribute.COLS,
        MatrixLayoutAttribute.LD,
    )
    values = dict(zip(given, (type, rows, cols, ld), strict=True))
    return add("matrix", LAYOUT_ATTRIBUTES, values)


def matrix_layout_destroy(mat_layout: int) -> None:
    _descriptors.destroy(mat_layout, "matrix")


def matrix_layout_set_attribute(mat_layout: int, attr: int, buf: int, size_in_bytes: int) -> None:
    write(get(mat_layout, "matrix"), LAYOUT_ATTRIBUTES, attr, buf, size_in_bytes)


def matrix_layout_get_attribute(
    mat_layout: int, attr: int, buf: int, size_in_bytes: int, size_written: int
) -> None:
    layout = get(mat_layout, "matrix")
    read(layout, LAYOUT_ATTRIBUTES, attr, buf, size_in_bytes, size_written)


def get_matrix_layout_attribute_dtype(attr: int) -> Any:
    return dtype_of(LAYOUT_ATTRIBUTES, attr).type


def matmul_preference_create() -> int:
    return add("preference", PREFERENCE_ATTRIBUTES, {})


def matmul_preference_destroy(pref: int) -> None:
    _descriptors.destroy(pref, "preference")


def matmul_preference_set_attribute(pref: int, attr: int, buf: int, size_in_bytes: int) -> None:
    write(get(pref, "preference"), PREFERENCE_ATTRIBUTES, attr, buf, size_in_bytes)


def matmul_preference_get_attribute(
    pref: int, attr: int, buf: int, size_in_bytes: int, size_written: int
) -> None:
    preference = get(pref, "preference")
    read(preference, PREFERENCE_ATTRIBUTES, attr, buf, size_in_bytes, size_written)


def get_matmul_preference_attribute_dtype(attr: int) -> Any:
    return dtype_of(PREFERENCE_ATTRIBUTES, attr).type


# --- the search, and the product -----------------------------------------------------------------


def matmul_algo_get_heuristic(
    light_handle: int,
    operation_desc: int,
    adesc: int,
    bdesc: int,
    cdesc: int,
    ddesc: int,
    preference: int,
    requested_algo_count: int,
    heuristic_results_array: int,
    return_algo_count: int,
) -> None:
    """Write algorithms: the first wants a workspace, if that is allowed, the second none."""
    if requested_algo_count < 1:
        raise cuBLASLtError(Status.INVALID_VALUE)
    problem = find_problem(light_handle, operation_desc, adesc, bdesc, cdesc, ddesc)
    wishes = get(preference, "preference")
    alignments = [
        wishes[key]
        for key in (
            _PREF.MIN_ALIGNMENT_A_BYTES,
            _PREF.MIN_ALIGNMENT_B_BYTES,
            _PREF.MIN_ALIGNMENT_C_BYTES,
            _PREF.MIN_ALIGNMENT_D_BYTES,
        )
    ]
    found = []
    for workspace in (_WORKSPACE, 0):
        if workspace <= wishes[_PREF.MAX_WORKSPACE_BYTES]:
            words = [_ALGORITHM, problem.identity, workspace, *alignments, 0]
            found.append(((words,), workspace, Status.SUCCESS, 1.0, (0, 0, 0, 0)))
    results = np.array(found[:requested_algo_count], matmul_heuristic_result_dtype)
    ctypes.memmove(heuristic_results_array, results.ctypes.data, results.nbytes)
    ctypes.memmove(return_algo_count, np.array([len(results)], np.int32).ctypes.data, 4)


def matmul_algo_check(
    light_handle: int,
    operation_desc: int,
    adesc: int,
    bdesc: int,
    cdesc: int,
    ddesc: int,
    algo: int,
    result: int,
) -> None:
    problem = find_problem(light_handle, operation_desc, adesc, bdesc, cdesc, ddesc)
    words = _algorithm(algo, problem)
    found = np.array(
        [((words,), words[2], Status.SUCCESS, 1.0, (0, 0, 0, 0))], matmul_heuristic_result_dtype
    )
    ctypes.memmove(result, found.ctypes.data, found.nbytes)


def _algorithm(algo: int, problem: Problem) -> list[int]:
    """Return the words of an algorithm, which must have been found for such a product."""
    words = np.frombuffer(ctypes.string_at(algo, 64), np.uint64).tolist()
    refuse(words[0] != _ALGORITHM, Status.INVALID_VALUE)
    refuse(words[1] != problem.identity, Status.NOT_SUPPORTED)
    return words


def matmul(
    light_handle: int,
    compute_desc: int,
    alpha: int,
    a: int,
    adesc: int,
    b: int,
    bdesc: int,
    beta: int,
    c: int,
    cdesc: int,
    d: int,
    ddesc: int,
    algo: int,
    workspace: int,
    workspace_size_in_bytes: int,
    stream: int,
) -> None:
    problem = find_problem(light_handle, compute_desc, adesc, bdesc, cdesc, ddesc)
    queue = _launch.queue_at(stream)
    refuse(queue.device != get(light_handle, "handle")["device"], Status.INVALID_VALUE)
    scratch = []
    if algo:
        words = _algorithm(algo, problem)
        refuse(workspace_size_in_bytes < words[2], Status.INVALID_VALUE)
        # An algorithm that was chosen for aligned memory fails on other memory.
        for address, alignment in zip((a, b, c, d), words[3:7], strict=True):
            refuse(address % alignment, Status.NOT_SUPPORTED)
        if words[2]:
            refuse(workspace % 256, Status.INVALID_VALUE)
            scratch.append(place(workspace, (words[2],), (1,), np.uint8).block)
    node = problem.node(Pointers(alpha, a, b, beta, c, d), scratch)
    for block in (*node.reads, *node.writes):
        if block.device != queue.device:
            raise CUDARuntimeError(_errors.ILLEGAL_ADDRESS)
    _launch.enqueue(node, queue)
