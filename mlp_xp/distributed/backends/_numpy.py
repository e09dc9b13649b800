"""Sums over ranks for NumPy, in place; a compiled step records them as calls."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np

from mlp_xp._utils.array_types import Namespace, Tree
from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.tree import leaves, map_leaves, rebuild
from mlp_xp.backends import Backend
from mlp_xp.backends._base import F
from mlp_xp.backends._numpy.backend import NumpyBackend
from mlp_xp.backends._numpy.kernels.forward import weight_gradient
from mlp_xp.backends._numpy.kernels.writing import call
from mlp_xp.backends._numpy.runtime.tasks import MachineCodeError
from mlp_xp.backends._numpy.tracing.compiled_step import Compiled, CompiledLoop, CompiledStep
from mlp_xp.backends._numpy.tracing.traced import Traced, value_of
from mlp_xp.distributed._shared_memory import SharedSum
from mlp_xp.distributed.backends._base import RankBackend
from mlp_xp.distributed.communicator import LONG_BYTES, Communicator
from mlp_xp.distributed.training.gradient import PendingSum
from mlp_xp.optimizers import SGD, Adam, AdamW, Optimizer, Updated

# Between machines, a layer's gradient is summed in pieces. Each piece is summed while the next ones
# are computed. These are the maximum number of pieces, their minimum size in bytes, and a divisor
# of their number of rows.
_PIECES, _PIECE_BYTES, _MULTIPLE = 8, 1 << 20, 12
# Ranks share an array if a rank's part has at least this many elements. A compiled step updates
# shared arrays in a call, so tracing the step never writes to the memory of other ranks.
_LEAST_SHARED = 1 << 16


@dataclass(frozen=True)
class SumOverRanks:
    """A sum over a communicator's ranks.

    `ClipOfRanks` and `UpdateOfRanks` wait for pending sums of gradients.
    """

    communicator: Communicator

    def __call__(self, tree: Tree) -> Tree:
        """Sum donated arrays over all ranks; pending sums remain pending."""
        taken: set[int] = set()
        flat = [
            leaf if isinstance(leaf, PendingSum) else _writable(leaf, taken)
            for leaf in leaves(tree)
        ]
        call(self._sum, *(leaf for leaf in flat if not isinstance(leaf, PendingSum)))
        return rebuild(tree, flat)

    def _sum(self, *arrays: np.ndarray) -> None:
        self.communicator.sum(arrays)

    def weight_gradient(self, x: Any, dy: Any, W: Any, multiply: Callable[..., None]) -> Any:
        """Compute the gradient of a dense layer's weights, and start summing its pieces.

        A small gradient is summed later, since starting a sum costs about as much as the sum
        itself.
        """
        if W.size * W.itemsize < LONG_BYTES:
            return weight_gradient(x, dy, W, multiply)
        dW, pieces = self.empty_like(W), _Pieces(self.communicator)
        for rows in self.pieces(W):
            multiply(x[:, rows], dy, dW[rows], ta=True)
            call(pieces.start, dW, rows)
        return PendingSum(dW, pieces.wait)

    def empty_like(self, array: Any) -> Any:
        """Allocate the gradient of an array."""
        memory = self.communicator.empty(array.shape, array.dtype)
        if isinstance(array, Traced):
            return Traced(array.program, memory, is_pooled=True)
        return memory

    def pieces(self, array: Any) -> list[slice]:
        """Return the groups of rows that are summed together."""
        n = 1
        if self.communicator.n_machines > 1:
            n = max(1, min(_PIECES, array.size * array.itemsize // _PIECE_BYTES))
        step = -(-array.shape[0] // n)
        step += -step % _MULTIPLE
        return [slice(i, i + step) for i in range(0, array.shape[0], step)]

    def share(self, array: Any) -> Any:
        """Move an array of the state to memory shared by all ranks if the array is large."""
        machine = self.communicator.machine
        if machine is None or array.ndim < 2 or machine.is_shared(array):
            return array
        return machine.share(array) if array.size >= machine.size * _LEAST_SHARED else array


class _Pieces:
    """The sums of an array's rows, piece by piece, while a step runs."""

    def __init__(self, communicator: Communicator) -> None:
        self._communicator = communicator
        self._waits: list[Callable[[], None]] = []

    def start(self, array: np.ndarray, rows: slice) -> None:
        """Start summing some rows."""
        if not rows.start:  # An earlier step may have failed before its sums were awaited.
            self._waits.clear()
        self._waits.append(self._communicator.start_sum(array[rows]))

    def wait(self, *, own_part: bool) -> None:
        """Wait for the sum of all pieces, or only of this rank's part."""
        for wait in self._waits:
            if own_part and isinstance(wait, SharedSum):
                # The other ranks wrote their gradients before summing the loss.
                wait.sum_part()
            else:
                wait()
        self._waits.clear()


