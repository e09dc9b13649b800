"""The network's inputs and targets for a batch: rows, scaling, augmentation and rotation."""

from __future__ import annotations

from typing import NamedTuple

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.tree import leaves
from mlp_xp.augmentation import Augmentation, Draws, Mixture, make_pixel_map
from mlp_xp.backends.kernels import Kernels, Scaling, Source, Whitening
from mlp_xp.nn.network import Params


class Selection(NamedTuple):
    """The rows, weights and random draws of a batch, or of several steps along a first axis.

    ``rows : (batch,)`` contains the samples' integer positions, or is None for all samples.
    ``weights : (batch,)`` is None if all weights are 1. ``draws`` contains each augmentation's
    random draws, a NamedTuple of ``(batch, ...)`` arrays, or is None without augmentations. If
    several processes share a batch, ``positions : (batch,)`` int32 are the positions of these rows
    in the whole batch, or None without dropout, and ``part``, 0-d, is the rows' fraction of the
    batch's total weight. If each model in a stack has its own batch, ``rows`` and ``weights`` have
    leading axes.
    """

    rows: Array | None = None
    weights: Array | None = None
    draws: tuple[Draws, ...] | None = None
    positions: Array | None = None
    part: Array | None = None


class Batch(NamedTuple):
    """A batch: positions of rows in a data set on the device, or the rows themselves.

    ``x : (samples, features)`` and ``y : (samples,)`` or ``(samples, outputs)``. If each model in a
    stack has its own batch, either ``rows`` and ``weights``, or ``x``, ``y`` and ``weights``, have
    leading axes.
    """

    x: Array
    y: Array
    selection: Selection = Selection()


def network_inputs(
    params: Params,
    batch: Batch,
    scaling: Scaling | Whitening | None,
    kernels: Kernels,
    augmentation: tuple[Augmentation, ...],
    *,
    xp: Namespace,
) -> tuple[Array, Array, Mixture | None]:
    """Return the network's inputs and targets for a batch, and the mixture of samples, if any."""
    draws, rows, scaled = batch.selection.draws, batch.selection.rows, of_features(scaling)
    is_own = scaled is not None and scaled.shift.ndim > 1  # One scaling per model in a stack.
    flat = rows if rows is None or rows.ndim == 1 else xp.reshape(rows, (-1,))
    pixel_map = make_pixel_map(augmentation, draws, xp=xp)
    source = Source(batch.x, flat, None if is_own else scaled, pixel_map)
    x = kernels.gather(source, dtype=leaves(params)[0].dtype, xp=xp)
    y = batch.y if flat is None else xp.take(batch.y, flat, axis=0)
    if rows is not None and rows.ndim > 1:  # Each model in a stack has its own rows.
        x = xp.reshape(x, (*rows.shape, x.shape[-1]))
        y = xp.reshape(y, (*rows.shape, *y.shape[1:]))
    if is_own:
        assert scaled is not None
        x = (x - scaled.shift[..., None, :]) * scaled.scale[..., None, :]
    x, mixture = _augment(augmentation, x, batch, xp=xp)
    return rotated(x, scaling, xp=xp), y, mixture


def of_features(scaling: Scaling | Whitening | None) -> Scaling | None:
    """Return an input scaling without its rotation."""
    return Scaling(*scaling[:2]) if isinstance(scaling, Whitening) else scaling


def rotated(x: Array, scaling: Scaling | Whitening | None, *, xp: Namespace) -> Array:
    """Apply a whitening's rotation to inputs; augmentations come first, as they require images."""
    if not isinstance(scaling, Whitening):
        return x
    # `@` would bypass a namespace's own `matmul`.
    return xp.matmul(x, xp.astype(scaling.rotation, x.dtype, copy=False))


def _augment(
    augmentation: tuple[Augmentation, ...], x: Array, batch: Batch, *, xp: Namespace
) -> tuple[Array, Mixture | None]:
    """Apply the non-geometric augmentations, and return the mixture of samples, if any."""
    mixture = None
    for transform, drawn in zip(augmentation, batch.selection.draws or (), strict=True):
        # Convert back, since float32 factors promote bfloat16 values.
        x = xp.astype(transform.apply(x, drawn, xp=xp), x.dtype, copy=False)
        if transform.mixes_targets:
            mixture = transform.mixture(drawn)
    return x, mixture


def targets_and_weights(
    targets: Array, weights: Array | None, mixture: Mixture | None, *, xp: Namespace
) -> list[tuple[Array, Array | None]]:
    """Return the targets and weights of a batch and of any samples mixed into it."""
    if mixture is None:
        return [(targets, weights)]
    partners = mixture.partners
    theirs = None if weights is None else xp.take(weights, partners, axis=0)
    return [(targets, weights), (xp.take(targets, partners, axis=0), theirs)]


def mixed(values: list[Array], mixture: Mixture | None) -> Array:
    """Mix the samples' values with their partners' values."""
    if mixture is None:
        return values[0]
    return values[0] * mixture.share + values[1] * (1.0 - mixture.share)


def in_dtype_of(params: Params, outputs: Array, *, xp: Namespace) -> Array:
    """Convert outputs to the parameters' dtype, since bfloat16 is too imprecise for a loss."""
    return xp.astype(outputs, leaves(params)[0].dtype, copy=False)
