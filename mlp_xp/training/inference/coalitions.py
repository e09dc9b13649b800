"""A network in two parts, to predict many rows that mix the columns of two rows.

The first layer is linear, so its output for a mixed row is a sum with one term per column. Each
term is computed once; the rest of the network then starts from sums of terms.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.tree import leaves
from mlp_xp.backends import Backend
from mlp_xp.backends.kernels import Kernels, Scaling, Source, Whitening
from mlp_xp.compiler import derive
from mlp_xp.nn.blocks import Context, chain
from mlp_xp.nn.layers import BatchStats
from mlp_xp.nn.losses import Loss
from mlp_xp.nn.network import Network, Params
from mlp_xp.training.step.inputs import in_dtype_of, of_features, rotated


class Parts(NamedTuple):
    """The two parts of a network.

    ``first(params, batch_stats, x, scaling)`` returns the output of the first, additive blocks,
    (batch, sums); without such blocks, these are the scaled inputs.

    ``mix(terms, masks, others, params, batch_stats)`` returns the network's outputs for mixed rows,
    (rows * background rows * masks, outputs). ``terms : (rows, columns, sums)``, or (columns, sums)
    for one row, are multiplied by ``masks : (background rows or 1, masks, columns)`` and added to
    the other columns' sums, ``others : (background rows, masks, sums)``.

    ``step(i, state, terms, ...)``, for `Backend.loop`, does so for the row i; the state is an array
    for the outputs of all rows, and the outputs of the previous row, which it stores.
    """

    first: Callable[..., Array]
    mix: Callable[..., Array]
    step: Callable[..., tuple[Array, Array]]


def make_parts(network: Network, loss: Loss | None, kernels: Kernels, *, xp: Namespace) -> Parts:
    """Return the two parts of a network; outputs are raw if ``loss`` is None."""
    additive, others = network.additive_blocks, network.other_blocks
    n_params = sum(block.has_params for block in additive)
    widths = [block.fan_out for block in additive if block.fan_out]

    def first(
        params: Params,
        batch_stats: tuple[BatchStats, ...],
        x: Array,
        scaling: Scaling | Whitening | None,
    ) -> Array:
        dtype = leaves(params)[0].dtype
        scaled = kernels.gather(Source(x, None, of_features(scaling)), dtype=dtype, xp=xp)
        scaled = rotated(scaled, scaling, xp=xp)
        context = Context(xp, kernels, batch_stats)
        sums = chain(additive, params[:n_params], scaled, context)[0]
        return xp.reshape(sums, (x.shape[0], -1))  # Members' rows become columns.

    def mix(
        terms: Array,
        masks: Array,
        other: Array,
        params: Params,
        batch_stats: tuple[BatchStats, ...],
    ) -> Array:
        own = xp.matmul(xp.reshape(masks, (-1, masks.shape[-1])), terms)
        sums = xp.reshape(own, (*terms.shape[:-2], *masks.shape[:2], -1)) + other
        sums = xp.reshape(sums, (-1, widths[-1] if widths else sums.shape[-1]))
        logits = chain(others, params[n_params:], sums, Context(xp, kernels, batch_stats))[0]
        logits = in_dtype_of(params, logits, xp=xp)
        return logits if loss is None else loss.activate(logits, xp=xp)

    def step(i: Any, state: tuple[Any, Array], terms: Array, *shared: Any) -> tuple[Array, Array]:
        outputs, last = state
        outputs[i, ...] = last
        return outputs, mix(terms[i, ...], *shared)

    return Parts(first, mix, step)


def make_slope(
    network: Network, explain: Callable[..., Array], kernels: Kernels, *, xp: Namespace
) -> Callable[..., list[Array]]:
    """Return a function of the sums that `Parts.first` returns.

    ``slope(params, batch_stats, sums, basis)`` returns, for each of the numbers that
    ``explain(logits, xp=xp)`` computes, the gradient with respect to ``sums : (batch, sums)``.
    ``basis`` is the identity matrix of these numbers.
    """
    additive, others = network.additive_blocks, network.other_blocks
    n_params = sum(block.has_params for block in additive)
    widths = [block.fan_out for block in additive if block.fan_out]

    def slope(
        params: Params, batch_stats: tuple[BatchStats, ...], sums: Array, basis: Array
    ) -> list[Array]:
        x = xp.reshape(sums, (-1, widths[-1] if widths else sums.shape[-1]))
        found = []
        for i in range(basis.shape[0]):
            # A pullback may overwrite what it has saved, so each gradient has a forward pass.
            context = Context(xp, kernels, batch_stats)
            logits, pullback, _ = chain(others, params[n_params:], x, context)
            logits = in_dtype_of(params, logits, xp=xp)
            values, pull = derive(explain, logits, xp=xp, what="the output activation")
            dx, _ = pullback(pull(xp.zeros_like(values) + basis[i, ...])[0], need_dx=True)
            assert dx is not None
            found.append(xp.reshape(in_dtype_of(params, dx, xp=xp), sums.shape))
        return found

    return slope


@lru_cache(maxsize=64)
def compiled_parts(backend: Backend, network: Network, loss: Loss | None) -> Parts:
    """Return the two parts of a network, compiled by the backend except ``step``."""
    parts = make_parts(network, loss, backend.kernels, xp=backend.xp)
    return Parts(backend.compile(parts.first), backend.compile(parts.mix), parts.step)
