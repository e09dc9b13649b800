"""Muon's Newton-Schulz steps, with all products of a model's small matrices in one launch.

With G = D D^T, each step multiplies D by P = a I + b G + c G^2, and G becomes P G P. All of these
matrices are as wide as the shorter side of D. cuBLASLt computes G, and adds T D to the parameters,
where T is the product of all P. In between, the blocks of one launch compute T for all matrices,
tile by tile. They wait for each other after each product, which only a cooperative launch allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import cupy
import numpy as np

from mlp_xp._utils.array_types import Namespace
from mlp_xp.backends._cupy.cublaslt import multiply
from mlp_xp.backends._cupy.kernels.rendering import FLOATS, blocks_for, kernel, raw_kernel
from mlp_xp.compiler.print_cuda import THREADS
from mlp_xp.optimizers import Muon, for_axes

# The side of a tile, and how many of its rows are in shared memory at once. A thread computes a
# square of 4 x 4 numbers.
_TILE, _DEPTH = 64, 16
# The widest matrices whose steps are one launch. cuBLASLt is perhaps twice as fast as these tiles.
# Up to this width, the tiles make up for that by estimate, not by measurement: they compute half of
# each symmetric product and all matrices at once, and add polynomials without reading G again.
WIDEST = 1024
# More steps would need another G, since rounding errors grow with each step.
_MOST_STEPS = 5
# The blocks that fit a multiprocessor at once: a thread has at most 128 registers in single
# precision, and 255 in double precision.
_BLOCKS = {"f": 2, "d": 1}
# Matrices begin at addresses that are a multiple of 256 bytes, as cuBLASLt expects of new memory.
_ALIGNMENT = 64
# Left factors are symmetric, so both factors are read along their rows. While a slab is multiplied,
# the next one is on its way from memory.
_PRODUCT = f"""#include <cooperative_groups.h>
const int TILE = {_TILE}, DEPTH = {_DEPTH}, SIDE = 4, PER_THREAD = TILE * DEPTH / THREADS;
struct Tile {{ long long start, n, row, column, matrix, model, first, count; }};
__device__ void load(const T* x, const Tile& tile, long long depth, long long first, T scale,
                     T* values) {{
  #pragma unroll
  for (int k = 0; k < PER_THREAD; k++) {{
    const int place = threadIdx.x + k * THREADS;
    const long long row = depth + place / TILE, column = first + place % TILE;
    const bool is_inside = row < tile.n && column < tile.n;
    values[k] = is_inside ? scale * x[tile.start + row * tile.n + column] : (T)0;
  }}
}}
__device__ void multiply(const T* a, const T* b, const Tile& tile, T scale, T (*sums)[SIDE],
                         T (*left)[TILE], T (*right)[TILE]) {{
  const int row = threadIdx.x / (TILE / SIDE) * SIDE, column = threadIdx.x % (TILE / SIDE) * SIDE;
  T from_a[PER_THREAD], from_b[PER_THREAD];
  #pragma unroll
  for (int e = 0; e < SIDE * SIDE; e++) sums[e / SIDE][e % SIDE] = 0;
  load(a, tile, 0, tile.row, scale, from_a);
  load(b, tile, 0, tile.column, scale, from_b);
  for (long long depth = 0; depth < tile.n; depth += DEPTH) {{
    __syncthreads();
    #pragma unroll
    for (int k = 0; k < PER_THREAD; k++) {{
      const int place = threadIdx.x + k * THREADS;
      left[place / TILE][place % TILE] = from_a[k];
      right[place / TILE][place % TILE] = from_b[k];
    }}
    __syncthreads();
    load(a, tile, depth + DEPTH, tile.row, scale, from_a);
    load(b, tile, depth + DEPTH, tile.column, scale, from_b);
    #pragma unroll
    for (int k = 0; k < DEPTH; k++)
      #pragma unroll
      for (int e = 0; e < SIDE * SIDE; e++)
        sums[e / SIDE][e % SIDE] += left[k][row + e / SIDE] * right[k][column + e % SIDE];
  }}
}}
// Call a function for each element of a thread that is inside the matrix: its number, row and
// column, position, and the position in the transposed matrix.
template <class F> __device__ void for_each(const Tile& tile, F function) {{
  #pragma unroll
  for (int e = 0; e < SIDE * SIDE; e++) {{
    const long long i = tile.row + threadIdx.x / (TILE / SIDE) * SIDE + e / SIDE;
    const long long j = tile.column + threadIdx.x % (TILE / SIDE) * SIDE + e % SIDE;
    if (i < tile.n && j < tile.n)
      function(e, i, j, tile.start + i * tile.n + j, tile.start + j * tile.n + i);
  }}
}}
"""
# The first `n_upper` tiles are those on and above the diagonals. Of symmetric matrices, only these
# are computed, and stored twice.
_STEPS = """(T* gram, T* work, T* parts, const long long* places, const T* numbers, const T* rates,
    long long stride, long long n_upper, long long n_tiles, long long n_numbers, long long n_steps,
    long long is_tight) {
  __shared__ __align__(16) T left[DEPTH][TILE], right[DEPTH][TILE];
  __shared__ T shared[THREADS];
  T sums[SIDE][SIDE];
  const cooperative_groups::grid_group grid = cooperative_groups::this_grid();
  const Tile* tiles = (const Tile*)places;
  T *step = work, *product = work + n_numbers;
  T *total = work + 2 * n_numbers, *next = work + 3 * n_numbers, *bounds = parts + n_upper;
  const T* factors = numbers + 3 * n_steps;
  // Divide G by its trace, which is a bound of its eigenvalues, and compute its square.
  for (long long k = blockIdx.x; k < n_upper; k += gridDim.x) {
    const Tile tile = tiles[k];
    T bound = 0, squares = 0;
    for (long long i = threadIdx.x; i < tile.n; i += THREADS)
      bound += gram[tile.start + i * (tile.n + 1)];
    bound = reduce<Sum, THREADS, 1>(bound, shared) + (T)1e-14;
    multiply(gram, gram, tile, 1 / bound, sums, left, right);
    for_each(tile, [&](int e, long long i, long long j, long long at, long long mirrored) {
      if (i > j) return;
      const T value = sums[e / SIDE][e % SIDE];
      product[at] = product[mirrored] = value;
      squares += (i < j ? 2 : 1) * value * value;
    });
    squares = reduce<Sum, THREADS, 1>(squares, shared);
    if (threadIdx.x == 0) parts[k] = squares;
    if (threadIdx.x == 0 && k == tile.first) bounds[tile.matrix] = bound;
  }
  grid.sync();
  // The norm of the square is a tighter bound. The first P is also the first product.
  for (long long k = blockIdx.x; k < n_tiles; k += gridDim.x) {
    const Tile tile = tiles[k];
    const T bound = bounds[tile.matrix];
    T squares = 0, root = 1;
    if (is_tight) {
      for (long long i = threadIdx.x; i < tile.count; i += THREADS)
        squares += parts[tile.first + i];
      root = sqrt(sqrt(reduce<Sum, THREADS, 1>(squares, shared))) + (T)1e-7;
    }
    const T size = factors[tile.matrix] * rates[tile.model * stride];
    const T factor = -size / sqrt(bound * root);
    for_each(tile, [&](int e, long long i, long long j, long long at, long long mirrored) {
      const T value = gram[at] / bound / root, square = product[at] / root / root;
      gram[at] = value;
      step[at] = (i == j ? numbers[0] : (T)0) + numbers[1] * value + numbers[2] * square;
      total[at] = factor * step[at];
    });
  }
  for (int s = 1; s < n_steps; s++) {
    // P G, and for all but the first P, the product of all P so far.
    grid.sync();
    for (long long k = blockIdx.x; k < (s > 1 ? 2 : 1) * n_tiles; k += gridDim.x) {
      const bool is_total = k >= n_tiles;
      const Tile tile = tiles[is_total ? k - n_tiles : k];
      multiply(is_total ? step : gram, is_total ? total : step, tile, 1, sums, left, right);
      T* out = is_total ? next : product;
      for_each(tile, [&](int e, long long i, long long j, long long at, long long mirrored) {
        out[at] = sums[e / SIDE][e % SIDE];
      });
    }
    if (s > 1) { T* last = total; total = next; next = last; }
    grid.sync();
    // G becomes P G P.
    for (long long k = blockIdx.x; k < n_upper; k += gridDim.x) {
      const Tile tile = tiles[k];
      multiply(step, product, tile, 1, sums, left, right);
      for_each(tile, [&](int e, long long i, long long j, long long at, long long mirrored) {
        if (i <= j) gram[at] = gram[mirrored] = sums[e / SIDE][e % SIDE];
      });
    }
    grid.sync();
    const T *own = numbers + 3 * s;
    for (long long k = blockIdx.x; k < n_upper; k += gridDim.x) {
      const Tile tile = tiles[k];
      multiply(gram, gram, tile, 1, sums, left, right);
      for_each(tile, [&](int e, long long i, long long j, long long at, long long mirrored) {
        if (i > j) return;
        const T square = sums[e / SIDE][e % SIDE];
        const T value = (i == j ? own[0] : (T)0) + own[1] * gram[at] + own[2] * square;
        step[at] = step[mirrored] = value;
      });
    }
  }
  if (n_steps == 1) return;
  grid.sync();
  for (long long k = blockIdx.x; k < n_tiles; k += gridDim.x) {
    const Tile tile = tiles[k];
    multiply(step, total, tile, 1, sums, left, right);
    for_each(tile, [&](int e, long long i, long long j, long long at, long long mirrored) {
      next[at] = sums[e / SIDE][e % SIDE];
    });
  }
}"""


@kernel(*((dtype,) for dtype in FLOATS))
def _steps_kernel(dtype: str) -> Any:
    name, types = "mlp_xp_orthogonalize", {"T": dtype}
    return raw_kernel(name, _STEPS, types, (), _PRODUCT, n_blocks=_BLOCKS[np.dtype(dtype).char])


class _Places(NamedTuple):
    """Where the Gram matrices of each parameter begin, and the tiles that blocks compute."""

    starts: tuple[int, ...]
    n_numbers: int
    n_matrices: int
    n_upper: int
    tiles: Any


@cache
def _places(sizes: tuple[tuple[int, int], ...], n_models: int, device: int) -> _Places:
    """Return the layout; ``sizes`` contains each parameter's number of matrices and their width."""
    starts, matrices, end = list[int](), list[tuple[int, ...]](), 0
    for count, n in sizes:
        starts.append(end)
        matrices += [(end + k * n * n, n, k * n_models // count) for k in range(count)]
        end += blocks_for(count * n * n, _ALIGNMENT) * _ALIGNMENT
    upper, lower = list[tuple[int, ...]](), list[tuple[int, ...]]()
    for matrix, (start, n, model) in enumerate(matrices):
        side = range(0, n, _TILE)
        own = matrix, model, len(upper), len(side) * (len(side) + 1) // 2
        for i in side:
            for j in side:
                (upper if i <= j else lower).append((start, n, i, j, *own))
    tiles = cupy.asarray(np.array(upper + lower, np.int64))
    return _Places(tuple(starts), end, len(matrices), len(upper), tiles)


@cache
def _numbers(values: tuple[float, ...], dtype: str, device: int) -> Any:
    return cupy.asarray(np.array(values, dtype))


@cache
def _most_blocks(device: int, dtype: str) -> int:
    return _BLOCKS[dtype] * int(cupy.cuda.Device(device).attributes["MultiProcessorCount"])


@cache
def _can_wait(device: int) -> bool:
    """Whether the blocks of a launch can wait for each other."""
    return bool(cupy.cuda.Device(device).attributes["CooperativeLaunch"])


def can_orthogonalize(rule: Any) -> bool:
    """Whether a rule's updates are orthogonal matrices that `orthogonalize` can compute."""
    return type(rule) is Muon and rule.ns_steps <= _MOST_STEPS


def orthogonalize(
    rule: Muon, members: Sequence[tuple[Any, Any]], rate: Any, n_models: int, *, xp: Namespace
) -> None:
    """Update parameters along the orthogonal matrices that are closest to the given directions.

    ``members`` are the parameters and directions. ``rate`` is a 0-d array, or has the learning rate
    of each model. The matrices of wide parameters are computed one by one.
    """
    widest = WIDEST if _can_wait(cupy.cuda.runtime.getDevice()) else 0
    small = [(p, D) for p, D in members if p.size and min(p.shape[-2:]) <= widest]
    wide = [(p, D) for p, D in members if min(p.shape[-2:]) > widest]
    if small:
        _move_small(rule, small, rate, n_models)
    for p, D in wide:
        rule.move(p, D, for_axes(rate, p.ndim, xp=xp), xp=xp)


def _move_small(rule: Muon, members: Sequence[tuple[Any, Any]], rate: Any, n_models: int) -> None:
    device, dtype = cupy.cuda.runtime.getDevice(), members[0][1].dtype
    counts = [int(np.prod(D.shape[:-2])) for _, D in members]
    sizes = tuple((n, min(D.shape[-2:])) for n, (_, D) in zip(counts, members, strict=True))
    places = _places(sizes, n_models, device)
    polynomials = rule.polynomials
    values = [number for abc in polynomials for number in abc]
    for n, (_, D) in zip(counts, members, strict=True):
        values += [rule.factor(*D.shape[-2:])] * n
    numbers = _numbers(tuple(values), dtype.str, device)
    if rate.dtype != dtype:
        rate = rate.astype(dtype)
    stride = rate.strides[0] // rate.itemsize if rate.ndim else 0
    gram = cupy.empty(places.n_numbers, dtype)
    work = cupy.empty((4, places.n_numbers), dtype)
    parts = cupy.empty(places.n_upper + places.n_matrices, dtype)
    for (_, D), start in zip(members, places.starts, strict=True):
        a, b = (D, D.swapaxes(-1, -2)) if _is_wide(D) else (D.swapaxes(-1, -2), D)
        out = _part(gram, start, D)
        if multiply(a, b, out=out) is None:
            out[...] = a @ b
    counts = [places.n_upper, len(places.tiles), places.n_numbers, len(polynomials)]
    integers = stride, *counts, int(rule.is_tight)
    arguments = gram, work, parts, places.tiles, numbers, rate, *map(np.int64, integers)
    # A cooperative launch fails unless all blocks run at once.
    n_blocks = min(2 * len(places.tiles), _most_blocks(device, dtype.char))
    _steps_kernel(dtype.str).kernel(
        (n_blocks,), (THREADS,), arguments, enable_cooperative_groups=True
    )
    total = work[2 + (len(polynomials) + 1) % 2]
    for (params, D), start in zip(members, places.starts, strict=True):
        T = _part(total, start, D)
        a, b = (T, D) if _is_wide(D) else (D, T.swapaxes(-1, -2))
        if multiply(a, b, out=params, is_added=True) is None:
            params += a @ b


def _is_wide(D: Any) -> bool:
    return bool(D.shape[-2] <= D.shape[-1])


def _part(numbers: Any, start: int, D: Any) -> Any:
    """Return the square matrices, as wide as the shorter side of D, that begin at a position."""
    shape = *D.shape[:-2], *[min(D.shape[-2:])] * 2
    return numbers[start : start + int(np.prod(shape))].reshape(shape)
