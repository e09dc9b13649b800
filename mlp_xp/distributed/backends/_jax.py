"""Sums over ranks for JAX: a compiled function stops before each sum and resumes after it.

A callback from compiled code could compute the sum, but on a CPU it may deadlock: XLA must first
copy the callback's arguments, on the threads that wait for the callback
(https://github.com/jax-ml/jax/issues/24255). Instead, a function is traced, its operations are
split at the sums, and each piece is compiled separately.

With virtual shards, compiled functions compute one shard. A rank runs each piece once per shard and
sums over its shards, then over ranks. The compiled functions therefore do not depend on the number
of ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jax.extend import core

from mlp_xp._utils.array_types import Tree
from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.tree import leaves, rebuild
from mlp_xp.backends import Backend
from mlp_xp.backends._base import F
from mlp_xp.backends._jax.backend import JaxBackend
from mlp_xp.distributed.backends._base import RankBackend
from mlp_xp.distributed.communicator import Communicator
from mlp_xp.nn.layers import cut_rows, sum_in_pairs

_sum = core.Primitive("sum_over_ranks")
_take = core.Primitive("take_shard")
_sum.multiple_results = _take.multiple_results = True


class _OfShards(list[Any]):
    """Values for this rank's virtual shards."""


def _sum_now(*values: Any, communicator: Communicator) -> list[Any]:
    """Sum arrays in host memory, over this rank's shards and over ranks."""
    copies, places = [], []
    for value in values:
        arrays = value if isinstance(value, _OfShards) else [value]
        # Convert back to an array, since NumPy returns the sum of 0-d arrays as a scalar.
        copies.append(np.asarray(sum_in_pairs([np.array(a, order="C") for a in arrays])))
        places.append(getattr(arrays[0], "sharding", None))  # Constants lack sharding.
    communicator.sum(copies)
    return list(map(jax.device_put, copies, places))


def _take_now(*arrays: Any, n_shards: int) -> list[Any]:
    """Select the rows of each shard."""
    return [_OfShards(cut_rows(array, n_shards)) for array in arrays]


def _shapes_of_shard(*arrays: Any, n_shards: int) -> list[Any]:
    return [array.update(shape=(array.shape[0] // n_shards, *array.shape[1:])) for array in arrays]


_sum.def_abstract_eval(lambda *arrays, communicator: list(arrays))
_sum.def_impl(_sum_now)
_take.def_abstract_eval(_shapes_of_shard)
_BETWEEN: dict[Any, Callable[..., list[Any]]] = {_sum: _sum_now, _take: _take_now}


@dataclass(frozen=True)
class SumOverRanks:
    """A sum over a communicator's ranks."""

    communicator: Communicator

    def __call__(self, tree: Tree) -> Tree:
        return rebuild(tree, _sum.bind(*leaves(tree), communicator=self.communicator))


@dataclass(frozen=True)
class TakeShard:
    """The selection of one of a rank's ``n_shards`` virtual shards."""

    n_shards: int

    def __call__(self, tree: Tree) -> Tree:
        """Select one shard's rows from each array; None remains None."""
        flat = leaves(tree)
        given = [leaf for leaf in flat if leaf is not None]
        taken = iter(_take.bind(*given, n_shards=self.n_shards))
        return rebuild(tree, [None if leaf is None else next(taken) for leaf in flat])


class _Piece(NamedTuple):
    """A compiled piece of a split function, with its inputs and outputs."""

    run: Callable[..., Any]
    inputs: list[Any]
    outputs: list[Any]
    following: Any  # The operation at which the function is split, or None.


class SplitFunction:
    """A pure function of trees, split where it sums over ranks or selects a virtual shard.

    The last piece may reuse the memory of the argument at position ``donate``.
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
            values |= dict(zip(piece.outputs, _run(piece, read(piece.inputs)), strict=True))
            if (cut := piece.following) is not None:
                found = _BETWEEN[cut.primitive](*read(cut.invars), **cut.params)
                values |= dict(zip(cut.outvars, found, strict=True))
        # All shards give the same results, so return those from the first shard.
        return jax.tree.unflatten(result, _of_shard(read(graph.jaxpr.outvars), 0))

    def _compile(self, arguments: Any) -> tuple[Any, list[_Piece], Any]:
        graph, shapes = jax.make_jaxpr(self._function, return_shape=True)(*arguments)
        start = 0
        donated = set()
        if self._donate is not None:
            sizes = [len(jax.tree.leaves(argument)) for argument in arguments]
            start = sum(sizes[: self._donate])
            donated = set(graph.jaxpr.invars[start : start + sizes[self._donate]])
        return graph, list(_pieces(graph.jaxpr, donated)), jax.tree.structure(shapes)


def _run(piece: _Piece, inputs: list[Any]) -> list[Any]:
    """Run a piece, once per virtual shard if its inputs depend on the shard.

    The last piece runs only once.
    """
    n_shards = max([len(value) for value in inputs if isinstance(value, _OfShards)], default=0)
    if n_shards == 0 or piece.following is None:
        outputs: list[Any] = piece.run(*_of_shard(inputs, 0))
        return outputs
    found = [piece.run(*_of_shard(inputs, i)) for i in range(n_shards)]
    return [_OfShards(outputs) for outputs in zip(*found, strict=True)]


def _of_shard(values: list[Any], i: int) -> list[Any]:
    return [value[i] if isinstance(value, _OfShards) else value for value in values]


def _pieces(jaxpr: Any, donated: set[Any]) -> Iterator[_Piece]:
    """Yield a function's compiled pieces in order."""
    groups: list[tuple[list[Any], Any]] = []
    operations: list[Any] = []
    for equation in jaxpr.eqns:
        if equation.primitive in _BETWEEN:
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
    """Yield the inputs of operations."""
    for operation in operations:
        yield from _variables(operation.invars)


class JaxRankBackend(RankBackend, JaxBackend):
    """JAX on several ranks."""

    def __init__(self, backend: Backend, communicator: Communicator) -> None:
        super().__init__(backend, communicator)
        if n_shards := communicator.n_shards:
            # The rounding of XLA's sums depends on shapes and adjacent operations, so functions are
            # always compiled for a single shard.
            self.gradient = replace(self.gradient, n_shards=1, take_shard=TakeShard(n_shards))

    def _summing(self, backend: Backend) -> SumOverRanks:
        return SumOverRanks(self.communicator)

    def compile(self, function: F, *, donate: bool = False) -> F:
        return cast(F, _split(function, 0 if donate else None))

    def loop(self, body: Callable[..., Any]) -> Callable[..., Any]:
        return _split_loop(body)


KIND = JaxRankBackend

# The split functions are cached, so that fits with equal settings compile once.
_split = lru_cache(maxsize=128)(SplitFunction)


@lru_cache(maxsize=128)
def _split_loop(body: Callable[..., Any]) -> Callable[..., Any]:
    """Return a loop whose body is split at sums over ranks."""
    step = _split(body, 1)

    def run(start: int, stop: int, state: Any, *arguments: Any) -> Any:
        for i in range(start, stop):
            state = step(np.int32(i), state, *arguments)
        return state

    return run
