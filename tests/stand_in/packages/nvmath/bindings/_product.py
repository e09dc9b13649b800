"""The arithmetic of cuBLASLt: matrices in memory, rounding of compute types, epilogues."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from cupy import _errors
from cupy._errors import CUDARuntimeError
from cupy._memory import Block, block_at

from nvmath import CudaDataType
from nvmath.bindings._enums import Epilogue, Order
from nvmath.bindings.cublas import ComputeType

# How each type lies in memory; bfloat16 as the upper half of a float32.
STORED = {
    CudaDataType.CUDA_R_16F: np.dtype(np.float16),
    CudaDataType.CUDA_R_16BF: np.dtype(np.uint16),
    CudaDataType.CUDA_R_32F: np.dtype(np.float32),
    CudaDataType.CUDA_R_64F: np.dtype(np.float64),
}


class Place(NamedTuple):
    """A NumPy view into memory of the device."""

    view: np.ndarray
    block: Block


def place(address: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any) -> Place:
    """Return a view of memory at an address; what lies outside of all memory is an error."""
    dtype = np.dtype(dtype)
    steps = [stride * dtype.itemsize for stride in strides]
    extent = dtype.itemsize + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
    block = block_at(address)
    if block is None or address + extent > block.address + block.n_bytes:
        raise CUDARuntimeError(_errors.ILLEGAL_ADDRESS)
    offset = address - block.address
    return Place(np.ndarray(shape, dtype, block.bytes, offset, steps), block)


class Matrix(NamedTuple):
    """A layout: a batch of matrices in memory."""

    type: CudaDataType
    order: Order
    rows: int
    cols: int
    ld: int
    n_batch: int
    batch_stride: int

    def place(self, address: int) -> Place:
        inner = (1, self.ld) if self.order == Order.COL else (self.ld, 1)
        shape = self.n_batch, self.rows, self.cols
        return place(address, shape, (self.batch_stride, *inner), STORED[self.type])


def widened(stored: np.ndarray, kind: CudaDataType) -> np.ndarray:
    """Return numbers as float32, or float64."""
    if kind == CudaDataType.CUDA_R_16BF:
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32) if kind == CudaDataType.CUDA_R_16F else stored


def _rounded_bits(x: np.ndarray, n_dropped: int) -> np.ndarray:
    """Round the mantissa of float32 to nearest, ties to even; infinity and NaN stay."""
    bits = x.astype(np.float32).view(np.uint32)
    half = np.uint32((1 << (n_dropped - 1)) - 1)
    rounded = bits + half + ((bits >> np.uint32(n_dropped)) & np.uint32(1))
    rounded &= np.uint32(0xFFFFFFFF << n_dropped & 0xFFFFFFFF)
    return np.where(np.isfinite(x), rounded, bits).view(np.float32)


def narrowed(x: np.ndarray, kind: CudaDataType) -> np.ndarray:
    """Return numbers as they are stored, rounded to nearest."""
    if kind == CudaDataType.CUDA_R_16BF:
        bits = _rounded_bits(x, 16).view(np.uint32)
        # A NaN whose payload is in the lower half would become infinity.
        return np.where(np.isnan(x), np.uint32(0x7FFF), bits >> np.uint32(16)).astype(np.uint16)
    return x.astype(STORED[kind])


_INPUTS: dict[ComputeType, Callable[[np.ndarray], np.ndarray]] = {
    ComputeType.COMPUTE_32F_FAST_TF32: lambda x: _rounded_bits(x, 13),
    ComputeType.COMPUTE_32F_FAST_16BF: lambda x: _rounded_bits(x, 16),
    ComputeType.COMPUTE_32F_FAST_16F: lambda x: x.astype(np.float16).astype(np.float32),
}


class Call(NamedTuple):
    """All that a product reads and writes, in numbers that do not change from now on."""

    compute: ComputeType
    trans_a: int
    trans_b: int
    epilogue: Epilogue
    types: tuple[CudaDataType, CudaDataType, CudaDataType]  # Of A, B, and C and D.
    a: Place
    b: Place
    c: Place | None
    d: Place
    bias: Place | None
    aux: Place | None
    alpha: Callable[[], float]
    beta: Callable[[], float]


def run(call: Call) -> None:
    """Compute D = epilogue(alpha op(A) op(B) + beta C)."""
    with np.errstate(all="ignore"):
        a_type, b_type, d_type = call.types
        a, b = widened(call.a.view, a_type), widened(call.b.view, b_type)
        a = a.swapaxes(1, 2) if call.trans_a else a
        b = b.swapaxes(1, 2) if call.trans_b else b
        as_input = _INPUTS.get(call.compute, np.asarray)
        scale = a.dtype.type
        result = scale(call.alpha()) * (as_input(a) @ as_input(b))
        if call.c is not None:
            result = result + scale(call.beta()) * widened(call.c.view, d_type)
        name = call.epilogue.name
        if call.epilogue in (Epilogue.BGRADA, Epilogue.BGRADB):
            _write_bias(call, a.sum(axis=2) if name == "BGRADA" else b.sum(axis=1))
        if name.endswith("BIAS"):
            bias: Any = call.bias
            result = result + widened(bias.view, call.types[2])[:, :, None]
        result = _activated(call, result, name)
        if name.endswith("_BGRAD"):
            _write_bias(call, result.sum(axis=2))
        call.d.view[...] = narrowed(result, d_type)


def _write_bias(call: Call, gradient: np.ndarray) -> None:
    bias: Any = call.bias
    bias.view[...] = narrowed(gradient, call.types[2])


def _activated(call: Call, x: np.ndarray, name: str) -> np.ndarray:
    aux: Any = call.aux
    if name.startswith("RELU"):
        if "AUX" in name:
            _write_mask(aux.view, x >= 0)  # Zero counts as passed on, as on the device.
        return np.fmax(x, 0)  # NaN becomes 0, as on the device.
    if name.startswith("GELU"):
        if "AUX" in name:
            aux.view[...] = narrowed(x, call.types[2])
        return _gelu(x)
    if name.startswith("DRELU"):
        return np.where(_read_mask(aux.view, x.shape[1]), x, x.dtype.type(0))
    if name.startswith("DGELU"):
        return x * _gelu_slope(widened(aux.view, call.types[2]))
    return x


def _write_mask(packed: np.ndarray, mask: np.ndarray) -> None:
    """Write bits along the rows, lowest first, and leave those after the last row alone."""
    n_rows = mask.shape[1]
    bits = np.unpackbits(packed, axis=1, bitorder="little")
    bits[:, :n_rows] = mask
    packed[...] = np.packbits(bits, axis=1, bitorder="little")


def _read_mask(packed: np.ndarray, n_rows: int) -> np.ndarray:
    return np.unpackbits(packed, axis=1, bitorder="little")[:, :n_rows].astype(bool)


_GELU = math.sqrt(2 / math.pi), 0.044715


def _gelu(x: np.ndarray) -> np.ndarray:
    """Return the approximation by tanh, which is what cuBLASLt computes."""
    k, c = map(x.dtype.type, _GELU)
    return x.dtype.type(0.5) * x * (1 + np.tanh(k * (x + c * x * x * x)))


def _gelu_slope(x: np.ndarray) -> np.ndarray:
    k, c = map(x.dtype.type, _GELU)
    t = np.tanh(k * (x + c * x * x * x))
    half = x.dtype.type(0.5)
    return half * (1 + t) + half * x * (1 - t * t) * k * (1 + 3 * c * x * x)
