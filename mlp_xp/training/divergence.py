"""Infinity and NaN in a training: noticed soon, traced to a step and a layer, and undone."""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from mlp_xp._utils.array_types import Array, Tree
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends import Backend
from mlp_xp.backends.kernels import Scaling, Whitening
from mlp_xp.nn.network import Network, Params, forward, hidden
from mlp_xp.training.batches import Data, Plan
from mlp_xp.training.step import Batch, StepArguments, TrainState, prepare

if TYPE_CHECKING:
    from mlp_xp.training.trainer import Rules, Trainer

__all__ = ["Cause", "Epoch", "Group", "Guard", "NonFiniteError", "explain_minimum", "is_finite"]

Cause = Literal["input", "target", "weight", "rate"]
# Learning rates of some steps, and their coefficients on the device, a row each.
Group = tuple[list[float], Array]

# Seconds from one look at the loss to the next: a device is waited for.
_LOOK_SECONDS = 0.1
# Copies of the state take at most this part of the time.
_COPY_SHARE = 0.0025
# Steps that are searched for a cause: it takes some until it shows.
_RECENT = 8
# Inputs and targets this many times larger than 1 and than the learning rate are the likely cause.
_LARGE = 100.0
# Sample weights of a smaller average, by which the penalty is divided, may be.
_SMALL = 0.01
_WHAT = "Solver produced non-finite parameter weights."  # scikit-learn's words


class NonFiniteError(ValueError):
    """A fit has reached infinity or NaN; the model keeps the last finite weights.

    Attributes
    ----------
    epoch : int
        From 1, as in ``history_``; the iteration of "lbfgs".
    step : int or None
        Step of the epoch, from 1; None for "lbfgs".
    layer : str or None
        Where the first such number appeared: e.g. ``"hidden layer 1"``, ``"loss"``, ``"gradient of
        output layer"`` or ``"update of hidden layer 1"``; None where the step does not repeat it.
    cause : {"input", "target", "weight", "rate"}
        The likely one: X, y, the sample weights, or the learning rate.

    Examples
    --------
    >>> from mlp_xp import MLPRegressor
    >>> from mlp_xp.training.divergence import NonFiniteError
    >>> model = MLPRegressor(solver="sgd", learning_rate_init=1e200, random_state=0)
    >>> try:
    ...     model.fit([[0.0], [1.0]], [0.0, 1.0])
    ... except NonFiniteError as error:
    ...     print(error.epoch, error.step, error.layer, error.cause)
    2 1 output layer rate
    """

    def __init__(
        self,
        message: str,
        *,
        epoch: int = 0,
        step: int | None = None,
        layer: str | None = None,
        cause: Cause = "rate",
    ) -> None:
        super().__init__(message)
        self.epoch = epoch
        self.step = step
        self.layer = layer
        self.cause = cause


def is_finite(backend: Backend, tree: Tree) -> bool:
    """Whether all numbers of some arrays are finite; one is read from the device.

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp.backends import get_backend
    >>> from mlp_xp.training.divergence import is_finite
    >>> is_finite(get_backend("numpy"), (np.ones(3), np.asarray([1.0, np.inf])))
    False
    """
    xp = backend.xp
    first, *others = leaves(tree)
    with backend.scope(), np.errstate(all="ignore"):
        # A sum takes one pass, and is finite only if all its terms are.
        total: Any = sum(map(xp.sum, others), start=xp.sum(first))
        if math.isfinite(total):
            return True
        return all(bool(xp.all(xp.isfinite(array))) for array in (first, *others))


class _Finding(NamedTuple):
    """Where a step leaves the finite numbers, and the size of what it was given.

    ``layer`` is None where the forward and backward pass are finite. ``input`` and ``target`` are
    the largest magnitudes, the latter 0 for class labels; ``weight`` is the average sample weight,
    1 where there are none, and ``penalty`` the L2 factor.
    """

    layer: str | None
    input: float
    target: float
    weight: float
    penalty: float

    def cause(self, rate: float) -> Cause:
        """Return the likely cause, given the learning rate."""
        overshoots = self.weight < _SMALL and not self.penalty * rate < 1.0
        if self.layer == "sample weights" or overshoots:
            return "weight"
        large = _LARGE * max(1.0, rate)
        if not self.input < max(large, self.target):
            return "input"
        return "rate" if self.target < large else "target"

    def cure(self, rate: float) -> str:
        """Return what was measured, and what to do about it."""
        cause = self.cause(rate)
        if cause == "input":
            return (
                "The input data may contain large values and need to be preprocessed. The network "
                f"sees values up to {self.input:.3g}: try input_scaling='standardize'."
            )
        if cause == "target":
            return (
                f"y has values up to {self.target:.3g}: scale it, e.g. by "
                "sklearn.compose.TransformedTargetRegressor."
            )
        if cause == "weight":
            return (
                f"The sample weights of the batch average {self.weight:.3g}: scale sample_weight "
                "to an average of 1."
            )
        if rate > 0.0:
            return f"The learning rate was {rate:.3g}: try a smaller learning_rate_init."
        return "The line search took too large a step: try solver='adam'."


