"""Flips, shifts and cutouts: augmentations that move whole pixels, in the dtype of the data."""

from __future__ import annotations

from typing import Literal, NamedTuple

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.dataclass import dataclass
from mlp_xp.augmentation._base import Epoch, Values
from mlp_xp.augmentation._pixels import Geometric


class FlipDraws(NamedTuple):
    """Whether each image is mirrored: 0 or 1, ``(batch,)``."""

    is_mirrored: Values


@dataclass(frozen=True)
class Flip(Geometric):
    """Mirror images from left to right at random.

    Parameters
    ----------
    image_shape : (channels, height, width)
    alternate : bool, default=False
        By default, each image is mirrored with probability 1/2 in each epoch. If True, mirroring is
        random only in the first epoch; then each image is mirrored in every other epoch, so two
        consecutive epochs contain both versions of every image.

    References
    ----------
    Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (2024), arXiv:2404.00498, for the
    alternating flip.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.augmentation import Flip, FlipDraws, make_pixel_map, map_pixels
    >>> draws = FlipDraws(is_mirrored=xp.asarray([1, 0]))
    >>> pixel_map = make_pixel_map([Flip((1, 1, 3))], [draws], xp=xp)
    >>> map_pixels(xp.asarray([[1, 2, 3], [4, 5, 6]]), pixel_map, xp=xp)
    array([[3, 2, 1],
           [4, 5, 6]])
    """

    image_shape: tuple[int, int, int]
    alternate: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.alternate, bool):
            raise ValueError(f"`alternate` must be True or False, got {self.alternate!r}.")

    @property
    def views(self) -> tuple[FlipDraws, ...]:
        """The views that a prediction averages: the original image and the mirrored image."""
        return FlipDraws(0), FlipDraws(1)

    def draw(self, epoch: Epoch) -> FlipDraws:
        """Draw which images are mirrored."""
        if not self.alternate:
            return FlipDraws(epoch.new_generator().integers(0, 2, len(epoch.rows)))
        first = epoch.fixed_generator().integers(0, 2, epoch.n_samples)
        return FlipDraws((first[epoch.rows] + epoch.number) % 2)

    def source_pixels(
        self, lines: Array, columns: Array, draws: FlipDraws, *, xp: Namespace
    ) -> tuple[Array, Array, Array | None]:
        """Return the source of each pixel; see `Geometric.source_pixels`."""
        last = self.image_shape[2] - 1
        return lines, columns + draws.is_mirrored[:, None] * (last - columns * 2), None


class ShiftDraws(NamedTuple):
    """The number of pixels by which each image is shifted up and left, ``(batch,)``."""

    up: Values
    left: Values


