"""Augmentations of what the network sees: colors, and mixtures of two samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.augmentation._base import Augmentation, Epoch, Pictures

__all__ = ["ColorJitter", "Mixup"]


@dataclass(frozen=True)
class ColorJitter(Pictures):
    r"""Change contrast, brightness and color of each picture.

    Channel :math:`c` of a picture, :math:`x_c`, becomes :math:`a\,x_c + b_c` with one
    :math:`a` for the picture, uniform in :math:`1 \pm contrast`, and one :math:`b_c` for each of
    its channels, uniform in :math:`\pm brightness`. This is done behind conversion and input
    scaling: after ``input_scaling="standardize"`` brightness counts standard deviations, and
    contrast is a distance from the mean picture. Without scaling the unit is that of the data.

    Parameters
    ----------
    image_shape : (channels, height, width)
    brightness : float of at least 0, default=0.2
    contrast : float from 0 to 1, default=0.2

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.augmentation import ColorJitter
    >>> factors = xp.asarray([[2.0, 0.0, 0.5]])
    >>> ColorJitter((2, 1, 2)).apply(xp.asarray([[1.0, 2.0, 3.0, 4.0]]), None, factors, xp=xp)
    array([[2. , 4. , 6.5, 8.5]])
    """

    image_shape: tuple[int, int, int]
    brightness: float = 0.2
    contrast: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_number("brightness", 0.0, float("inf"), float)
        self.check_number("contrast", 0.0, 1.0, float)

    @property
    def n_factors(self) -> int:  # type: ignore[override]
        """A factor, and what is added to each channel."""
        return 1 + self.image_shape[0]

    def draw_factors(self, epoch: Epoch) -> Any:
        """Draw a factor, and what is added to each channel."""
        factors = epoch.fresh().uniform(-1.0, 1.0, (len(epoch.rows), self.n_factors))
        factors[:, 0] = 1.0 + self.contrast * factors[:, 0]
        factors[:, 1:] *= self.brightness
        return factors

    def apply(self, x: Array, moves: None, factors: Array, *, xp: Namespace) -> Array:
        """Change a batch, (batch, channels * height * width); it is not written to."""
        planes = xp.reshape(x, (x.shape[0], self.image_shape[0], -1)) * factors[:, :1, None]
        planes += factors[:, 1:, None]
        return xp.reshape(planes, x.shape)


@dataclass(frozen=True)
class Mixup(Augmentation):
    r"""Mix each sample of a batch with another one, and their losses likewise.

    With one :math:`\lambda \sim \mathrm{Beta}(\alpha, \alpha)` for a batch, sample :math:`i` and
    its partner :math:`j`, the network is given :math:`\lambda x_i + (1 - \lambda) x_j`, and the
    loss is :math:`\lambda\,\ell(z_i, y_i) + (1 - \lambda)\,\ell(z_i, y_j)`, each part with the
    weight of the sample that its target is of. Partners are those of the batch in reversed order,
    which no number has to be drawn for.

    Parameters
    ----------
    alpha : float above 0, default=0.2
        Small values leave most batches nearly unmixed; 1 makes all shares equally likely.

    References
    ----------
    Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: beyond empirical risk minimization" (2018),
    arXiv:1710.09412.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.augmentation import Mixup
    >>> x, partners = xp.asarray([[0.0], [8.0]]), xp.asarray([[1], [0]])
    >>> Mixup().apply(x, partners, xp.asarray([[0.75], [0.75]]), xp=xp)
    array([[2.],
           [6.]])
    """

    alpha: float = 0.2

    n_moves = 1
    n_factors = 1

    def __post_init__(self) -> None:
        is_number = isinstance(self.alpha, int | float) and not isinstance(self.alpha, bool)
        if not (is_number and 0.0 < self.alpha < float("inf")):
            raise ValueError(f"alpha is {self.alpha!r}, and must be above 0; 0.2 is common.")

    def draw_moves(self, epoch: Epoch) -> Any:
        """Return the partner of each row: padding is its own, and nobody else's."""
        is_real = epoch.places < epoch.counts
        mirrored = epoch.counts - 1 - epoch.places
        return (epoch.places + is_real * (mirrored - epoch.places))[:, None]

    def draw_factors(self, epoch: Epoch) -> Any:
        """Draw the share of each row's own sample, the same for all rows of a step."""
        n_steps = int(epoch.steps[-1]) + 1
        return epoch.fresh().beta(self.alpha, self.alpha, (n_steps, 1))[epoch.steps]

    def apply(self, x: Array, moves: Array, factors: Array, *, xp: Namespace) -> Array:
        """Mix a batch, (batch, features); it is not written to."""
        others = xp.take(x, moves[:, 0], axis=0)
        others -= x
        others *= 1.0 - factors
        others += x
        return others
