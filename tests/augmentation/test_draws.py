"""Draws: their distribution, what they depend on, and colors and mixtures computed from them."""

from __future__ import annotations

import numpy as np
from image_data import BATCH, EVERYTHING, SHAPE, C, H, N, W, drawn, images, integers

from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.augmentation import ColorJitter, Cutout, Flip, Mixup, Shift


def test_jitter_and_mixup_do_what_a_loop_does(backend):
    x = images("float64")
    jitter, mixup = ColorJitter(SHAPE, brightness=0.5, contrast=0.3), Mixup(0.4)
    colors, mixed = drawn((jitter, mixup)).draws
    assert np.all(np.abs(colors.contrast - 1) <= 0.3)
    assert np.all(np.abs(colors.brightness) <= 0.5)
    expected = x.reshape(N, C, -1).copy()
    for b in range(N):
        for c in range(C):
            expected[b, c] = colors.contrast[b] * expected[b, c] + colors.brightness[b, c]
    step = slice(BATCH, 2 * BATCH)
    with backend.scope():
        xp = backend.xp
        here = backend.put(x)
        found = jitter.apply(here, map_leaves(backend.put, colors), xp=xp)
        np.testing.assert_allclose(backend.get(found), expected.reshape(N, -1), rtol=1e-14)
        draws = map_leaves(lambda leaf: backend.put(leaf[step]), mixed)
        found = mixup.apply(here[step, :], draws, xp=xp)
        share, own = mixed.share[BATCH], x[step]
        expected = share * own + (1 - share) * own[::-1]
        np.testing.assert_allclose(backend.get(found), expected, rtol=1e-13)
        np.testing.assert_array_equal(backend.get(here), x)


def test_padding_changes_no_draw():
    plain, padded = drawn(EVERYTHING).draws, drawn(EVERYTHING, pad=True).draws
    for short, long in zip(leaves(plain), leaves(padded), strict=True):
        assert len(long) == 30
        np.testing.assert_array_equal(long[:N], short)
    # A sample that only pads is its own partner, and that of no other.
    partners = padded[-1].partners.reshape(3, BATCH)
    assert partners[0].tolist() == list(range(BATCH))[::-1]
    assert partners[2].tolist() == [2, 1, 0, 3, 4, 5, 6, 7, 8, 9]


def test_draws_depend_on_seed_epoch_and_place_alone():
    first, again = (integers(drawn(EVERYTHING).draws) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    for other in ({"seed": 4}, {"epoch": 2}):
        assert not np.array_equal(integers(drawn(EVERYTHING, **other).draws), first)
    more = drawn((*EVERYTHING[:2], Cutout(SHAPE, 1)))
    np.testing.assert_array_equal(integers(more.draws)[:, :3], first[:, :3])
    # The first numbers of a seed are part of the format: a change breaks every reproduction.
    assert first[:2].tolist() == [[0, 2, -1, 3, 2, 1, 3, -2, 9], [0, 2, 2, 2, 4, 0, 1, 3, 8]]


def test_shifts_and_holes_are_everywhere():
    shifts, holes = drawn((Shift(SHAPE, 2), Cutout(SHAPE, 2)), n=2000).draws
    expected = (range(-2, 3), range(-2, 3), range(H), range(W))
    for values, possible in zip((*shifts, *holes), expected, strict=True):
        found, counts = np.unique(values, return_counts=True)
        assert found.tolist() == list(possible)
        assert counts.min() > 2000 / len(possible) * 0.8


def test_an_alternating_flip_shows_both_sides_in_turn():
    sides = []
    for epoch in range(4):
        plan = drawn((Flip(SHAPE, alternate=True),), n=400, epoch=epoch)
        side = np.zeros(400, int)
        side[plan.rows] = plan.draws[0].is_mirrored
        sides.append(side)
    assert 150 < sides[0].sum() < 250
    np.testing.assert_array_equal(sides[1], 1 - sides[0])
    np.testing.assert_array_equal(sides[2], sides[0])
    np.testing.assert_array_equal(sides[3], sides[1])
    random = [drawn((Flip(SHAPE),), n=400, epoch=e).draws[0].is_mirrored for e in range(2)]
    assert 100 < np.sum(random[0] == random[1]) < 300
