"""The formulas' loops used by this process; `machine_code` compiles them."""

from __future__ import annotations

from mlp_xp._utils.signals.forks import fork_safe_lock
from mlp_xp.compiler.kernel import Kernel
from mlp_xp.compiler.print_cpu import Loop, print_kernel

# Kernel calls refer to loops by their position.
LOOPS: list[Loop] = []
_positions: dict[str, int] = {}
_lock = fork_safe_lock()


def position_of(kernel: Kernel) -> int:
    """Return the position of a kernel's loop in `LOOPS`; add the loop if it is new."""
    loop = print_kernel(kernel)
    with _lock:
        if loop.name not in _positions:
            _positions[loop.name] = len(LOOPS)
            LOOPS.append(loop)
        return _positions[loop.name]
