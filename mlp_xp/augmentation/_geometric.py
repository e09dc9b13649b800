"""Flips, shifts and holes: which pixel each pixel of a picture comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, NamedTuple

from array_api_compat import device

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.augmentation._base import Augmentation, Epoch, Pictures, columns

__all__ = [
    "Cutout",
    "Flip",
    "Geometric",
    "Shift",
    "View",
    "look",
    "pick",
    "pick_lines",
    "view_of",
    "views_of",
]


class View(NamedTuple):
    """Where the pixels of a batch of pictures come from: those of all channels alike.

    Pixel (i, j) of picture b is pixel ``(lines[b, i], columns[b, j])`` of the picture as it was;
    ``lines : (batch, height)`` and ``columns : (batch, width)`` are int64, or of one row for all
    pictures. ``keep : (batch, height, width)`` bool, or None for all: the other pixels are 0.
    """

    lines: Array
    columns: Array
    keep: Array | None


class Geometric(Pictures):
    """An augmentation that takes each pixel from somewhere, or makes it 0."""

    def source(
        self, lines: Array, columns: Array, moves: Array, *, xp: Namespace
    ) -> tuple[Array, Array, Array | None]:
        """Tell where pixels come from.

        Parameters
        ----------
        lines, columns : (batch or 1, height), (batch or 1, width) int64
            Places in the picture that this makes.
        moves : (batch, n_moves) int64
        xp : namespace

        Returns
        -------
        lines, columns : likewise
            Places in the picture that it is made of.
        keep : (batch, height, width) bool, or None for all
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Flip(Geometric):
    """Mirror pictures, left for right.

    Parameters
    ----------
    image_shape : (channels, height, width)
    alternate : bool, default=False
        By default each picture is mirrored with probability 1/2, each time anew. If True that
        is so in the first epoch only; from there on each picture is mirrored in every other epoch,
        so that two epochs show both sides of all.

    References
    ----------
    Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (2024), arXiv:2404.00498, for the
    alternating flip.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.augmentation import Flip, look, view_of
    >>> view = view_of([Flip((1, 1, 3))], xp.asarray([[1], [0]]), xp=xp)
    >>> look(xp.asarray([[1, 2, 3], [4, 5, 6]]), view, xp=xp)
    array([[3, 2, 1],
           [4, 5, 6]])
    """

    image_shape: tuple[int, int, int]
    alternate: bool = False

    n_moves = 1
    views = ((0,), (1,))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.alternate, bool):
            raise ValueError(f"alternate is {self.alternate!r}, and must be True or False.")

    def draw_moves(self, epoch: Epoch) -> Any:
        """Draw whether each picture is mirrored, as 0 or 1."""
        if not self.alternate:
            return epoch.fresh().integers(0, 2, (len(epoch.rows), 1))
        first = epoch.for_good().integers(0, 2, (epoch.n_samples, 1))
        return (first[epoch.rows] + epoch.number) % 2

    def source(
        self, lines: Array, columns: Array, moves: Array, *, xp: Namespace
    ) -> tuple[Array, Array, Array | None]:
        """Tell where pixels come from; see `Geometric.source`."""
        last = self.image_shape[2] - 1
        return lines, columns + moves * (last - columns * 2), None


