"""Handle Ctrl-C, SIGTERM and forks without interrupting a training step.

Handlers only set flags; `training.loop` reads them and ends the fit.
"""

from __future__ import annotations

from mlp_xp._utils.signals.interrupts import (
    ctrl_c_pressed,
    interruptible,
    interrupts,
    postponed,
    terminations,
)

__all__ = ["ctrl_c_pressed", "interruptible", "interrupts", "postponed", "terminations"]
