"""Ctrl-C, SIGTERM and forks, none of which may interrupt a training step.

`training.loop` ends a fit on request.
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
