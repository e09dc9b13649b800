"""A fit's methods for communication between processes, implemented for a single process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from mlp_xp.backends import Backend
from mlp_xp.training.data.epoch_plan import EpochPlan
from mlp_xp.training.step.step_settings import Rules
from mlp_xp.training.step.value_and_gradient import BatchGradient, batch_gradient

T = TypeVar("T")


class SingleProcess:
    """The only process of a fit, which computes all rows and makes all decisions.

    The subclass `mlp_xp.distributed.Ranks` implements these methods for several processes. If
    ``is_first`` is true, this process prints, writes files and runs callbacks. ``overrides``
    contains the estimator parameters whose values differ between processes.
    """

    number = 0
    size = 1
    is_single = True
    is_first = True
    overrides: Mapping[str, Any] = MappingProxyType({})

    def exchange(self, value: T) -> list[T]:
        """Return a list of all processes' values."""
        return [value]

    def first(self, value: T) -> T:
        """Return the first process's value."""
        return value

    def first_of(self, function: Callable[[], T]) -> T:
        """Call a function in the first process only, and return its result in all processes."""
        return function()

    def agree(self, describe: Callable[[], dict[str, str]], cure: Callable[[], str] = str) -> None:
        """Raise ValueError unless all processes pass the same description."""

    def join_samples(
        self, check: Callable[..., Any], given: tuple[Any, Any, Any], suffix: str
    ) -> tuple[Any, Any, Any]:
        """Return the X, y and weights of all processes, with X checked; see `check_sample`."""
        X, y, weights = given
        return check(X), y, weights

    def agree_on_samples(self, X: Any, y: np.ndarray, weights: Any, suffix: str) -> None:
        """Raise ValueError if the processes' samples should be identical but are not."""

    def spread(self, backend: Backend) -> Backend:
        """Return the backend that runs steps on all processes together."""
        return backend

    def sharing_errors(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which an error in one process is raised in all processes."""
        return contextlib.nullcontext()

    def fitting(self) -> contextlib.AbstractContextManager[None]:
        """Return the context for a running fit, in which only the first process warns."""
        return contextlib.nullcontext()

    def decide(self, value: T) -> T:
        """Return the first process's decision in all processes."""
        return value

    def call_in_first(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in the first process; all processes receive its result or error."""
        return function(*arguments)

    def asking_first(self, function: Callable[[], T]) -> Callable[[], T]:
        """Wrap a function so that all processes return the first process's result."""
        return function

    def locate_error(self, error: T) -> T:
        """Return the error of the process whose samples caused it."""
        return error

    def on_all(
        self, measure: Callable[[Any], T], outputs: Any, positions: np.ndarray, backend: Backend
    ) -> T:
        """Evaluate outputs for the samples of all processes together."""
        return measure(outputs)

    def parts(self, n_samples: int) -> list[np.ndarray] | None:
        """Return the positions of held-out samples that this process evaluates; None for all."""
        return None

    def own_plan(
        self, plan: EpochPlan, backend: Backend, rules: Rules, owned: np.ndarray | None
    ) -> EpochPlan:
        """Return this process's part of an epoch's plan."""
        return plan

    def own_blocks(
        self, plan: EpochPlan, backend: Backend, rules: Rules, owned: np.ndarray | None
    ) -> EpochPlan:
        """Return this process's part of the blocks for L-BFGS."""
        return plan

    def total(self, sums: np.ndarray) -> np.ndarray:
        """Sum the loss and gradient for L-BFGS over all processes."""
        return sums

    def gradient(self, backend: Backend) -> Callable[..., Callable[..., BatchGradient]]:
        """Return the function that creates gradient functions, e.g. `batch_gradient`."""
        return batch_gradient


SINGLE_PROCESS = SingleProcess()
