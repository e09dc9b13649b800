"""Plots of first-layer weights, and of misclassified images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from mlp_xp._utils.optional import optional
from mlp_xp.backends import to_numpy
from mlp_xp.plotting._style import new_axes, set_figure_title


class WeightsDisplay:
    """The weights of the first layer, one image per neuron.

    Parameters
    ----------
    weights : (features, neurons) array
    image_shape : (channels, height, width) or (height, width)
        The shape of the images whose pixels are the features; 1 or 3 channels.

    Attributes
    ----------
    axes_ : list of matplotlib Axes, one per neuron
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp.plotting import WeightsDisplay
    >>> display = WeightsDisplay(np.ones((64, 4)), (8, 8)).plot()
    >>> len(display.axes_)
    4
    """

    def __init__(self, weights: Any, image_shape: Sequence[int]) -> None:
        self.weights = np.asarray(weights)
        self.image_shape = _shape(image_shape, len(self.weights))

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, image_shape: Sequence[int], n_neurons: int = 32, ax: Any = None
    ) -> WeightsDisplay:
        """Draw a fitted estimator's neurons with the largest weights.

        Parameters
        ----------
        estimator : MLPClassifier or MLPRegressor
            A fitted estimator whose first layer is dense.
        image_shape : (channels, height, width) or (height, width)
        n_neurons : int, default=32
        ax : Axes, sequence of Axes, or None

        Returns
        -------
        WeightsDisplay
        """
        return largest_weights(estimator, image_shape, n_neurons).plot(ax=ax)

    def pictures(self) -> list[np.ndarray]:
        """Return the images as (height, width, 3) uint8 arrays.

        Each image is scaled by its largest weight. With one channel, negative weights are blue, 0
        is white, and positive weights are red; with three channels, 0 is gray.
        """
        drawn = []
        for weights in self.weights.T:
            largest = float(np.max(np.abs(weights))) or 1.0
            image = 0.5 + 0.5 * weights.reshape(self.image_shape) / largest
            if len(image) == 1:
                image = optional("matplotlib").colormaps["RdBu_r"](image[0])[..., :3]
            else:
                image = image.transpose(1, 2, 0)
            drawn.append(_as_bytes(image))
        return drawn

    def plot(self, *, ax: Any = None) -> Self:
        """Draw the images."""
        n = self.weights.shape[1]
        self.axes_ = new_axes(ax, n, (1.1, 1.1), columns=8)
        self.figure_ = self.axes_[0].figure
        for axes, picture in zip(self.axes_, self.pictures(), strict=True):
            axes.imshow(picture)
            axes.set_axis_off()
        scale = "blue below 0, red above" if self.image_shape[0] == 1 else "gray is 0"
        set_figure_title(self.figure_, ax, f"weights of the first layer, {n} neurons: {scale}")
        return self


@dataclass(eq=False, repr=False)
class MistakesDisplay:
    r"""The most confident mistakes of a classifier, as images.

    Parameters
    ----------
    images : (mistakes, features) array
        From 0 to 1, or uint8 from 0 to 255.
    image_shape : (channels, height, width) or (height, width)
    truth, predicted : (mistakes,) sequences of labels
    confidence : (mistakes,) array
        Probability of the predicted class.

    Attributes
    ----------
    axes_ : list of matplotlib Axes, one per image
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp.plotting import MistakesDisplay
    >>> display = MistakesDisplay(np.zeros((2, 64)), (8, 8), ["a", "b"], ["b", "a"], [0.9, 0.8])
    >>> display.plot().axes_[0].get_title()
    'b, 90 %\nis a'
    """

    images: Any
    image_shape: Sequence[int]
    truth: Any
    predicted: Any
    confidence: Any

    def __post_init__(self) -> None:
        self.images = np.asarray(self.images)
        self.image_shape = _shape(self.image_shape, self.images.shape[1])

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        image_shape: Sequence[int],
        class_names: Sequence[str] | None = None,
        n_images: int = 16,
        ax: Any = None,
    ) -> MistakesDisplay:
        """Draw the mistakes of a fitted classifier.

        Parameters
        ----------
        estimator : classifier with ``predict_proba`` and ``classes_``
        X : (samples, features) array
            Pixels from 0 to 1; uint8, with the largest value in X drawn in white; or other numbers,
            with each image's smallest value drawn in black and its largest in white.
        y : (samples,) labels
        image_shape : (channels, height, width) or (height, width)
        class_names : sequence of str, optional
            Names of ``classes_``, in the same order.
        n_images : int, default=16
        ax : Axes, sequence of Axes, or None

        Returns
        -------
        MistakesDisplay

        Raises
        ------
        ValueError
            If the classifier makes no mistakes.
        """
        found = surest_mistakes(
            to_numpy(X),
            to_numpy(y),
            to_numpy(estimator.predict_proba(X)),
            classes=estimator.classes_,
            image_shape=image_shape,
            class_names=class_names,
            n_images=n_images,
        )
        if found is None:
            raise ValueError(f"All {len(y)} samples are classified correctly: nothing to draw.")
        return found.plot(ax=ax)

    def pictures(self) -> list[np.ndarray]:
        """Return the images as (height, width, 3) uint8 arrays."""
        drawn = []
        for pixels in self.images:
            image = _stretched(pixels).reshape(self.image_shape).transpose(1, 2, 0)
            drawn.append(_as_bytes(np.broadcast_to(image, (*image.shape[:2], 3))))
        return drawn

    def plot(self, *, ax: Any = None) -> Self:
        """Draw the images, each under the predicted class, its probability and the true class."""
        self.axes_ = new_axes(ax, len(self.images), (1.25, 1.6), columns=6)
        self.figure_ = self.axes_[0].figure
        set_figure_title(
            self.figure_, ax, "predicted class and its probability, then the true class"
        )
        rows = zip(self.pictures(), self.truth, self.predicted, self.confidence, strict=True)
        for axes, (picture, truth, predicted, confidence) in zip(self.axes_, rows, strict=True):
            axes.imshow(picture)
            title = f"{predicted}, {100 * confidence:.0f} %\nis {truth}"
            axes.set_title(title, fontsize="small", parse_math=False)
            axes.set_axis_off()
        return self


def largest_weights(estimator: Any, image_shape: Sequence[int], n_neurons: int) -> WeightsDisplay:
    """Return the display for the neurons with the largest weights, without drawing it."""
    weights = to_numpy(estimator.coefs_[0])
    if weights.ndim != 2:
        raise ValueError(
            f"The first layer is block-diagonal, with coefs_[0] of shape {weights.shape}, but only "
            "a dense layer has a weight for each pixel: fit with an integer as the first of "
            "hidden_layer_sizes."
        )
    norms = np.linalg.norm(weights, axis=0)
    largest = np.argsort(-norms, kind="stable")[:n_neurons]
    return WeightsDisplay(weights[:, largest], image_shape)


def surest_mistakes(
    x: np.ndarray,
    y: np.ndarray,
    probabilities: np.ndarray,
    *,
    classes: Any,
    image_shape: Sequence[int],
    class_names: Sequence[str] | None = None,
    n_images: int = 16,
) -> MistakesDisplay | None:
    """Return the display for the most confident mistakes, or None if there are no mistakes.

    The display is not drawn. Parameters are as in `MistakesDisplay.from_estimator`, but with
    probabilities of shape (samples, classes) instead of an estimator.
    """
    classes, found = np.asarray(classes), np.argmax(probabilities, axis=1)
    wrong = np.flatnonzero(classes[found] != y)
    if not len(wrong):
        return None
    confidence = probabilities[wrong, found[wrong]]
    surest = np.argsort(-confidence, kind="stable")[:n_images]
    rows = wrong[surest]
    names = classes if class_names is None else np.asarray(class_names)
    known = dict(zip(classes.tolist(), names.tolist(), strict=True))
    truth = np.asarray([known.get(label, label) for label in y[rows].tolist()])
    images = x[rows]
    if images.dtype == np.uint8:  # The maximum is 16 in scikit-learn's digits, not 255.
        images = images / max(1, x.max())
    return MistakesDisplay(images, image_shape, truth, names[found[rows]], confidence[surest])


def _as_bytes(image: np.ndarray) -> np.ndarray:
    """Return an image with values from 0 to 1 as uint8."""
    return np.rint(255 * image).astype(np.uint8)


def _shape(image_shape: Sequence[int], n_features: int) -> tuple[int, ...]:
    """Return (channels, height, width); raise ValueError unless the product is ``n_features``."""
    shape = tuple(image_shape)
    shape = (1, *shape) if len(shape) == 2 else shape
    if len(shape) != 3 or shape[0] not in (1, 3) or np.prod(shape) != n_features:
        raise ValueError(
            "`image_shape` must be (height, width) or (channels, height, width) with 1 or 3 "
            f"channels, {n_features} values in total, got {tuple(image_shape)}."
        )
    return shape


def _stretched(pixels: np.ndarray) -> np.ndarray:
    """Scale pixels to the range from 0 to 1 if necessary."""
    if pixels.dtype == np.uint8:
        return pixels / 255.0
    least, largest = float(pixels.min()), float(pixels.max())
    if least >= 0 and largest <= 1:
        return pixels
    return (pixels - least) / ((largest - least) or 1.0)
