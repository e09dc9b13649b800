"""Fuse the computation of a layer's weight gradient with the update of the weights."""

from __future__ import annotations

from collections.abc import Sequence

from mlp_xp.backends._numpy.native.jobs import Job, TiledProduct, Update, address
from mlp_xp.backends._numpy.native.tuning import fits_in_update


def fused(jobs: Sequence[Job]) -> list[Job]:
    """Remove the products x^T dy that a later update can compute; return the remaining calls.

    The update computes and uses a few rows of a gradient x^T dy at a time, without writing them to
    memory. This is safe because only the update reads the gradients, and because x and dy do not
    change between two calls of a table.
    """
    products = {address(job.fields.c): job.fields for job in jobs if _can_be_fused(job)}
    left_out = set()
    for job in jobs:
        if isinstance(job.fields, Update):
            for array in job.fields.arrays:
                product = products.get(int(array["grad"]))
                if product is not None:
                    array["x"], array["dy"] = address(product.a), address(product.b)
                    array["n_samples"], array["width"] = product.n_steps, product.n
                    array["panel"] = product.width
                    left_out.add(id(product))
    return [job for job in jobs if id(job.fields) not in left_out]


def _can_be_fused(job: Job) -> bool:
    product = job.fields
    if not isinstance(product, TiledProduct) or product.in_pairs:
        return False
    is_movable = getattr(product.a, "find_view", None) or getattr(product.b, "find_view", None)
    size = 8 if product.is_double else 4
    fits = fits_in_update(product.n_steps, product.n, size)
    is_transposed = product.a_row == 1 and product.a_step == product.m  # No gaps between rows.
    return bool(fits and is_transposed and not is_movable)
