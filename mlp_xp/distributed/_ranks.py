"""The ranks of a fit: errors raised on all ranks, and decisions made by rank 0 for all ranks.

Before training, ranks communicate only through `Ranks.exchange`, so a rank can send an error
instead of its next value. During training, an error on one rank ends all ranks.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from mlp_xp._utils.signals import postponed
from mlp_xp.backends import Backend
from mlp_xp.distributed._settings import Distributed
from mlp_xp.distributed.backends._base import RankBackend, share_steps
from mlp_xp.distributed.communicator import Communicator, LostRankError, RankError
from mlp_xp.distributed.training.gradient import RankGradient
from mlp_xp.distributed.training.plan import rank_plan
from mlp_xp.distributed.training.samples import describe_samples, gather_samples
from mlp_xp.training.data.epoch_plan import EpochPlan
from mlp_xp.training.divergence.finite import NonFiniteError
from mlp_xp.training.processes import SingleProcess
from mlp_xp.training.step.step_settings import Rules

T = TypeVar("T")

_DEFAULT = Distributed()
_KEYBOARD = 130  # The shell's exit status for Ctrl-C.
_PRINTING = 1.0  # Seconds to wait while rank 0 prints an error raised on all ranks.


class _Failure(NamedTuple):
    """A description of an error for other processes, which might be unable to unpickle it."""

    rank: int
    kind: str
    text: str
    code: Any

    def error(self) -> BaseException:
        """Return the error for the other ranks to raise."""
        if self.kind == "SystemExit":
            return SystemExit(self.code)
        if self.kind == "KeyboardInterrupt":
            return KeyboardInterrupt()
        return RankError(f"rank {self.rank}: {self.kind}: {self.text}")


class Ranks(SingleProcess):
    """The ranks of a distributed fit."""

    is_single = False
    _has_failed = False

    def __init__(
        self,
        communicator: Communicator,
        settings: Distributed = _DEFAULT,
        row_numbers: np.ndarray | None = None,
    ) -> None:
        self.communicator: Communicator = communicator
        self.row_numbers = row_numbers
        self.rank = self.number = communicator.rank
        self.size = communicator.size
        self.is_first = self.rank == 0
        self.is_sharded = settings.data == "sharded"
        self.overrides = {"callbacks": None, "verbose": False} if self.rank else {}

    def exchange(self, value: T) -> list[T]:
        with postponed():  # Ctrl-C must not hide a failure of another rank.
            values = self.communicator.gather(value)
            self._has_failed = any(isinstance(other, _Failure) for other in values)
        for other in values:
            if isinstance(other, _Failure):
                raise _shared(other.error())
        return values

    def first(self, value: T) -> T:
        return self.exchange(value if self.rank == 0 else None)[0]  # type: ignore[return-value]

    def first_of(self, function: Callable[[], T]) -> T:
        return self.first(cast(T, function() if self.rank == 0 else None))

    def agree(self, describe: Callable[[], dict[str, str]], cure: Callable[[], str] = str) -> None:
        if self.size == 1:
            return
        texts = describe()
        digests = self.exchange(hashlib.sha256(repr(texts).encode()).digest())
        if len(set(digests)) == 1:
            return
        first, *others = self.exchange(texts)
        for rank, found in enumerate(others, 1):
            names = [name for name in first | found if first.get(name) != found.get(name)]
            if names:
                differences = ", ".join(
                    f"{name}={found.get(name)} where rank 0 has {first.get(name)}" for name in names
                )
                raise ValueError(
                    f"rank {rank} of {self.size} has {differences}: "
                    f"give all ranks the same settings, data and packages{cure()}."
                )

    def join_samples(
        self, check: Callable[..., Any], given: tuple[Any, Any, Any], suffix: str
    ) -> tuple[Any, Any, Any]:
        if self.is_sharded:
            row_numbers = None if suffix else self.row_numbers  # Held-out rows may have any order.
            return gather_samples(self, check, given, suffix, row_numbers)
        return super().join_samples(check, given, suffix)

    def agree_on_samples(self, X: Any, y: np.ndarray, weights: Any, suffix: str) -> None:
        if not self.is_sharded:
            cure = ", or pass each rank its own rows with Distributed(data='sharded')"
            self.agree(lambda: describe_samples(X, y, weights, suffix), lambda: cure)

    def spread(self, backend: Backend) -> Backend:
        return share_steps(backend, self.communicator)

    def decide(self, value: T) -> T:
        return self.communicator.broadcast(value)

    def locate_error(self, error: Any) -> Any:
        """Return the error from the rank whose samples caused it, or else from rank 0."""
        found = self.communicator.gather((str(error), error.layer, error.cause))
        text, layer, cause = next((f for f in found if f[2] != "rate"), found[0])
        return NonFiniteError(text, epoch=error.epoch, step=error.step, layer=layer, cause=cause)

    def on_all(
        self, measure: Callable[[Any], T], outputs: Any, positions: np.ndarray, backend: Backend
    ) -> T:
        if self.size == 1:
            return measure(outputs)
        parts = self.exchange((positions, backend.get(outputs)))
        if self.rank:
            return self.first(cast(T, None))
        whole = np.concatenate([outputs for _, outputs in parts])
        whole[np.concatenate([positions for positions, _ in parts])] = whole.copy()
        return self.first(measure(backend.put(whole)))

    def parts(self, n_samples: int) -> list[np.ndarray] | None:
        n_shards = self.communicator.n_shards
        if self.size == 1 and not n_shards:
            return None
        # A library's rounding may depend on the number of rows. A deterministic fit therefore
        # splits each batch into the same parts, regardless of the number of ranks.
        n_own = max(1, n_shards)
        parts = np.array_split(np.arange(n_samples), self.size * n_own)
        return parts[self.rank * n_own : (self.rank + 1) * n_own]

    def own_plan(
        self, plan: EpochPlan, backend: Backend, rules: Rules, owned: np.ndarray | None
    ) -> EpochPlan:
        assert isinstance(backend, RankBackend)
        return rank_plan(
            plan,
            self.rank,
            self.size,
            owned=owned,
            augmentation=rules.augmentation,
            with_positions=rules.network.n_keys > 0,
            n_shards=self.communicator.n_shards,
            takes_shards=backend.gradient.take_shard is not None,
        )

    def own_blocks(
        self, plan: EpochPlan, backend: Backend, rules: Rules, owned: np.ndarray | None
    ) -> EpochPlan:
        # L-BFGS does not support virtual shards, so each rank of a deterministic fit computes all
        # samples.
        return plan if self.communicator.n_shards else self.own_plan(plan, backend, rules, owned)

    def total(self, sums: np.ndarray) -> np.ndarray:
        if self.communicator.n_shards:
            return self.communicator.broadcast(sums)
        self.communicator.sum([sums])
        return sums

    def gradient(self, backend: Backend) -> RankGradient:
        assert isinstance(backend, RankBackend)
        return backend.gradient

    def call_in_first(self, function: Callable[..., T], *arguments: Any) -> T:
        outcome: Any = None
        if self.rank == 0:
            try:
                outcome = function(*arguments)
            except BaseException as error:
                self.communicator.broadcast(_failure(_shared(error), 0))
                raise
        outcome = self.communicator.broadcast(outcome)
        if isinstance(outcome, _Failure):
            raise _shared(outcome.error())
        returned: T = outcome
        return returned

    def asking_first(self, function: Callable[[], T]) -> Callable[[], T]:
        return lambda: self.communicator.broadcast(function())

    @contextlib.contextmanager
    def sharing_errors(self) -> Iterator[None]:
        is_over = False
        try:
            yield
            is_over = True
            self.exchange(None)
        except BaseException as error:
            if self._has_failed:  # All ranks know about the error and stop.
                _shared(error)
            # After the last exchange, the other ranks are training, and `fitting` ends them.
            elif not (is_over or _is_shared(error)):
                self.communicator.gather(_failure(error, self.rank))
                _shared(error)
            raise

    @contextlib.contextmanager
    def fitting(self) -> Iterator[None]:
        try:
            with warnings.catch_warnings():
                if self.rank:
                    warnings.simplefilter("ignore")
                yield
        except BaseException as error:
            if self.size > 1 and not _is_shared(error):
                _end_all(self.communicator, error)
            raise


def _failure(error: BaseException, rank: int) -> _Failure:
    return _Failure(rank, type(error).__name__, str(error), getattr(error, "code", None))


def _shared(error: BaseException) -> BaseException:
    """Mark an error as raised on every rank, and return it."""
    error._is_on_all_ranks = True  # type: ignore[attr-defined]
    return error


def _is_shared(error: BaseException) -> bool:
    # All ranks raise `NonFiniteError` together, since their weights are bitwise identical. A lost
    # rank has already reported its error, or cannot.
    is_known = isinstance(error, NonFiniteError | LostRankError)
    return is_known or getattr(error, "_is_on_all_ranks", False)


def _end_all(communicator: Communicator, error: BaseException) -> None:
    """Print an error and its rank, and end the processes of all ranks."""
    rank, size = communicator.rank, communicator.size
    text = "".join(traceback.format_exception(error))
    print(f"rank {rank} of {size} failed, so all ranks end:\n{text}", file=sys.stderr, flush=True)
    communicator.abort(_KEYBOARD if isinstance(error, KeyboardInterrupt) else 1)


def end_all_on_errors(communicator: Communicator) -> None:
    """End all ranks if an error ends this process, since other ranks may be waiting for it."""
    former = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not _is_shared(error):
            _end_all(communicator, error)
        if communicator.rank == 0:
            former(kind, error, trace)
            sys.stderr.flush()
        else:
            time.sleep(_PRINTING)
        communicator.abort(_KEYBOARD if isinstance(error, KeyboardInterrupt) else 1)

    sys.excepthook = hook
