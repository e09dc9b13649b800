"""Activations with a learned slope."""

from __future__ import annotations

from typing import NamedTuple

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.nn.layers._activations import activate
from mlp_xp.nn.layers._dense import per_sample
from mlp_xp.nn.layers._layer import Activation, LayerPullback, with_kinds


@with_kinds("slope")
class Slope(NamedTuple):
    """Parameters of a parametric activation: ``slope : (..., width)``."""

    slope: Array


def parametric(
    params: Slope, x: Array, function: str | Activation, *, xp: Namespace
) -> tuple[Array, LayerPullback]:
    r"""Interpolate between the identity and an activation: :math:`y = x + a (f(x) - x)`.

    So :math:`\bar a = \sum_i \bar y_i (f(x_i) - x_i)` and
    :math:`\bar x = \bar y (1 - a) + f'(x)\,\bar y a`.

    References
    ----------
    Holzmüller, Grinsztajn, Steinwart, "Better by default: strong pre-tuned MLPs and boosted trees
    on tabular data" (2024), arXiv:2407.04491, appendix A.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import Slope, parametric
    >>> params = Slope(xp.asarray([0.5, 1.0]))
    >>> y, pullback = parametric(params, xp.asarray([[-2.0, -2.0]]), "relu", xp=xp)
    >>> y
    array([[-1.,  0.]])
    >>> pullback(xp.ones((1, 2)), need_dx=True)
    (array([[0.5, 0. ]]), Slope(slope=array([2., 2.])))
    """
    slope = per_sample(xp.astype(params.slope, x.dtype, copy=False))
    y, pull = activate(function, x, xp=xp)
    bend = y - x

    def pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, Slope]:
        dslope = xp.sum(dy * bend, axis=-2)
        dx = None
        if need_dx:
            passed = dy * slope
            dx = pull(passed)
            dx = dx + dy
            dx -= passed
        return dx, Slope(dslope)

    return x + slope * bend, pullback
