"""L-BFGS with SciPy; the loss and gradient are computed on the device, block by block."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import lru_cache, partial
from typing import Any, NamedTuple, cast

import numpy as np
from scipy.optimize import OptimizeResult
from scipy.optimize import minimize as scipy_minimize

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.sklearn_compat import warn_unconverged
from mlp_xp._utils.tree import leaves, rebuild
from mlp_xp.backends import Backend
from mlp_xp.backends.kernels import Scaling, Whitening
from mlp_xp.nn.losses import Loss
from mlp_xp.nn.network import Network, Params
from mlp_xp.optimizers import kinds
from mlp_xp.training.data.epoch_plan import plan_epoch
from mlp_xp.training.data.placement import Data, Resident, count_work
from mlp_xp.training.divergence.finite import NonFiniteError
from mlp_xp.training.step.inputs import Batch
from mlp_xp.training.step.step import StepArguments
from mlp_xp.training.step.value_and_gradient import value_and_gradient
from mlp_xp.training.trainer import Trainer

# Rows per block, enough for matrix products to run at full speed.
BLOCK = 8192
# A compiled function is kept for the next fit if a block's inputs and activations have at most this
# many elements.
_SMALL = 1 << 19

AfterIteration = Callable[[Callable[[], Params], float], bool]


def minimize(
    trainer: Trainer,
    data: Data,
    weights: np.ndarray | None,
    max_iter: int,
    max_fun: int,
    tol: float,
    after_iteration: AfterIteration,
) -> tuple[int, float]:
    """Minimize the loss over all samples, starting from the trainer's weights.

    The trainer receives the new weights; an iteration counts as an epoch. ``after_iteration(params,
    loss)`` returns True to end the search; ``params()`` returns the weights as NumPy arrays. The
    search also ends when no entry of the gradient exceeds ``tol`` in magnitude. Return the number
    of iterations and the reported loss. For several regression outputs, the loss reported is the
    mean over outputs, although the sum is minimized. The algorithm is L-BFGS-B: Byrd, Lu, Nocedal,
    Zhu, "A limited memory algorithm for bound constrained optimization" (1995).
    """
    backend = trainer.backend
    objective = _Objective(trainer, data, weights)
    start = objective.ravel(trainer.learned)
    stopped = False

    def callback(intermediate_result: OptimizeResult) -> None:
        nonlocal stopped
        # Copy the array, since SciPy overwrites it.
        params = partial(objective.unravel, intermediate_result.x.copy())
        trainer.count(0, 0)  # Count the iteration: a later fit may use another solver.
        stopped = after_iteration(params, objective.reported(intermediate_result))
        if stopped:
            raise StopIteration

    work, sparse_work, largest = count_work(data, trainer.learned, data.n_samples)
    n_calls, was_long = 0, None

    def evaluate(vector: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal n_calls, was_long
        n_calls += trainer.may_compile
        is_long = backend.is_long(work, n_calls)
        if is_long != was_long:
            context.close()
            context.enter_context(backend.training(work, n_calls, sparse_work, largest))
            was_long = is_long
        return objective(vector)

    with contextlib.ExitStack() as context:
        result = scipy_minimize(
            evaluate,
            start,
            method="L-BFGS-B",
            jac=True,
            callback=callback,
            options={"maxfun": max_fun, "maxiter": max_iter, "gtol": tol},
        )
    trainer.set_learned(objective.unravel(result.x), ())
    if not stopped and result.status != 0:
        warn_unconverged(_not_converged(result, max_iter))
    return int(result.nit), objective.reported(result)


def _not_converged(result: OptimizeResult, max_iter: int) -> str:
    parts = [
        f"lbfgs failed to converge after {result.nit} iteration(s) (status={result.status}):",
        str(result.message),
    ]
    if result.nit == max_iter:
        parts.append(
            f"\nIncrease the number of iterations to improve the convergence (max_iter={max_iter})."
        )
    parts.append("\nYou might also want to scale the data, e.g. with input_scaling='standardize'.")
    return "\n".join(parts)


class _Objective:
    """The loss, including the penalty, and its gradient, for a vector of float64 parameters."""

    def __init__(self, trainer: Trainer, data: Data, weights: np.ndarray | None) -> None:
        self._trainer, self._data = trainer, data
        self._backend: Backend = trainer.backend
        rules, processes, n_samples = trainer.rules, trainer.processes, data.n_samples
        plan = plan_epoch(n_samples, BLOCK, weights=weights, pad=trainer.backend.fixed_shapes)
        total = sum(plan.totals)
        self._plan = processes.own_blocks(plan, trainer.backend, rules, data.owned)
        self._layout = _layout(trainer.learned)
        params = trainer.learned
        pairs = zip(leaves(params), kinds(params), strict=True)
        has_penalty = [np.full(math.prod(p.shape), kind != "vector") for p, kind in pairs]
        self._has_penalty = np.concatenate(has_penalty)
        self._l2 = rules.alpha / total
        # On NumPy a compiled function owns its memory, so each thread needs its own function. A
        # function for small data is cached for the thread's next fit, since compiling takes as long
        # as a short fit.
        settings = self._backend, rules.network, rules.loss, self._layout
        # Processes trace a function together, so none of them may reuse an earlier fit's function.
        is_small = min(n_samples, BLOCK) * sum(rules.network.sizes) <= _SMALL
        is_kept = is_small and processes.is_single
        compiled = _compiled if is_kept else _compiled.__wrapped__
        self._evaluate = compiled(*settings, threading.get_ident())
        put, xp = self._backend.put, self._backend.xp
        with self._backend.scope():
            # The weight of each block in the total loss; it also divides the penalty among the
            # blocks.
            block_weights = np.asarray(self._plan.totals)[:, None] / total
            if self._plan.parts is not None:
                block_weights *= self._plan.parts[:, None]
            self._block_weights = self._backend.unstack(put(block_weights, trainer.dtype))
            self._decay = put(self._l2 * self._has_penalty, trainer.dtype)
            slope = xp.zeros_like(self._decay)
            self._sums = xp.zeros_like(slope[:1]), slope
            self._kept = list(data.epoch(self._plan)) if isinstance(data, Resident) else None

    def ravel(self, params: Params) -> np.ndarray:
        """Concatenate all parameters into one vector in host memory."""
        host = [self._backend.get(leaf).reshape(-1) for leaf in leaves(params)]
        return np.concatenate(host, dtype=np.float64)

    def unravel(self, vector: np.ndarray) -> Params:
        """Split a vector into parameters, without a copy unless the dtype must be converted."""
        vector = vector.astype(self._trainer.dtype, copy=False)
        return _unravel(self._layout, vector, xp=cast(Namespace, np))

    def __call__(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        backend, trainer = self._backend, self._trainer
        with backend.scope(), self._batches() as batches:
            given = backend.put(vector, trainer.dtype)
            self._sums = cast(Any, tuple(map(backend.xp.zeros_like, self._sums)))
            for batch, fraction in zip(batches, self._block_weights, strict=True):
                others = self._decay, batch, trainer.scaling, fraction
                self._sums = self._evaluate(self._sums, given, *others)
            # Copy the results, since the next evaluation overwrites them.
            sums = np.concatenate(list(map(backend.get, self._sums)), dtype=np.float64)
        sums = trainer.processes.total(sums)
        return float(sums[0]), sums[1:]

    def _batches(self) -> AbstractContextManager[Iterable[Batch]]:
        if self._kept is not None:
            return contextlib.nullcontext(self._kept)
        # Close the iterator even after an error, which ends the thread that streams batches.
        return contextlib.closing(self._data.epoch(self._plan))

    def reported(self, result: OptimizeResult) -> float:
        """Return a result's loss, including the penalty, as reported by estimators."""
        loss, n_outputs = self._trainer.rules.loss, self._trainer.rules.network.sizes[-1]
        if loss.reported(1.0, n_outputs) == 1.0:
            return float(result.fun)
        weights = result.x[self._has_penalty]
        penalty = 0.5 * self._l2 * float(weights @ weights)
        return float(loss.reported(float(result.fun) - penalty, n_outputs) + penalty)


