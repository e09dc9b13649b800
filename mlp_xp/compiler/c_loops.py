"""Arrays in memory, and the nested loops over their elements, as C text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from mlp_xp.compiler.graph import Node


class View(NamedTuple):
    """An array in C: the elements of a variable that start at an offset, with a stride per axis."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements are next to each other, in the order of the indices."""
        expected = row_major(self.shape)
        axes = zip(self.shape, self.strides, expected, strict=True)
        return all(n == 1 or stride == other for n, stride, other in axes)

    def broadcast(self, shape: Sequence[int]) -> View:
        """Return the view in a shape to which it is broadcast."""
        n_new = len(shape) - len(self.shape)
        kept = zip(self.shape, self.strides, shape[n_new:], strict=True)
        strides = [0 if n == 1 and length != 1 else stride for n, stride, length in kept]
        return self._replace(shape=tuple(shape), strides=(*[0] * n_new, *strides))

    def at(self, *loops: Loops, steps: Sequence[tuple[str, int]] = (), shift: int = 0) -> str:
        """Return an element as C text.

        Its position is where the loops are, plus steps: variables, each times a number.
        """
        terms = [term for loop in loops for term in loop.terms(self)]
        terms += _terms(steps)
        if self.offset + shift or not terms:
            terms.append(str(self.offset + shift))
        return f"{self.name}[{' + '.join(terms)}]"


def _terms(steps: Iterable[tuple[str, int]]) -> list[str]:
    return [name if step == 1 else f"{name} * {step}" for name, step in steps if step]


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a new array."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def new_view(name: str, node: Node) -> View:
    """Return the view of a whole new array for a node."""
    return View(name, node.dtype, node.shape, row_major(node.shape))


class Loops:
    """Nested loops over axes of a shape; axes that all views step through alike are joined."""

    def __init__(
        self, letter: str, shape: Sequence[int], axes: Iterable[int], views: Iterable[View]
    ) -> None:
        self._lengths: list[int] = []
        self._last_axes: list[int] = []  # The last axis of each loop, whose stride is the loop's.
        strides = {view.strides for view in views}
        for axis in axes:
            n = shape[axis]
            if n == 1:
                continue
            if self._last_axes and all(s[self._last_axes[-1]] == s[axis] * n for s in strides):
                self._lengths[-1] *= n
                self._last_axes[-1] = axis
            else:
                self._lengths.append(n)
                self._last_axes.append(axis)
        self._names = [f"{letter}{i}" for i in range(len(self._lengths))]

    def terms(self, view: View) -> list[str]:
        """Return the terms of an element's position."""
        steps = [view.strides[axis] for axis in self._last_axes]
        return _terms(zip(self._names, steps, strict=True))

    def around(self, body: Sequence[str]) -> list[str]:
        """Return lines within the loops; without a loop, in a block."""
        lines = [f"    {line}" for line in body]
        if not self._names:
            return ["{", *lines, "}"]
        for name, n in zip(self._names[::-1], self._lengths[::-1], strict=True):
            lines = [f"for (int {name} = 0; {name} < {n}; ++{name}) {{", *lines, "}"]
            if name != self._names[0]:
                lines = [f"    {line}" for line in lines]
        return lines


def _reshape(view: View, node: Node) -> View:
    return view._replace(shape=node.shape, strides=row_major(node.shape))


def _permute(view: View, node: Node) -> View:
    (axes,) = node.settings
    return view._replace(shape=node.shape, strides=tuple(view.strides[i] for i in axes))


def _flip(view: View, node: Node) -> View:
    (axis,) = node.settings
    strides = list(view.strides)
    offset = view.offset + (view.shape[axis] - 1) * strides[axis]
    strides[axis] *= -1
    return view._replace(strides=tuple(strides), offset=offset)


def _index(view: View, node: Node) -> View:
    strides: list[int] = []
    offset, old = view.offset, iter(view.strides)
    for key in node.settings:
        if key is None:
            strides.append(0)
            continue
        stride = next(old)
        if isinstance(key, int):
            offset += key * stride
        else:
            offset += key[0] * stride
            strides.append(key[2] * stride)
    return view._replace(shape=node.shape, strides=tuple(strides), offset=offset)


# For primitives that move no element: the result's view, given the operand's view and the node.
VIEWS: dict[str, Callable[[View, Node], View]] = {
    "reshape": _reshape,
    "permute_dims": _permute,
    "flip": _flip,
    "index": _index,
    "broadcast_to": lambda view, node: view.broadcast(node.shape),
}


class Buffer(NamedTuple):
    """A part of the work space, from the statement that writes it to the last that reads it."""

    name: str
    size: int
    start: int
    end: int
    reused: frozenset[str] = frozenset()  # Buffers whose memory its statement may overwrite.


_ALIGNED = 4  # Numbers; vectors of 16 bytes then start at their multiples.


def place_buffers(buffers: Iterable[Buffer]) -> tuple[dict[str, int], int]:
    """Return each buffer's position in a shared work space, and the size of the space."""
    placed: list[tuple[int, int, Buffer]] = []
    offsets: dict[str, int] = {}
    for buffer in sorted(buffers, key=lambda buffer: buffer.start):
        size = -(-buffer.size // _ALIGNED) * _ALIGNED
        taken = sorted((a, b, other) for a, b, other in placed if other.end >= buffer.start)
        at = _overwritten(buffer, taken)
        if at is None:
            at = 0
            for start, stop, _ in taken:
                if at + size <= start:
                    break
                at = max(at, stop)
        offsets[buffer.name] = at
        placed.append((at, at + size, buffer))
    return offsets, max((stop for _, stop, _ in placed), default=0)


def _overwritten(buffer: Buffer, taken: Sequence[tuple[int, int, Buffer]]) -> int | None:
    """Return the position of a buffer that ends with a statement, which may write over it."""
    for start, stop, other in taken:
        is_last = other.end == buffer.start and other.size == buffer.size
        overlapping = [x for a, b, x in taken if a < stop and b > start]
        if is_last and other.name in buffer.reused and len(overlapping) == 1:
            return start
    return None
