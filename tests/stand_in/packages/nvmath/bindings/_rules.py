"""What cuBLASLt refuses, and with which status.

From the library's documentation and from what its users report of it: leading dimensions of the
auxiliary matrix, the transposes that gradients of a bias take, the types that go together, and
column-major results where an epilogue has a bias or an auxiliary matrix.
"""

from __future__ import annotations

from typing import Any

from nvmath import CudaDataType
from nvmath.bindings._enums import (
    Epilogue,
    MatmulDescAttribute,
    MatrixLayoutAttribute,
    Order,
)
from nvmath.bindings._product import STORED, Matrix
from nvmath.bindings.cublas import ComputeType, Operation, Status

_DESC, _LAYOUT = MatmulDescAttribute, MatrixLayoutAttribute
_F16, _BF16 = CudaDataType.CUDA_R_16F, CudaDataType.CUDA_R_16BF
_F32, _F64 = CudaDataType.CUDA_R_32F, CudaDataType.CUDA_R_64F
_SINGLE = {(_F32, _F32)}
_HALF = {(_F16, _F16), (_BF16, _BF16), (_F16, _F32), (_BF16, _F32)}
# The type of alpha and beta; the types of A and B with those of C and D.
_TYPES = {
    ComputeType.COMPUTE_16F: (_F16, {(_F16, _F16)}),
    ComputeType.COMPUTE_32F: (_F32, _SINGLE | _HALF),
    ComputeType.COMPUTE_32F_PEDANTIC: (_F32, _SINGLE | _HALF),
    ComputeType.COMPUTE_32F_FAST_16F: (_F32, _SINGLE),
    ComputeType.COMPUTE_32F_FAST_16BF: (_F32, _SINGLE),
    ComputeType.COMPUTE_32F_FAST_TF32: (_F32, _SINGLE),
    ComputeType.COMPUTE_64F: (_F64, {(_F64, _F64)}),
}


class cuBLASLtError(Exception):  # noqa: N801 - the library's name
    """A call that was refused."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(
            f"CUBLAS_STATUS_{Status(status).name} ({int(status)}). You can set "
            "CUBLASLT_LOG_LEVEL=5 environment variable to enable cuBLAS logging to learn more."
        )

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return type(self), (self.status,)


def refuse(condition: object, status: Status) -> None:
    """Raise a status where a condition holds."""
    if condition:
        raise cuBLASLtError(status)


def matrix(layout: dict[Any, Any]) -> Matrix:
    """Return a layout whose numbers go together."""
    found = Matrix(
        CudaDataType(layout[_LAYOUT.TYPE]),
        Order(layout[_LAYOUT.ORDER]),
        layout[_LAYOUT.ROWS],
        layout[_LAYOUT.COLS],
        layout[_LAYOUT.LD],
        layout[_LAYOUT.BATCH_COUNT],
        layout[_LAYOUT.STRIDED_BATCH_OFFSET],
    )
    shortest = found.rows if found.order == Order.COL else found.cols
    refuse(found.ld < shortest or found.n_batch < 1, Status.INVALID_VALUE)
    refuse(not found.rows or not found.cols, Status.NOT_SUPPORTED)
    return found


def has_bias(epilogue: Epilogue) -> bool:
    return "BIAS" in epilogue.name or "BGRAD" in epilogue.name


def has_aux(epilogue: Epilogue) -> bool:
    return "AUX" in epilogue.name or epilogue.name.startswith(("DRELU", "DGELU"))


def check(desc: dict[Any, Any], a: Matrix, b: Matrix, c: Matrix, d: Matrix) -> None:
    """Raise the status with which both the search for an algorithm and the product refuse."""
    scale, types = _TYPES.get(desc[_DESC.COMPUTE_TYPE], (None, set()))
    refuse(desc[_DESC.SCALE_TYPE] != scale, Status.NOT_SUPPORTED)
    refuse(a.type != b.type or c.type != d.type, Status.NOT_SUPPORTED)
    refuse((a.type, d.type) not in types, Status.NOT_SUPPORTED)
    trans_a, trans_b = Operation(desc[_DESC.TRANSA]), Operation(desc[_DESC.TRANSB])
    m, k = (a.rows, a.cols) if trans_a == Operation.N else (a.cols, a.rows)
    k_of_b, n = (b.rows, b.cols) if trans_b == Operation.N else (b.cols, b.rows)
    is_wrong = k != k_of_b or (c.rows, c.cols) != (m, n) or (d.rows, d.cols) != (m, n)
    refuse(is_wrong or c.order != d.order, Status.INVALID_VALUE)
    refuse(len({matrix.n_batch for matrix in (a, b, c, d)}) > 1, Status.INVALID_VALUE)
    # Two results in one place.
    refuse(d.n_batch > 1 and abs(d.batch_stride) < _extent(d), Status.INVALID_VALUE)
    _check_epilogue(desc, d, k)


def _extent(matrix: Matrix) -> int:
    outer, inner = (matrix.cols, matrix.rows)
    if matrix.order == Order.ROW:
        outer, inner = inner, outer
    return (outer - 1) * matrix.ld + inner


def _check_epilogue(desc: dict[Any, Any], d: Matrix, k: int) -> None:
    epilogue = Epilogue(desc[_DESC.EPILOGUE])
    trans_a, trans_b = desc[_DESC.TRANSA], desc[_DESC.TRANSB]
    refuse(epilogue == Epilogue.BGRADA and trans_a != Operation.N, Status.NOT_SUPPORTED)
    refuse(epilogue == Epilogue.BGRADB and trans_b != Operation.T, Status.NOT_SUPPORTED)
    # A row-major result has its bias along the columns, which no kernel has.
    needs_columns = has_aux(epilogue) or (has_bias(epilogue) and epilogue != Epilogue.BGRADA)
    refuse(needs_columns and d.order != Order.COL, Status.NOT_SUPPORTED)
    refuse(epilogue.name.startswith(("DRELU", "DGELU")) and k == 1, Status.NOT_SUPPORTED)
    if has_bias(epilogue):
        refuse(desc[_DESC.BIAS_DATA_TYPE] not in (-1, d.type), Status.NOT_SUPPORTED)
        is_shared = d.n_batch > 1 and not desc[_DESC.BIAS_BATCH_STRIDE]
        refuse("BGRAD" in epilogue.name and is_shared, Status.NOT_SUPPORTED)
    if has_aux(epilogue) and desc[_DESC.EPILOGUE_AUX_POINTER]:
        ld, is_mask = desc[_DESC.EPILOGUE_AUX_LD], "RELU" in epilogue.name
        refuse(ld < d.rows or ld % (128 if is_mask else 8), Status.INVALID_VALUE)
        refuse(desc[_DESC.EPILOGUE_AUX_DATA_TYPE] not in (-1, d.type), Status.INVALID_VALUE)


def check_pointers(desc: dict[Any, Any], d_type: CudaDataType) -> None:
    """Raise the status of a missing or crooked pointer, which only the product looks at."""
    epilogue = Epilogue(desc[_DESC.EPILOGUE])
    bias, aux = desc[_DESC.BIAS_POINTER], desc[_DESC.EPILOGUE_AUX_POINTER]
    if has_bias(epilogue):
        refuse(not bias or bias % STORED[d_type].itemsize, Status.INVALID_VALUE)
    if has_aux(epilogue):
        is_forward = "AUX" in epilogue.name
        refuse(not aux, Status.NOT_SUPPORTED if is_forward else Status.INVALID_VALUE)
        refuse(aux % 16, Status.INVALID_VALUE)