@dataclass(frozen=True)
class Shift(Geometric):
    """Shift pictures up or down and to a side, each by a whole number of pixels.

    Parameters
    ----------
    image_shape : (channels, height, width)
    pixels : int, default=4
        How far at the most, in both directions; all shifts are equally likely. Less than height and
        width.
    padding : {"reflect", "zero"}, default="reflect"
        What comes in at the border: the picture mirrored at its outermost pixels, or the value 0
        *of the data, before input scaling*: black for pixels, whatever the mean.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.augmentation import Shift, look, view_of
    >>> x, moves = xp.asarray([[1, 2, 3, 4, 5, 6]]), xp.asarray([[0, 1]])
    >>> look(x, view_of([Shift((1, 2, 3), 1)], moves, xp=xp), xp=xp)
    array([[2, 3, 2, 5, 6, 5]])
    >>> look(x, view_of([Shift((1, 2, 3), 1, "zero")], moves, xp=xp), xp=xp)
    array([[2, 3, 0, 5, 6, 0]])
    """

    image_shape: tuple[int, int, int]
    pixels: int = 4
    padding: Literal["reflect", "zero"] = "reflect"

    n_moves = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_number("pixels", 1, min(self.image_shape[1:]) - 1)
        if self.padding not in ("reflect", "zero"):
            raise ValueError(f"padding is {self.padding!r}, and must be 'reflect' or 'zero'.")

    @property
    def views(self) -> tuple[tuple[int, int], ...]:
        """What a prediction averages over: not at all, up, down, left, right."""
        n = self.pixels
        return (0, 0), (n, 0), (-n, 0), (0, n), (0, -n)

    def draw_moves(self, epoch: Epoch) -> Any:
        """Draw how far each picture goes up and to the left."""
        return epoch.fresh().integers(-self.pixels, self.pixels + 1, (len(epoch.rows), 2))

    def source(
        self, lines: Array, columns: Array, moves: Array, *, xp: Namespace
    ) -> tuple[Array, Array, Array | None]:
        """Tell where pixels come from; see `Geometric.source`."""
        _, height, width = self.image_shape
        lines, columns = lines + moves[:, :1], columns + moves[:, 1:]
        keep = None
        if self.padding == "zero":
            keep = _meet(_within(lines, 0, height, xp=xp), _within(columns, 0, width, xp=xp), xp=xp)
        return _reflected(lines, height, xp=xp), _reflected(columns, width, xp=xp), keep


