"""The loops of formulas that this process has used; `machine_code` compiles them."""

from __future__ import annotations

from mlp_xp.compiler.print_cpu import Loop

# Kernel calls refer to loops by their position.
LOOPS: list[Loop] = []
_positions: dict[str, int] = {}


def position_of(loop: Loop) -> int:
    """Return the position of a loop, which is added if no loop has its text."""
    if loop.name not in _positions:
        LOOPS.append(loop)
        _positions[loop.name] = len(LOOPS) - 1
    return _positions[loop.name]
