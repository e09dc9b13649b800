"""The kernels of the stand-in for CuPy: their bodies run, and what would go wrong is an error."""

import cupy
import numpy as np
import pytest

from mlp_xp.compiler.print_cuda import functions

SUM = r"""
extern "C" __global__ void block_sums(const float* x, float* sums, long long n) {
  __shared__ float partial[256];
  long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  partial[threadIdx.x] = i < n ? x[i] : 0;
  __syncthreads();
  for (int step = blockDim.x / 2; step > 0; step /= 2) {
    if (threadIdx.x < step) partial[threadIdx.x] += partial[threadIdx.x + step];
    __syncthreads();
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = partial[0];
}
"""


def test_an_out_of_bounds_index_is_an_error() -> None:
    kernel = cupy.ElementwiseKernel(
        "raw T x, int64 shift", "raw T y", "y[i] = x[i + shift]", "moved"
    )
    x = cupy.zeros(4, np.float32)
    with pytest.raises(RuntimeError, match=r"moved: CUDA_ERROR_ILLEGAL_ADDRESS"):
        kernel(x, 1, cupy.empty(4, np.float32), size=4)


def test_a_barrier_not_reached_by_all_threads_is_an_error() -> None:
    code = SUM.replace("__syncthreads();", "if (threadIdx.x) __syncthreads();", 1)
    sums = cupy.empty(1, np.float32)
    with pytest.raises(RuntimeError, match="wait for each other at different places"):
        cupy.RawKernel(code, "block_sums")((1,), (256,), (sums, sums, np.int64(1)))


@pytest.mark.parametrize("missing", [None, *range(3)])
def test_removing_any_barrier_from_reductions_is_detected(rng, missing) -> None:
    code = (
        functions(["max", "sum"])
        + """
extern "C" __global__ void sums(const double* x, double* out) {
  __shared__ double shared[256];
  const double number = x[threadIdx.x];
  out[threadIdx.x] = reduce<Sum, 64, 4>(number, shared) + reduce<Max, 32, 1>(number, shared)
      + reduce<Sum, 256, 1>(number, shared) + reduce<Max, 256, 1>(number, shared);
}"""
    )
    *parts, end = code.split("__syncthreads();")
    assert len(parts) == 3
    barriers = ["" if i == missing else "__syncthreads();" for i in range(3)]
    kernel = cupy.RawKernel("".join(sum(zip(parts, barriers, strict=True), ())) + end, "sums")
    x, out = rng.random(256), cupy.empty(256)
    expected = np.broadcast_to(x.reshape(64, 4).sum(0), (64, 4)).ravel() + x.sum() + x.max()
    expected = expected + np.repeat(x.reshape(8, 32).max(1), 32)
    is_right = []
    for _ in range(2):  # The order of threads is another one.
        kernel((1,), (256,), (cupy.asarray(x), out))
        is_right.append(np.allclose(out.get(), expected))
    assert all(is_right) is (missing is None)


def test_floating_point_arithmetic_matches_cuda() -> None:
    """A product in a sum is not rounded, and subnormal floats are 0, but not doubles."""
    multiply_add = cupy.ElementwiseKernel(
        "T x, T y, T z", "T out", "out = x * y + z", "add_product"
    )
    for dtype in (np.float32, np.float64):
        x, tiny = dtype(1) + np.finfo(dtype).eps, np.finfo(dtype).smallest_subnormal
        assert 0 < multiply_add(cupy.asarray(x), x, -x * x) < x - 1
        assert (multiply_add(cupy.asarray(tiny), dtype(1), dtype(0)) == 0) == (dtype == np.float32)


@pytest.mark.parametrize(
    ("n", "message"), [((3,), "argument 2 has 4 bytes"), ((), "wrong number of arguments: 2")]
)
def test_invalid_raw_kernel_arguments_are_an_error(n, message) -> None:
    sums = cupy.empty(1, np.float32)
    with pytest.raises(TypeError, match=message):
        cupy.RawKernel(SUM, "block_sums")((1,), (256,), (sums, sums, *map(np.int32, n)))


def test_compile_errors_quote_the_source() -> None:
    with pytest.raises(Exception, match="slope") as caught:
        cupy.ElementwiseKernel("T x", "T y", "y = slope * x", "line")(cupy.zeros(3))
    assert type(caught.value).__name__ == "CompileException"


def test_arrays_reached_through_pointer_tables_are_checked_for_races() -> None:
    code = r"""
    extern "C" __global__ void fill(const unsigned long long* table, float value) {
      ((float*)table[blockIdx.x])[threadIdx.x] = value;
    }"""
    arrays = [cupy.zeros(4, np.float32) for _ in range(2)]
    table = cupy.asarray(np.array([array.data.ptr for array in arrays], np.uint64))
    fill = cupy.RawKernel(code, "fill")
    fill((2,), (4,), (table, np.float32(3)))
    assert all((array == 3).all() for array in arrays)
    stream = cupy.cuda.Stream(non_blocking=True)
    table.device.synchronize()
    fill((1,), (4,), (table, np.float32(5)), stream=stream)
    with pytest.raises(Exception, match="memory in use on another stream"):
        cupy.sum(arrays[0])
    stream.synchronize()
    assert (arrays[0] == 5).all()


def test_float16_rounds_like_numpy(rng) -> None:
    widen = cupy.ElementwiseKernel("float16 x", "float32 y", "y = x", "widen")
    narrow = cupy.ElementwiseKernel("float32 x", "float16 y", "y = x", "narrow")
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    np.testing.assert_array_equal(widen(cupy.asarray(every)).get(), every.astype(np.float32))
    x = (rng.standard_normal(10_000) * np.exp(rng.uniform(-20, 12, 10_000))).astype(np.float32)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(narrow(cupy.asarray(x)).get(), x.astype(np.float16))
