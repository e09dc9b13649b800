"""The constants of a mapping to the normal distribution, for exports that compute it themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

EDGE = 1e-7  # scikit-learn's BOUNDS_THRESHOLD.

# The coefficients of quantiles of the normal distribution, highest power first: the numerator and
# the denominator in the middle and in the tails. They give float64 precision for probabilities of
# at least 1e-11. Wichura, "Algorithm AS 241: the percentage points of the normal distribution"
# (1988), PPND16.
MIDDLE_TOP = [2509.0809287301226727, 33430.575583588128105, 67265.770927008700853]
MIDDLE_TOP += [45921.953931549871457, 13731.693765509461125, 1971.5909503065514427]
MIDDLE_TOP += [133.14166789178437745, 3.387132872796366608]
MIDDLE_BOTTOM = [5226.495278852854561, 28729.085735721942674, 39307.89580009271061]
MIDDLE_BOTTOM += [21213.794301586595867, 5394.1960214247511077, 687.1870074920579083]
MIDDLE_BOTTOM += [42.313330701600911252, 1.0]
TAIL_TOP = [7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177]
TAIL_TOP += [1.27045825245236838258, 3.64784832476320460504, 5.7694972214606914055]
TAIL_TOP += [4.6303378461565452959, 1.42343711074968357734]
TAIL_BOTTOM = [1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966]
TAIL_BOTTOM += [0.14810397642748007459, 0.68976733498510000455, 1.6763848301838038494]
TAIL_BOTTOM += [2.05319162663775882187, 1.0]


def round_jumps(quantiles: np.ndarray, dtype: Any) -> np.ndarray:
    """Round repeated and extreme quantiles to ``dtype``, so that equal inputs still match them."""
    is_equal = np.diff(quantiles, axis=0) == 0.0
    sides = (np.pad(is_equal, (pad, (0, 0)), constant_values=True) for pad in ((1, 0), (0, 1)))
    is_jump = np.logical_or(*sides)
    rounded = np.where(is_jump, quantiles.astype(dtype), quantiles)
    return np.maximum.accumulate(rounded, axis=0)
