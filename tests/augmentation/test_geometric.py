"""Moved pixels: pixel by pixel what a loop does, on every backend and in its own gather."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from image_data import BATCH, BOTH, FEATURES, GEOMETRIC, C, H, N, W, drawn, images

from mlp_xp._utils.tree import map_leaves
from mlp_xp.augmentation import Flip, Shift, make_pixel_map, map_pixels, view_draws
from mlp_xp.backends.kernels import Kernels, Scaling


def mirrored(i, n):
    while not 0 <= i < n:
        i = -i if i < 0 else 2 * (n - 1) - i
    return i


def by_loop(augmentation, x, draws):
    """Apply geometric augmentations one after the other, pixel by pixel."""
    out = x.reshape(-1, C, H, W).copy()
    for each, batch in zip(augmentation, draws, strict=True):
        for b, values in enumerate(zip(*batch, strict=True)):
            draw = type(batch)(*map(int, values))
            old, new = out[b].copy(), np.zeros_like(out[b])
            for i in range(H):
                for j in range(W):
                    if isinstance(each, Flip):
                        new[:, i, j] = old[:, i, W - 1 - j if draw.is_mirrored else j]
                    elif isinstance(each, Shift):
                        k, m = i + draw.up, j + draw.left
                        if each.padding == "reflect" or (0 <= k < H and 0 <= m < W):
                            new[:, i, j] = old[:, mirrored(k, H), mirrored(m, W)]
                    else:
                        top, left = draw.line - each.size // 2, draw.column - each.size // 2
                        hole = top <= i < top + each.size and left <= j < left + each.size
                        new[:, i, j] = 0 if hole else old[:, i, j]
            out[b] = new
    return out.reshape(x.shape)


@cache
def moved(name, dtype="uint8"):
    """Return the draws of an epoch, and what a loop makes of all images with them."""
    draws = drawn(GEOMETRIC[name]).draws
    return draws, by_loop(GEOMETRIC[name], images(dtype), draws)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("name", GEOMETRIC)
def test_pixels_are_where_a_loop_puts_them(backend, name, dtype):
    draws, expected = moved(name, dtype)
    x, xp = images(dtype), backend.xp
    with backend.scope():
        here = backend.put(x)
        pixel_map = make_pixel_map(GEOMETRIC[name], map_leaves(backend.put, draws), xp=xp)
        found = backend.get(map_pixels(here, pixel_map, xp=xp))
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(backend.get(here), x)


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("is_scaled", [False, True])
@pytest.mark.parametrize("has_rows", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("name", GEOMETRIC)
def test_the_gather_kernel_moves_pixels(
    backend, name, dtype, has_rows, is_scaled, threads, pool_of
):
    x, (draws, expected) = images(dtype), moved(name, dtype)
    expected, rows, scaling = expected.astype("float32"), None, None
    with backend.scope(), pool_of(threads):
        xp = backend.xp
        if has_rows:  # The images of the last batch, in its order.
            order = np.random.default_rng(0).permutation(N)
            x, rows = x[np.argsort(order)], backend.put(order[-BATCH:].astype(np.int32))
            draws, expected = map_leaves(lambda a: a[-BATCH:], draws), expected[-BATCH:]
        if is_scaled:
            scaling = Scaling(*(backend.put(np.full(FEATURES, s, "float32")) for s in (2, 0.25)))
            expected = (expected - 2) * 0.25
        pixel_map = make_pixel_map(GEOMETRIC[name], map_leaves(backend.put, draws), xp=xp)
        wanted = backend.put(np.zeros(1, "float32")).dtype
        for gather in (backend.kernels.gather, Kernels().gather):
            found = gather(backend.put(x), rows, scaling, pixel_map, dtype=wanted, xp=xp)
            np.testing.assert_array_equal(backend.get(found), expected)


def test_one_view_for_all_images_is_that_of_each(backend):
    x = images()
    for draws in view_draws(BOTH):
        with backend.scope():
            here = map_leaves(lambda number: backend.put(np.asarray([number])), draws)
            pixel_map = make_pixel_map(BOTH, here, xp=backend.xp)
            found = backend.get(map_pixels(backend.put(x), pixel_map, xp=backend.xp))
        repeated = map_leaves(lambda number: np.asarray([number] * N), draws)
        np.testing.assert_array_equal(found, by_loop(BOTH, x, repeated))
