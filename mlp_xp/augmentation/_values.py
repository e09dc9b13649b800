"""Augmentations of the network's inputs: changes to colors, and mixtures of two samples."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.dataclass import dataclass
from mlp_xp.augmentation._base import (
    Augmentation,
    Epoch,
    ImageAugmentation,
    Mixture,
    plain_number,
)


class ColorJitterDraws(NamedTuple):
    """A factor for each image, ``(batch,)``, and offsets for channels, ``(batch, channels)``."""

    contrast: Array
    brightness: Array


@dataclass(frozen=True)
class ColorJitter(ImageAugmentation):
    r"""Change the contrast, brightness and color of images.

    Channel :math:`c` of an image, :math:`x_c`, becomes :math:`a\,x_c + b_c`. Each image has a
    factor :math:`a`, uniform in :math:`1 \pm contrast`. Each of its channels has an offset
    :math:`b_c`, uniform in :math:`\pm brightness`. Colors change after conversion to floating point
    and input scaling. With ``input_scaling="standardize"``, brightness is in standard deviations,
    and contrast scales the distance from the mean image. Without scaling, brightness is in the unit
    of the data.

    Parameters
    ----------
    image_shape : (channels, height, width)
    brightness : float of at least 0, default=0.2
    contrast : float from 0 to 1, default=0.2

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.augmentation import ColorJitter, ColorJitterDraws
    >>> draws = ColorJitterDraws(xp.asarray([2.0]), xp.asarray([[0.0, 0.5]]))
    >>> ColorJitter((2, 1, 2)).apply(xp.asarray([[1.0, 2.0, 3.0, 4.0]]), draws, xp=xp)
    array([[2. , 4. , 6.5, 8.5]])
    """

    image_shape: tuple[int, int, int]
    brightness: float = 0.2
    contrast: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_number("brightness", 0.0, float("inf"), float)
        self.check_number("contrast", 0.0, 1.0, float)

    def draw(self, epoch: Epoch) -> ColorJitterDraws:
        """Draw a factor for each image, and an offset for each of its channels."""
        shape = len(epoch.rows), 1 + self.image_shape[0]
        numbers = epoch.new_generator().uniform(-1.0, 1.0, shape)
        contrast = 1.0 + self.contrast * numbers[:, 0]
        return ColorJitterDraws(contrast, self.brightness * numbers[:, 1:])

    def apply(self, x: Array, draws: ColorJitterDraws, *, xp: Namespace) -> Array:
        """Return the changed batch, (batch, channels * height * width), as a new array."""
        images = xp.reshape(x, (x.shape[0], self.image_shape[0], -1))
        images = images * draws.contrast[:, None, None]
        images += draws.brightness[:, :, None]
        return xp.reshape(images, x.shape)


class MixupDraws(NamedTuple):
    """The partner of each sample, and the weight of the sample itself, both ``(batch,)``."""

    partners: Array
    share: Array


@dataclass(frozen=True)
class Mixup(Augmentation):
    r"""Mix each sample in a batch with another sample, its partner, and mix the two losses.

    With one :math:`\lambda \sim \mathrm{Beta}(\alpha, \alpha)` per batch, the input for sample
    :math:`i` with partner :math:`j` is :math:`\lambda x_i + (1 - \lambda) x_j`, and the loss is
    :math:`\lambda\,\ell(z_i, y_i) + (1 - \lambda)\,\ell(z_i, y_j)`. Each term has the sample weight
    of its target. The partners are the batch in reverse order, which needs no random numbers. If an
    epoch is a single batch, each sample therefore has the same partner in every epoch.

    Parameters
    ----------
    alpha : float above 0, default=0.2
        If ``alpha`` is small, most batches are hardly mixed. If ``alpha`` is 1, all :math:`\lambda`
        are equally likely.

    References
    ----------
    Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: beyond empirical risk minimization" (2018),
    arXiv:1710.09412.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.augmentation import Mixup, MixupDraws
    >>> draws = MixupDraws(partners=xp.asarray([1, 0]), share=xp.asarray([0.75, 0.75]))
    >>> Mixup().apply(xp.asarray([[0.0], [8.0]]), draws, xp=xp)
    array([[2.],
           [6.]])
    """

    alpha: float = 0.2

    mixes_targets: ClassVar[bool] = True

    def __post_init__(self) -> None:
        alpha = plain_number(self.alpha)
        if alpha is None or not 0.0 < alpha < float("inf"):
            raise ValueError(f"`alpha` must be above 0, got {self.alpha!r}; 0.2 is common.")
        object.__setattr__(self, "alpha", alpha)

    def draw(self, epoch: Epoch) -> MixupDraws:
        """Draw the weight of each sample, which is the same for all rows in a step.

        Padding rows are their own partners.
        """
        positions, sizes = epoch.positions, epoch.batch_sizes
        is_sample = positions < sizes
        partners = positions + is_sample * (sizes - 1 - 2 * positions)
        n_steps = int(epoch.steps[-1]) + 1
        share = epoch.new_generator().beta(self.alpha, self.alpha, n_steps)
        return MixupDraws(partners, share[epoch.steps])

    def apply(self, x: Array, draws: MixupDraws, *, xp: Namespace) -> Array:
        """Return the mixed batch, (batch, features), as a new array."""
        mixed = xp.take(x, draws.partners, axis=0)
        mixed -= x
        mixed *= 1.0 - draws.share[:, None]
        mixed += x
        return mixed

    def mixture(self, draws: MixupDraws) -> Mixture:
        """Return each sample's mixing partner, and the weight of the sample itself."""
        return Mixture(draws.partners, draws.share[0])
