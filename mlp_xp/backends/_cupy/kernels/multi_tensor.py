"""Kernels that go over all arrays of a tree in one launch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlp_xp.backends._cupy.kernels.rendering import THREADS, blocks_for

# Numbers per block; small pieces keep a large device busy even with a small network.
_PIECE = 2048
# The maximum number of arrays per tree in one launch, since a kernel's arguments are limited to 4
# KB.
MOST_ARRAYS = 64


def multi_tensor(
    scalars: str,
    fields: dict[str, str],
    marks: tuple[bool, ...],
    prologue: str,
    loop: str,
    epilogue: str,
) -> str:
    """Return the parameters and the body of a kernel that walks over trees, for `raw_kernel`.

    ``scalars`` are the first parameters. ``fields`` maps names to C types of pointers: each member
    of the trees has one array per field, of ``n`` numbers, and its entry of ``marks`` is ``mark``
    in the source. Prologue, loop and epilogue are the statements before a block's loop, for each
    number ``i`` of an array, and after the loop.
    """
    parameters = [scalars]
    choices = []
    for k, mark in enumerate(marks):
        parameters += [f"{kind} {name}{k}" for name, kind in fields.items()]
        parameters.append(f"long long n{k}")
        chosen = " ".join(f"{name} = {name}{k};" for name in fields)
        choices.append(
            f"  if (n == 0) {{ const long long blocks = (n{k} + {_PIECE} - 1) / {_PIECE}; "
            f"if (block < blocks) {{ n = n{k}; mark = {int(mark)}; {chosen} }} "
            "else block -= blocks; }"
        )
    pointers = " ".join(f"{kind} {name} = 0;" for name, kind in fields.items())
    return "\n".join(
        (
            f"({', '.join(parameters)}) {{",
            "  long long block = blockIdx.x, n = 0;",
            f"  bool mark = false; {pointers}",
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
    """Return the blocks of a launch over the members of trees."""
    return sum(blocks_for(arrays[0].size, _PIECE) for arrays in members)


def launch(
    kernel_of: Callable[[slice], Any],
    scalars_of: Callable[[slice], tuple[Any, ...]],
    members: list[tuple[Any, ...]],
) -> None:
    """Launch a kernel over the members of trees, more than once if they exceed one launch.

    ``kernel_of`` returns the kernel for a slice of the members, ``scalars_of`` the first arguments
    for a slice of the blocks of all launches together. A member has one array per field.
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
