"""Layer and batch normalization, in training and in inference."""

from __future__ import annotations

from typing import NamedTuple

from mlp_xp._utils.array_types import Array, Namespace, Tree
from mlp_xp.nn.layers._dense import per_sample
from mlp_xp.nn.layers._layer import LayerPullback
from mlp_xp.nn.layers._parts import BatchPart, shares, sum_rows


class Norm(NamedTuple):
    """Parameters of a normalization: ``scale`` and ``shift``, both of shape (..., width)."""

    scale: Array
    shift: Array


class BatchStats(NamedTuple):
    """Mean and variance of each feature, both of shape (..., width)."""

    mean: Array
    variance: Array


def layer_norm(
    params: Norm, x: Array, *, xp: Namespace, epsilon: float = 1e-5
) -> tuple[Array, LayerPullback]:
    r"""Normalize each row to mean 0 and variance 1, then scale and shift each feature.

    With :math:`\mu` and :math:`\sigma^2` the mean and the (biased) variance of a row,
    :math:`z = (x - \mu) / \sqrt{\sigma^2 + \epsilon}` and :math:`y = \gamma z + \beta`. With
    :math:`\bar z = \gamma \bar y` and averages :math:`\langle\cdot\rangle` over the row,
    :math:`\bar x = (\bar z - \langle\bar z\rangle - z\,\langle\bar z z\rangle)
    / \sqrt{\sigma^2 + \epsilon}`, and over the batch :math:`\bar\gamma = \sum_i \bar y_i z_i`,
    :math:`\bar\beta = \sum_i \bar y_i`. x is in the dtype of the parameters.

    References
    ----------
    Ba, Kiros, Hinton, "Layer normalization" (2016), arXiv:1607.06450.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import Norm, layer_norm
    >>> params = Norm(xp.ones(3), xp.zeros(3))
    >>> y, pullback = layer_norm(params, xp.asarray([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]), xp=xp)
    >>> y.round(4)
    array([[-1.2247,  0.    ,  1.2247],
           [ 0.    ,  0.    ,  0.    ]])
    >>> pullback(xp.ones((2, 3)), need_dx=False)[1].shift
    array([2., 2., 2.])
    """
    z = x - xp.mean(x, axis=-1, keepdims=True)
    rescale = _rescale(xp.mean(z * z, axis=-1, keepdims=True), epsilon, xp=xp)
    z *= rescale

    def pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, Norm]:
        grads = Norm(xp.sum(dy * z, axis=-2), xp.sum(dy, axis=-2))
        if not need_dx:
            return None, grads
        dx = dy * per_sample(params.scale)
        along = z * xp.mean(dx * z, axis=-1, keepdims=True)
        dx -= xp.mean(dx, axis=-1, keepdims=True)
        dx -= along
        dx *= rescale
        return dx, grads

    return _affine(params, z), pullback


