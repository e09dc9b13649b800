"""Check that a CUDA device works, or report which part, the driver or a library, is missing.

CuPy's wheels do not include the CUDA libraries, and CuPy can be imported without them. The first
kernel needs NVRTC and the CUDA headers, and the first product needs cuBLAS.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import cupy

from mlp_xp._utils.optional import install_command
from mlp_xp.backends._base import BackendError
from mlp_xp.backends._cupy.kernels.rendering import kernel


class _Part(NamedTuple):
    """A CUDA component: its name, its package for CUDA 13, and a word in its error messages."""

    name: str
    package: str
    word: str


_HEADERS = _Part("CUDA headers", "nvidia-cuda-runtime", "header")
_NVRTC = _Part("NVRTC", "nvidia-cuda-nvrtc", "nvrtc")
_CUBLAS = _Part("cuBLAS", "nvidia-cublas", "cublas")


@kernel()
def _add_one_kernel() -> Any:
    return cupy.ElementwiseKernel("T x", "T y", "y = x + T(1)", "mlp_xp_add_one")


@cache
def prove(number: int) -> None:
    """Run a kernel and a matrix product on a CUDA device once; raise BackendError if that fails."""
    try:
        with cupy.cuda.Device(number):
            # CuPy can create a Device without a GPU, but the first allocation fails.
            one = cupy.zeros((1, 1), dtype=cupy.float32)
    except Exception as error:
        raise no_gpu(error) from error
    with cupy.cuda.Device(number):
        with _needing(number, _HEADERS, _NVRTC):
            one = _add_one_kernel()(one)
        with _needing(number, _CUBLAS):
            cupy.matmul(one, one)
        cupy.cuda.get_current_stream().synchronize()


def no_gpu(error: Exception) -> BackendError:
    """Return the error for a machine without a driver or device."""
    return BackendError(
        f"Backend 'cupy' found no usable GPU: {_first_line(error)}. Check the driver with "
        "nvidia-smi, or use backend='numpy'."
    )


@contextlib.contextmanager
def _needing(number: int, *parts: _Part) -> Iterator[None]:
    """Turn an error in the block into a BackendError that names the missing CUDA component."""
    try:
        yield
    except Exception as error:
        text = f"{type(error).__name__} {error}".lower()
        missing = [part for part in parts if part.word in text]
        major = cupy.cuda.runtime.runtimeGetVersion() // 1000
        suffix = "-cu12" if major == 12 else ""
        what = " or ".join(f"{part.name} (package {part.package}{suffix})" for part in parts)
        if missing:
            name, package, _ = missing[0]
            what = f"{name} (package {package}{suffix})"
        raise BackendError(
            f"Backend 'cupy' cannot use cuda:{number} without {what}: {_first_line(error)}. Type "
            f"{install_command(f'cuda{major}')}, or use backend='torch', 'jax' or 'numpy'."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")
