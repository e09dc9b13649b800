"""Dense layers, full and block-diagonal."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from mlp_xp._utils.array_types import Array, Tree
from mlp_xp._utils.dataclass import dataclass
from mlp_xp.nn.blocks._base import Applied, Block, Context, Make, normal
from mlp_xp.nn.layers import Arrangement, Dense, Signs

# The initializations. "glorot": uniform weights and biases in Glorot and Bengio's range, as in
# scikit-learn. "glorot-logistic": the same with scikit-learn's range for logistic activations.
# "lecun": uniform weights with a standard deviation of 1 / sqrt(fan_in), biases 0. "zero": all 0.
# "ntk": normal weights, matrix products divided by sqrt(fan_in), then fitted to the data.
Start = Literal["glorot", "glorot-logistic", "lecun", "zero", "ntk"]

_SAMPLES = 5  # "ntk" sets a bias with a random mixture of this many samples.
_NOISE = 64.0  # Rounding errors are smaller than this many epsilons times the sum of all terms.


def _bound(start: Start, fan_in: int, fan_out: int) -> float:
    if start == "zero":
        return 0.0
    if start == "lecun":
        return math.sqrt(3.0 / fan_in)
    return math.sqrt((2.0 if start == "glorot-logistic" else 6.0) / (fan_in + fan_out))


def draw_dense(
    uniform: Make,
    constant: Make,
    start: Start,
    shape: tuple[int, ...],
    n_outputs: int | tuple[int, ...],
) -> Dense:
    """Draw weights and biases; arrays that start at zero use no random numbers."""
    bound = _bound(start, *shape[-2:])
    W = uniform(-bound, bound, shape) if bound else constant(0.0, shape)
    is_glorot = start.startswith("glorot")
    biases = n_outputs if isinstance(n_outputs, tuple) else (n_outputs,)
    b = uniform(-bound, bound, biases) if is_glorot else constant(0.0, biases)
    return Dense(W, b)


@dataclass(frozen=True)
class Affine(Block):
    r"""A dense layer; "ntk" divides the matrix product by ``sqrt(fan_in)``."""

    fan_in: int
    fan_out: int
    start: Start = "glorot"
    label: ClassVar[str] = "dense"
    is_linear: ClassVar[bool] = True  # type: ignore[misc]

    @property
    def adapts(self) -> bool:  # type: ignore[override]
        return self.start == "ntk"

    @property
    def takes_sparse(self) -> bool:  # type: ignore[override]
        """Whether the input may be sparse. True, because only a matrix product uses the input."""
        return not self.adapts

    is_dense = takes_sparse

    @property
    def factor(self) -> float:
        """The factor by which the matrix product is multiplied."""
        return 1.0 / math.sqrt(self.fan_in) if self.adapts else 1.0

    @property
    def work(self) -> int:  # type: ignore[override]
        return 2 * self.fan_in * self.fan_out

    def init(self, uniform: Make, constant: Make) -> Dense:
        shape = self.fan_in, self.fan_out
        if self.adapts:
            return Dense(normal(uniform, shape), constant(0.0, (self.fan_out,)))
        return draw_dense(uniform, constant, self.start, shape, self.fan_out)

    def signs(self, inputs: Array, outputs: Array) -> list[Signs | None]:
        return [Signs.between(inputs, outputs), None]

    def adapt(self, params: Dense, x: Array, uniform: Make, context: Context) -> Dense:
        """Scale each output to a variance of 1; shift it to 0 at a random mixture of 5 samples.

        An output that varies only by rounding errors is not shifted, since only these would be left
        and the next layer would scale them to 1. It is scaled to a magnitude of at most 1 instead.

        References
        ----------
        Holzmüller, Grinsztajn, Steinwart (2024), arXiv:2407.04491, appendix A; Steinwart, "A sober
        look at neural network initializations" (2019), arXiv:1903.11482, for the biases.
        """
        xp = context.xp
        scaled = x * self.factor
        y = xp.matmul(scaled, params.W)
        deviation = xp.std(y, axis=0)
        largest = xp.max(xp.matmul(xp.abs(scaled), xp.abs(params.W)), axis=0)
        varies = deviation > _NOISE * float(xp.finfo(y.dtype).eps) * largest
        deviation = xp.where(varies, deviation, xp.where(largest > 0.0, largest, 1.0))
        chosen = uniform(0.0, 1.0, (self.fan_out, _SAMPLES)) * y.shape[0]
        shares = -xp.log1p(-uniform(0.0, 1.0, (self.fan_out, _SAMPLES)))
        shares = shares / xp.sum(shares, axis=1, keepdims=True)
        taken = xp.take_along_axis(
            xp.matrix_transpose(y / deviation), xp.astype(chosen, xp.int64), axis=1
        )
        shift = -xp.sum(taken * shares, axis=1)
        return Dense(params.W / deviation, xp.where(varies, shift, 0.0))

    def __call__(self, params: Dense, x: Array, context: Context) -> Applied:
        """Apply `mlp_xp.nn.layers.dense`."""
        if not self.adapts:
            return *context.kernels.dense(params, x, xp=context.xp), ()
        y, pull = context.kernels.dense(params, x * self.factor, xp=context.xp)

        def pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, Tree]:
            dx, grads = pull(dy, need_dx=need_dx)
            return None if dx is None else dx * self.factor, grads

        return y, pullback, ()


@dataclass(frozen=True)
class BlockAffine(Block):
    """A block-diagonal dense layer."""

    arrangement: Arrangement
    start: Start = "glorot"
    is_dense: ClassVar[bool] = True  # type: ignore[misc]
    is_linear: ClassVar[bool] = True  # type: ignore[misc]

    @property
    def label(self) -> str:
        return f"{self.arrangement.blocks} dense blocks"

    @property
    def work(self) -> int:  # type: ignore[override]
        return 2 * self.fan_out * self.arrangement.fan_in

    @property
    def fan_out(self) -> int:  # type: ignore[override]
        """The total number of outputs of all blocks."""
        return self.arrangement.blocks * self.arrangement.fan_out

    def init(self, uniform: Make, constant: Make) -> Dense:
        arrangement = self.arrangement
        shape = arrangement.blocks, arrangement.fan_in, arrangement.fan_out
        return draw_dense(uniform, constant, self.start, shape, self.fan_out)

    def __call__(self, params: Dense, x: Array, context: Context) -> Applied:
        """Apply `mlp_xp.nn.layers.block_dense`."""
        return *context.kernels.dense(params, x, self.arrangement, xp=context.xp), ()