def _find(
    backend: Backend,
    rules: Rules,
    state: TrainState,
    batch: Batch,
    scaling: Scaling | Whitening | None,
    keys: Array | None,
    *,
    penalty: float,
) -> _Finding:
    """Find where a step leaves the finite numbers.

    Parameters
    ----------
    backend : Backend
    rules : Rules
    state : TrainState
        Before the step.
    batch, scaling, keys
        What the step was given.
    penalty : float
        Its L2 factor.

    Returns
    -------
    _Finding
    """
    xp, kernels, network, params = backend.xp, backend.kernels, rules.network, state.params
    weights = batch.weights
    context = kernels.to_pass(
        xp, moments=state.moments, is_training=True, weights=weights, keys=keys
    )

    def places(x: Array, targets: Array) -> Iterator[str]:
        """Name what is not finite, in the order of the computation."""
        if not is_finite(backend, x):
            yield "input"
        if not is_finite(backend, targets):
            yield "targets"
        least = float(xp.finfo(x.dtype).smallest_normal)
        if weights is not None and not least <= float(xp.sum(weights)) < math.inf:
            yield "sample weights"
        *names, last = _layer_names(network)
        for depth, name in enumerate(names, 1):
            if not is_finite(backend, hidden(network, params, x, context, depth)):
                yield name
        logits, backward, _ = forward(network, params, x, context, xp=xp)
        if not is_finite(backend, logits):
            yield last
        value, pullback = kernels.loss(rules.loss, logits, targets, weights, xp=xp)
        dlogits = pullback()
        if not is_finite(backend, (value, dlogits)):
            yield "loss"
        # Backward, the last layer comes first.
        for name, grads in reversed(_by_layer(network, backward(dlogits))):
            if not is_finite(backend, grads):
                yield f"gradient of {name}"

    with backend.scope(), np.errstate(all="ignore"):
        x, targets, _ = prepare(params, batch, scaling, kernels, rules.augmentation, xp=xp)
        is_real = xp.isdtype(targets.dtype, "real floating")
        return _Finding(
            next(places(x, targets), None),
            float(xp.max(xp.abs(x))),
            float(xp.max(xp.abs(targets))) if is_real else 0.0,
            # Without the samples of weight 0 that fill up a batch.
            1.0
            if weights is None
            else float(xp.sum(weights)) / max(int(xp.count_nonzero(weights)), 1),
            penalty,
        )


def _layer_names(network: Network) -> list[str]:
    n_hidden = len(network.blocks) - 1
    return [*(f"hidden layer {number}" for number in range(1, n_hidden + 1)), "output layer"]


def _by_layer(network: Network, params: Params) -> list[tuple[str, Params]]:
    """Return the name and the parameters, or their gradients, of each layer that has some."""
    entries = iter(params)
    layers = [
        (name, tuple(next(entries) for block in blocks if block.has_params))
        for name, blocks in zip(_layer_names(network), network.blocks, strict=True)
    ]
    return [(name, layer) for name, layer in layers if layer]


class Epoch(NamedTuple):
    """What the steps of an epoch are given, so that they can be repeated.

    ``keys : (steps, dropouts)`` or None; ``groups`` grows as the steps are prepared.
    """

    data: Data
    plan: Plan
    keys: Array | None
    groups: list[Group]