def _finish(grads: Sequence[Any], own_part: Iterable[bool]) -> list[Any]:
    """Wait for pending sums, or only for this rank's part of each; return the gradients' arrays."""
    pairs = zip(grads, own_part, strict=False)
    pending = [pair for pair in pairs if isinstance(pair[0], PendingSum)]
    waits = [partial(leaf.wait, own_part=is_own) for leaf, is_own in pending]

    def wait_for_all(*_: np.ndarray) -> None:
        for wait in waits:
            wait()

    if pending:
        call(wait_for_all, *(leaf.array for leaf, _ in pending))
    return [leaf.array if isinstance(leaf, PendingSum) else leaf for leaf in grads]


@dataclass(frozen=True)
class ClipOfRanks:
    """The kernel ``clip``, which first waits for pending sums of gradients."""

    clip: Callable[..., tuple[Tree, Any]]

    def __call__(self, grads: Tree, *args: Any, **options: Any) -> tuple[Tree, Any]:
        """Apply `mlp_xp.optimizers.clip`."""
        summed = _finish(leaves(grads), itertools.repeat(False))
        return self.clip(rebuild(grads, summed), *args, **options)


@dataclass(frozen=True)
class UpdateOfRanks:
    """The kernel ``update``, which divides shared arrays among a machine's ranks."""

    update: Callable[..., Any]
    ranks: SumOverRanks

    def __call__(
        self,
        optimizer: Any,
        params: Tree,
        grads: Tree,
        opt_state: tuple[Tree, ...],
        coefs: tuple[Any, ...],
        l2: Any | None = None,
        *,
        n_leading: int = 0,
        xp: Namespace,
    ) -> Updated:
        """Apply `mlp_xp.optimizers.update_tree` after all ranks have read the parameters."""
        machine = self.ranks.communicator.machine
        is_shared = [machine is not None and machine.is_shared(value_of(p)) for p in leaves(params)]
        grads = rebuild(grads, _finish(leaves(grads), is_shared))
        if machine is None or not any(is_shared):
            trees = params, grads, opt_state
            found: Updated = self.update(optimizer, *trees, coefs, l2, n_leading=n_leading, xp=xp)
            return found
        rows = list(zip(leaves(params), leaves(grads), *map(leaves, opt_state), strict=True))
        shared = list(itertools.compress(rows, is_shared))
        others = [row for row, shares in zip(rows, is_shared, strict=True) if not shares]
        mine = [
            tuple(xp.reshape(array, (-1, 1))[machine.part(row[0].size), :] for array in row)
            for row in shared
        ]
        penalties: list[Any] = []
        for some in filter(None, (mine, others)):
            p, g, *states = map(tuple, zip(*some, strict=True))
            updated = self.update(optimizer, p, g, tuple(states), coefs, l2, xp=xp)
            penalties.append(updated.penalty)
        if l2 is None:
            call(self._meet, shared[0][0])
            return Updated(params, opt_state, 0.0)
        total = xp.reshape(penalties[0], (1,)) + 0.0
        call(self._sum_number, total)
        return Updated(params, opt_state, sum(penalties[1:], total[0]))

    def _meet(self, _: np.ndarray) -> None:
        """Wait until all ranks have updated their parts."""
        self.ranks.communicator.barrier()

    def _sum_number(self, number: np.ndarray) -> None:
        number[...] = np.sum(self.ranks.communicator.gather_arrays(number))