def batch_norm(
    params: Norm,
    x: Array,
    weights: Array | None,
    part: BatchPart | None = None,
    *,
    xp: Namespace,
    epsilon: float = 1e-5,
) -> tuple[Array, LayerPullback, BatchStats]:
    r"""Normalize each feature to mean 0 and variance 1 over the batch, then scale and shift it.

    With the relative weight :math:`s_i = w_i / \sum_j w_j` of each sample, :math:`\mu = \sum_i s_i
    x_i`, :math:`\sigma^2 = \sum_i s_i (x_i - \mu)^2`, :math:`z = (x - \mu) / \sqrt{\sigma^2 +
    \epsilon}` and :math:`y = \gamma z + \beta`. Then :math:`\bar\gamma = \sum_i \bar y_i z_i`,
    :math:`\bar\beta = \sum_i \bar y_i` and :math:`\bar x_i = \gamma\,(\bar y_i - s_i\,(\bar\beta +
    z_i \bar\gamma)) / \sqrt{\sigma^2 + \epsilon}`. A sample affects all others through the mean and
    the variance, in proportion to its weight.

    x and ``weights : (..., batch)`` are in the dtype of the parameters; None means that all weights
    are 1. Rows of weight 0 serve as padding: they must be finite, and do not affect other rows. If
    ``part`` is given, x is a part of a batch; the statistics are over the whole batch, but
    parameter gradients are sums over the rows of x only. The third result is the mean and variance
    of each feature, or 0 if all weights are 0.

    References
    ----------
    Ioffe, Szegedy, "Batch normalization: accelerating deep network training by reducing internal
    covariate shift" (2015), arXiv:1502.03167, which has no sample weights.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import Norm, batch_norm
    >>> params = Norm(xp.ones(1), xp.zeros(1))
    >>> x, weights = xp.asarray([[1.0], [3.0], [99.0]]), xp.asarray([1.0, 1.0, 0.0])
    >>> y, pullback, batch_stats = batch_norm(params, x, weights, xp=xp)
    >>> batch_stats
    BatchStats(mean=array([2.]), variance=array([1.]))
    >>> y[:2].round(4)
    array([[-1.],
           [ 1.]])
    """
    relative = shares(weights, x.shape[-2], xp=xp)
    n_shards = 0 if part is None else part.n_shards
    if part is not None:
        if n_shards:
            assert weights is not None
            relative = weights[..., None]
        relative = relative * part.fraction
    mean = _of_all_parts(sum_rows(x * relative, n_shards, xp=xp), part)
    z = x - per_sample(mean)
    squares = z * z
    squares *= relative
    variance = _of_all_parts(sum_rows(squares, n_shards, xp=xp), part)
    rescale = _rescale(variance, epsilon, xp=xp)
    z *= per_sample(rescale)

    def pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, Norm]:
        scale = sum_rows(dy * z, n_shards, xp=xp)
        grads = Norm(scale, sum_rows(dy, n_shards, xp=xp))
        if not need_dx:
            return None, grads
        total = grads
        if part is not None:  # Copy, because `part.sum` may overwrite its argument.
            total = part.sum(Norm(1.0 * grads.scale, 1.0 * grads.shift))
        dx = z * per_sample(-total.scale)
        dx -= per_sample(total.shift)
        dx *= relative
        dx += dy
        dx *= per_sample(params.scale * rescale)
        return dx, grads

    return _affine(params, z), pullback, BatchStats(mean, variance)


def apply_norm(
    params: Norm, batch_stats: BatchStats, x: Array, *, xp: Namespace, epsilon: float = 1e-5
) -> tuple[Array, LayerPullback]:
    r"""Apply batch normalization with given statistics, in which samples do not affect each other.

    :math:`y = \gamma z + \beta` with :math:`z = (x - \mu) / \sqrt{\sigma^2 + \epsilon}`, so
    :math:`\bar x = \gamma\,\bar y / \sqrt{\sigma^2 + \epsilon}`,
    :math:`\bar\gamma = \sum_i \bar y_i z_i` and :math:`\bar\beta = \sum_i \bar y_i`.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import BatchStats, Norm, apply_norm
    >>> params = Norm(xp.ones(1), xp.zeros(1))
    >>> batch_stats = BatchStats(xp.asarray([2.0]), xp.asarray([4.0]))
    >>> y, pullback = apply_norm(params, batch_stats, xp.asarray([[2.0], [6.0]]), xp=xp)
    >>> y.round(4)
    array([[0.],
           [2.]])
    """
    y = x - per_sample(batch_stats.mean)
    factor = per_sample(params.scale * _rescale(batch_stats.variance, epsilon, xp=xp))
    y *= factor
    y += per_sample(params.shift)

    def pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, Norm]:
        rescale = per_sample(_rescale(batch_stats.variance, epsilon, xp=xp))
        z = (x - per_sample(batch_stats.mean)) * rescale
        grads = Norm(xp.sum(dy * z, axis=-2), xp.sum(dy, axis=-2))
        return dy * factor if need_dx else None, grads

    return y, pullback


def _of_all_parts(tree: Tree, part: BatchPart | None) -> Tree:
    return tree if part is None else part.sum(tree)


def _rescale(variance: Array, epsilon: float, *, xp: Namespace) -> Array:
    """Return ``1 / sqrt(variance + eps)``, the factor that scales a variable to a variance of 1."""
    return 1.0 / xp.sqrt(variance + epsilon)


def _affine(params: Norm, z: Array) -> Array:
    y = z * per_sample(params.scale)
    y += per_sample(params.shift)
    return y
