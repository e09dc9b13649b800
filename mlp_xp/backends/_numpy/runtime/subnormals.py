"""Flush subnormal numbers to zero, since many processors compute them up to 100 times as slowly.

Long after convergence, Adam's moments become subnormal. NumPy has no setting for this, so the C
library's ``fesetenv`` sets the mode of the current thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import platform
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

# For each platform: the position of the control register in the C library's `fenv_t`, in 32-bit
# words, and the bits to set: flush-to-zero and denormals-are-zero in x86's MXCSR, or flush-to-zero
# in ARM's FPCR.
_REGISTERS = {
    ("linux", "x86_64"): (7, 0x8040),
    ("linux", "aarch64"): (0, 1 << 24),
    ("darwin", "arm64"): (2, 1 << 24),
    ("darwin", "x86_64"): (1, 0x8040),
}
_Environment = ctypes.c_uint32 * 16


@contextlib.contextmanager
def flush_subnormals() -> Iterator[None]:
    """Flush subnormal numbers to zero in this thread within the context, if supported."""
    register = _register()
    if register is None:
        yield
        return
    word, bits = register
    library, saved, flushing = _c_library(), _Environment(), _Environment()
    library.fegetenv(saved)
    library.fegetenv(flushing)
    flushing[word] |= bits
    library.fesetenv(flushing)
    try:
        yield
    finally:
        library.fesetenv(saved)


def in_this_mode(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function to run in a new thread in this thread's mode.

    On Linux, a new thread inherits the mode of the thread that starts it; on macOS, it does not.
    """
    if _register() is None:
        return function
    library, mode = _c_library(), _Environment()
    library.fegetenv(mode)

    def run(*args: Any) -> None:
        library.fesetenv(mode)
        function(*args)

    return run


def _register() -> tuple[int, int] | None:
    return _REGISTERS.get((sys.platform, platform.machine()))


@functools.cache
def _c_library() -> ctypes.CDLL:
    for name in ("float16", "float32", "float64"):
        # Fill NumPy's cache: in the new mode, NumPy would warn that the smallest number is 0.
        np.finfo(name)
    return ctypes.CDLL(None)