@dataclass(frozen=True)
class Shift(Geometric):
    """Shift images vertically and horizontally at random, by whole pixels.

    Parameters
    ----------
    image_shape : (channels, height, width)
    pixels : int, default=4
        The largest shift in each direction, less than height and width. All shifts are equally
        likely.
    padding : {"reflect", "zero"}, default="reflect"
        How to fill the border: ``"reflect"`` mirrors the image at its outermost pixels; ``"zero"``
        inserts 0 *in the data, before input scaling*, i.e. black.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.augmentation import Shift, ShiftDraws, make_pixel_map, map_pixels
    >>> draws = [ShiftDraws(up=xp.asarray([0]), left=xp.asarray([1]))]
    >>> x = xp.asarray([[1, 2, 3, 4, 5, 6]])
    >>> map_pixels(x, make_pixel_map([Shift((1, 2, 3), 1)], draws, xp=xp), xp=xp)
    array([[2, 3, 2, 5, 6, 5]])
    >>> map_pixels(x, make_pixel_map([Shift((1, 2, 3), 1, "zero")], draws, xp=xp), xp=xp)
    array([[2, 3, 0, 5, 6, 0]])
    """

    image_shape: tuple[int, int, int]
    pixels: int = 4
    padding: Literal["reflect", "zero"] = "reflect"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_number("pixels", 1, min(self.image_shape[1:]) - 1)
        if self.padding not in ("reflect", "zero"):
            raise ValueError(f"`padding` must be 'reflect' or 'zero', got {self.padding!r}.")

    @property
    def views(self) -> tuple[ShiftDraws, ...]:
        """The views that a prediction averages: the image, and shifts up, down, left and right."""
        n = self.pixels
        return tuple(ShiftDraws(*draw) for draw in ((0, 0), (n, 0), (-n, 0), (0, n), (0, -n)))

    def draw(self, epoch: Epoch) -> ShiftDraws:
        """Draw each image's shifts up and left."""
        shape = len(epoch.rows), 2
        return ShiftDraws(*epoch.new_generator().integers(-self.pixels, self.pixels + 1, shape).T)

    def source_pixels(
        self, lines: Array, columns: Array, draws: ShiftDraws, *, xp: Namespace
    ) -> tuple[Array, Array, Array | None]:
        """Return the source of each pixel; see `Geometric.source_pixels`."""
        _, height, width = self.image_shape
        lines, columns = lines + draws.up[:, None], columns + draws.left[:, None]
        mask = None
        if self.padding == "zero":
            inside = _within(lines, 0, height, xp=xp), _within(columns, 0, width, xp=xp)
            mask = _both(*inside, xp=xp)
        return _reflected(lines, height, xp=xp), _reflected(columns, width, xp=xp), mask


class CutoutDraws(NamedTuple):
    """The row and column of each hole's center, ``(batch,)``."""

    line: Values
    column: Values


@dataclass(frozen=True)
class Cutout(Geometric):
    """Cut a random square hole, which may extend beyond the border, out of each image.

    The hole is filled with 0 *in the data, before input scaling*, i.e. black.

    Parameters
    ----------
    image_shape : (channels, height, width)
    size : int
        The side length of the hole in pixels.

    References
    ----------
    DeVries, Taylor, "Improved regularization of convolutional neural networks with cutout" (2017),
    arXiv:1708.04552.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.augmentation import Cutout, CutoutDraws, make_pixel_map, map_pixels
    >>> draws = CutoutDraws(line=xp.asarray([1]), column=xp.asarray([2]))
    >>> pixel_map = make_pixel_map([Cutout((1, 2, 3), 2)], [draws], xp=xp)
    >>> map_pixels(xp.asarray([[1, 2, 3, 4, 5, 6]]), pixel_map, xp=xp)
    array([[1, 0, 0, 4, 0, 0]])
    """

    image_shape: tuple[int, int, int]
    size: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_number("size", 1, 2 * max(self.image_shape[1:]))

    def draw(self, epoch: Epoch) -> CutoutDraws:
        """Draw the center of each hole."""
        shape = len(epoch.rows), 2
        return CutoutDraws(*epoch.new_generator().integers(0, self.image_shape[1:], shape).T)

    def source_pixels(
        self, lines: Array, columns: Array, draws: CutoutDraws, *, xp: Namespace
    ) -> tuple[Array, Array, Array | None]:
        """Return the source of each pixel; see `Geometric.source_pixels`."""
        low = -(self.size // 2)
        inside = (
            _within(places - middle[:, None], low, low + self.size, xp=xp)
            for places, middle in ((lines, draws.line), (columns, draws.column))
        )
        return lines, columns, xp.logical_not(_both(*inside, xp=xp))


def _within(places: Array, low: int, high: int, *, xp: Namespace) -> Array:
    return xp.logical_and(places >= low, places < high)


def _both(rows: Array, columns: Array, *, xp: Namespace) -> Array:
    """Return a mask that is True for each pixel whose row and column are both True."""
    return xp.logical_and(rows[:, :, None], columns[:, None, :])


def _reflected(places: Array, n: int, *, xp: Namespace) -> Array:
    """Reflect positions at the outermost pixels, without repeating those pixels."""
    return (n - 1) - xp.abs((n - 1) - xp.abs(places))
