"""CuPy products in bfloat16 with operands that are rounded to 16 bits before cuBLASLt reads them.

With "bf16", the library passes float32 operands to cuBLASLt, which may round them itself. The GPU
check times both versions, and the library will use the faster one.
"""

import copy
from typing import Any

import cupy

from mlp_xp.backends import Backend
from mlp_xp.backends._cupy.cublaslt import multiply
from mlp_xp.nn.layers import Dense

# Round to nearest, ties to even; NaN remains NaN.
to_bf16 = cupy.ElementwiseKernel(
    "float32 x",
    "uint16 y",
    """unsigned int bits = __float_as_uint(x);
    y = isnan(x) ? bits >> 16 | 64u : (bits + 32767u + (bits >> 16 & 1u)) >> 16;""",
    "mlp_xp_to_bf16",
)


def _product(a: Any, b: Any, **more: Any) -> Any:
    if (out := multiply(a, b, **more)) is None:
        raise NotImplementedError("cuBLASLt does not support this product of 16-bit operands")
    return out


def _dense(params: Dense, x: Any, arrangement: None = None, *, xp: Any) -> tuple[Any, Any]:
    """Compute `mlp_xp.nn.layers.affine` for one model."""
    x, W = to_bf16(x), to_bf16(params.W)

    def pullback(dy: Any, *, need_dx: bool) -> tuple[Any, Dense]:
        dy, db = to_bf16(dy), cupy.empty_like(params.b)
        dW = _product(x.T, dy, sums=db)
        return _product(dy, W.T) if need_dx else None, Dense(dW, db)

    return _product(x, W, bias=params.b), pullback


def rounding_operands(backend: Backend) -> Backend:
    """Return a CuPy backend whose dense layers multiply 16-bit numbers."""
    backend = copy.copy(backend)
    backend.kernels = backend.kernels._replace(dense=_dense)
    return backend
