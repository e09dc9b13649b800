"""Compile steps for NumPy: trace them once, then run them without allocations.

The first call traces the function with `Traced` arrays, which execute and record NumPy's
operations, and then restores the state. The trace is a straight-line `Program`: NumPy functions
with ``out=`` and fixed operands, and tables of calls to machine code. All calls, including the
first, run this program. When the last array in a buffer is freed, the buffer returns to a pool.
Later operations reuse the buffer while it is in the caches.

The rules of JAX's ``jit`` apply: the function must be pure, it may depend on shapes but not on
values, and a Python value is fixed at the first call. A function that needs values or uses
unsupported operations runs without a program.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from mlp_xp._utils.signals.forks import between_forks
from mlp_xp._utils.tree import leaves, rebuild
from mlp_xp.backends._numpy.runtime.memory import joined
from mlp_xp.backends._numpy.runtime.thread_pool import has_pool, machine_code_error, runner
from mlp_xp.backends._numpy.tracing.program import Program
from mlp_xp.backends._numpy.tracing.traced import STEP, Traced

# The maximum number of programs that a compiled step keeps, with their memory.
_MOST_PROGRAMS = 8
# The maximum number of idle plans that a thread keeps, and their maximum size in bytes. Reusing a
# plan saves tracing, which takes about as long as running the step 20 times.
_MOST_IDLE, _SMALL_PLAN = 4, 1 << 21


class _Plan:
    """A function's compiled programs, one per set of argument shapes, and their memory.

    Only one fit at a time may use a plan, since every call returns the state in the same memory.
    """

    def __init__(self) -> None:
        self.state: Any = None
        self.leaves: list[np.ndarray] = []  # The leaves of the state.
        self.programs: list[Program] = []
        self.pool: list[np.ndarray] = []
        self.is_traceable = True

    def adopt(self, state: Any, *, stays: bool) -> None:
        """Copy a new state to the plan's memory if shapes match; otherwise discard all programs.

        After discarding its programs, the plan uses the new state's memory. Unless ``stays`` is
        True, small arrays are first joined.
        """
        new = leaves(state)
        if len(new) == len(self.leaves):
            moved = [pair for pair in zip(self.leaves, new, strict=True) if pair[0] is not pair[1]]
            if all(mine.shape == leaf.shape and mine.dtype == leaf.dtype for mine, leaf in moved):
                for mine, leaf in moved:
                    mine[...] = leaf
                return
        self.programs, self.pool = [], []
        # The caller donated the state, so its memory can be reused.
        self.leaves = [np.asarray(leaf, order="C") for leaf in new] if stays else joined(new)
        self.state = rebuild(state, self.leaves)

    def without(self, state: Any) -> Any:
        """Return a state in which arrays in the plan's memory are replaced by copies."""
        mine = set(map(id, self.leaves))
        return rebuild(state, [x.copy() if id(x) in mine else x for x in leaves(state)])

    @property
    def n_bytes(self) -> int:
        """The size of the plan's memory in bytes, excluding small arguments."""
        return sum(array.nbytes for array in (*self.leaves, *self.pool))


class _Idle(threading.local):
    """The thread's idle plans, with their classes and functions; the most recent plan is last."""

    def __init__(self) -> None:
        self.plans: list[tuple[type, Callable[..., Any], _Plan]] = []


_idle = _Idle()


