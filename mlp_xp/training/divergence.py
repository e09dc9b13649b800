"""Infinity and NaN in training: detect them, find step, layer and cause, restore finite weights."""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mlp_xp._utils.array_types import Tree
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.nn.network import Network, Params, hidden
from mlp_xp.training.arguments import Epoch, Repeatable
from mlp_xp.training.batches import Data
from mlp_xp.training.epochs import EpochPlan
from mlp_xp.training.finite import Cause, NonFiniteError, is_finite
from mlp_xp.training.rank_plan import own_plan
from mlp_xp.training.records import Running
from mlp_xp.training.scalars import StepScalars
from mlp_xp.training.step import StepArguments
from mlp_xp.training.value_and_gradient import Evaluation, value_and_gradient

__all__ = ["Guard", "explain_minimum"]

# Seconds between two checks of the loss: each waits for the device.
_LOOK_SECONDS = 0.1
# Largest share of the time that is spent on copies of the state.
_COPY_SHARE = 0.0025
# Expected seconds of the first copy: so much, and so much for each number.
_COPY_SECONDS, _COPY_NUMBER_SECONDS = 1e-4, 2e-9
# Steps that are searched for the cause: its effect can take a few steps to show.
_RECENT = 8
# Inputs and targets this many times larger than 1 and than the learning rate are the likely cause.
_LARGE = 100.0
# Sample weights of a smaller average, by which the penalty is divided, may be the cause.
_SMALL = 0.01
_WHAT = "Solver produced non-finite parameter weights."  # scikit-learn's words


class Guard:
    """Detects a loss or weights that are not finite, and restores the last finite state.

    The loss is read every tenth of a second. The trainer can return to a restore point: the state
    it started from, later a copy of its state, made as often as `_COPY_SHARE` of the time allows.
    When a number is not finite, the steps since then are repeated one by one, which finds the step
    and the layer, and the state before it. Between two fits, or two calls of `partial_fit`, no
    data are kept, and what was learned since the last copy is lost.

    Attributes
    ----------
    running : Running or None
        The averages of the epoch so far, once they have been read.
    """

    def __init__(self) -> None:
        self.running: Running | None = None
        self._look_at = 0.0
        self._since = 0.0  # When the restore point was set.
        self._cost: float | None = None  # Seconds for a copy, once the state has been looked at.
        self._restore: Callable[[Repeatable], None] | None = None
        self._epochs: list[Epoch] = []  # Since the restore point; the last is the present one.
        self._first = 0  # The steps of the first of them that were done before it.

    def start(self, trainer: Repeatable, restore: Callable[[Repeatable], None]) -> None:
        """Set the restore point of a new trainer: `restore` returns to its present state."""
        self._restore = restore
        self._since = time.perf_counter()
        self._cost = None

    def forget(self) -> None:
        """Drop the restore point: the training has ended, or its weights were replaced."""
        self._restore = None

    def release(self) -> None:
        """Drop the data."""
        self._epochs, self._first = [], 0

    def begin(self, trainer: Repeatable, epoch: Epoch, now: float) -> None:
        """Store an epoch before its first step, at a time of `time.perf_counter`."""
        self._epochs.append(epoch)
        self.running = None
        if self._is_copy_due(trainer, now):
            self._copy_state(trainer, epoch.first)

    def look(self, trainer: Repeatable, done: int, *, waits: bool) -> None:
        """Check the loss after so many steps of the epoch, if it is time to.

        ``waits``: the device computes for about as long as between two checks.
        """
        now = time.perf_counter()
        if self._is_look_due(now, waits):
            loss, *accuracy = trainer.read_sums()
            self.end(trainer, done, loss)
            counts = self._epochs[-1].plan.counts
            share = sum(counts[:done]) / sum(counts)
            self.running = Running(loss / share, accuracy[0] / share if accuracy else None)
            self._look_at = now + _LOOK_SECONDS
            if self._is_copy_due(trainer, now):
                self._copy_state(trainer, done)

    def end(self, trainer: Repeatable, done: int, loss: float) -> None:
        """Raise `NonFiniteError` if the loss of the steps so far is not finite."""
        if not math.isfinite(loss):
            raise self._error(trainer, done)

    def check(self, trainer: Repeatable, done: int | None = None) -> None:
        """Raise `NonFiniteError` if the last update has left weights that are not finite.

        Parameters
        ----------
        done : int, optional
            The steps of the epoch so far; None after the epoch.
        """
        state = trainer.state  # The optimizer's state shows in its weights.
        if not is_finite(trainer.backend, (state.params, state.batch_stats, state.average)):
            raise self._error(trainer, done)

    def _is_look_due(self, now: float, waits: bool) -> bool:
        return waits or now >= self._look_at or self._restore is None

    def _is_copy_due(self, trainer: Repeatable, now: float) -> bool:
        if self._cost is None:
            n_numbers = sum(math.prod(leaf.shape) for leaf in leaves(trainer.state))
            self._cost = _COPY_SECONDS + _COPY_NUMBER_SECONDS * n_numbers
        return self._restore is None or (now - self._since) * _COPY_SHARE >= self._cost

    def _copy_state(self, trainer: Repeatable, done: int) -> None:
        """Copy the present state as the restore point."""
        start = time.perf_counter()
        self.check(trainer, done)
        self.forget()  # There are never two copies at once.
        copied, n_steps = trainer.copy(), trainer.n_steps + done
        self._restore = lambda trainer: trainer.restore(copied, n_steps)
        self._epochs, self._first = self._epochs[-1:], done
        self._since = time.perf_counter()
        self._cost = self._since - start

    def _error(self, trainer: Repeatable, done: int | None) -> NonFiniteError:
        """Repeat the steps since the restore point; return to the state before the faulty one."""
        last = trainer.n_epochs + (done is not None)
        restore, epochs, first = self._restore, self._epochs, self._first
        self.forget()
        self.release()
        if restore is None:
            when = f"step {done} of epoch {last}" if done else "the first step"
            return NonFiniteError(f"{_WHAT} They were so before {when}.", epoch=last, step=done)
        restore(trainer)
        rate = 0.0
        recent: deque[StepArguments] = deque(maxlen=_RECENT)
        with trainer.backend.scope(), np.errstate(all="ignore"):
            for number, epoch in enumerate(epochs, last + 1 - len(epochs)):
                with contextlib.closing(trainer.repeat(epoch)) as steps:
                    for step, (rate, arguments) in enumerate(steps, epoch.first + 1):
                        if step <= first:
                            continue
                        last_state, n_steps = trainer.copy(), trainer.n_steps
                        recent.append(arguments)
                        trainer.run_step(arguments)
                        if not is_finite(trainer.backend, trainer.state):
                            after = trainer.state.params
                            trainer.restore(last_state, n_steps)
                            found = _diagnose(trainer, recent, after)
                            return found.error(rate, epoch=number, step=step)
                        trainer.n_steps += 1
                first = 0
        restore(trainer)
        when = f", step {done}" if done else ""
        return NonFiniteError(
            f"{_WHAT} The learning rate was {rate:.3g}: try a smaller learning_rate_init. First "
            f"seen in epoch {last}{when}.",
            epoch=last,
            step=done,
        )


