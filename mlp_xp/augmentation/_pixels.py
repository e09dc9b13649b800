"""Pixel maps, which say where each pixel of an augmented image comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

from array_api_compat import device

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.tree import leaves
from mlp_xp.augmentation._base import Augmentation, Draws, ImageAugmentation


class PixelMap(NamedTuple):
    """The source of each pixel in a batch of images; all channels use the same source.

    Pixel (i, j) of image b is copied from pixel ``(lines[b, i], columns[b, j])`` of the original.
    ``lines : (batch, height)`` and ``columns : (batch, width)``, both int64, may have a single row
    for all images. If ``mask : (batch, height, width)`` is given, pixels are 0 where it is False.
    """

    lines: Array
    columns: Array
    mask: Array | None


class Geometric(ImageAugmentation):
    """The base class for augmentations that move pixels or set pixels to 0.

    A subclass implements `draw` and `source_pixels`.
    """

    def source_pixels(
        self, lines: Array, columns: Array, draws: Draws, *, xp: Namespace
    ) -> tuple[Array, Array, Array | None]:
        """Return the source of each pixel.

        Parameters
        ----------
        lines, columns : (batch or 1, height), (batch or 1, width) int64
            The requested positions in the augmented image.
        draws : NamedTuple of (batch, ...) arrays
        xp : namespace

        Returns
        -------
        lines, columns : (batch or 1, height), (batch or 1, width) int64
            The positions in the original image from which to copy the pixels.
        mask : (batch, height, width) bool, False for pixels to set to 0, or None if all are True
        """
        raise NotImplementedError


def make_pixel_map(
    augmentation: Sequence[Augmentation], draws: Sequence[Draws] | None, *, xp: Namespace
) -> PixelMap | None:
    """Return a batch's geometric augmentations combined into one map, or None if there are none."""
    parts = [
        (transform, drawn)
        for transform, drawn in zip(augmentation, draws or (), strict=draws is not None)
        if isinstance(transform, Geometric)
    ]
    if not parts:
        return None
    first, drawn = parts[0]
    options = {"device": device(leaves(drawn)[0])}
    _, height, width = first.image_shape
    lines: Array = xp.arange(height, **options)[None, :]
    columns: Array = xp.arange(width, **options)[None, :]
    mask = None
    for transform, drawn in reversed(parts):  # Trace each pixel back to the original.
        lines, columns, part = transform.source_pixels(lines, columns, drawn, xp=xp)
        if part is not None:
            mask = part if mask is None else xp.logical_and(mask, part)
    return PixelMap(lines, columns, mask)


def view_draws(augmentation: Sequence[Augmentation]) -> list[tuple[Draws, ...]]:
    """Return all combinations of views, for a prediction that averages them."""
    return list(product(*(transform.views for transform in augmentation)))


def take_pixels(images: Array, lines: Array, columns: Array, *, xp: Namespace) -> Array:
    """Copy pixels of images, (batch, channels, height, width), at the given lines and columns."""
    taken = xp.take_along_axis(images, lines[:, None, :, None], axis=2)
    return xp.take_along_axis(taken, columns[:, None, None, :], axis=3)


def take_lines(images: Array, lines: Array, *, xp: Namespace) -> Array:
    """Copy whole lines of images, which is ten times as fast on a CPU as copying pixels."""
    n, n_channels, height, width = images.shape
    options = {"dtype": lines.dtype, "device": device(lines)}
    first = xp.arange(0, n * n_channels * height, height, **options)
    places = xp.reshape(first, (n, n_channels, 1)) + lines[:, None, :]
    taken = xp.take(xp.reshape(images, (-1, width)), xp.reshape(places, (-1,)), axis=0)
    return xp.reshape(taken, images.shape)


def map_pixels(
    x: Array,
    pixel_map: PixelMap,
    *,
    take_pixels: Callable[..., Array] = take_pixels,
    xp: Namespace,
) -> Array:
    """Return images, (batch, features), with pixels rearranged, in the same dtype."""
    lines, columns, mask = pixel_map
    shape = x.shape[0], -1, lines.shape[1], columns.shape[1]
    images = take_pixels(xp.reshape(x, shape), lines, columns, xp=xp)
    if mask is not None:
        images *= xp.astype(mask, images.dtype)[:, None, :, :]
    return xp.reshape(images, x.shape)
