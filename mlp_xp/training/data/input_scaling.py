"""Input scaling and whitening, computed on the data's device, one block of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any, Literal

import numpy as np

from mlp_xp._utils.dataclass import dataclass
from mlp_xp.backends import Backend, to_numpy
from mlp_xp.backends.kernels import Scaling, Whitening
from mlp_xp.training.data.rows import Batches, kept_dtype, take_rows

_BLOCK = 512
_LARGE = 0.9  # A direction's entry is large if it is at least this fraction of the largest.

Exchange = Callable[[Any], list[Any]]
# The number of samples, their mean, and the sum of their squared deviations.
Part = tuple[int, Any, Any]


def standardization(
    backend: Backend, x: Any, dtype: str, exchange: Exchange | None = None
) -> Scaling:
    r"""Compute the shift and scale that give each feature mean 0 and standard deviation 1.

    Rows are converted block by block, to float64 if the device supports it. Blocks are merged by
    :math:`M = M_a + M_b + \delta^2 n_a n_b / n`, which is numerically stable (Chan, Golub, LeVeque,
    "Algorithms for computing the sample variance", 1983). The first row is subtracted from all
    rows, so a large offset costs no precision. Features that scikit-learn considers constant are
    not scaled. If the samples are divided among processes, ``exchange(value)`` returns the values
    of all processes, and ``x`` may be empty. Raise ValueError if a result is not finite.
    """
    xp = backend.xp
    wide = "float64" if backend.has_float64 else dtype
    with backend.scope(), np.errstate(over="ignore", invalid="ignore"):
        first = backend.put(_first_row(x, exchange), wide)[0, :]
        mean = xp.zeros_like(first)
        spread = xp.zeros_like(first)
        n = 0
        for block in _blocks(backend, x, wide):
            block = block - first
            n_block = block.shape[0]
            block_mean = xp.mean(block, axis=0)
            deviation = block - block_mean
            block_spread = xp.sum(deviation * deviation, axis=0)
            n, mean, spread = _merge((n, mean, spread), (n_block, block_mean, block_spread))
        if exchange is not None:
            parts = exchange((n, backend.get(mean), backend.get(spread)))
            n, *merged = reduce(_merge, (part for part in parts if part[0]))
            mean, spread = (backend.put(values, wide) for values in merged)
        variance, mean = spread / n, first + mean
        # Use float64's epsilon for every dtype, since a constant feature has deviations of exactly
        # 0.
        noise = n * float(np.finfo(float).eps)
        constant = variance <= noise * variance + (noise * mean) ** 2
        scale = 1.0 / xp.sqrt(xp.where(constant, 1.0, variance))
        target = getattr(xp, dtype)
        scaling = Scaling(xp.astype(mean, target), xp.astype(scale, target))
        good = xp.isfinite(variance) & xp.isfinite(scaling.shift) & xp.isfinite(scaling.scale)
        # Squares of tiny deviations are 0.
        is_tiny = variance < float(xp.finfo(variance.dtype).smallest_normal)
        if kept_dtype(x, wide) is not None and bool(xp.any(is_tiny)):
            good &= ~(is_tiny & _varies(backend, x, wide, first, exchange))
        if not bool(xp.all(good)):
            feature = int(xp.argmin(xp.astype(good, xp.int32)))
            deviation = float(xp.sqrt(variance[feature]))
            raise ValueError(
                f"`input_scaling` cannot scale feature {feature} to variance 1 in {dtype}: its "
                f"mean is {float(mean[feature]):.3g}, its standard deviation {deviation:.3g}. "
                "Rescale the feature so that its values are about 1."
            )
        return scaling


def _blocks(backend: Backend, x: Any, dtype: str) -> Iterator[Any]:
    for part in (x for x, *_ in x.read()) if isinstance(x, Batches) else (x,):
        for start in range(0, part.shape[0], _BLOCK):
            rows = slice(start, min(start + _BLOCK, part.shape[0]))
            yield backend.put(take_rows(part, rows), dtype)


def _varies(backend: Backend, x: Any, dtype: str, first: Any, exchange: Exchange | None) -> Any:
    """Return whether each feature varies, i.e. differs from its first value in any row."""
    xp = backend.xp
    found = xp.zeros_like(first, dtype=xp.bool)
    for block in _blocks(backend, x, dtype):
        found = found | xp.any(block != first, axis=0)
    if exchange is not None:
        parts = exchange(backend.get(xp.astype(found, first.dtype)))
        found = xp.astype(backend.put(np.max(parts, axis=0), dtype), xp.bool)
    return found


def _first_row(x: Any, exchange: Exchange | None) -> Any:
    """Return the first row of the first process that has rows."""
    if exchange is None:
        return take_rows(x, slice(0, 1))
    rows = exchange(to_numpy(take_rows(x, slice(0, min(1, x.shape[0])))))
    return next(row for row in rows if len(row))


def _merge(a: Part, b: Part) -> Part:
    """Merge the counts, means and sums of squared deviations of two parts."""
    (n, mean, spread), (n_part, part_mean, part_spread) = a, b
    delta, total = part_mean - mean, n + n_part
    spread = spread + part_spread + delta * delta * (n * n_part / total)
    return total, mean + delta * (n_part / total), spread


@dataclass(frozen=True)
class Whiten:
    r"""Whitening: uncorrelated features with mean 0 and variance 1.

    Let :math:`C = U \Lambda U^\top` be the covariance of the standardized features, and :math:`S =
    (\Lambda + \epsilon \bar\lambda I)^{-1/2}`, where :math:`\bar\lambda` is the mean of the
    eigenvalues. Then "pca" computes :math:`x \leftarrow x\, U S`, with directions ordered by their
    variance, and "zca" computes :math:`x \leftarrow x\, U S U^\top`, the whitening closest to x.
    The whitening is computed before training and is not trained.

    Parameters
    ----------
    kind : {"zca", "pca"}, default="zca"
    n_components : int of at least 1, optional
        For "pca": the number of directions to keep, which become the network's inputs.
    epsilon : float above 0, default=0.01
        Limits how much directions with little variance, which are mostly noise, are amplified.

    References
    ----------
    Kessy, Lewin, Strimmer, "Optimal whitening and decorrelation" (2018), arXiv:1512.00809;
    Krizhevsky, "Learning multiple layers of features from tiny images" (2009), appendix A.

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp.backends import get_backend
    >>> from mlp_xp.training.data.input_scaling import Whiten, find_scaling
    >>> x = np.asarray([[0.0, 0.0], [1.0, 2.0], [2.0, 1.0], [3.0, 3.0]])
    >>> found = find_scaling(Whiten("pca", epsilon=1e-9), get_backend("numpy"), x, "float64")
    >>> white = ((x - found.shift) * found.scale) @ found.rotation
    >>> np.round(np.cov(white, ddof=0, rowvar=False), 6)
    array([[1., 0.],
           [0., 1.]])
    """

    kind: Literal["zca", "pca"] = "zca"
    n_components: int | None = None
    epsilon: float = 0.01

    def __post_init__(self) -> None:
        if self.kind not in ("zca", "pca"):
            raise ValueError(f"`kind` must be 'zca' or 'pca', got {self.kind!r}.")
        n = self.n_components
        if n is not None and (self.kind == "zca" or type(n) is not int or n < 1):
            raise ValueError(
                "`n_components` must be an integer of at least 1 and requires kind='pca', "
                f"got {n!r}."
            )
        if not self.epsilon > 0.0:
            raise ValueError(f"`epsilon` must be above 0, got {self.epsilon!r}.")

    def inputs(self, n_features: int) -> int:
        """Return the number of features after whitening."""
        n = self.n_components or n_features
        if n > n_features:
            raise ValueError(
                f"`n_components` must be at most {n_features}, the number of features, got {n}."
            )
        return n


SCALINGS = {"standardize": None, "zca": Whiten("zca"), "pca": Whiten("pca")}


def find_scaling(
    setting: str | Whiten, backend: Backend, x: Any, dtype: str, exchange: Exchange | None = None
) -> Scaling | Whitening:
    """Compute the input scaling for a setting, which is a key of `SCALINGS` or a `Whiten`."""
    scaling = standardization(backend, x, dtype, exchange)
    whiten = SCALINGS[setting] if isinstance(setting, str) else setting
    if whiten is None:
        return scaling
    xp = backend.xp
    with backend.scope():
        total: Any = 0.0
        for block in _blocks(backend, x, dtype):
            block = (block - scaling.shift) * scaling.scale
            total = total + xp.matrix_transpose(block) @ block
        # Compute the directions on the host, so that results agree across backends up to rounding.
        if exchange is None:
            covariance = backend.get(total / x.shape[0])
        else:
            mine = x.shape[0], backend.get(total) if x.shape[0] else 0.0
            counts, sums = zip(*exchange(mine), strict=True)
            covariance = sum(sums) / sum(counts)
        rotation = _rotation(whiten, covariance)
        return Whitening(*scaling, backend.put(rotation, dtype))


def _rotation(whiten: Whiten, covariance: np.ndarray) -> np.ndarray:
    """Return the matrix that whitens standardized features."""
    variances, directions = np.linalg.eigh(covariance)
    variances, directions = np.maximum(variances[::-1], 0.0), directions[:, ::-1]
    # The sign of a direction is arbitrary: make its first large entry positive. Its largest entry
    # could depend on rounding errors: with two features, both entries have the same magnitude.
    sizes = np.abs(directions)
    first = np.argmax(sizes >= _LARGE * np.max(sizes, axis=0), axis=0)
    directions = directions * np.sign(np.take_along_axis(directions, first[None, :], axis=0))
    average = np.mean(variances) or 1.0  # The mean eigenvalue is 0 if all features are constant.
    stretched = directions / np.sqrt(variances + whiten.epsilon * average)
    if whiten.kind == "zca":
        return stretched @ directions.T
    return np.ascontiguousarray(stretched[:, : whiten.inputs(len(variances))])
