"""A compiled step's program: straight-line Python code, recorded from traced arrays.

Operations are recorded through NumPy's protocols `__array_ufunc__` and `__array_function__`. Each
line of the program calls a function with ``out=``, or runs a table of calls to machine code.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from types import CodeType
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_xp._utils.tree import leaves
from mlp_xp.backends._numpy.runtime.memory import empty, in_one_piece
from mlp_xp.backends._numpy.runtime.thread_pool import has_pool, link
from mlp_xp.backends._numpy.tracing.arguments import Arguments
from mlp_xp.backends._numpy.tracing.operations import (
    REDUCTIONS,
    SHAPED_BY_VALUES,
    constant,
    copy_in_order,
    identity_like,
    item,
    or_timed_product,
    take_rows,
)
from mlp_xp.backends._numpy.tracing.tables import Tables
from mlp_xp.backends._numpy.tracing.traced import Finder, Traced, UntraceableError, fixed, value_of

if TYPE_CHECKING:  # Avoid this import in short fits.
    from mlp_xp.backends._numpy.runtime.tasks import Task

# Once the results of pending calls exceed this size in bytes, the calls become rows of a table
# before the next operation that is not elementwise, since chains of loops are merged. Until then,
# the results' buffers cannot be reused.
_KEPT = 1 << 25
# Results with at least this many elements are not computed during tracing, which saves memory:
# buffers that no merged loop writes are never touched.
_LARGE = 1 << 18
# The number of operands of functions without ``out`` that machine code can replace.
_N_OPERANDS = {
    **{np.where: 3, np.take: 2, np.take_along_axis: 2, np.concatenate: 1, np.stack: 1},
    **{np.cumsum: 1, np.argmax: 1, np.argmin: 1},
}


class Program:
    """Straight-line code on fixed memory, for arguments with fixed shapes and dtypes."""

    def __init__(self, pool: list[np.ndarray], state: list[np.ndarray]) -> None:
        self.pool = pool
        self.has_tasks = has_pool()
        self._state = {id(leaf): leaf for leaf in state}
        # Arrays that tracing changes but did not allocate: pairs of (array, copy).
        self._overwritten: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._lines: list[str] = []
        self._names: dict[str, Any] = {}
        self._known: dict[int, str] = {}
        self._tables = Tables()
        self._n_bytes = 0  # The size of all results since the last table, in bytes.
        self._moving: list[tuple[str, Finder]] = []
        self._picks: list[tuple[Traced, np.ndarray]] = []
        self._kept: list[tuple[np.ndarray, np.ndarray]] = []  # Pairs of (target, source).
        self._arguments = Arguments([])
        self._n_steps: float = math.inf  # The number of steps in the arguments.
        self._code: Callable[[Callable[..., None], int, int], None]
        self._steps: np.ndarray | None = None  # None unless each step is a single table of calls.

    # --- arguments -----------------------------------------------------------------------------

    def take(self, arguments: Sequence[Any]) -> list[Any]:
        """Return the arguments of the first call as traced arrays."""
        self._arguments = Arguments(arguments)
        traced: list[Any] = []
        for i, (argument, place) in enumerate(zip(arguments, self._arguments.places, strict=True)):
            if place is not None:
                traced.append(Traced(self, place))
            elif isinstance(argument, np.ndarray):
                traced.append(Traced(self, argument, find_view=operator.itemgetter(i)))
            else:
                traced.append(argument)
        return traced

    def pick(self, given: Traced) -> Traced:
        """Return a traced array to which each step first copies its input."""
        if given.owner.is_pooled or id(given.owner.value) in self._state:
            raise UntraceableError("The inputs of a step must be arguments, not results.")
        self._n_steps = min(self._n_steps, given.shape[0])
        place = np.array(given.value[0], order="C")
        if not given.value[0].flags.c_contiguous or place.nbytes % 4:
            raise UntraceableError("The inputs of a step must be contiguous.")
        self._picks.append((given, place))
        return Traced(self, place)

    def keep(self, place: Traced, value: Traced) -> None:
        """Record that each step first copies an array to its entry in the state."""
        is_contiguous = place.flags.c_contiguous and value.flags.c_contiguous
        is_contiguous = is_contiguous and not value.value.nbytes % 4
        has_begun = self._lines or not self._tables.are_empty
        if id(place.value) not in self._state or has_begun or not is_contiguous:
            raise UntraceableError("A step may store only arrays that exist before the step.")
        self._keep_values(place)
        self._n_steps = min(self._n_steps, place.shape[0])
        place.value[0, ...] = value.value
        self._kept.append((place.value, value.value))

    def accepts(self, arguments: Sequence[Any]) -> bool:
        """Set the arguments if their number, shapes and dtypes match; return whether they do."""
        has_moved = self._arguments.replace(arguments)
        if has_moved is None:
            return False
        for name, find_view in self._moving:
            self._names[name] = find_view(arguments)
        for record, field, find_view in self._tables.patches if has_moved else ():
            record[field] = find_view(arguments).ctypes.data
        return True

    # --- recording -----------------------------------------------------------------------------

    def _name(self, operand: Any) -> str:
        """Return the name of an operand in the code."""
        if isinstance(operand, list | tuple):
            inner = "".join(self._name(item) + ", " for item in operand)
            return f"[{inner}]" if isinstance(operand, list) else f"({inner})"
        value = value_of(operand)
        # The program keeps named objects alive, so their ids remain unique.
        name = self._known.setdefault(id(value), f"_{len(self._names)}")
        if name not in self._names:
            self._names[name] = value
            if isinstance(operand, Traced) and operand.find_view is not None:
                self._moving.append((name, operand.find_view))
        return name

    def _call(self, function: Any, args: Sequence[Any], options: dict[str, Any]) -> str:
        given = [self._name(arg) for arg in args]
        given += [f"{key}={self._name(value)}" for key, value in options.items()]
        return f"{self._name(function)}({', '.join(given)})"

    def _write(self, line: str) -> None:
        self._flush()
        self._lines.append(line)

    def _flush(self, *, is_last: bool = False) -> None:
        """End the table of kernel calls, if there are any."""
        self._n_bytes = 0
        steps = self._tables.end(is_last=is_last)
        if steps is not None:
            self._lines.append(f"run_ranges({self._name(steps)})")

    def _free_if_large(self) -> None:
        """If the pending calls hold much memory, convert them to rows of a table, to reuse it."""
        if self._n_bytes > _KEPT:
            self._tables.make_rows()
            self._n_bytes = 0

    def task(self, task: Task) -> None:
        """Add a call to machine code to the program; consecutive calls form a table."""
        self._tables.add(task)

    def group(self, parts: Sequence[Sequence[Task]], is_shared: bool) -> None:
        """Add a kernel call with several parts; one thread runs all calls in a part."""
        self._tables.add_group(parts, is_shared)

    def call(self, function: Any, *args: Any) -> None:
        """Record a call that writes to its arguments; the function is not called now."""
        self._write(self._call(function, args, {}))

    def joined(self, arrays: Sequence[Traced]) -> Traced | None:
        """Return a vector view of the state's arrays, or None if they are not adjacent."""
        are_mine = all(id(array.value) in self._state for array in arrays)
        value = in_one_piece([array.value for array in arrays]) if are_mine else None
        if value is None:
            return None
        self._state[id(value)] = value
        return Traced(self, value)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Traced:
        """Return an uninitialized array, reusing the memory of a freed array if possible."""
        self._n_bytes += math.prod(shape) * np.dtype(dtype).itemsize
        for i, value in enumerate(self.pool):
            if value.shape == shape and value.dtype == dtype:
                return Traced(self, self.pool.pop(i), is_pooled=True)
        return Traced(self, empty(shape, dtype), is_pooled=True)

    def _result(self, value: Any) -> Traced:
        value = np.asarray(value)
        result = self.empty(value.shape, value.dtype)
        result.value[...] = value
        return result

    def note(self, copy: Any, args: tuple[Any, ...], value: np.ndarray, **options: Any) -> Traced:
        """Record ``copy(result, *args)``, which computes ``value``."""
        result = self._result(value)
        self._copy(copy, result, *args, **options)
        return result

    def _copy(self, copy: Any, out: Traced, *args: Any, **options: Any) -> None:
        if not self._lower(copy, out, *args):
            self._write(self._call(copy, (out, *args), options))

    def assign(self, part: Traced, value: Any) -> None:
        """Record an assignment to part of an array."""
        value = value if isinstance(value, Traced) else np.array(value, part.dtype)
        np.broadcast_to(value_of(value), part.shape)  # This raises an error for wrong shapes.
        self._copy(np.copyto, part, value, casting="unsafe")

    def _any(self, function: Any, args: Any, options: dict[str, Any], value: Any) -> Any:
        """Record a call to a function that has no ``out``, and a copy of its result."""
        if isinstance(value, np.dtype):  # From `np.result_type`, for example.
            return value
        if not isinstance(value, np.ndarray | np.generic):
            raise UntraceableError(f"{function} returns {type(value)}, which cannot be traced.")
        result = self._result(value)
        kept = {key: x for key, x in options.items() if key == "axis" or x is not None}
        is_known = set(kept) <= {"axis"} and len(args) == _N_OPERANDS.get(function)
        if not (is_known and self._lower(function, *args, result, **kept)):
            given = self._call(function, args, options)
            self._write(f"{self._name(np.copyto)}({self._name(result)}, {given})")
        return result

    # --- NumPy's two protocols -----------------------------------------------------------------

    def ufunc(self, ufunc: Any, method: str, inputs: Any, options: dict[str, Any]) -> Any:
        """Call a ufunc, and record the call."""
        out = options.pop("out", (None,))[0]
        if isinstance(out, np.ndarray) and out is inputs[0]:
            # A constant must not change in place, as in `c ^= key`, so the result is a new array.
            out = None
        inputs = fixed(inputs)
        if ufunc is np.vecdot and "axis" in options:
            axis = options.pop("axis")
            inputs = [np.moveaxis(x, axis, -1) for x in inputs]
        if method == "reduce":
            return self._reduce(ufunc, inputs, options, out)
        has_other_out = out is not None and not isinstance(out, Traced)
        if method != "__call__" or options or ufunc.nout != 1 or has_other_out:
            raise UntraceableError(f"{ufunc} has options or outputs that cannot be traced.")
        out = self._result_of(ufunc, list(map(value_of, inputs)), out)
        if not self._lower(ufunc, *inputs, out):
            operands = [constant(x, ufunc, out) if type(x) in (int, float) else x for x in inputs]
            self._write(
                self._call(or_timed_product(ufunc, *map(value_of, inputs)), operands, {"out": out})
            )
        return out

    def _result_of(self, ufunc: Any, values: list[Any], out: Traced | None) -> Traced:
        """Return the result of a ufunc.

        If machine code computes the result, large results are left uncomputed, and so are parts of
        the state, which other ranks may be reading.
        """
        is_elementwise = self.has_tasks and ufunc.signature is None
        shape = np.broadcast_shapes(*map(np.shape, values)) if is_elementwise else ()
        is_left_out = math.prod(shape) >= _LARGE or not (out is None or out.owner.is_pooled)
        if is_elementwise and is_left_out and (out is None or out.shape == shape):
            ones = [np.ones((), x.dtype) if isinstance(x, np.ndarray) else x for x in values]
            if out is None:
                return self.empty(shape, ufunc(*ones).dtype)
            ufunc(*ones, out=np.ones((), out.dtype))  # This raises an error for wrong dtypes.
            return out
        if out is None:
            return self._result(ufunc(*values))
        self._keep_values(out)
        ufunc(*values, out=out.value)
        return out

    def _lower(self, function: Any, *operands: Any, **options: Any) -> bool:
        """If machine code can compute an operation, record kernel calls instead."""
        if not self.has_tasks:
            return False
        from mlp_xp.backends._numpy.tracing.lowering import LOWERED  # Avoid this in short fits.

        return function in LOWERED and bool(LOWERED[function](*operands, **options))

    def _reduce(self, ufunc: Any, inputs: Any, options: dict[str, Any], out: Any) -> Any:
        if out is not None or not set(options) <= {"axis", "dtype", "keepdims"}:
            raise UntraceableError(f"{ufunc}.reduce has options that cannot be traced.")
        self._free_if_large()
        axis, keepdims = options.get("axis", 0), options.get("keepdims", False)
        value = ufunc.reduce(inputs[0].value, axis, options.get("dtype"), None, keepdims)
        result: Any = self._result(value)
        args = (inputs[0], axis, options.get("dtype"), result, keepdims)
        if not self._lower(ufunc.reduce, *args[:3], result):
            self._write(self._call(ufunc.reduce, args, {}))
        return result

    def function(self, function: Any, args: Any, options: dict[str, Any]) -> Any:
        """Call a NumPy function that is not a ufunc, and record the call."""
        if function in REDUCTIONS and len(args) == 1 and isinstance(args[0], Traced):
            kept = {key: value for key, value in options.items() if value is not None}
            return self._reduce(REDUCTIONS[function], args, {"axis": None, **kept}, None)
        if function is np.round and len(args) == 1 and not options:
            return np.rint(args[0])
        if isinstance(options.get("out"), np.ndarray):  # As in `array_api_compat.numpy.clip`.
            raise UntraceableError(f"{function} writes to an array that is not traced.")
        if function in SHAPED_BY_VALUES or (function is np.where and len(args) == 1):
            raise UntraceableError(f"The shape of {function}'s result depends on values.")
        args, options = fixed(args), {key: fixed(option) for key, option in options.items()}
        plain = {key: value_of(option) for key, option in options.items()}
        values = list(map(value_of, args))
        if function in (np.take, np.take_along_axis) and isinstance(args[-1], Traced):
            values[1] = np.zeros_like(values[1])  # The positions have no values yet.
        try:
            value = function(*values, **plain)
        except np.linalg.LinAlgError:  # The matrix has no values yet.
            value = function(*map(identity_like, values), **plain)
        if isinstance(value, tuple):
            parts = (functools.partial(item, function, i) for i in range(len(value)))
            return tuple(self.function(part, args, options) for part in parts)
        if function is np.empty_like:
            self._free_if_large()
            return self.empty(value.shape, value.dtype)
        if function in (np.full_like, np.ones_like, np.zeros_like):
            return self.note(np.copyto, (value,), value)
        is_known = len(args) == 2 and set(options) <= {"axis"}
        if function is np.take and is_known and isinstance(args[1], Traced):
            result = self._result(value)
            if not self._lower(np.take, *args, result, axis=options.get("axis")):
                self._write(self._call(take_rows, (*args, options.get("axis"), result), {}))
            return result
        first = args[0]
        if (
            isinstance(first, Traced)
            and isinstance(value, np.ndarray)
            and np.may_share_memory(value, first.value)
        ):
            # Keep only the values, since traced arrays would keep the call's arguments alive.
            others = [value_of(arg) for arg in args[1:]]
            return first._view(lambda array: function(array, *others, **plain))
        if function is np.reshape and isinstance(first, Traced) and not options:
            return self.note(copy_in_order, (first,), value)
        return self._any(function, args, options, value)

    def _keep_values(self, array: Traced) -> None:
        """Save the values of an array that tracing will change, unless the trace allocated it."""
        owner = array.owner
        if not owner.is_pooled and id(owner.value) not in self._overwritten:
            self._overwritten[id(owner.value)] = owner.value, owner.value.copy()

    def undo(self) -> None:
        """Undo the traced function's changes to the state and to arguments."""
        for array, values in self._overwritten.values():
            array[...] = values
        self._overwritten = {}

    # --- the end -------------------------------------------------------------------------------

    def finish(self, state: Any, new: Any) -> None:
        """Record copies of the new state to the old state; compile the program."""
        mine = {id(leaf.value) for leaf in leaves(state)}
        where = operator.attrgetter("value.__array_interface__")
        for old, leaf in zip(leaves(state), leaves(new), strict=True):
            if isinstance(leaf, Traced) and where(leaf) == where(old):
                continue  # The old array or a view of it was changed in place.
            is_new = isinstance(leaf, Traced) and id(leaf.owner.value) not in mine
            if not is_new or leaf.shape != old.shape:
                raise UntraceableError("The new state needs the old shapes and separate memory.")
            self._copy(np.copyto, old, leaf)
        self._flush(is_last=True)
        link(self._tables.all)
        # Free the buffers that fusion made unnecessary.
        used = self._known.keys() | self._tables.kept.keys()
        self.pool[:] = [value for value in self.pool if id(value) in used]
        if len(self._lines) == 1 and self._tables.all:
            self._steps = self._range_of_table()
        else:
            source = "\n".join(("def program(run_ranges, start, stop):", *self._body(), " return"))
            exec(_compiled(source), self._names)
            # Remove the program from its globals: a reference cycle would delay freeing the memory.
            self._code = self._names.pop("program")
        self._picks, self._kept = [], []

    def step_range(self, start: int, stop: int) -> np.ndarray | None:
        """Return the step range for machine code, or None unless each step is a single table."""
        if start < 0 or stop > self._n_steps:
            raise IndexError(
                f"Steps must be from 0 to {self._n_steps - 1}, got {start} to {stop - 1}."
            )
        steps = None if self._steps is None else self._steps.copy()
        if steps is not None:
            steps[0, -2:] = start, stop
        return steps

    def run(self, run_ranges: Callable[..., None], start: int, stop: int) -> None:
        """Run the steps from ``start`` to ``stop``; ``run_ranges`` runs tables of calls."""
        if (steps := self.step_range(start, stop)) is not None:
            run_ranges(steps)
            return
        try:
            self._code(run_ranges, start, stop)
        finally:
            self._names.update((name, None) for name, _ in self._moving)  # Release the arguments.

    def _range_of_table(self) -> np.ndarray:
        """Return the step range of the only table, including the copies that begin each step."""
        from mlp_xp.backends._numpy.runtime.tasks import PICK, address, step_range

        # Find addresses in a plain array, since a record array would take 10 µs.
        n_kept = len(self._kept)
        picks = np.zeros((n_kept + len(self._picks), PICK.itemsize // 8), np.int64)
        records = picks.view(PICK)[:, 0]
        for pick, (place, value) in zip(records[:n_kept], self._kept, strict=True):
            pick["source"], pick["n_words"] = address(value), value.nbytes // 4
            pick["target"], pick["target_stride"] = address(place), place.strides[0]
        for pick, (given, place) in zip(records[n_kept:], self._picks, strict=True):
            pick["source"], pick["source_stride"] = address(given), given.strides[0]
            pick["n_words"], pick["target"] = place.nbytes // 4, address(place)
            if given.find_view is not None:
                self._tables.patches.append((pick, "source", given.find_view))
            else:
                self._name(given)  # Keep the array alive.
            self._name(place)
        self._name(picks)
        return step_range(self._tables.all[-1], picks)

    def _body(self) -> Iterator[str]:
        """Yield the lines of the loop over steps."""
        yield " for i in range(start, stop):"
        for place, value in self._kept:
            yield f"  {self._name(place)}[i] = {self._name(value)}"
        for given, place in self._picks:
            yield f"  {self._name(np.copyto)}({self._name(place)}, {self._name(given)}[i, ...])"
        yield from (f"  {line}" for line in self._lines)


@functools.lru_cache(maxsize=64)
def _compiled(source: str) -> CodeType:
    """Compile generated Python code. Operands are numbered, so similar fits share the result."""
    return compile(source, "<compiled step>", "exec")