class _Diagnosis(NamedTuple):
    """The layer at fault, or None, and the sizes of what some steps were computed from.

    ``input`` and ``target`` are the largest magnitudes, the latter 0 for class labels; ``weight``
    is the smallest average of sample weights, 1 without them; ``penalty`` the largest L2 factor.
    """

    layer: str | None
    input: float
    target: float
    weight: float
    penalty: float

    def cause(self, rate: float) -> Cause:
        """Return the likely cause, from the learning rate too."""
        overshoots = self.weight < _SMALL and not self.penalty * rate < 1.0
        if self.layer == "sample weights" or overshoots:
            return "weight"
        large = _LARGE * max(1.0, rate)
        if not self.input < max(large, self.target):
            return "input"
        return "rate" if self.target < large else "target"

    def error(self, rate: float, *, epoch: int, step: int | None = None) -> NonFiniteError:
        """Return the error that names cause, cure, and place; "lbfgs" has no rate and no steps."""
        cause = self.cause(rate)
        cure = {
            "input": "The input data may contain large values and need to be preprocessed. The "
            f"network sees values up to {self.input:.3g}: try input_scaling='standardize'.",
            "target": f"y has values up to {self.target:.3g}: try target_scaling='standardize'.",
            "weight": f"The sample weights of the batch average {self.weight:.3g}: scale "
            "sample_weight to an average of 1.",
            "rate": f"The learning rate was {rate:.3g}: try a smaller learning_rate_init."
            if rate > 0.0
            else "The line search took too large a step: try solver='adam'.",
        }[cause]
        when = f"iteration {epoch}" if step is None else f"epoch {epoch}, step {step}"
        where = "" if self.layer is None else f": {self.layer}"
        return NonFiniteError(
            f"{_WHAT} {cure} First seen in {when}{where}.",
            epoch=epoch,
            step=step,
            layer=self.layer,
            cause=cause,
        )