class Compiled:
    """A compiled function that owns a plan from its first call until `release`."""

    state_stays: ClassVar[bool] = False

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._plan: _Plan | None = None

    @property
    def is_traceable(self) -> bool:
        """Whether calls run a program instead of the Python function."""
        return self._plan is None or self._plan.is_traceable

    @property
    def programs(self) -> list[Program]:
        """The programs compiled so far, one per set of argument shapes."""
        return [] if self._plan is None else self._plan.programs

    def release(self, state: Any) -> Any:
        """Return the state in separate memory; keep a small plan for reuse by an equal function."""
        plan, self._plan = self._plan, None
        if plan is None or not plan.programs or plan.n_bytes > _SMALL_PLAN:
            return state
        state = plan.without(state)
        _idle.plans = [*_idle.plans[1 - _MOST_IDLE :], (type(self), self._function, plan)]
        return state

    def _find_plan(self) -> _Plan:
        for i, (kind, function, plan) in enumerate(_idle.plans):
            if kind is type(self) and function is self._function:
                del _idle.plans[i]
                return plan
        return _Plan()

    @between_forks
    def _run(self, start: int, stop: int, state: Any, arguments: Any, flat: list[Any]) -> Any:
        state, program = self._prepare(state, arguments, flat)
        if program is None:
            return self._run_untraced(start, stop, state, arguments)
        program.run(runner(), start, stop)
        return state

    def _prepare(self, state: Any, arguments: Any, flat: list[Any]) -> tuple[Any, Program | None]:
        """Return the state in the plan's memory, and the program for the arguments, or None."""
        plan = self._plan
        if plan is None:
            plan = self._plan = self._find_plan()
        if not plan.is_traceable:
            return state, None
        if state is not plan.state:
            plan.adopt(state, stays=self.state_stays)
        has_tasks = has_pool()
        for program in plan.programs:
            if program.has_tasks == has_tasks and program.accepts(flat):
                return plan.state, program
        written = self._write(plan, arguments, flat)
        if written is not None:
            plan.programs = [*plan.programs[1 - _MOST_PROGRAMS :], written]
        return plan.state, written

    def _run_untraced(self, start: int, stop: int, state: Any, arguments: Any) -> Any:
        for i in range(start, stop):
            state = self._call(i, state, arguments)
        return state

    def _call(self, step: Any, state: Any, arguments: Any) -> Any:
        """Call the traced function for one step."""
        raise NotImplementedError

    def _write(self, plan: _Plan, arguments: Any, flat: list[Any]) -> Program | None:
        """Trace the function; return a new program, or None if the function cannot be traced."""
        program = Program(plan.pool, plan.leaves)
        try:
            state = rebuild(plan.state, [Traced(program, leaf) for leaf in plan.leaves])
            # Machine code does not run during tracing, so values and warnings are meaningless.
            with np.errstate(all="ignore"):
                new = self._call(STEP, state, rebuild(arguments, program.take(flat)))
            program.finish(state, new)
        except machine_code_error() as error:
            program.undo()
            self._end_trace(error)
            return self._write(plan, arguments, flat)  # Try again without machine code.
        except Exception as error:  # Errors of the function will recur in the untraced call.
            self._end_trace(error)
            plan.is_traceable = False
            return None
        finally:
            program.undo()
        self._end_trace(None)
        return program

    def _end_trace(self, error: Exception | None) -> None:
        """Report the end of a trace. The caller gets any exception that this method raises."""


class CompiledStep(Compiled):
    """A pure function ``function(state, *arguments) -> state``, compiled at its first call."""

    def __call__(self, state: Any, *arguments: Any) -> Any:
        return self._run(0, 1, state, arguments, leaves(arguments))

    def _call(self, step: Any, state: Any, arguments: Any) -> Any:
        return self._function(state, *arguments)


class CompiledLoop(Compiled):
    """A compiled loop over a pure function ``function(i, state, *arguments) -> state``.

    In step i, the function reads its inputs as ``argument[i, ...]``.
    """

    def __call__(self, start: int, stop: int, state: Any, *arguments: Any) -> Any:
        return self._run(start, stop, state, arguments, leaves(arguments))

    @between_forks
    def run_ranges(
        self, ranges: Sequence[tuple[int, int, int]], state: Any, parts: Sequence[tuple[Any, ...]]
    ) -> Any:
        """Run step ranges in order, if possible in one call of machine code.

        A range is (part, start, stop); ``parts`` contains the arguments of each part, e.g. each
        epoch.
        """
        programs, found = [], []
        for arguments in parts if has_pool() else ():
            state, program = self._prepare(state, arguments, leaves(arguments))
            programs.append(program)
        for part, start, stop in ranges if programs else ():
            program = programs[part]
            table = None if program is None else program.step_range(start, stop)
            found += [] if table is None else [table]
        if len(found) == len(ranges):
            runner()(np.concatenate(found))
            return state
        for part, start, stop in ranges:
            state = self(start, stop, state, *parts[part])
        return state

    def _call(self, step: Any, state: Any, arguments: Any) -> Any:
        return self._function(step, state, *arguments)
