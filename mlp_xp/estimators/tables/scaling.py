"""The scaling of a table's numbers, computed and applied on the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from mlp_xp._utils.dataclass import dataclass

_MOST_QUANTILES, _ROWS = 1000, 100_000
_TINY = 1e-150  # Squares of smaller deviations are 0 or inaccurate.


@dataclass(frozen=True, eq=False)
class Affine:
    r"""The scaling :math:`z = (x - shift) \cdot scale`, optionally with smooth clipping.

    Clipping gives :math:`z / \sqrt{1 + (z / 3)^2}`, which is close to z for small numbers and stays
    below 3 in magnitude. Holzmüller, Grinsztajn, Steinwart, "Better by default: strong pre-tuned
    MLPs and boosted trees on tabular data" (2024), arXiv:2407.04491.
    """

    shift: np.ndarray
    scale: np.ndarray
    is_clipped: bool = False
    bound: ClassVar[float] = 3.0  # Clipped numbers are below this bound in magnitude.
    largest: ClassVar[float] = 1e15  # Numbers that are larger become the bound.

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Scale float64 numbers ``(rows, numbers)`` in place, and return them."""
        x -= self.shift
        x *= self.scale
        if self.is_clipped:
            # Limit numbers whose squares overflow; the result is the bound to the last bit.
            np.clip(x, -self.largest, self.largest, out=x)
            x /= np.sqrt(1.0 + np.square(x / self.bound))
        return x


@dataclass(frozen=True, eq=False)
class Quantile:
    """A mapping to a normal distribution, with scikit-learn's `QuantileTransformer`.

    ``quantiles`` has increasing quantiles of the training data, of shape ``(quantiles, numbers)``.
    """

    quantiles: np.ndarray

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Return scaled float64 numbers ``(rows, numbers)``."""
        # Import late, since few fits need it.
        from sklearn.preprocessing import QuantileTransformer

        transformer = QuantileTransformer(output_distribution="normal", copy=False)
        transformer.quantiles_ = self.quantiles
        transformer.references_ = np.linspace(0.0, 1.0, len(self.quantiles))
        transformer.n_features_in_ = x.shape[1]
        return transformer.transform(x)


def learn_scaling(
    setting: str | None,
    numbers: Sequence[np.ndarray],
    medians: np.ndarray,
    labels: Sequence[str],
) -> Affine | Quantile | None:
    """Compute a scaling from each column's non-missing values and their medians."""
    if setting is None or not numbers:
        return None
    if setting == "standardize":
        from sklearn.preprocessing import StandardScaler

        with np.errstate(over="ignore", invalid="ignore"):
            fits = [StandardScaler().fit(values[:, None]) for values in numbers]
        for label, fit, values in zip(labels, fits, numbers, strict=True):
            if not np.isfinite(fit.var_[0]):
                raise ValueError(
                    f"{label} has {values[np.argmax(np.abs(values))]:.3g}, which is too large for "
                    "input_scaling='standardize': replace it, e.g. by NaN with "
                    "missing_values='impute', or set input_scaling='robust'."
                )
        for label, values in zip(labels, numbers, strict=True):
            _check_width(label, np.ptp(values), _TINY, setting)
        shift = np.asarray([fit.mean_[0] for fit in fits])
        return Affine(shift, np.asarray([1.0 / fit.scale_[0] for fit in fits]))
    if setting == "robust":
        widths = [_width(values) for values in numbers]
        for label, width in zip(labels, widths, strict=True):
            _check_width(label, width, float(np.finfo(float).smallest_normal), setting)
        return Affine(medians, 1.0 / np.asarray(widths), is_clipped=True)
    most = max(map(len, numbers))
    levels = np.linspace(0.0, 1.0, max(2, min(_MOST_QUANTILES, most)))
    generator = np.random.default_rng(0)
    some = [
        values if len(values) <= _ROWS else generator.choice(values, _ROWS, replace=False)
        for values in numbers
    ]
    # Round the positions, so that a quantile at a sample equals the sample exactly, even in
    # float32.
    places = [np.round(levels * (len(values) - 1), 6) for values in some]
    pairs = zip(places, some, strict=True)
    curves = [np.interp(at, np.arange(len(values)), np.sort(values)) for at, values in pairs]
    quantiles = np.stack(curves, axis=1)
    # Make the quantiles increase again, since rounding may have changed their order.
    return Quantile(np.maximum.accumulate(quantiles, axis=0))


def _check_width(label: str, width: float, least: float, setting: str) -> None:
    """Raise ValueError if a column varies by too little for a scaling."""
    if 0.0 < width < least:
        raise ValueError(
            f"{label} varies by only {width:.3g}, which is too little for "
            f"input_scaling={setting!r}: multiply it so that its values are about 1."
        )


def _width(values: np.ndarray) -> float:
    """Return the interquartile range, half the range, or 1: the first that is not 0."""
    low, high = np.quantile(values, [0.25, 0.75])
    return float(high - low) or 0.5 * float(np.ptp(values)) or 1.0
