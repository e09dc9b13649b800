"""The Python time on the host for a matrix product on CuPy, measured without a GPU.

python -m bench.gpu.host_time      (with CuPy and nvmath-python installed)

The CuPy arrays have addresses that are never read. Functions that launch kernels, allocate memory
or query the driver are replaced with functions that return immediately, so only the Python time
remains: at most 5 us per product.
"""

from __future__ import annotations

import ctypes
import statistics
import timeit
from types import SimpleNamespace
from typing import Any
from unittest import mock

import cupy
import numpy as np
from cupy.cuda import memory
from nvmath.bindings import cublasLt

from mlp_xp.backends._cupy import cublaslt, namespace, products
from mlp_xp.nn.layers import Dense

SHAPES = {"tiny": (32, 4, 16), "medium": (128, 784, 512)}  # Batch, inputs, outputs.
_CALLS, _ROUNDS = 2_000, 15


def _array(*shape: int) -> Any:
    block = memory.BaseMemory()
    block.ptr, block.size, block.device_id = 1 << 30, 1 << 30, 0
    return cupy.ndarray(shape, np.float32, memptr=memory.MemoryPointer(block, 0))


def _library() -> SimpleNamespace:
    """Return a replacement for cuBLASLt whose functions do nothing."""
    stub = SimpleNamespace(**vars(cublasLt))
    for name in vars(cublasLt):
        if name.startswith(("matmul", "matrix_layout")) and not name.endswith("dtype"):
            setattr(stub, name, lambda *_: 1)
    found = ctypes.c_int32.from_address
    stub.matmul_algo_get_heuristic = lambda *given: setattr(found(given[-1]), "value", 1)
    return stub


def measure(n_rows: int, n_inputs: int, n_outputs: int) -> dict[str, float]:
    """Return the microseconds per product, by the purpose of the product."""
    x, y, dx = _array(n_rows, n_inputs), _array(n_rows, n_outputs), _array(n_rows, n_inputs)
    params, grads = (Dense(_array(n_inputs, n_outputs), _array(n_outputs)) for _ in range(2))
    new = {array.shape: array for array in (y, dx, *grads)}
    lt, pointer = _library(), SimpleNamespace(ptr=1 << 30)
    cuda = SimpleNamespace(alloc=lambda _: pointer, get_current_stream=lambda: pointer)
    with (
        mock.patch.multiple(cublaslt, _library=lambda: lt, _handle=lambda _: 1),
        mock.patch.multiple(cublaslt.runtime, getDevice=lambda: 0),
        mock.patch.multiple(cupy, empty=lambda shape, _: new[shape], cuda=cuda),
    ):
        dense = products.dense_in("tf32")
        _, pullback = dense(params, x, xp=namespace)
        calls = {
            "matmul": (1, lambda: namespace.matmul(x, params.W)),
            "dense, forward": (1, lambda: dense(params, x, xp=namespace)),
            "dense, backward": (2, lambda: pullback(y, need_dx=True)),
        }
        return {
            name: statistics.median(timeit.repeat(call, number=_CALLS, repeat=_ROUNDS))
            / (_CALLS * n_products)
            * 1e6
            for name, (n_products, call) in calls.items()
        }


if __name__ == "__main__":
    for workload, shape in SHAPES.items():
        for name, microseconds in measure(*shape).items():
            print(f"{workload + ', ' + name:<26}{microseconds:5.1f} us a product")
