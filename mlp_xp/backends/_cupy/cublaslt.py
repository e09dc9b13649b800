"""Matrix products by cuBLASLt. They can add a bias, and a CUDA graph can capture them.

CuPy's own matrix products set the stream of a cuBLAS handle, and a capture does not allow that;
cuBLASLt receives the stream with each call. Each combination of dtype, shapes, strides and
alignment is described once; cuBLASLt's heuristic then selects the algorithm. nvmath-python provides
the bindings.

cuBLASLt uses column-major order, so it interprets an array in C order as its transpose. Therefore
it computes ``out.T = b.T @ a.T``, and its first operand is b.
"""

from __future__ import annotations

import logging
import weakref
from functools import cache, lru_cache
from typing import Any, NamedTuple, TypeAlias

import cupy
import numpy as np
from cupy.cuda import runtime

from mlp_xp._utils.optional import install_command
from mlp_xp._utils.signals.forks import fork_safe_lock

# The cuBLAS compute type for float32 matrix products in each precision.
COMPUTE_TYPES = {
    "float32": "COMPUTE_32F",
    "tf32": "COMPUTE_32F_FAST_TF32",
    "bf16": "COMPUTE_32F_FAST_16BF",
    "float16": "COMPUTE_32F_FAST_16F",
}
# The types of matrices and scale, for each dtype.
_TYPES = {
    "e": ("CUDA_R_16F", "CUDA_R_32F"),
    "f": ("CUDA_R_32F", "CUDA_R_32F"),
    "d": ("CUDA_R_64F", "CUDA_R_64F"),
}
# The maximum workspace in bytes, as NVIDIA recommends for Hopper and later. A product allocates
# only what it needs.
_WORKSPACE_BYTES = 32 << 20
# The largest alignment to distinguish, in bytes; new memory always has it.
_ALIGNMENT = 256
# The bias vector's alignment in bytes, since cuBLASLt reads 16 bytes at a time.
_VECTOR_ALIGNMENT = 16
# The number of cached product descriptions; a layer needs three per batch size.
_MOST_PRODUCTS = 1024

_log = logging.getLogger(__name__)


def multiply(
    a: Any,
    b: Any,
    *,
    precision: str | None = None,
    bias: Any = None,
    sums: Any = None,
    out: Any = None,
    is_added: bool = False,
) -> Any | None:
    """Compute a matrix product in one launch; return None if cuBLASLt does not support it.

    For two-dimensional operands, a bias can be added to each row, or the column sums of b can be
    written to ``sums``. ``precision``, one of `COMPUTE_TYPES`, applies to float32 operands. The
    product is written to a new array, or to ``out``, or added to it.

    References
    ----------
    NVIDIA, "cuBLAS", chapter "Using the cuBLASLt API".
    """
    vector = sums if bias is None else bias
    is_known = a.dtype == b.dtype and a.dtype.char in _TYPES and a.size * b.size > 0
    if vector is not None:
        is_aligned = _alignment(vector) >= _VECTOR_ALIGNMENT
        is_known = is_known and is_aligned and vector.flags.c_contiguous
    if out is not None:
        is_known = is_known and out.dtype == a.dtype and out.flags.c_contiguous
        is_known = is_known and _alignment(out) == _ALIGNMENT
    if not is_known or _library() is None:
        return None
    batch: tuple[int, ...] = ()
    if a.ndim + b.ndim > 4:  # Broadcasting takes microseconds, so do it only for stacks.
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = _readable(a, batch), _readable(b, batch)
    product = _product(
        runtime.getDevice(),
        a.dtype.char,
        COMPUTE_TYPES[precision or "float32"],
        "DEFAULT" if vector is None else "BGRADA" if bias is None else "BIAS",
        (a.shape, a.strides, _alignment(a)),
        (b.shape, b.strides, _alignment(b)),
    )
    if product is None:
        return None
    if out is None:
        out = cupy.empty((*batch, a.shape[-2], b.shape[-1]), a.dtype)
    return out if product.run(a, b, out, vector, is_added=is_added) else None


# The shape, strides and alignment of a matrix or stack of matrices. A NamedTuple would take a third
# of a microsecond longer than a plain tuple.
_Operand: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], int]


class _Layout(NamedTuple):
    """The cuBLASLt layout of a matrix or a stack of matrices.

    ``leading`` is the stride between columns, and ``step`` the stride between the ``n_matrices``
    matrices, both in elements.
    """

    rows: int
    columns: int
    leading: int
    n_matrices: int
    step: int
    is_c_order: bool


