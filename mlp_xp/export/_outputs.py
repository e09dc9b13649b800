"""Predictions of an exported estimator, computed with any array library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mlp_xp._utils.array_types import Namespace
from mlp_xp._utils.tree import map_leaves
from mlp_xp.augmentation import make_pixel_map, map_pixels, view_draws
from mlp_xp.backends import get_backend
from mlp_xp.backends.kernels import Kernels
from mlp_xp.estimators.fitted.calibration import calibrated_quantiles
from mlp_xp.estimators.fitted.state import FittedState
from mlp_xp.estimators.settings.config import resolve_augmentation
from mlp_xp.nn.losses import Loss, of_mixture, weigh
from mlp_xp.training.inference.inference import make_predict


class Library(NamedTuple):
    """An array library that computes, or writes down, the predictions of an export.

    ``put`` returns a host array in the library, with floating-point numbers in the dtype of the
    export. ``activate(loss, logits, xp=xp)`` applies a loss's output activation, and ``mean``
    averages a list of arrays.
    """

    xp: Namespace
    put: Callable[[np.ndarray], Any]
    kernels: Kernels
    activate: Callable[..., Any]
    mean: Callable[[Sequence[Any]], Any]


def predictions(member: Any, state: FittedState, x: Any, library: Library) -> Any:
    """Return the probabilities, as a list if there are several targets, or the predicted values.

    ``x : (N, inputs)`` are the encoded inputs of a network, with the fitted `state`.
    """
    xp, put = library.xp, library.put
    predict = make_predict(state.network, None, library.kernels, xp=xp)
    weights = map_leaves(put, (state.params, state.batch_stats))
    scaling = None if state.scaling is None else map_leaves(put, state.scaling)
    views = resolve_augmentation("tta", member.tta, state.n_features)
    found = []
    for source, mask in _sources(views, state.n_features):
        seen = x if source is None else xp.take(x, put(source), axis=1)
        seen = seen if mask is None else seen * put(mask.astype(np.float64))
        logits = predict(*weights, seen, scaling)
        found.append(library.activate(state.activating_loss, logits, xp=xp))
    outputs, targets = _mean(found, library), state.targets
    outputs = targets.restore(state.activating_loss, outputs, put, xp=xp)
    return outputs if targets.classes is None else targets.probabilities(outputs, xp=xp)


def mean_probabilities(
    given: Sequence[Any], weights: Sequence[float] | None, library: Library
) -> list[Any]:
    """Return the probabilities of each target, averaged over the networks of an ensemble."""
    by_target = zip(*given, strict=True) if isinstance(given[0], list) else [given]
    return [_mean(weigh(list(arrays), weights), library) for arrays in by_target]


def named_values(
    states: Sequence[FittedState],
    outputs: Sequence[Any],
    weights: Sequence[float] | None,
    library: Library,
) -> dict[str, Any]:
    """Return the prediction of a regressor, and its standard deviation and quantiles, if any.

    ``outputs`` are the values that each network predicts, and ``weights`` are the networks'.
    """
    xp = library.xp
    losses: list[Loss] = [state.activating_loss for state in states]
    pairs = list(zip(losses, outputs, strict=True))
    points: list[Any] = [loss.point(output, xp=xp) for loss, output in pairs]
    named = {"prediction": _mean(weigh(points, weights), library)}
    if all(loss.has_std for loss in losses):
        stds: list[Any] = [loss.std(output, xp=xp) for loss, output in pairs]
        mean, std = (
            of_mixture(points, stds, weights, xp=xp) if len(pairs) > 1 else (points[0], stds[0])
        )
        named = {"prediction": mean, "std": std}
    levels = losses[0].levels
    if len(levels) > 1 and all(loss.levels == levels for loss in losses):
        quantiles = [
            calibrated_quantiles(loss, output, levels, state.calibration, library.put, xp=xp)
            for state, (loss, output) in zip(states, pairs, strict=True)
        ]
        named["quantiles"] = _mean(weigh(quantiles, weights), library)
    return named


def _mean(arrays: Sequence[Any], library: Library) -> Any:
    return arrays[0] if len(arrays) == 1 else library.mean(arrays)


def _sources(
    views: tuple[Any, ...], n_features: int
) -> list[tuple[np.ndarray | None, np.ndarray | None]]:
    """Return the source of each pixel in each view, and a mask (0 for pixels without a source)."""
    if not views:
        return [(None, None)]
    xp = get_backend("numpy").xp
    found: list[tuple[np.ndarray | None, np.ndarray | None]] = []
    for draws in view_draws(views):
        arrays = map_leaves(lambda number: np.asarray([number]), draws)
        pixel_map = make_pixel_map(views, arrays, xp=xp)
        assert pixel_map is not None
        places: Any = np.arange(n_features)[None, :]
        source: Any = map_pixels(places, pixel_map._replace(mask=None), xp=xp)
        mask: Any = map_pixels(np.ones_like(places), pixel_map, xp=xp)
        found.append((source[0], None if mask.all() else mask[0]))
    return found