def _diagnose(trainer: Repeatable, given: Sequence[StepArguments], after: Params) -> _Diagnosis:
    """Find the cause in some steps, and the layer in the last one.

    Parameters
    ----------
    trainer : Repeatable
        Before the last step.
    given
        What the steps took.
    after
        The weights after the last step.
    """
    get = trainer.backend.get
    sizes = [
        _examine(trainer, step, float(StepScalars.unpack(get(step.coefs)).l2)) for step in given
    ]
    layer = sizes[-1].layer
    if layer is None:
        xp = trainer.backend.xp
        with trainer.backend.scope(), np.errstate(all="ignore"):
            squares = map_leaves(lambda leaf: xp.sum(leaf * leaf), trainer.state.params)
        places = (
            f"{what} of {name}"
            for what, params in (("penalty", squares), ("update", after))
            for name, entry in _by_layer(trainer.rules.network, params)
            if not is_finite(trainer.backend, entry)
        )
        layer = next(places, None)
    _, inputs, targets, weights, penalties = zip(*sizes, strict=True)
    return _Diagnosis(layer, max(inputs), max(targets), min(weights), max(penalties))


def explain_minimum(
    trainer: Repeatable, data: Data, plan: EpochPlan, iteration: int
) -> NonFiniteError:
    """Return the error of an iteration of "lbfgs" that left the weights of the trainer.

    Parameters
    ----------
    trainer : Repeatable
    data, plan
        All samples, in the batches that loss and gradient are computed in.
    iteration : int
    """
    penalty = trainer.rules.alpha / sum(plan.totals)
    if trainer.backend.communicator is not None:
        plan = own_plan(plan, trainer.backend, trainer.rules, data.owned)
    no_scalars = trainer.state.loss  # They are not looked at.
    with contextlib.closing(data.epoch(plan)) as batches:
        found = [
            _examine(trainer, StepArguments(batch, trainer.scaling, no_scalars, None), penalty)
            for batch in batches
        ]
    worst = max(
        found,
        key=lambda diagnosis: (diagnosis.layer is not None, diagnosis.input, diagnosis.target),
    )
    return worst.error(0.0, epoch=iteration)


def _examine(trainer: Repeatable, given: StepArguments, penalty: float) -> _Diagnosis:
    """Compute forward and backward pass of a step, and find the first layer that is not finite."""
    backend, rules, params = trainer.backend, trainer.rules, trainer.state.params
    # A rank looks at its own samples.
    xp, kernels = backend.xp, backend.kernels._replace(sum_over_ranks=None)
    network, stats, batch = rules.network, trainer.state.batch_stats, given.batch
    batch = batch._replace(positions=None, part=None)
    weights = batch.weights
    evaluate = value_and_gradient(network, rules.loss, kernels, rules.augmentation, xp=xp)

    def values(found: Evaluation) -> Iterator[tuple[str, Tree]]:
        """Yield what is computed, and its name, in order."""
        yield "input", found.x
        yield "targets", found.targets
        if weights is not None:
            yield "sample weights", 1.0 / xp.sum(weights)
        context = kernels.context(
            xp, batch_stats=stats, is_training=True, weights=weights, keys=given.keys
        )
        *names, last = _layer_names(network)
        for depth, name in enumerate(names, 1):
            yield name, hidden(network, params, found.x, context, depth)
        yield last, found.logits
        dlogits = found.pull_loss()
        yield "loss", (found.loss, dlogits)
        # The last layer comes first.
        for name, grads in reversed(_by_layer(network, found.backward(dlogits))):
            yield f"gradient of {name}", grads

    with backend.scope(), np.errstate(all="ignore"):
        found = evaluate(params, batch, given.scaling, stats, given.keys)
        is_real = xp.isdtype(found.targets.dtype, "real floating")
        average = 1.0
        if weights is not None:  # Samples of weight 0 fill up a batch.
            average = float(xp.sum(weights)) / max(int(xp.count_nonzero(weights)), 1)
        faulty = (name for name, value in values(found) if not is_finite(backend, value))
        return _Diagnosis(
            next(faulty, None),
            float(xp.max(xp.abs(found.x))),
            float(xp.max(xp.abs(found.targets))) if is_real else 0.0,
            average,
            penalty,
        )


def _layer_names(network: Network) -> list[str]:
    """Return the names of the hidden layers and of the output layer."""
    n_hidden = len(network.blocks) - 1
    return [*(f"hidden layer {number}" for number in range(1, n_hidden + 1)), "output layer"]


def _by_layer(network: Network, params: Params) -> list[tuple[str, Params]]:
    """Return the name and the parameters, or their gradients, of each layer that has any."""
    entries = iter(params)
    layers = [
        (name, tuple(next(entries) for block in blocks if block.has_params))
        for name, blocks in zip(_layer_names(network), network.blocks, strict=True)
    ]
    return [(name, layer) for name, layer in layers if layer]
