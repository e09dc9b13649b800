# ruff: noqa: N999 - the library's names
"""cuBLASLt on the stand-in: descriptors, the search for an algorithm, and products on a stream.

A product is launched on the stream whose pointer is given: it is counted, captured, and checked
against accesses on other streams. The statuses are those of the library's documentation.
"""

import ctypes
import itertools
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from cupy import _errors, _launch
from cupy._errors import CUDARuntimeError
from cupy._memory import Block, block_at
from cupy._signatures import define

from nvmath import CudaDataType
from nvmath.bindings.cublas import ComputeType, Status, _numbered

Epilogue = _numbered("Epilogue", "DEFAULT=1 BIAS=4 BGRADA=256", __name__)
MatmulDescAttribute = _numbered(
    "MatmulDescAttribute",
    "COMPUTE_TYPE=0 SCALE_TYPE=1 TRANSA=3 TRANSB=4 EPILOGUE=7 BIAS_POINTER=8",
    __name__,
)
MatrixLayoutAttribute = _numbered(
    "MatrixLayoutAttribute",
    "TYPE=0 ROWS=2 COLS=3 LD=4 BATCH_COUNT=5 STRIDED_BATCH_OFFSET=6",
    __name__,
)
MatmulPreferenceAttribute = _numbered(
    "MatmulPreferenceAttribute",
    "MAX_WORKSPACE_BYTES=1 MIN_ALIGNMENT_A_BYTES=5 MIN_ALIGNMENT_B_BYTES=6"
    " MIN_ALIGNMENT_C_BYTES=7 MIN_ALIGNMENT_D_BYTES=8",
    __name__,
)
matmul_heuristic_result_dtype = np.dtype(
    [
        ("algo", [("data_", "<u8", (8,))]),
        ("workspace_size", "<u8"),
        ("state", "<i4"),
        ("waves_count", "<f4"),
        ("reserved", "<i4", (4,)),
    ]
)
# The types of attributes in the order above, and the value of each that no one has set.
_ATTRIBUTES = {
    kind: (dict(zip(kind, map(np.dtype, dtypes.split()), strict=True)), default)
    for kind, dtypes, default in (
        (MatmulDescAttribute, "i4 i4 i4 i4 u4 i8", {MatmulDescAttribute.EPILOGUE: 1}),
        (MatrixLayoutAttribute, "u4 u8 u8 i8 i4 i8", {MatrixLayoutAttribute.BATCH_COUNT: 1}),
        (
            MatmulPreferenceAttribute,
            "u8 u4 u4 u4 u4",
            dict.fromkeys(list(MatmulPreferenceAttribute)[1:], 256),
        ),
    )
}
_STORED = {
    CudaDataType.CUDA_R_16F: np.dtype(np.float16),
    CudaDataType.CUDA_R_32F: np.dtype(np.float32),
    CudaDataType.CUDA_R_64F: np.dtype(np.float64),
}
_F16, _F32, _F64 = _STORED
# The type of alpha and beta, and the types of matrices.
_TYPES = {
    ComputeType.COMPUTE_32F: (_F32, {_F32, _F16}),
    ComputeType.COMPUTE_32F_FAST_16F: (_F32, {_F32}),
    ComputeType.COMPUTE_32F_FAST_16BF: (_F32, {_F32}),
    ComputeType.COMPUTE_32F_FAST_TF32: (_F32, {_F32}),
    ComputeType.COMPUTE_64F: (_F64, {_F64}),
}
_WORKSPACE = 1 << 16
_ALGORITHM = 0xB1A5
_objects: dict[int, dict[str, Any]] = {}
_addresses = itertools.count(0x5500_0000_0000, 64)


class cuBLASLtError(Exception):  # noqa: N801 - the library's name
    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"CUBLAS_STATUS_{Status(status).name} ({int(status)}).")


def _refuse(condition: object, status: Status = Status.INVALID_VALUE) -> None:
    if condition:
        raise cuBLASLtError(status)


_CALLS = """
matmul_desc_create(compute_type, scale_type)
matmul_desc_destroy(matmul_desc)
matmul_desc_set_attribute(matmul_desc, attr, buf, size_in_bytes)
get_matmul_desc_attribute_dtype(attr)
matrix_layout_create(type, rows, cols, ld)
matrix_layout_destroy(mat_layout)
matrix_layout_set_attribute(mat_layout, attr, buf, size_in_bytes)
get_matrix_layout_attribute_dtype(attr)
matmul_preference_create()
matmul_preference_destroy(pref)
matmul_preference_set_attribute(pref, attr, buf, size_in_bytes)
get_matmul_preference_attribute_dtype(attr)
matmul_algo_get_heuristic(light_handle, operation_desc, adesc, bdesc, cdesc, ddesc, preference,\
 requested_algo_count, heuristic_results_array, return_algo_count)
matmul(light_handle, compute_desc, alpha, a, adesc, b, bdesc, beta, c, cdesc, d, ddesc, algo,\
 workspace, workspace_size_in_bytes, stream)
"""
_KINDS = {
    "matmul_desc": MatmulDescAttribute,
    "matrix_layout": MatrixLayoutAttribute,
    "matmul_preference": MatmulPreferenceAttribute,
}