@dataclass(frozen=True)
class Cutout(Geometric):
    """Put a square hole in each picture, anywhere: in part, it may lie beyond the border.

    The hole has the value 0 *of the data, before input scaling*: black for pixels.

    Parameters
    ----------
    image_shape : (channels, height, width)
    size : int
        Of a side, in pixels.

    References
    ----------
    DeVries, Taylor, "Improved regularization of convolutional neural networks with cutout" (2017),
    arXiv:1708.04552.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.augmentation import Cutout, look, view_of
    >>> view = view_of([Cutout((1, 2, 3), 2)], xp.asarray([[1, 2]]), xp=xp)
    >>> look(xp.asarray([[1, 2, 3, 4, 5, 6]]), view, xp=xp)
    array([[1, 0, 0, 4, 0, 0]])
    """

    image_shape: tuple[int, int, int]
    size: int

    n_moves = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_number("size", 1, 2 * max(self.image_shape[1:]))

    def draw_moves(self, epoch: Epoch) -> Any:
        """Draw the middle of each hole."""
        return epoch.fresh().integers(0, self.image_shape[1:], (len(epoch.rows), 2))

    def source(
        self, lines: Array, columns: Array, moves: Array, *, xp: Namespace
    ) -> tuple[Array, Array, Array | None]:
        """Tell where pixels come from; see `Geometric.source`."""
        low = -(self.size // 2)
        inside = (
            _within(places - middle, low, low + self.size, xp=xp)
            for places, middle in ((lines, moves[:, :1]), (columns, moves[:, 1:]))
        )
        return lines, columns, xp.logical_not(_meet(*inside, xp=xp))


def _within(places: Array, low: int, high: int, *, xp: Namespace) -> Array:
    return xp.logical_and(places >= low, places < high)


def _meet(lines: Array, columns: Array, *, xp: Namespace) -> Array:
    """Tell for each pixel whether both its line and its column are among some."""
    return xp.logical_and(lines[:, :, None], columns[:, None, :])


def _reflected(places: Array, n: int, *, xp: Namespace) -> Array:
    """Bring places beyond the border back, mirrored at the outermost pixel, which comes once."""
    return (n - 1) - xp.abs((n - 1) - xp.abs(places))


# --- views ----------------------------------------------------------------------------------------


def view_of(chosen: Sequence[Augmentation], moves: Array | None, *, xp: Namespace) -> View | None:
    """Put all geometric augmentations of a batch together.

    Parameters
    ----------
    chosen : sequence of Augmentation
        In the order in which they are done; those that are not geometric are left out.
    moves : (batch, columns) int64, or None where none takes any
        What was drawn, see `columns`.
    xp : namespace

    Returns
    -------
    View, or None if none is geometric
    """
    parts = [
        (each, mine)
        for each, mine, _ in columns(chosen, moves, None)
        if isinstance(each, Geometric) and mine is not None
    ]
    if moves is None or not parts:
        return None
    where = {"dtype": moves.dtype, "device": device(moves)}
    _, height, width = parts[0][0].image_shape
    lines: Array = xp.arange(height, **where)[None, :]
    across: Array = xp.arange(width, **where)[None, :]
    keep = None
    for each, mine in reversed(parts):  # From what is to be made, back to what there is.
        lines, across, kept = each.source(lines, across, mine, xp=xp)
        if kept is not None:
            keep = kept if keep is None else xp.logical_and(keep, kept)
    return View(lines, across, keep)


def views_of(chosen: Sequence[Flip | Shift]) -> list[tuple[int, ...]]:
    """Return what a prediction averages over: the moves of all combinations of views.

    Examples
    --------
    >>> from mlp_xp.augmentation import Flip, Shift, views_of
    >>> views_of([Flip((1, 8, 8))]), len(views_of([Flip((1, 8, 8)), Shift((1, 8, 8), pixels=1)]))
    ([(0,), (1,)], 10)
    """
    return [sum(moves, ()) for moves in product(*(each.views for each in chosen))]


def pick(pictures: Array, lines: Array, columns: Array, *, xp: Namespace) -> Array:
    """Take pixels of pictures by their lines and columns.

    Parameters
    ----------
    pictures : (batch, channels, height, width)
    lines, columns : (batch or 1, height), (batch or 1, width) int64
    xp : namespace

    Returns
    -------
    (batch, channels, height, width) array
        Not a view of ``pictures``.
    """
    taken = xp.take_along_axis(pictures, lines[:, None, :, None], axis=2)
    return xp.take_along_axis(taken, columns[:, None, None, :], axis=3)


def pick_lines(pictures: Array, lines: Array, *, xp: Namespace) -> Array:
    """Take lines of pictures whole: where a library copies memory, a tenth of the work.

    Parameters
    ----------
    pictures : (batch, channels, height, width)
    lines : (batch or 1, height) int64
    xp : namespace

    Returns
    -------
    (batch, channels, height, width) array
    """
    n, n_channels, height, width = pictures.shape
    where = {"dtype": lines.dtype, "device": device(lines)}
    first = xp.arange(0, n * n_channels * height, height, **where)
    places = xp.reshape(first, (n, n_channels, 1)) + lines[:, None, :]
    taken = xp.take(xp.reshape(pictures, (-1, width)), xp.reshape(places, (-1,)), axis=0)
    return xp.reshape(taken, pictures.shape)


def look(x: Array, view: View, *, pick: Callable[..., Array] = pick, xp: Namespace) -> Array:
    """Return pictures as a view shows them, in their own dtype.

    Parameters
    ----------
    x : (batch, channels * height * width)
        Of any real dtype; never written to.
    view : View
    pick : callable
        As `pick`, from which a backend may differ in how it does it.
    xp : namespace

    Returns
    -------
    array like ``x``
    """
    lines, columns, keep = view
    shape = x.shape[0], -1, lines.shape[1], columns.shape[1]
    pictures = pick(xp.reshape(x, shape), lines, columns, xp=xp)
    if keep is not None:
        pictures *= xp.astype(keep, pictures.dtype)[:, None, :, :]
    return xp.reshape(pictures, x.shape)
