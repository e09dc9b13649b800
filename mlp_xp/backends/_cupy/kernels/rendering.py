"""Create each kernel once from source, and list all kernels for the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import cupy
import numpy as np

Factory = Callable[..., Any]

_FACTORIES: list[tuple[Factory, tuple[tuple[Any, ...], ...]]] = []

# NumPy's type codes for the supported dtypes. Looking up dtypes by name would take microseconds.
FLOATS = ("<f4", "<f8")
# The number of threads per block; the sums below require a power of two.
THREADS = 256
_C_NAMES = {
    "<f4": "float",
    "<f8": "double",
    "|u1": "unsigned char",
    "<i4": "int",
    "<i8": "long long",
}

SIGMOID = """
__device__ T sigmoid(T x) {
  // exp(-x) does not overflow, and no result is subnormal: CuPy compiles with -ftz=true.
  const T limit = sizeof(T) == 4 ? -87.3365 : -708.782712893384;
  return T(1) / (T(1) + exp(-(x < limit ? limit : x)));
}
"""

# Sums and maxima over groups of WIDTH threads that are STRIDE apart. All threads of a block must
# call these functions. The order of summation is fixed, so results are reproducible. Comparisons
# propagate NaN.
_FUNCTIONS = """
// A product that is rounded by itself: no sum takes it into a fused multiply-add.
__device__ float product(float x, float y) { return __fmul_rn(x, y); }
__device__ double product(double x, double y) { return __dmul_rn(x, y); }

__device__ T clip(T x, T low, T high) { return x < low ? low : x > high ? high : x; }
__device__ T sign_of(T x) { return x > T(0) ? T(1) : x < T(0) ? T(-1) : x; }
__device__ T softplus(T x) { return log1p(exp(x < T(0) ? x : -x)) + (x < T(0) ? T(0) : x); }

template <int WIDTH, int STRIDE>
__device__ T sum_of(T value, T* shared) {
  if (WIDTH == 1) return value;
  const int thread = threadIdx.x, position = thread / STRIDE % WIDTH;
  shared[thread] = value;
  __syncthreads();
  for (int step = WIDTH / 2; step > 0; step /= 2) {
    if (position < step) shared[thread] += shared[thread + step * STRIDE];
    __syncthreads();
  }
  const T sum = shared[thread - position * STRIDE];
  __syncthreads();
  return sum;
}

template <int WIDTH>
__device__ T largest_of(T value, T* shared) {
  if (WIDTH == 1) return value;
  const int thread = threadIdx.x, position = thread % WIDTH;
  shared[thread] = value;
  __syncthreads();
  for (int step = WIDTH / 2; step > 0; step /= 2) {
    if (position < step && shared[thread + step] > shared[thread])
      shared[thread] = shared[thread + step];
    __syncthreads();
  }
  const T largest = shared[thread - position];
  __syncthreads();
  return largest;
}
"""

# The weight of a row divided by the sum of weights, as in `mlp_xp.nn.layers.shares`.
SHARES = """
  T all = 0;
  if (WEIGHTED) {
    for (long long i = threadIdx.x; i < rows; i += THREADS) all += weights[i];
    all = sum_of<THREADS, 1>(all, shared);
    all = all < smallest ? smallest : all;
  }
#define SHARE(row) (WEIGHTED ? weights[row] / all : even)
"""


def kernel(*variants: tuple[Any, ...]) -> Callable[[Factory], Factory]:
    """Cache the kernels that a function returns, and include them in `every_kernel`.

    ``variants`` are arguments that together compile every line of the kernel's source.
    """

    def register(factory: Factory) -> Factory:
        cached = cache(factory)
        _FACTORIES.append((cached, variants or ((),)))
        return cached

    return register


def every_kernel() -> Iterator[Any]:
    """Yield each registered kernel in each of its variants.

    In the source of an `ElementwiseKernel`, dtypes are letters that CuPy replaces; the source of a
    `RawKernel` is complete.
    """
    for factory, variants in _FACTORIES:
        for variant in variants:
            yield factory(*variant)


def raw_kernel(name: str, body: str, types: dict[str, str], **constants: int) -> Any:
    """Return a raw kernel; ``body`` is its parameter list in parentheses and its code in braces.

    ``types`` maps the letters used for dtypes in the code to NumPy's type codes; T is the dtype of
    sums. ``constants`` and THREADS are defined as macros.
    """
    lines = [f"#define {key} {value}" for key, value in ({"THREADS": THREADS} | constants).items()]
    lines += [f"typedef {_C_NAMES[dtype]} {letter};" for letter, dtype in types.items()]
    code = "\n".join((*lines, SIGMOID, _FUNCTIONS, f'extern "C" __global__ void {name}{body}'))
    return cupy.RawKernel(code, name)


def is_plain(dtype: Any, *arrays: Any) -> bool:
    """Whether all arrays are C-contiguous CuPy arrays of one dtype that the kernels support."""
    return dtype.str in FLOATS and all(
        isinstance(array, cupy.ndarray) and array.dtype == dtype and array.flags.c_contiguous
        for array in arrays
    )


def blocks_for(n: int, size: int) -> int:
    """Return the number of blocks of this size that ``n`` items need."""
    return -(-n // size)


@kernel(*((dtype, scaled) for dtype in FLOATS for scaled in (0, 1)))
def _total_kernel(dtype: str, scaled: int) -> Any:
    return raw_kernel(
        "mlp_xp_total",
        """(const T* parts, const T* factor, T constant, T* out, long long n) {
  __shared__ T shared[THREADS];
  T sum = 0;
  for (long long i = threadIdx.x; i < n; i += THREADS) sum += parts[i];
  sum = sum_of<THREADS, 1>(sum, shared);
  if (threadIdx.x == 0) out[0] = SCALED ? constant * factor[0] * sum : sum;
}""",
        {"T": dtype},
        SCALED=scaled,
    )


def total(parts: Any, factor: Any = None, constant: float = 1.0) -> Any:
    """Return the sum of the partial sums computed by a kernel's blocks, as a 0-d array.

    A single partial sum needs no launch. If the 0-d array ``factor`` is given, the sum is
    multiplied by the factor and by the constant.
    """
    if parts.size == 1 and factor is None:
        return parts.reshape(())
    out = cupy.empty((), parts.dtype)
    compute = _total_kernel(parts.dtype.str, int(factor is not None))
    number = parts.dtype.type(constant)
    compute(
        (1,),
        (THREADS,),
        (parts, parts if factor is None else factor, number, out, np.int64(parts.size)),
    )
    return out


def share_arguments(x: Any, weights: Any) -> tuple[Any, Any, Any]:
    """Return the kernel arguments that `SHARES` uses: ``weights``, ``even`` and ``smallest``."""
    number = x.dtype.type
    smallest = number(np.finfo(x.dtype).smallest_normal)
    return x if weights is None else weights, number(1.0 / x.shape[0]), smallest