def _readable(array: Any, batch: tuple[int, ...]) -> Any:
    """Broadcast an array to ``batch``, with strides that cuBLASLt supports."""
    if batch:
        matrix = array.shape[-2:]
        array = cupy.broadcast_to(array, (*batch, *matrix)).reshape(-1, *matrix)
    is_readable = _layout(array.shape, array.strides, array.itemsize) is not None
    return array if is_readable else cupy.ascontiguousarray(array)


@lru_cache(maxsize=_MOST_PRODUCTS)
def _layout(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> _Layout | None:
    """Return the layout of an array, or None if cuBLASLt does not support its strides."""
    *counts, n_rows, n_columns = shape
    *steps, row_step, column_step = (stride // itemsize for stride in strides)
    count, step = (counts[0], steps[0]) if counts else (1, 0)
    if (n_columns == 1 or column_step == 1) and (n_rows == 1 or row_step >= n_columns):
        leading = n_columns if n_rows == 1 else row_step
        return _Layout(n_columns, n_rows, leading, count, step, is_c_order=True)
    if (n_rows == 1 or row_step == 1) and (n_columns == 1 or column_step >= n_rows):
        leading = n_rows if n_columns == 1 else column_step
        return _Layout(n_rows, n_columns, leading, count, step, is_c_order=False)
    return None


def _alignment(array: Any) -> int:
    """Return the largest power of two that divides an array's address, at most `_ALIGNMENT`."""
    address = int(array.data.ptr) | _ALIGNMENT
    return address & -address


# --- the library ---------------------------------------------------------------------------------


@cache
def _library() -> Any:
    """Return cuBLASLt, or None if it cannot be used."""
    try:
        from nvmath.bindings import cublasLt

        cublasLt.get_version()  # The first call loads the library.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        extra = f"cuda{runtime.runtimeGetVersion() // 1000}"
        _log.warning(
            "Training steps run one by one, with products by cuBLAS, since cuBLASLt cannot be used "
            "(%s). Type %s",
            reason,
            install_command(extra),
        )
        return None
    return cublasLt


@cache
def _handle(device: int) -> int:
    """Return the cuBLASLt handle of the current device, which all threads share."""
    return int(_library().create())


@lru_cache(maxsize=_MOST_PRODUCTS)
def _product(
    device: int, dtype: str, compute: str, epilogue: str, a: _Operand, b: _Operand
) -> _Product | None:
    """Return the cached description of a product, or None if cuBLASLt does not support it."""
    try:
        return _Product(device, dtype, compute, epilogue, a, b)
    except _library().cuBLASLtError:
        return None


class _Product:
    """The description of a product, with its algorithm."""

    def __init__(
        self, device: int, dtype: str, compute: str, epilogue: str, a: _Operand, b: _Operand
    ) -> None:
        from nvmath import CudaDataType
        from nvmath.bindings.cublas import ComputeType

        lt = _library()
        matrix, factor = (CudaDataType[name] for name in _TYPES[dtype])
        number = np.float64 if dtype == "d" else np.float32
        if dtype != "f":
            compute = "COMPUTE_64F" if dtype == "d" else "COMPUTE_32F"
        itemsize = np.dtype(dtype).itemsize
        first, second = (_layout(shape, strides, itemsize) for shape, strides, _ in (b, a))
        assert first
        assert second
        rows, columns = b[0][-1], a[0][-2]
        out = _Layout(rows, columns, rows, first.n_matrices, rows * columns, is_c_order=True)

        self._lt, self._handle = lt, _handle(device)
        self._one, self._zero = np.ones(1, number), np.zeros(1, number)
        # These addresses are stored because NumPy takes a microsecond to return one.
        self._factors = self._one.ctypes.data, self._zero.ctypes.data
        self._lock = fork_safe_lock()  # Each call sets the bias address, so calls cannot overlap.
        self._is_refused = False
        self._description = lt.matmul_desc_create(ComputeType[compute], factor)
        self._layouts: list[int] = []
        # Do not run the finalizer at exit, when the library may already be unloaded.
        weakref.finalize(self, _destroy, lt, self._description, self._layouts).atexit = False
        for layout in (first, second, out):
            self._layouts.append(lt.matrix_layout_create(matrix, *layout[:3]))
            if layout.n_matrices > 1:
                stack = {"BATCH_COUNT": layout.n_matrices, "STRIDED_BATCH_OFFSET": layout.step}
                _set(lt, "matrix_layout", self._layouts[-1], stack)
        transposes = {"TRANSA": not first.is_c_order, "TRANSB": not second.is_c_order}
        attributes = transposes | {"EPILOGUE": lt.Epilogue[epilogue]}
        _set(lt, "matmul_desc", self._description, attributes)
        if epilogue != "DEFAULT":
            attribute = lt.MatmulDescAttribute.BIAS_POINTER
            self._vector = np.zeros(1, lt.get_matmul_desc_attribute_dtype(attribute))
            self._pointer = attribute, self._vector.ctypes.data, self._vector.nbytes
            # The heuristic needs an address, but only its alignment matters.
            self._point_to(_ALIGNMENT)
        self._choose(a[-1], b[-1])

    def _point_to(self, address: int) -> None:
        self._vector[0] = address
        self._lt.matmul_desc_set_attribute(self._description, *self._pointer)

    def _choose(self, a_alignment: int, b_alignment: int) -> None:
        """Select an algorithm with cuBLASLt's heuristic."""
        lt = self._lt
        limits = {
            "MAX_WORKSPACE_BYTES": _WORKSPACE_BYTES,
            "MIN_ALIGNMENT_A_BYTES": b_alignment,
            "MIN_ALIGNMENT_B_BYTES": a_alignment,
            "MIN_ALIGNMENT_C_BYTES": _ALIGNMENT,
            "MIN_ALIGNMENT_D_BYTES": _ALIGNMENT,
        }
        found, n_found = np.zeros(1, lt.matmul_heuristic_result_dtype), np.zeros(1, np.int32)
        preference = lt.matmul_preference_create()
        try:
            _set(lt, "matmul_preference", preference, limits)
            first, second, out = self._layouts
            lt.matmul_algo_get_heuristic(
                *(self._handle, self._description, first, second, out, out, preference),
                *(1, found.ctypes.data, n_found.ctypes.data),
            )
        finally:
            lt.matmul_preference_destroy(preference)
        self._is_refused = not n_found[0] or bool(found["state"][0])
        self._algorithm = found["algo"].copy()
        self._algorithm_address = self._algorithm.ctypes.data
        self._n_bytes = int(found["workspace_size"][0])

    def run(self, a: Any, b: Any, out: Any, vector: Any, *, is_added: bool) -> bool:
        """Launch the product on the current stream; return whether cuBLASLt accepts it."""
        if self._is_refused:
            return False
        # The pool is per stream, so no other product uses this workspace at the same time.
        workspace = cupy.cuda.alloc(self._n_bytes)
        first, second, result = self._layouts
        with self._lock:
            if vector is not None:
                self._point_to(vector.data.ptr)
            try:
                self._lt.matmul(
                    *(self._handle, self._description),
                    *(self._factors[0], b.data.ptr, first, a.data.ptr, second),
                    *(self._factors[1 - is_added], out.data.ptr, result, out.data.ptr, result),
                    *(self._algorithm_address, workspace.ptr, self._n_bytes),
                    cupy.cuda.get_current_stream().ptr,
                )
            except self._lt.cuBLASLtError:
                self._is_refused = True
        return not self._is_refused


def _set(lt: Any, kind: str, thing: int, attributes: dict[str, int]) -> None:
    """Set attributes of a cuBLASLt object, whose values are passed by address."""
    names = {
        "matrix_layout": "MatrixLayoutAttribute",
        "matmul_desc": "MatmulDescAttribute",
        "matmul_preference": "MatmulPreferenceAttribute",
    }
    for name, value in attributes.items():
        attribute = getattr(getattr(lt, names[kind]), name)
        dtype = getattr(lt, f"get_{kind}_attribute_dtype")(attribute)
        number = np.asarray([value], dtype)
        set_attribute = getattr(lt, f"{kind}_set_attribute")
        set_attribute(thing, attribute, number.ctypes.data, number.nbytes)


def _destroy(lt: Any, description: int, layouts: list[int]) -> None:
    lt.matmul_desc_destroy(description)
    for layout in layouts:
        lt.matrix_layout_destroy(layout)


def is_usable() -> bool:
    """Whether cuBLASLt is available."""
    return _library() is not None
