"""What every augmentation is, and what it draws for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from mlp_xp._utils.array_types import Array

__all__ = ["Augmentation", "Epoch", "Pictures", "columns"]

# An array of the host, and what draws some; only `_random` names their library.
HostArray = Any


class Epoch(NamedTuple):
    """What is drawn for: the rows of an epoch, step after step, padding included.

    ``generator(stream)`` gives a generator of the host; ``number`` is that of the epoch, from 0;
    ``rows : (rows,)`` are positions among ``n_samples`` samples; ``steps``, ``places`` and
    ``counts``, all ``(rows,)``, tell for each row its step, its place in the batch, and the samples
    of that batch, which come before the padding.
    """

    generator: Callable[[int], Any]
    number: int
    rows: HostArray
    n_samples: int
    steps: HostArray
    places: HostArray
    counts: HostArray

    def fresh(self) -> Any:
        """Return the generator of what is drawn anew in each epoch.

        Its first numbers stay the same however many are drawn, so that padding changes nothing.
        """
        return self.generator(self.number + 1)

    def for_good(self) -> Any:
        """Return the generator of what belongs to a sample in all epochs."""
        return self.generator(0)


class Augmentation:
    """Frozen settings of a random change of pictures.

    ``n_moves`` and ``n_factors`` are how many integers and real numbers it draws for a row.
    """

    n_moves: int = 0
    n_factors: int = 0

    def draw_moves(self, epoch: Epoch) -> HostArray:
        """Draw the integers of an epoch, (rows, n_moves)."""
        raise NotImplementedError

    def draw_factors(self, epoch: Epoch) -> HostArray:
        """Draw the real numbers of an epoch, (rows, n_factors)."""
        raise NotImplementedError


class Pictures(Augmentation):
    """An augmentation that knows the shape of a picture: (channels, height, width)."""

    image_shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        """Refuse what is not the shape of a picture; keep a list, as JSON has it, as a tuple."""
        shape = self.image_shape
        is_shape = isinstance(shape, list | tuple) and len(shape) == 3
        if not (is_shape and all(isinstance(n, int) and n >= 1 for n in shape)):
            raise ValueError(
                f"image_shape is {shape!r}, and must be three integers of at least 1, (channels, "
                "height, width), e.g. (3, 32, 32)."
            )
        object.__setattr__(self, "image_shape", tuple(shape))

    def check_number(self, name: str, least: float, most: float, kind: type = int) -> None:
        """Refuse a setting that is no number, or outside of its range."""
        value = getattr(self, name)
        is_number = isinstance(value, int | kind) and not isinstance(value, bool)
        if not (is_number and least <= value <= most):
            what = "an integer" if kind is int else "a number"
            raise ValueError(f"{name} is {value!r}, and must be {what} from {least} to {most}.")


def columns(
    chosen: Sequence[Augmentation], moves: Array | None, factors: Array | None
) -> Iterator[tuple[Augmentation, Any, Any]]:
    """Return each augmentation with its own columns of what was drawn for a batch.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.augmentation import Flip, Shift, columns
    >>> both = Flip((1, 2, 2)), Shift((1, 2, 2), pixels=1)
    >>> [(part.tolist(), more) for _, part, more in columns(both, xp.asarray([[1, 0, -1]]), None)]
    [([[1]], None), ([[0, -1]], None)]
    """
    move = factor = 0
    for each in chosen:
        mine = moves[:, move : move + each.n_moves] if moves is not None else None
        reals = factors[:, factor : factor + each.n_factors] if factors is not None else None
        yield each, mine if each.n_moves else None, reals if each.n_factors else None
        move += each.n_moves
        factor += each.n_factors