def _call(name: str) -> Callable[..., Any]:
    if f"_{name}" in globals():
        return lambda **given: globals()[f"_{name}"](*given.values())
    (kind,) = (kind for short, kind in _KINDS.items() if short in name)
    types, default = _ATTRIBUTES[kind]

    def create(*given: int) -> int:
        start = {attribute.name: default.get(attribute, 0) for attribute in kind}
        return _add(kind, start | dict(zip(start, given, strict=False)))

    def destroy(address: int) -> None:
        _get(address, kind)
        del _objects[address]

    def set_attribute(address: int, attr: int, buf: int, size: int) -> None:
        thing, dtype = _get(address, kind), types[attr]
        _refuse(size != dtype.itemsize or not buf)
        thing[kind(attr).name] = np.frombuffer(ctypes.string_at(buf, size), dtype)[0].item()

    bodies = {"create": create, "destroy": destroy, "attribute": set_attribute}
    body = bodies.get(name.rpartition("_")[2], lambda attr: types[attr].type)
    return lambda **given: body(*given.values())


def _add(kind: Any, values: dict[str, int]) -> int:
    address = next(_addresses)
    _objects[address] = {"kind": kind} | values
    return address


def _get(address: int, kind: Any) -> dict[str, Any]:
    found = _objects.get(address)
    _refuse(
        found is None or found["kind"] is not kind,
        Status.NOT_INITIALIZED if kind is None else Status.INVALID_VALUE,
    )
    return found  # type: ignore[return-value]


def create() -> int:
    return _add(None, {"device": _launch.state.device})


def get_version() -> int:
    return 120_905


def _place(address: int, shape: Any, strides: Any, dtype: Any) -> tuple[np.ndarray, Block]:
    """Return memory at an address; what lies outside of all memory is an error."""
    steps = [stride * dtype.itemsize for stride in strides]
    extent = dtype.itemsize + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
    block = block_at(address)
    if block is None or address + extent > block.address + block.n_bytes:
        raise CUDARuntimeError(_errors.ILLEGAL_ADDRESS)
    return np.ndarray(shape, dtype, block.bytes, address - block.address, steps), block


class _Matrix(NamedTuple):
    """A layout: a batch of matrices in memory."""

    type: CudaDataType
    rows: int
    cols: int
    ld: int
    n_batch: int
    step: int

    def place(self, address: int) -> tuple[np.ndarray, Block]:
        shape = self.n_batch, self.rows, self.cols
        return _place(address, shape, (self.step, 1, self.ld), _STORED[self.type])


def _matrix(layout: int) -> _Matrix:
    found = _get(layout, MatrixLayoutAttribute)
    matrix = _Matrix(*(found[attribute.name] for attribute in MatrixLayoutAttribute))
    _refuse(matrix.ld < matrix.rows or matrix.n_batch < 1)
    _refuse(not matrix.rows or not matrix.cols, Status.NOT_SUPPORTED)
    return matrix


def _problem(handle: int, desc: int, *layouts: int) -> tuple[dict[str, Any], list[_Matrix], int]:
    """Return a product, its matrices, and a number for what an algorithm is made for.

    Both the search and the product refuse what does not go together; sizes may change.
    """
    _get(handle, None)
    product, matrices = _get(desc, MatmulDescAttribute), [_matrix(layout) for layout in layouts]
    a, b, c, d = matrices
    scale, types = _TYPES.get(product["COMPUTE_TYPE"], (None, set()))
    is_known = product["SCALE_TYPE"] == scale and a.type in types
    _refuse(not is_known or len({m.type for m in matrices}) > 1, Status.NOT_SUPPORTED)
    m, k = (a.cols, a.rows) if product["TRANSA"] else (a.rows, a.cols)
    n, k_of_b = (b.rows, b.cols) if product["TRANSB"] else (b.cols, b.rows)
    _refuse(k != k_of_b or {(c.rows, c.cols), (d.rows, d.cols)} != {(m, n)})
    _refuse(len({matrix.n_batch for matrix in matrices}) > 1)
    # Two results in one place.
    _refuse(d.n_batch > 1 and abs(d.step) < (d.cols - 1) * d.ld + d.rows)
    is_gradient = product["EPILOGUE"] == Epilogue.BGRADA
    _refuse(is_gradient and (product["TRANSA"] or d.n_batch > 1), Status.NOT_SUPPORTED)
    fixed = [product[key] for key in ("COMPUTE_TYPE", "TRANSA", "TRANSB", "EPILOGUE")]
    text = repr((fixed, [(int(m.type), m.n_batch > 1) for m in matrices]))
    return product, matrices, zlib.crc32(text.encode())


