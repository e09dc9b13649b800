"""The ranks of a fit: errors that all of them raise, and decisions that rank 0 makes for all.

In the preparation of a fit ranks talk by `Ranks.exchange` alone, so that an error of one of them
takes the place of its next value. Once they train, an error of one ends all of them.
"""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, TypeVar

from mlp_xp.backends.communicator import Communicator
from mlp_xp.distributed._settings import Distributed
from mlp_xp.training.divergence.finite import NonFiniteError

__all__ = ["Alone", "RankError", "Ranks", "end_all_on_errors"]

T = TypeVar("T")

_KEYBOARD = 130  # The exit status that shells give for Ctrl-C.
_PRINTING = 1.0  # Seconds in which rank 0 prints an error that all ranks have.


class RankError(RuntimeError):
    """An error of another rank; the message names the rank, and says what it says."""


class _Failure(NamedTuple):
    """An error that travels: another process need not be able to rebuild it."""

    rank: int
    kind: str
    text: str
    code: Any

    def error(self) -> BaseException:
        """Return what the other ranks raise."""
        if self.kind == "SystemExit":
            return SystemExit(self.code)
        if self.kind == "KeyboardInterrupt":
            return KeyboardInterrupt()
        return RankError(f"rank {self.rank}: {self.kind}: {self.text}")


class Alone:
    """A fit of one process: no other rank has to be asked.

    Attributes
    ----------
    rank, size : int
    is_sharded : bool
        Whether each rank passes its own rows.
    communicator : Communicator or None
    overrides : dict
        Parameters of estimators that this rank replaces, since only rank 0 prints and calls back.
    """

    rank = 0
    size = 1
    is_sharded = False
    communicator: Communicator | None = None
    overrides: Mapping[str, Any] = MappingProxyType({})

    def exchange(self, value: T) -> list[T]:
        """Return the values of all ranks, in their order."""
        return [value]

    def first(self, value: T) -> T:
        """Return the value of rank 0."""
        return value

    def lead(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return what a function returns on rank 0, the only one that calls it."""
        return function(*arguments)

    def asking_first(self, function: Callable[[], T]) -> Callable[[], T]:
        """Return a function of what another one returns on rank 0."""
        return function

    def sharing_errors(self) -> contextlib.AbstractContextManager[None]:
        """Raise an error in the preparation of a fit on every rank."""
        return contextlib.nullcontext()

    def fitting(self) -> contextlib.AbstractContextManager[None]:
        """Run a fit: rank 0 alone warns, and an error of one rank ends all of them."""
        return contextlib.nullcontext()


class Ranks(Alone):
    """The ranks of a distributed fit.

    Parameters
    ----------
    communicator : Communicator
    settings : Distributed
    """

    def __init__(self, communicator: Communicator, settings: Distributed) -> None:
        self.communicator: Communicator = communicator
        self.rank, self.size = communicator.rank, communicator.size
        self.settings = settings
        self.is_sharded = settings.data == "sharded"
        self.overrides = {"callbacks": None, "verbose": False} if self.rank else {}

    def exchange(self, value: T) -> list[T]:
        values = self.communicator.gather(value)
        for other in values:
            if isinstance(other, _Failure):
                raise _shared(other.error())
        return values

    def first(self, value: T) -> T:
        return self.exchange(value if self.rank == 0 else None)[0]  # type: ignore[return-value]

    def lead(self, function: Callable[..., T], *arguments: Any) -> T:
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
        try:
            yield
            self.exchange(None)
        except BaseException as error:
            if not _is_shared(error):
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
    """Return an error, marked as one that every rank raises."""
    error._is_on_all_ranks = True  # type: ignore[attr-defined]
    return error


def _is_shared(error: BaseException) -> bool:
    # Weights are the same bits on all ranks.
    return isinstance(error, NonFiniteError) or getattr(error, "_is_on_all_ranks", False)


def _end_all(communicator: Communicator, error: BaseException) -> None:
    """Print an error with its rank, and end the processes of all ranks."""
    rank, size = communicator.rank, communicator.size
    text = "".join(traceback.format_exception(error))
    print(f"rank {rank} of {size} has failed, which ends all:\n{text}", file=sys.stderr, flush=True)
    communicator.abort(_KEYBOARD if isinstance(error, KeyboardInterrupt) else 1)


def end_all_on_errors(communicator: Communicator) -> None:
    """Stop all ranks when an error ends this process."""
    sys.excepthook = _Hook(communicator, sys.excepthook)


class _Hook:
    """The last handler of errors of a rank: others may wait for it, so it ends them too."""

    def __init__(self, communicator: Communicator, former: Callable[..., Any]) -> None:
        self._communicator = communicator
        self._former = former

    def __call__(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if not _is_shared(error):
            _end_all(self._communicator, error)
        if self._communicator.rank == 0:
            self._former(kind, error, trace)
            sys.stderr.flush()
        else:
            time.sleep(_PRINTING)
        self._communicator.abort(_KEYBOARD if isinstance(error, KeyboardInterrupt) else 1)
