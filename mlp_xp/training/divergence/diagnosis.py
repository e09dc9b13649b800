"""The cause of infinity or NaN in training: the step, the layer, and the remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mlp_xp._utils.array_types import Tree
from mlp_xp._utils.tree import map_leaves
from mlp_xp.nn.network import Network, Params, hidden
from mlp_xp.training.divergence.finite import NON_FINITE_WEIGHTS, Cause, NonFiniteError, is_finite
from mlp_xp.training.step.base_trainer import BaseTrainer
from mlp_xp.training.step.step import StepArguments, StepScalars
from mlp_xp.training.step.value_and_gradient import Evaluation, value_and_gradient

# Inputs or targets are the likely cause if they exceed 1 and the learning rate by this factor.
_LARGE = 100.0
# Sample weights may be the cause if their average is below this value, since the L2 penalty is
# divided by the average.
_SMALL = 0.01


class _Diagnosis(NamedTuple):
    """The layer in which infinity or NaN appeared, or None, and the magnitudes in recent steps.

    ``input`` and ``target`` are the largest magnitudes of inputs and targets (0 for class labels),
    ``weight`` is the smallest average sample weight (1 without weights), and ``penalty`` is the
    largest L2 factor.
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

    def error(self, rate: float, *, epoch: int, step: int | None = None) -> NonFiniteError:
        """Return the error that states the cause, the layer and a remedy.

        For "lbfgs", ``rate`` is 0 and there is no step.
        """
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
            f"{NON_FINITE_WEIGHTS} {cure} First seen in {when}{where}.",
            epoch=epoch,
            step=step,
            layer=self.layer,
            cause=cause,
        )


def diagnose(trainer: BaseTrainer, given: Sequence[StepArguments], after: Params) -> _Diagnosis:
    """Find the cause in recent steps, and the faulty layer in the last of these steps.

    ``given`` contains the steps' arguments. The trainer holds the state before the last step;
    ``after`` contains the weights after the step.
    """
    get = trainer.backend.get
    sizes = [
        examine(trainer, step, float(StepScalars.unpack(get(step.coefs)).l2)) for step in given
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


def examine(trainer: BaseTrainer, given: StepArguments, penalty: float) -> _Diagnosis:
    """Run the forward and backward pass of a step, and find the first layer that is not finite."""
    backend, rules, params = trainer.backend, trainer.rules, trainer.state.params
    xp, network, batch = backend.xp, rules.network, given.batch
    weights, stats = batch.selection.weights, trainer.state.batch_stats
    evaluate = value_and_gradient(network, rules.loss, backend.kernels, rules.augmentation, xp=xp)

    def values(found: Evaluation) -> Iterator[tuple[str, Tree]]:
        """Yield each intermediate result and its name, in order."""
        yield "input", found.x
        yield "targets", found.targets
        if is_weighted:
            yield "sample weights", (xp.sum(weights), 1.0 / xp.sum(weights))
        *names, last = _layer_names(network)
        for depth, name in enumerate(names, 1):
            yield name, hidden(network, params, found.x, found.context, depth)
        yield last, found.logits
        dlogits = found.pull_loss()
        yield "loss", (found.loss, dlogits)
        # Gradients are yielded in the order of the backward pass, from the last layer to the first.
        for name, grads in reversed(_by_layer(network, found.backward(dlogits))):
            yield f"gradient of {name}", grads

    with backend.scope(), np.errstate(all="ignore"):
        # A rank's rows may all be padding, which has weight 0.
        n_weighted = 0 if weights is None else int(xp.count_nonzero(weights))
        is_weighted = n_weighted > 0 or (weights is not None and trainer.processes.is_single)
        n_rates = network.n_keys if trainer.takes_dropout_rates else 0
        rates = tuple(given.coefs[..., -n_rates + i] for i in range(n_rates))
        found = evaluate(params, batch, given.scaling, stats, given.keys, dropout_rates=rates)
        is_real = xp.isdtype(found.targets.dtype, "real floating")
        average = 1.0
        if is_weighted:  # Do not count padding.
            average = float(xp.sum(weights)) / max(n_weighted, 1)
        faulty = (name for name, value in values(found) if not is_finite(backend, value))
        return _Diagnosis(
            next(faulty, None),
            float(xp.max(xp.abs(found.x))),
            float(xp.max(xp.abs(found.targets))) if is_real else 0.0,
            average,
            penalty,
        )


def _layer_names(network: Network) -> list[str]:
    """Return the names of the hidden layers and the output layer."""
    n_hidden = len(network.blocks) - 1
    return [*(f"hidden layer {number}" for number in range(1, n_hidden + 1)), "output layer"]


def _by_layer(network: Network, params: Params) -> list[tuple[str, Params]]:
    """Return (layer name, parameters) pairs; ``params`` may also be gradients."""
    entries = iter(params)
    layers = [
        (name, tuple(next(entries) for block in blocks if block.has_params))
        for name, blocks in zip(_layer_names(network), network.blocks, strict=True)
    ]
    return [(name, layer) for name, layer in layers if layer]