class Guard:
    """Looks at a training's loss every tenth of a second, and keeps a copy of a finite state.

    When a number is not finite, the steps since the copy are repeated one by one. This gives the
    step, the layer and the last finite state.
    """

    def __init__(self) -> None:
        self._copy_at = self._look_at = 0.0
        self.forget()

    def forget(self) -> None:
        """Drop the copy: the training has ended, or goes on from elsewhere."""
        self._copy: tuple[TrainState, int] | None = None  # With the steps before it.
        self.release()

    def release(self) -> None:
        """Drop the data."""
        self._epochs: list[Epoch] = []  # Since the copy, and the present one last.
        self._first = 0  # The step of the first of them that comes after the copy.

    def begin(self, trainer: Trainer, epoch: Epoch) -> None:
        """Note an epoch before its first step."""
        if self._epochs and self._epochs[-1].data is not epoch.data:
            self.release()
        self._epochs.append(epoch)
        self._look_at = time.perf_counter() + _LOOK_SECONDS
        self._copy_state(trainer, 0)

    def look(self, trainer: Trainer, done: int, *, waits: bool) -> None:
        """Look at the loss after so many steps of the epoch, if it is time to.

        ``waits`` says that the device computes for about as long as between two looks.
        """
        if waits or time.perf_counter() >= self._look_at:
            self.end(trainer, done, float(trainer.backend.get(trainer.state.loss)))
            self._look_at = time.perf_counter() + _LOOK_SECONDS
            self._copy_state(trainer, done)

    def end(self, trainer: Trainer, done: int, loss: float) -> None:
        """Raise `NonFiniteError` if the loss of the steps so far is not finite."""
        if not math.isfinite(loss):
            raise self._error(trainer, done)

    def check(self, trainer: Trainer, done: int | None = None) -> None:
        """Raise `NonFiniteError` if the last update has left weights that are not finite.

        Parameters
        ----------
        done : int, optional
            The steps of the epoch so far; None after the epoch.
        """
        params, _, *others = trainer.state[:4]  # The optimizer's state shows in its weights.
        if not is_finite(trainer.backend, (params, *others)):
            raise self._error(trainer, done)

    def _copy_state(self, trainer: Trainer, done: int) -> None:
        """Copy the state, unless the last copy is too new for what it costs."""
        start = time.perf_counter()
        if self._copy is None or start >= self._copy_at:
            self.check(trainer, done)
            self._copy = trainer.copy(), trainer.n_steps + done
            self._epochs, self._first = self._epochs[-1:], done
            end = time.perf_counter()
            self._copy_at = end + (end - start) / _COPY_SHARE

    def _error(self, trainer: Trainer, done: int | None) -> NonFiniteError:
        """Repeat the steps since the copy; go back to before the one that is not finite."""
        last = trainer.n_epochs + (done is not None)
        if self._copy is None:
            return NonFiniteError(f"{_WHAT} They were so before the first step.", epoch=last)
        (state, n_steps), epochs, first = self._copy, self._epochs, self._first
        trainer.restore(state, n_steps)
        self.forget()
        rate = 0.0
        recent: deque[StepArguments] = deque(maxlen=_RECENT)
        with trainer.backend.scope(), np.errstate(all="ignore"):
            for number, epoch in enumerate(epochs, last + 1 - len(epochs)):
                with contextlib.closing(trainer.given(epoch, epoch.groups)) as steps:
                    for step, (rate, arguments) in enumerate(steps, 1):
                        if step <= first:
                            continue
                        before = trainer.copy()
                        recent.append(arguments)
                        trainer.do(arguments)
                        if not is_finite(trainer.backend, trainer.state[:5]):
                            after = trainer.state.params
                            trainer.restore(before, n_steps)
                            return _explain(trainer, number, step, rate, recent, after)
                        n_steps += 1
                first = 0
        trainer.restore(state, n_steps)
        when = f", step {done}" if done else ""
        return NonFiniteError(
            f"{_WHAT} The learning rate was {rate:.3g}: try a smaller learning_rate_init. First "
            f"seen in epoch {last}{when}.",
            epoch=last,
            step=done,
        )


def _explain(
    trainer: Trainer,
    epoch: int,
    step: int,
    rate: float,
    recent: Iterable[StepArguments],
    after: Params,
) -> NonFiniteError:
    """Return the error of a step.

    Parameters
    ----------
    trainer : Trainer
        Before the step.
    epoch, step, rate
        Of the step.
    recent
        What it and the steps before it were given: the cause may be one of them.
    after
        Its result.
    """
    backend, rules = trainer.backend, trainer.rules
    each = [
        _find(
            backend,
            rules,
            trainer.state,
            batch,
            scaling,
            keys,
            penalty=float(backend.get(coefs)[1]),
        )
        for batch, scaling, coefs, keys in recent
    ]
    layer = each[-1].layer
    found = _Finding(
        layer,
        max(one.input for one in each),
        max(one.target for one in each),
        min(one.weight for one in each),
        max(one.penalty for one in each),
    )
    if layer is None:
        xp = backend.xp
        with backend.scope(), np.errstate(all="ignore"):
            squares = map_leaves(lambda leaf: xp.sum(leaf * leaf), trainer.state.params)
        for what, params in ("penalty", squares), ("update", after):
            for name, entry in _by_layer(rules.network, params):
                if layer is None and not is_finite(backend, entry):
                    layer = f"{what} of {name}"
    return NonFiniteError(
        f"{_WHAT} {found.cure(rate)} First seen in epoch {epoch}, step {step}: {layer}.",
        epoch=epoch,
        step=step,
        layer=layer,
        cause=found.cause(rate),
    )


def explain_minimum(trainer: Trainer, data: Data, plan: Plan, iteration: int) -> NonFiniteError:
    """Return the error of an iteration of "lbfgs" that left the weights of the trainer.

    Parameters
    ----------
    trainer : Trainer
    data, plan
        All samples, in the batches that loss and gradient are computed in.
    iteration : int
    """
    penalty = trainer.rules.alpha / sum(plan.totals)
    with contextlib.closing(data.epoch(plan)) as batches:
        found = [
            _find(
                trainer.backend,
                trainer.rules,
                trainer.state,
                batch,
                trainer.scaling,
                None,
                penalty=penalty,
            )
            for batch in batches
        ]
    largest = max(found, key=lambda each: (each.layer is not None, each.input, each.target))
    where = "" if largest.layer is None else f": {largest.layer}"
    return NonFiniteError(
        f"{_WHAT} {largest.cure(0.0)} First seen in iteration {iteration}{where}.",
        epoch=iteration,
        layer=largest.layer,
        cause=largest.cause(0.0),
    )
