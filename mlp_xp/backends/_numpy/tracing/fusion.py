"""Fuse the computation of a layer's weight gradient with the update of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlp_xp.backends._numpy.native.jobs import (
    FormulaLoop,
    Group,
    Job,
    TiledProduct,
    Update,
    address,
)
from mlp_xp.backends._numpy.native.tuning import fits_in_update
from mlp_xp.backends._numpy.tracing.traced import value_of


def fused(jobs: Sequence[Job]) -> list[Job]:
    """Remove the products x^T dy that a later update can compute; return the remaining calls.

    The update computes and uses a few rows of a gradient x^T dy at a time, without writing them to
    memory. This is only possible if no other call uses the gradient or changes x or dy.
    """
    products: dict[int, TiledProduct] = {}
    left_out = set()
    for job in jobs:
        if isinstance(job.fields, Update):
            for array in job.fields.arrays:
                product = products.get(int(array["grad"]))
                if product is not None and not _changes(job, product):
                    array["x"], array["dy"] = address(product.a), address(product.b)
                    array["n_samples"], array["width"] = product.n_steps, product.n
                    array["panel"] = product.width
                    left_out.add(id(product))
            continue
        products = {place: p for place, p in products.items() if not _uses(job.fields, p)}
        if _can_be_fused(job):
            products[address(job.fields.c)] = job.fields
    return [job for job in jobs if id(job.fields) not in left_out]


def _changes(update: Job, product: TiledProduct) -> bool:
    """Whether an update changes an operand of a product, for example an input that is learned."""
    changed = map(value_of, update.others)
    factors = [value_of(x) for x in (product.a, product.b)]
    return any(np.may_share_memory(x, factor) for x in changed for factor in factors)


def _uses(fields: Any, product: TiledProduct) -> bool:
    """Whether a later call uses a product's result, or changes its operands."""
    if isinstance(fields, Group):  # Its calls are in another table.
        return True
    used = [(value, product.c) for value in fields if hasattr(value, "dtype")]
    written = fields.results if isinstance(fields, FormulaLoop) else [getattr(fields, "out", 0)]
    written = [out for out in written if hasattr(out, "dtype")]
    used += [(out, x) for out in written for x in (product.a, product.b)]
    return any(np.may_share_memory(value_of(a), value_of(b)) for a, b in used)


def _can_be_fused(job: Job) -> bool:
    product = job.fields
    if not isinstance(product, TiledProduct) or product.in_pairs:
        return False
    is_movable = getattr(product.a, "find_view", None) or getattr(product.b, "find_view", None)
    size = 8 if product.is_double else 4
    fits = fits_in_update(product.n_steps, product.n, size)
    is_transposed = product.a_row == 1 and product.a_step == product.m  # No gaps between rows.
    return bool(fits and is_transposed and not is_movable)