class _Layout(NamedTuple):
    """The layout of a tree flattened to a vector: each leaf's position and shape."""

    tree: Any  # The tree's leaves are indices into `pieces`.
    pieces: tuple[tuple[int, int, tuple[int, ...]], ...]


def _layout(params: Params) -> _Layout:
    shapes = [tuple(leaf.shape) for leaf in leaves(params)]
    stops = list(itertools.accumulate(map(math.prod, shapes)))
    pieces = tuple(zip([0, *stops], stops, shapes, strict=False))
    return _Layout(rebuild(params, range(len(shapes))), pieces)


def _unravel(layout: _Layout, vector: Any, *, xp: Namespace) -> Params:
    pieces = [xp.reshape(vector[start:stop], shape) for start, stop, shape in layout.pieces]
    return rebuild(layout.tree, pieces)


@lru_cache(maxsize=8)
def _compiled(
    backend: Backend, network: Network, loss: Loss, layout: _Layout, thread: int
) -> Callable[..., tuple[Array, Array]]:
    return backend.compile(_evaluation(backend, network, loss, layout), donate=True)


@lru_cache(maxsize=64)
def _evaluation(
    backend: Backend, network: Network, loss: Loss, layout: _Layout
) -> Callable[..., tuple[Array, Array]]:
    """Return the function that evaluates a block.

    The function is cached, so XLA compiles it only once.
    """
    xp = backend.xp
    evaluate_batch = value_and_gradient(network, loss, backend.kernels, xp=xp)

    def evaluate(
        sums: tuple[Array, Array],
        vector: Array,
        decay: Array,
        batch: Batch,
        scaling: Scaling | Whitening | None,
        fraction: Array,
    ) -> tuple[Array, Array]:
        """Add a block's loss and gradients to the donated sums."""
        params = _unravel(layout, vector, xp=xp)
        found = evaluate_batch(params, batch, scaling)
        grads = leaves(found.backward(found.pull_loss()))
        slope = xp.concat([xp.reshape(grad, (-1,)) for grad in grads])
        pull = vector * decay
        value = found.loss + 0.5 * xp.vecdot(pull, vector)
        slope += pull
        total, slopes = sums
        total += fraction * value
        slope *= fraction
        slopes += slope
        return total, slopes

    return evaluate


def explain_minimum(
    trainer: Trainer, data: Data, weights: np.ndarray | None, iteration: int
) -> NonFiniteError:
    """Return the error for a failed iteration that started from the trainer's weights."""
    plan = plan_epoch(data.n_samples, BLOCK, weights=weights, pad=trainer.backend.fixed_shapes)
    penalty = trainer.rules.alpha / sum(plan.totals)
    plan = trainer.processes.own_plan(plan, trainer.backend, trainer.rules, data.owned)
    from mlp_xp.training.divergence.diagnosis import examine  # Imported only after a failure.

    no_scalars = trainer.state.loss  # `examine` does not read this value.
    with contextlib.closing(data.epoch(plan)) as batches:
        found = [
            examine(trainer, StepArguments(batch, trainer.scaling, no_scalars, None), penalty)
            for batch in batches
        ]
    worst = max(found, key=lambda found: (found.layer is not None, found.input, found.target))
    return worst.error(0.0, epoch=iteration)
