"""Kernels that process all arrays of a tree in one launch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlp_xp.backends._cupy.kernels.rendering import blocks_for
from mlp_xp.compiler.print_cuda import THREADS

# Array elements per block; small blocks keep a large GPU busy even with a small network.
_PIECE = 2048
# The maximum number of arrays per tree in a launch, since CUDA limits kernel arguments to 4 KB.
MOST_ARRAYS = 64


def multi_tensor(
    scalars: str,
    fields: dict[str, str],
    marks: tuple[int, ...],
    prologue: str,
    loop: str,
    epilogue: str,
) -> str:
    """Return the C code of a kernel that loops over all arrays of some trees, for `raw_kernel`.

    ``scalars`` are the first parameters. ``fields`` maps each tree's name (e.g. parameters,
    gradients) to a C pointer type. ``marks`` has a number for each leaf, which the code reads as
    ``mark``. The code of ``prologue`` runs before a block's loop, ``loop`` for each element ``i``
    of an array with ``n`` elements, and ``epilogue`` after the loop.
    """
    parameters = [scalars]
    choices = []
    for k, mark in enumerate(marks):
        parameters += [f"{kind} {name}{k}" for name, kind in fields.items()]
        parameters.append(f"long long n{k}")
        chosen = " ".join(f"{name} = {name}{k};" for name in fields)
        choices.append(
            f"  if (n == 0) {{ const long long blocks = (n{k} + {_PIECE} - 1) / {_PIECE}; "
            f"if (block < blocks) {{ n = n{k}; mark = {mark}; {chosen} }} "
            "else block -= blocks; }"
        )
    pointers = " ".join(f"{kind} {name} = 0;" for name, kind in fields.items())
    return "\n".join(
        (
            f"({', '.join(parameters)}) {{",
            "  long long block = blockIdx.x, n = 0;",
            f"  int mark = 0; {pointers}",
            *choices,
            prologue,
            f"  long long stop = (block + 1) * {_PIECE};",
            "  if (stop > n) stop = n;",
            f"  for (long long i = block * {_PIECE} + threadIdx.x; i < stop; i += THREADS) {{",
            loop,
            "  }",
            epilogue,
            "}",
        )
    )


def blocks_of(members: list[tuple[Any, ...]]) -> int:
    """Return the number of blocks for a launch over these arrays."""
    return sum(blocks_for(arrays[0].size, _PIECE) for arrays in members)


def launch(
    kernel_of: Callable[[slice], Any],
    scalars_of: Callable[[slice], tuple[Any, ...]],
    members: list[tuple[Any, ...]],
) -> None:
    """Launch a kernel over all leaves of some trees, in several launches if there are many leaves.

    ``members`` has a tuple of arrays for each leaf: one array per tree. ``kernel_of`` returns the
    kernel for a slice of the members; ``scalars_of`` returns the scalar arguments for a slice of
    the blocks, which are numbered across launches.
    """
    first = 0
    for start in range(0, len(members), MOST_ARRAYS):
        some = slice(start, start + MOST_ARRAYS)
        n_blocks = blocks_of(members[some])
        if n_blocks:
            arguments = list(scalars_of(slice(first, first + n_blocks)))
            for arrays in members[some]:
                arguments += [*arrays, np.int64(arrays[0].size)]
            kernel_of(some)((n_blocks,), (THREADS,), tuple(arguments))
        first += n_blocks
