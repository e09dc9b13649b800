"""Moved pixels: pixel by pixel what a loop does, on every backend and in its own gather."""

from __future__ import annotations

import numpy as np
import pytest
from image_data import BATCH, BOTH, FEATURES, GEOMETRIC, SHAPE, C, H, N, W, drawn, images

from mlp_xp._utils.tree import map_leaves
from mlp_xp.augmentation import Flip, Shift, make_pixel_map, map_pixels, take_pixels, view_draws
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


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("name", GEOMETRIC)
def test_pixels_are_where_a_loop_puts_them(backend, name, dtype):
    chosen, x = GEOMETRIC[name], images(dtype)
    draws = drawn(chosen).draws
    expected = by_loop(chosen, x, draws)
    xp = backend.xp
    with backend.scope():
        here = backend.put(x)
        pixel_map = make_pixel_map(chosen, map_leaves(backend.put, draws), xp=xp)
        found = map_pixels(here, pixel_map, xp=xp)
        assert backend.get(found).dtype == dtype
        np.testing.assert_array_equal(backend.get(found), expected)
        np.testing.assert_array_equal(backend.get(here), x)


@pytest.mark.parametrize("parts", [0, 2])
@pytest.mark.parametrize("is_scaled", [False, True])
@pytest.mark.parametrize("has_rows", [False, True])
@pytest.mark.parametrize("name", GEOMETRIC)
def test_the_gather_kernel_moves_pixels(backend, name, has_rows, is_scaled, parts, pool_of):
    chosen, x = GEOMETRIC[name], images()
    plan = drawn(chosen)
    rows = plan.rows[:BATCH] if has_rows else None
    draws = map_leaves(lambda leaf: leaf[:BATCH] if has_rows else leaf, plan.draws)
    expected = by_loop(chosen, x if rows is None else x[rows], draws).astype("float32")
    scaling = None
    with backend.scope(), pool_of(parts):
        xp = backend.xp
        if is_scaled:
            scaling = Scaling(*(backend.put(np.full(FEATURES, s, "float32")) for s in (2, 0.25)))
            expected = (expected - 2) * 0.25
        pixel_map = make_pixel_map(chosen, map_leaves(backend.put, draws), xp=xp)
        dtype = backend.put(np.zeros(1, "float32")).dtype
        rows = None if rows is None else backend.put(rows)
        for gather in (backend.kernels.gather, Kernels().gather):
            found = gather(backend.put(x), rows, scaling, pixel_map, dtype=dtype, xp=xp)
            np.testing.assert_array_equal(backend.get(found), expected)


def test_the_kernels_take_pixels_like_the_default(backend, rng):
    """Where a library has a way of its own, it is the same."""
    chosen = GEOMETRIC["flip, shift"]
    with backend.scope():
        xp = backend.xp
        pixel_map = make_pixel_map(chosen, map_leaves(backend.put, drawn(chosen).draws), xp=xp)
        x = backend.put(rng.standard_normal((N, FEATURES)))
        given = xp.reshape(x, (N, *SHAPE))
        whole = take_pixels(given, pixel_map.lines, pixel_map.columns, xp=xp)
        found = backend.kernels.gather(x, None, None, pixel_map, dtype=x.dtype, xp=xp)
    np.testing.assert_array_equal(backend.get(found), backend.get(whole).reshape(N, -1))


def test_one_view_for_all_images_is_that_of_each(backend):
    x = images()
    for draws in view_draws(BOTH):
        with backend.scope():
            here = map_leaves(lambda number: backend.put(np.asarray([number])), draws)
            pixel_map = make_pixel_map(BOTH, here, xp=backend.xp)
            found = backend.get(map_pixels(backend.put(x), pixel_map, xp=backend.xp))
        repeated = map_leaves(lambda number: np.asarray([number] * N), draws)
        np.testing.assert_array_equal(found, by_loop(BOTH, x, repeated))


def test_images_in_another_order_are_the_same_images(backend, rng):
    chosen, order = GEOMETRIC["all"], rng.permutation(N)
    x, draws = images(), drawn(chosen).draws
    xp = backend.xp

    def put(rows):
        return lambda leaf: backend.put(leaf[rows])

    with backend.scope():
        found = [
            backend.get(
                map_pixels(
                    backend.put(x[rows]),
                    make_pixel_map(chosen, map_leaves(put(rows), draws), xp=xp),
                    xp=xp,
                )
            )
            for rows in (slice(None), order)
        ]
    np.testing.assert_array_equal(found[1], found[0][order])
