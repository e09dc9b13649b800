"""A nested tree of parameters, for the tests of what is done to whole trees."""

from __future__ import annotations

from typing import NamedTuple


class Layer(NamedTuple):
    W: object
    b: object


def nested(rng, dtype="float64"):
    """Return parameters as of a network with a gain, a residual block, and a head."""

    def layer(fan_in, fan_out):
        shapes = (fan_in, fan_out), (fan_out,)
        return Layer(*(rng.standard_normal(shape).astype(dtype) for shape in shapes))

    gain = rng.standard_normal(4).astype(dtype)
    return layer(3, 4), (gain, (layer(4, 4), layer(4, 4))), (layer(4, 2), ())
