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
from mlp_xp.estimators.fitted.calibration import (
    calibrated_quantiles,
    interval_levels,
    pooled_errors,
)
from mlp_xp.estimators.fitted.groups import Groups, column_at
from mlp_xp.estimators.fitted.prediction_sets import rank_penalty, set_limits
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
    groups: Sequence[Groups | None] = (),
    interval: float | None = None,
) -> dict[str, Any]:
    """Return the prediction of a regressor, and its standard deviation, quantiles and limits.

    ``outputs`` are the values that each network predicts, ``weights`` are the networks', and
    ``groups`` are the groups of the rows for each network.
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

    def quantiles(levels: Sequence[float]) -> Any:
        each: list[Any] = [output for _, output in pairs]
        if "std" in named:
            each = [xp.concat([named["prediction"], named["std"]], axis=1)]
        known = groups or [None] * len(each)
        found = [
            calibrated_quantiles(
                loss, output, levels, state.calibration, library.put, groups=own, xp=xp
            )
            for loss, output, state, own in zip(losses, each, states, known, strict=False)
        ]
        return _mean(weigh(found, weights if len(found) > 1 else None), library)

    if len(levels) > 1 and all(loss.levels == levels for loss in losses):
        named["quantiles"] = quantiles(levels)
    if interval is not None:
        for state in states:
            limits = interval_levels(interval, state.calibration)
        found = quantiles(limits)
        named |= {"lower": found[..., 0], "upper": found[..., 1]}
    return named


def set_of_classes(
    probabilities: Any,
    states: Sequence[FittedState],
    coverage: float,
    groups: Groups | None,
    library: Library,
) -> Any:
    """Return which classes are in the set of each row, as `prediction_sets` does."""
    xp, put = library.xp, library.put
    n_classes = probabilities.shape[1]
    limits = set_limits(coverage, pooled_errors(states), groups)
    own, other = probabilities[:, :, None], probabilities[:, None, :]
    earlier = put(np.tri(n_classes, k=-1, dtype=bool))  # Of two equal classes, the first is first.
    is_before = xp.logical_or(other > own, xp.logical_and(other == own, earlier))
    mass = xp.sum(xp.where(is_before, other, put(np.zeros(()))), axis=2)
    rank = xp.sum(xp.astype(is_before, probabilities.dtype), axis=2)
    scores = mass + probabilities / put(np.asarray(2.0)) + rank_penalty(rank, put, xp=xp)
    limit = put(limits) if groups is None else groups.pick(put(limits), put, xp=xp)
    return xp.logical_or(scores <= limit, rank == put(np.zeros(())))


def groups_in_graph(state: FittedState, x: Any, library: Library) -> Groups | None:
    """Return the groups of the rows with encoded inputs, or None if calibrated without groups."""
    if state.calibration is None or state.coverage_by is None:
        return None
    column = column_at(state.coverage_by, str(state.coverage_by), state.columns)
    matrix = library.xp.take(x, library.put(column.places), axis=1)
    codes = state.calibration.codes
    return Groups.match(column, codes, matrix, library.put, xp=library.xp)


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
