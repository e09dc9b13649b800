"""Parameters of layers that the tests go through."""

from __future__ import annotations

from mlp_xp.nn.layers import Arrangement, Dense, Norm

# As large as the variance: a batch of 1 has a gradient that can be measured, and a formula that
# forgets epsilon is seen.
EPSILON = 0.5

# Shape, mixed axes, width.
ARRANGEMENTS = {
    "last axis": Arrangement((3, 4), (1,), 5),
    "first axis": Arrangement((3, 4), (0,), 5),
    "in place": Arrangement((3, 4), (0,)),
    "squares of an image": Arrangement((3, 2, 2, 2, 2), (0, 2, 4), 7),
    "scattered, in place": Arrangement((2, 3, 2, 2), (0, 2)),
    "everything": Arrangement((3, 4), (0, 1), 6),
}


def dense_params(rng, width):
    return Dense(rng.standard_normal((width, 4)), rng.standard_normal(4))


def norm_params(rng, width):
    return Norm(rng.standard_normal(width), rng.standard_normal(width))


def block_params(how, rng):
    W = rng.standard_normal((how.blocks, how.fan_in, how.fan_out))
    return Dense(W, rng.standard_normal(how.blocks * how.fan_out))
