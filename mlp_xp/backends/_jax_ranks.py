"""Sums over ranks for JAX: a compiled function ends before each sum and goes on after it.

A callback out of compiled code would do the sum inside of it. But on a CPU the callback gets arrays
that XLA still has to copy, by the threads that wait for the callback: with few threads or large
arrays nothing goes on (https://github.com/jax-ml/jax/issues/24255). So a function is traced, its
operations are cut at the sums, and each piece is compiled by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from mlp_xp._utils.array_types import Tree
from mlp_xp._utils.tree import leaves, rebuild
from mlp_xp.backends.communicator import Communicator

__all__ = ["SplitFunction", "SumOverRanks"]

_sum = core.Primitive("sum_over_ranks")
_sum.multiple_results = True


def _sum_now(*arrays: Any, communicator: Communicator) -> list[Any]:
    """Sum arrays in the host's memory."""
    copies = [np.array(array, order="C") for array in arrays]
    communicator.sum(copies)
    places = (getattr(array, "sharding", None) for array in arrays)  # A constant has none.
    return list(map(jax.device_put, copies, places))


_sum.def_abstract_eval(lambda *arrays, communicator: list(arrays))
_sum.def_impl(_sum_now)


@dataclass(frozen=True)
class SumOverRanks:
    """The kernel ``sum_over_ranks`` of a communicator."""

    communicator: Communicator

    def __call__(self, tree: Tree) -> Tree:
        """Sum arrays over all ranks."""
        return rebuild(tree, _sum.bind(*leaves(tree), communicator=self.communicator))


class _Piece(NamedTuple):
    """Operations up to the next sum, compiled; its inputs, outputs, and what is summed then."""

    run: Callable[..., Any]
    inputs: list[Any]
    outputs: list[Any]
    following: Any  # The operation that is the sum, None after the last piece.


class SplitFunction:
    """A pure function of trees, cut at its sums over ranks.

    Parameters
    ----------
    function : callable
    donate : int, optional
        The argument whose memory the last piece takes over.
    """

    def __init__(self, function: Callable[..., Any], donate: int | None = None) -> None:
        self._function = function
        self._donate = donate
        self._programs: dict[Any, Any] = {}

    def __call__(self, *arguments: Any) -> Any:
        given, structure = jax.tree.flatten(arguments)
        key = structure, tuple(map(jax.typeof, given))
        if key not in self._programs:
            self._programs[key] = self._compile(arguments)
        graph, pieces, result = self._programs[key]
        values = dict(zip(graph.jaxpr.constvars, graph.consts, strict=True))
        values |= dict(zip(graph.jaxpr.invars, given, strict=True))

        def read(operands: list[Any]) -> list[Any]:
            return [v.val if isinstance(v, core.Literal) else values[v] for v in operands]

        for piece in pieces:
            outputs = piece.run(*read(piece.inputs))
            values |= dict(zip(piece.outputs, outputs, strict=True))
            if piece.following is not None:
                summed = _sum_now(*read(piece.following.invars), **piece.following.params)
                values |= dict(zip(piece.following.outvars, summed, strict=True))
        return jax.tree.unflatten(result, read(graph.jaxpr.outvars))

    def _compile(self, arguments: Any) -> tuple[Any, list[_Piece], Any]:
        graph, shapes = jax.make_jaxpr(self._function, return_shape=True)(*arguments)
        start = 0
        donated = set()
        if self._donate is not None:
            sizes = [len(jax.tree.leaves(argument)) for argument in arguments]
            start = sum(sizes[: self._donate])
            donated = set(graph.jaxpr.invars[start : start + sizes[self._donate]])
        return graph, list(_pieces(graph.jaxpr, donated)), jax.tree.structure(shapes)


def _pieces(jaxpr: Any, donated: set[Any]) -> Iterator[_Piece]:
    """Yield the operations between two sums, compiled."""
    groups: list[tuple[list[Any], Any]] = []
    operations: list[Any] = []
    for equation in jaxpr.eqns:
        if equation.primitive is _sum:
            groups.append((operations, equation))
            operations = []
        else:
            operations.append(equation)
    groups.append((operations, None))
    for number, (operations, following) in enumerate(groups):
        later = set(_variables(jaxpr.outvars))
        for others, equation in groups[number + 1 :]:
            later |= set(_used([*others, *([] if equation is None else [equation])]))
        if following is not None:
            later |= set(_variables(following.invars))
        made = {var for operation in operations for var in operation.outvars}
        inputs = list(dict.fromkeys(var for var in _used(operations) if var not in made))
        outputs = [var for var in dict.fromkeys(made) if var in later]
        piece = jaxpr.replace(constvars=[], invars=inputs, outvars=outputs, eqns=operations)
        taken = tuple(i for i, var in enumerate(inputs) if var in donated - later)
        function = core.jaxpr_as_fun(core.ClosedJaxpr(piece, []))
        run = jax.jit(function, donate_argnums=taken if following is None else ())
        yield _Piece(run, inputs, outputs, following)


def _variables(operands: Any) -> list[Any]:
    return [operand for operand in operands if not isinstance(operand, core.Literal)]


def _used(operations: list[Any]) -> Iterator[Any]:
    """Yield the variables that operations take."""
    for operation in operations:
        yield from _variables(operation.invars)
