"""Steps that NumPy compiles: traced once, then run without allocations.

The first call of a compiled function runs it on `Traced` arrays, which do NumPy's operations for
real and record them, and undoes what it did to the state. The result is a straight `Program`:
NumPy's functions with an ``out=`` each, their operands fixed, and tables of jobs in machine code.
This call and later ones run only the program. A buffer returns to a pool when its last array dies,
so that later operations find it still in the caches.

The rules of JAX's ``jit`` hold: the function must be pure, it may depend on shapes but on no
values, and a Python value is fixed at the first call. A function that asks for a value, or does
what is unknown here, is run as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlp_xp._utils.tree import leaves, rebuild
from mlp_xp.backends._numpy.jobs import MachineCodeError
from mlp_xp.backends._numpy.program import Program
from mlp_xp.backends._numpy.thread_pool import has_pool, runner
from mlp_xp.backends._numpy.traced import STEP, Traced

__all__ = ["CompiledLoop", "CompiledStep"]

# Programs that a compiled step keeps, the latest ones: each holds memory of its own.
_MOST_PROGRAMS = 8


class _Compiled:
    """Programs, one for each shape of the arguments, and the memory they share.

    For one user at a time: the state that is returned is always in the same memory.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._state: Any = None
        self._programs: list[Program] = []
        self._pool: list[np.ndarray] = []
        self.is_traceable = True

    def _run(self, start: int, stop: int, state: Any, arguments: Any, flat: list[Any]) -> Any:
        if not self.is_traceable:
            return self._run_untraced(start, stop, state, arguments)
        if state is not self._state:
            self._adopt(state)
        has_jobs = has_pool()
        for program in self._programs:
            if program.has_jobs == has_jobs and program.accepts(flat):
                break
        else:
            written = self._write(arguments, flat)
            if written is None:
                return self._run_untraced(start, stop, self._state, arguments)
            program = written
            self._programs = [*self._programs[1 - _MOST_PROGRAMS :], program]
        program.run(runner(), start, stop)
        return self._state

    def _run_untraced(self, start: int, stop: int, state: Any, arguments: Any) -> Any:
        for i in range(start, stop):
            state = self._call(i, state, arguments)
        return state

    def _call(self, step: Any, state: Any, arguments: Any) -> Any:
        """Call the function for a step."""
        raise NotImplementedError

    def _adopt(self, state: Any) -> None:
        """Copy another state into our memory if it fits, else restart with new programs."""
        new = list(leaves(state))
        if self._state is not None:
            old = list(leaves(self._state))
            if [(leaf.shape, leaf.dtype) for leaf in new] == [(o.shape, o.dtype) for o in old]:
                for mine, leaf in zip(old, new, strict=True):
                    if mine is not leaf:
                        mine[...] = leaf
                return
        self._programs, self._pool = [], []
        # It was donated: its memory is ours.
        self._state = rebuild(state, [np.asarray(leaf, order="C") for leaf in new])

    def _write(self, arguments: Any, flat: list[Any]) -> Program | None:
        """Return a new program, or None where the function cannot be traced."""
        program = Program(self._pool, list(leaves(self._state)))
        try:
            state = rebuild(self._state, [Traced(program, leaf) for leaf in leaves(self._state)])
            # Jobs are left to the program: after one, a trace has meaningless numbers.
            with np.errstate(all="ignore"):
                new = self._call(STEP, state, rebuild(arguments, program.take(flat)))
            program.finish(state, new)
            return program
        except MachineCodeError:
            program.undo()
            return self._write(arguments, flat)  # Without jobs from now on.
        except Exception:  # A mistake in a function shows when it is run as it is.
            self.is_traceable = False
            return None
        finally:
            program.undo()


class CompiledStep(_Compiled):
    """A pure function ``function(state, *arguments) -> state``, compiled at its first call."""

    def __call__(self, state: Any, *arguments: Any) -> Any:
        # As `leaves`, but faster: this is done at each step.
        flat: list[Any] = []
        for argument in arguments:
            if isinstance(argument, tuple):
                # The samples of a batch come first, and may be sparse; its draws are the fifth.
                trees = argument[:1] + argument[4:5]
                nested = any(isinstance(tree, tuple) for tree in trees)
                flat.extend(leaves(argument) if nested else argument)
            else:
                flat.append(argument)
        return self._run(0, 1, state, arguments, flat)

    def _call(self, step: Any, state: Any, arguments: Any) -> Any:
        return self._function(state, *arguments)


class CompiledLoop(_Compiled):
    """Many steps of a pure function ``function(i, state, *arguments) -> state``.

    The function reads the inputs of a step by its number, as ``argument[i, ...]``.
    """

    def __call__(self, start: int, stop: int, state: Any, *arguments: Any) -> Any:
        return self._run(start, stop, state, arguments, list(leaves(arguments)))

    def _call(self, step: Any, state: Any, arguments: Any) -> Any:
        return self._function(step, state, *arguments)