def _matmul_algo_get_heuristic(handle: int, desc: int, *layouts_and_preference: int) -> None:
    """Write algorithms: the first wants a workspace, if that is allowed, the second none."""
    *layouts, preference, n_requested, results_at, count_at = layouts_and_preference
    _refuse(n_requested < 1)
    *_, identity = _problem(handle, desc, *layouts)
    wishes = _get(preference, MatmulPreferenceAttribute)
    alignments = [wishes[f"MIN_ALIGNMENT_{name}_BYTES"] for name in "ABCD"]
    found = []
    for workspace in (_WORKSPACE, 0):
        if workspace <= wishes["MAX_WORKSPACE_BYTES"]:
            words = [_ALGORITHM, identity, workspace, *alignments, 0]
            found.append(((words,), workspace, Status.SUCCESS, 1.0, (0, 0, 0, 0)))
    results = np.array(found[:n_requested], matmul_heuristic_result_dtype)
    ctypes.memmove(results_at, results.ctypes.data, results.nbytes)
    ctypes.memmove(count_at, np.array([len(results)], np.int32).ctypes.data, 4)


def _matmul(handle: int, compute_desc: int, *operands: int) -> None:
    """Compute D = epilogue(alpha op(A) op(B) + beta C)."""
    alpha, a, adesc, b, bdesc, beta, c, cdesc, d, ddesc, algo, *rest = operands
    workspace, workspace_size, stream = rest
    desc, layouts, identity = _problem(handle, compute_desc, adesc, bdesc, cdesc, ddesc)
    queue = _launch.queue_at(stream)
    _refuse(queue.device != _get(handle, None)["device"])
    words = np.frombuffer(ctypes.string_at(algo, 64), np.uint64).tolist()
    _refuse(words[0] != _ALGORITHM)
    _refuse(words[1] != identity, Status.NOT_SUPPORTED)
    _refuse(workspace_size < words[2] or (words[2] and workspace % 256))
    # An algorithm that was chosen for aligned memory fails on other memory.
    for address, alignment in zip((a, b, c, d), words[3:7], strict=True):
        _refuse(address % alignment, Status.NOT_SUPPORTED)

    factor = _STORED[desc["SCALE_TYPE"]]
    factors = [
        np.frombuffer(ctypes.string_at(at, factor.itemsize), factor)[0] for at in (alpha, beta)
    ]
    epilogue, dtype = Epilogue(desc["EPILOGUE"]), _STORED[layouts[3].type]
    places = [layout.place(at) for layout, at in zip(layouts, (a, b, c, d), strict=True)]
    reads, writes = [place[1] for place in places[: 3 if factors[1] else 2]], [places[3][1]]
    if words[2]:
        writes.append(_place(workspace, (words[2],), (1,), np.dtype(np.uint8))[1])
    vector = None
    if epilogue != Epilogue.DEFAULT:
        pointer = desc["BIAS_POINTER"]
        _refuse(not pointer or pointer % dtype.itemsize)
        vector, block = _place(pointer, (layouts[3].rows,), (1,), dtype)
        (reads if epilogue == Epilogue.BIAS else writes).append(block)
    for block in (*reads, *writes):
        if block.device != queue.device:
            raise CUDARuntimeError(_errors.ILLEGAL_ADDRESS)
    run = _computation(desc, [view for view, _ in places], vector, *factors)
    _launch.enqueue(
        _launch.Node(f"cublasLt {epilogue.name}", run, tuple(reads), tuple(writes)), queue
    )


def _computation(desc: dict[str, Any], views: list[Any], vector: Any, alpha: Any, beta: Any) -> Any:
    compute, epilogue = ComputeType(desc["COMPUTE_TYPE"]), Epilogue(desc["EPILOGUE"])
    transposes = desc["TRANSA"], desc["TRANSB"]

    def run() -> None:
        with np.errstate(all="ignore"):
            a, b = (
                (x.swapaxes(1, 2) if is_transposed else x).astype(alpha.dtype)
                for x, is_transposed in zip(views, transposes, strict=False)
            )
            result = alpha * (_as_input(a, compute) @ _as_input(b, compute))
            if beta:
                result += beta * views[2]
            if epilogue == Epilogue.BIAS:
                result += vector.astype(alpha.dtype)[:, None]
            if epilogue == Epilogue.BGRADA:
                vector[...] = a[0].sum(axis=1)
            views[3][...] = result

    return run


def _as_input(x: np.ndarray, compute: ComputeType) -> np.ndarray:
    """Return numbers as a compute type reads them, rounded to nearest, ties to even."""
    if compute == ComputeType.COMPUTE_32F_FAST_16F:
        return x.astype(np.float16).astype(np.float32)
    n_dropped = {ComputeType.COMPUTE_32F_FAST_TF32: 13, ComputeType.COMPUTE_32F_FAST_16BF: 16}.get(
        compute
    )
    if n_dropped is None:
        return x
    bits = x.view(np.uint32)
    half = np.uint32((1 << (n_dropped - 1)) - 1)
    rounded = bits + half + ((bits >> np.uint32(n_dropped)) & np.uint32(1))
    rounded &= np.uint32(0xFFFFFFFF << n_dropped & 0xFFFFFFFF)
    return np.where(np.isfinite(x), rounded, bits).view(np.float32)


globals().update(define(_CALLS, _call, "nvmath.bindings.cublasLt"))