@dataclass(frozen=True)
class DenseOfRanks:
    """The kernel ``dense``, which sums gradients over ranks while computing further gradients."""

    dense: Callable[..., Any]
    ranks: SumOverRanks

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Apply `mlp_xp.nn.layers.affine`."""
        return self.dense(*args, weight_gradient=self.ranks.weight_gradient, **options)


class NumpyRankBackend(RankBackend, NumpyBackend):
    """NumPy on several ranks."""

    def __init__(self, backend: Backend, communicator: Communicator) -> None:
        super().__init__(backend, communicator)
        self._sums = cast(SumOverRanks, self.gradient.sum_over_ranks)
        if not communicator.n_shards:
            self.gradient = replace(
                self.gradient, dense=DenseOfRanks(self.kernels.dense, self._sums)
            )
            self.kernels = replace(
                self.kernels,
                clip=ClipOfRanks(self.kernels.clip),
                update=UpdateOfRanks(self.kernels.update, self._sums),
            )
            # Other ranks overwrite shared memory, so keeping a state requires a copy.
            self.donates = communicator.machine is not None

    def _summing(self, backend: Backend) -> SumOverRanks:
        return SumOverRanks(self.communicator)

    def place_state(self, optimizer: Optimizer, params: Tree, opt_state: Tree) -> tuple[Tree, Tree]:
        # All ranks call this method together. `UpdateOfRanks` then divides the updates among them.
        placed = super().place_state(optimizer, params, opt_state)
        if type(optimizer) in (SGD, Adam, AdamW):  # Divide only elementwise updates.
            placed = map_leaves(self._sums.share, placed)
        return placed

    def compile(self, function: F, *, donate: bool = False) -> F:
        if donate:
            return cast(F, _AgreedStep(function, self.communicator))
        return super().compile(function)

    def loop(self, body: Callable[..., Any]) -> Callable[..., Any]:
        return _AgreedLoop(body, self.communicator)

    def release(self, compiled: Any, state: Any) -> Any:
        return state  # Ranks may share this memory, so the next fit must allocate new memory.


KIND = NumpyRankBackend


class _Agreed(Compiled):
    """A compiled function with sums over ranks, traced by all ranks or by none."""

    state_stays = True  # Other ranks may be using the addresses of the state's arrays.

    def __init__(self, function: Callable[..., Any], communicator: Communicator) -> None:
        super().__init__(function)
        self._communicator = communicator
        self._is_known = False  # True once all ranks have tried to trace the function.

    def _end_trace(self, error: Exception | None) -> None:
        """Raise the error if only some ranks fail to trace, since they would sum different arrays.

        All ranks first trace a function at the same step, and retrace it for new shapes.
        """
        is_alike = error is None
        if not self._is_known:
            is_alike = len(set(self._communicator.gather(type(error).__name__))) == 1
        # If machine code is missing, all ranks trace the function again.
        self._is_known = not isinstance(error, MachineCodeError)
        if error is not None and not is_alike:
            raise error


class _AgreedStep(_Agreed, CompiledStep):
    pass


class _AgreedLoop(_Agreed, CompiledLoop):
    pass


def _writable(array: Any, taken: set[int]) -> Any:
    """Return an array, or a copy if it must not be overwritten; add its owner to ``taken``."""
    owner: Any
    if isinstance(array, Traced):
        owner = array.owner
        is_own = owner.is_pooled
    else:
        owner = array if getattr(array, "base", None) is None else array.base
        is_own = isinstance(array, np.ndarray) and array.flags.writeable
    if not (is_own and array.flags.c_contiguous) or id(owner) in taken:
        return np.positive(array) if isinstance(array, Traced) else np.array(array, order="C")
    taken.add(id(owner))
    return array
