"""Kernels that process all arrays of a tree in one launch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from mlp_xp.backends._cupy.kernels.rendering import blocks_for
from mlp_xp.compiler.print_cuda import THREADS

# Array elements per block; small blocks keep a large GPU busy even with a small network.
_PIECE = 2048
# The maximum number of arrays per tree in a launch, since CUDA limits kernel arguments to 4 KB.
MOST_ARRAYS = 64
# A thread loads and stores a few numbers at once, 16 bytes where addresses allow it: this takes a
# quarter of the instructions, see "CUDA Pro Tip: Increase Performance with Vectorized Memory
# Access" (NVIDIA, 2013). The indices of `at` must be known when loops are unrolled, since registers
# have none.
PACKS = """
template <class T> struct alignas(WIDTH * sizeof(T) < 16 ? WIDTH * sizeof(T) : 16) Pack {
  T at[WIDTH];
};
template <class T> __device__ Pack<T> load(const T* x, int n, bool is_whole) {
  if (is_whole) return *(const Pack<T>*)x;
  Pack<T> pack = {};
  #pragma unroll
  for (int k = 0; k < WIDTH; k++) if (k < n) pack.at[k] = x[k];
  return pack;
}
template <class T> __device__ void store(T* x, const Pack<T>& pack, int n, bool is_whole) {
  if (is_whole) { *(Pack<T>*)x = pack; return; }
  #pragma unroll
  for (int k = 0; k < WIDTH; k++) if (k < n) x[k] = pack.at[k];
}
"""


def width_of(dtypes: Iterable[str]) -> int:
    """Return how many numbers a thread loads at once."""
    return 2 if any(np.dtype(dtype).itemsize == 8 for dtype in dtypes) else 4


def multi_tensor(
    scalars: str,
    reads: dict[str, str],
    writes: dict[str, str],
    marks: tuple[int, ...],
    loop: str,
    prologue: str = "",
    epilogue: str = "",
) -> str:
    """Return C code, for `raw_kernel`, that loops over all arrays of the trees.

    ``scalars`` are the first parameters. ``reads`` and ``writes`` map each tree's name (e.g.
    parameters, gradients) to a C type. ``marks`` has a number for each leaf, which the code reads
    as ``mark``. The code of ``prologue`` runs before a block's loop, and ``epilogue`` after it. The
    code of ``loop`` computes the element ``i``: it reads the values by their names, and writes to
    ``new_NAME``. Each leaf has equal parts for all models; a block computes part ``first + block``
    of a ``model``.
    """
    fields = {
        name: f"{kind}*" if name in writes else f"const {kind}* __restrict__"
        for name, kind in (reads | writes).items()
    }
    parameters = [*([scalars] if scalars else []), "long long n_models"]
    choices, has_marks = [], bool(re.search(r"\bmark\b", loop))
    for k, mark in enumerate(marks):
        parameters += [f"{kind} {name}_leaf{k}" for name, kind in fields.items()]
        parameters.append(f"long long n{k}")
        chosen = " ".join(f"of_{name} = {name}_leaf{k} + model * n;" for name in fields)
        chosen += f" mark = {mark};" if has_marks else ""
        choices.append(
            f"  if (n == 0) {{ const long long blocks = (n{k} + {_PIECE} - 1) / {_PIECE}; "
            f"if (block < blocks * n_models) {{ n = n{k}; model = block / blocks; block %= blocks; "
            f"{chosen} }} else {{ block -= blocks * n_models; first += blocks; }} }}"
        )
    pointers = " ".join(f"{kind} of_{name} = 0;" for name, kind in fields.items())
    loads = {name: f"load(of_{name} + start, count, is_whole)" for name in reads}
    packs = {name: f"Pack<{kind}> pack_{name} = " for name, kind in (reads | writes).items()}
    return "\n".join(
        (
            f"({', '.join(parameters)}) {{",
            "  long long block = blockIdx.x, model = 0, first = 0, n = 0;",
            f"  {pointers}{' int mark = 0;' if has_marks else ''}",
            *choices,
            "  const bool is_aligned = "
            f"({' | '.join(f'(unsigned long long)of_{name}' for name in fields)}) % 16 == 0;",
            prologue,
            f"  long long stop = (block + 1) * {_PIECE};",
            "  if (stop > n) stop = n;",
            f"  for (long long start = block * {_PIECE} + threadIdx.x * WIDTH; start < stop; "
            "start += THREADS * WIDTH) {",
            "    const int count = stop - start < WIDTH ? (int)(stop - start) : WIDTH;",
            "    const bool is_whole = is_aligned && count == WIDTH;",
            *(f"    {packs[name]}{loads.get(name, '{}')};" for name in packs),
            "    #pragma unroll",
            "    for (int k = 0; k < WIDTH; k++) if (k < count) {",
            *(["      const long long i = start + k;"] if re.search(r"\bi\b", loop) else []),
            *(f"      const {kind} {name} = pack_{name}.at[k];" for name, kind in reads.items()),
            *(f"      {kind}& new_{name} = pack_{name}.at[k];" for name, kind in writes.items()),
            loop,
            "    }",
            *(f"    store(of_{name} + start, pack_{name}, count, is_whole);" for name in writes),
            "  }",
            epilogue,
            "}",
        )
    )


def parts_of(members: list[tuple[Any, ...]], n_models: int = 1) -> int:
    """Return the number of parts into which a model's arrays are split, one per thread block."""
    return sum(blocks_for(arrays[0].size // n_models, _PIECE) for arrays in members)


def launch(
    kernel_of: Callable[[slice], Any],
    scalars_of: Callable[[int], tuple[Any, ...]],
    members: list[tuple[Any, ...]],
    n_models: int = 1,
) -> None:
    """Launch a kernel over all leaves of the trees, several times if there are many leaves.

    ``members`` has a tuple of arrays for each leaf: one array per tree, with equal parts for each
    model. ``kernel_of`` returns the kernel for a slice of the members; ``scalars_of`` returns the
    scalar arguments, given the number of a model's parts in earlier launches.
    """
    first = 0
    for start in range(0, len(members), MOST_ARRAYS):
        some = slice(start, start + MOST_ARRAYS)
        n_parts = parts_of(members[some], n_models)
        if n_parts:
            arguments = [*scalars_of(first), np.int64(n_models)]
            for arrays in members[some]:
                arguments += [*arrays, np.int64(arrays[0].size // n_models)]
            kernel_of(some)((n_parts * n_models,), (THREADS,), tuple(arguments))
        first += n_parts
