"""Sums over ranks for NumPy, in place; a compiled step records them as calls."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import field, replace
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
from mlp_xp.backends._numpy.runtime.tasks import MachineCodeError, address
from mlp_xp.backends._numpy.tracing.compiled_step import Compiled, CompiledLoop, CompiledStep
from mlp_xp.backends._numpy.tracing.traced import Traced, value_of
from mlp_xp.distributed._shared_memory import SharedSum
from mlp_xp.distributed.backends._base import RankBackend
from mlp_xp.distributed.communicator import LONG_BYTES, Communicator
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
    # The addresses of arrays with pending sums, and the functions that wait for the sums of their
    # pieces.
    _started: set[int] = field(default_factory=set, compare=False, repr=False)
    _waits: dict[int, list[Callable[[], None]]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def __call__(self, tree: Tree) -> Tree:
        """Sum donated arrays over all ranks."""
        taken: set[int] = set()
        arrays = [
            leaf if self._has_started(leaf) else _writable(leaf, taken) for leaf in leaves(tree)
        ]
        call(self._sum, *(array for array in arrays if not self._has_started(array)))
        return rebuild(tree, arrays)

    def _has_started(self, array: Any) -> bool:
        return isinstance(array, Traced | np.ndarray) and address(array) in self._started

    def _sum(self, *arrays: np.ndarray) -> None:
        self.communicator.sum(arrays)

    def weight_gradient(self, x: Any, dy: Any, W: Any, multiply: Callable[..., None]) -> Any:
        """Compute the gradient of a dense layer's weights, and start summing its pieces.

        A small gradient is summed later, since starting a sum costs about as much as the sum
        itself.
        """
        if W.size * W.itemsize < LONG_BYTES:
            return weight_gradient(x, dy, W, multiply)
        dW = self.empty_like(W)
        for rows in self.pieces(W):
            multiply(x[:, rows], dy, dW[rows], ta=True)
            self.start(dW, rows)
        return dW

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

    def start(self, array: Any, rows: slice) -> None:
        """Start summing a range of an array's rows."""
        self._started.add(address(array))
        call(self._start, array, rows)

    def _start(self, array: np.ndarray, rows: slice) -> None:
        wait = self.communicator.start_sum(array[rows])
        self._waits.setdefault(address(array), []).append(wait)

    def finish(self, tree: Tree, *, own_parts: bool = False) -> None:
        """Wait for pending sums of a tree's arrays, or only of this rank's parts."""
        started = [array for array in leaves(tree) if self._has_started(array)]
        if started:
            call(self._finish, own_parts, *started)
        self._started.difference_update(map(address, started))

    def _finish(self, own_parts: bool, *arrays: np.ndarray) -> None:
        for array in arrays:
            for wait in self._waits.pop(address(array)):
                if own_parts and isinstance(wait, SharedSum):
                    # The other ranks wrote their gradients before summing the loss.
                    wait.sum_part()
                else:
                    wait()

    def share(self, array: Any) -> Any:
        """Move an array of the state to memory shared by all ranks if the array is large."""
        machine = self.communicator.machine
        if machine is None or array.ndim < 2 or machine.is_shared(array):
            return array
        return machine.share(array) if array.size >= machine.size * _LEAST_SHARED else array

    def forget(self) -> None:
        """Discard pending sums after a failed step."""
        self._started.clear()
        self._waits.clear()


@dataclass(frozen=True)
class ClipOfRanks:
    """The kernel ``clip``, which first waits for pending sums of gradients."""

    clip: Callable[..., tuple[Tree, Any]]
    ranks: SumOverRanks

    def __call__(self, grads: Tree, *args: Any, **options: Any) -> tuple[Tree, Any]:
        """Apply `mlp_xp.optimizers.clip`."""
        self.ranks.finish(grads)
        return self.clip(grads, *args, **options)


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
        rows = list(zip(leaves(params), leaves(grads), *map(leaves, opt_state), strict=True))
        shared: list[Any] = []
        others: list[Any] = []
        for row in rows:
            is_shared = machine is not None and machine.is_shared(value_of(row[0]))
            (shared if is_shared else others).append(row)
        self.ranks.finish(tuple(row[1] for row in others))
        if machine is None or not shared:
            trees = params, grads, opt_state
            found: Updated = self.update(optimizer, *trees, coefs, l2, n_leading=n_leading, xp=xp)
            return found
        self.ranks.finish(tuple(row[1] for row in shared), own_parts=True)
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
                clip=ClipOfRanks(self.kernels.clip, self._sums),
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

    @contextlib.contextmanager
    def training(
        self, work: int, n_steps: int = 1, sparse_work: int = 0, largest: int = 0
    ) -> Iterator[None]:
        self._sums.forget()
        with super().training(work, n_steps, sparse_work, largest):
            yield


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
