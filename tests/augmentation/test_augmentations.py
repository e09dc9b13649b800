"""Augmentations: pixel by pixel what a loop does, on every backend; their draws and errors."""

import re
from functools import cache

import image_data
import numpy as np
import pytest
from helpers import small
from image_data import BATCH, BOTH, EVERYTHING, FEATURES, GEOMETRIC, SHAPE, C, H, N, W, images

from mlp_xp import augmentation as augmentations
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.augmentation import ColorJitter, Cutout, Flip, Mixup, Shift, make_pixel_map
from mlp_xp.backends.kernels import Kernels, Scaling, Source


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
    draws = image_data.drawn(GEOMETRIC[name]).draws
    return draws, by_loop(GEOMETRIC[name], images(dtype), draws)


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("is_scaled", [False, True])
@pytest.mark.parametrize("has_rows", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("name", GEOMETRIC)
def test_gather_moves_pixels(backend, name, dtype, has_rows, is_scaled, threads, pool_of):
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
            found = gather(Source(backend.put(x), rows, scaling, pixel_map), dtype=wanted, xp=xp)
            np.testing.assert_array_equal(backend.get(found), expected)


def test_one_view_for_all_images_matches_one_view_per_image(backend):
    x = images()
    for draws in augmentations.view_draws(BOTH):
        with backend.scope():
            here = map_leaves(lambda number: backend.put(np.asarray([number])), draws)
            pixel_map = make_pixel_map(BOTH, here, xp=backend.xp)
            moving = augmentations.map_pixels(backend.put(x), pixel_map, xp=backend.xp)
            found = backend.get(moving)
        repeated = map_leaves(lambda number: np.asarray([number] * N), draws)
        np.testing.assert_array_equal(found, by_loop(BOTH, x, repeated))


def test_color_jitter_and_mixup_match_their_formulas(backend):
    x = images("float64")
    jitter, mixup = ColorJitter(SHAPE, brightness=0.5, contrast=0.3), Mixup(0.4)
    colors, mixed = image_data.drawn((jitter, mixup)).draws
    assert np.all(np.abs(colors.contrast - 1) <= 0.3)
    assert np.all(np.abs(colors.brightness) <= 0.5)
    shades = colors.contrast[:, None, None] * x.reshape(N, C, -1) + colors.brightness[..., None]
    step = slice(BATCH, 2 * BATCH)
    with backend.scope():
        xp = backend.xp
        here = backend.put(x)
        found = jitter.apply(here, map_leaves(backend.put, colors), xp=xp)
        np.testing.assert_allclose(backend.get(found), shades.reshape(N, -1), rtol=1e-14)
        draws = map_leaves(lambda leaf: backend.put(leaf[step]), mixed)
        found = mixup.apply(here[step, :], draws, xp=xp)
        share, own = mixed.share[BATCH], x[step]
        mixture = share * own + (1 - share) * own[::-1]
        np.testing.assert_allclose(backend.get(found), mixture, rtol=1e-13)
        np.testing.assert_array_equal(backend.get(here), x)


def test_padding_a_batch_does_not_change_the_random_draws():
    plain, padded = image_data.drawn(EVERYTHING).draws, image_data.drawn(EVERYTHING, pad=True).draws
    for short, long in zip(leaves(plain), leaves(padded), strict=True):
        assert len(long) == 30
        np.testing.assert_array_equal(long[:N], short)
    # A padding sample is its own partner, and no other sample's.
    partners = padded[-1].partners.reshape(3, BATCH)
    assert partners[0].tolist() == list(range(BATCH))[::-1]
    assert partners[2].tolist() == [2, 1, 0, 3, 4, 5, 6, 7, 8, 9]


def test_draws_depend_only_on_seed_epoch_and_position():
    def integers(augmentation=EVERYTHING, **settings):
        draws = leaves(image_data.drawn(augmentation, **settings).draws)
        return np.stack([values for values in draws if values.dtype.kind == "i"], axis=1)

    first = integers()
    np.testing.assert_array_equal(integers(), first)
    for other in ({"seed": 4}, {"epoch": 2}):
        assert not np.array_equal(integers(**other), first)
    more = integers((*EVERYTHING[:2], Cutout(SHAPE, 1)))
    np.testing.assert_array_equal(more[:, :3], first[:, :3])
    # The first numbers of a seed are part of the format: a change breaks every reproduction.
    assert first[:2].tolist() == [[0, 2, -1, 3, 2, 1, 3, -2, 9], [0, 2, 2, 2, 4, 0, 1, 3, 8]]


def test_shifts_and_cutout_positions_are_uniform():
    shifts, holes = image_data.drawn((Shift(SHAPE, 2), Cutout(SHAPE, 2)), n=2000).draws
    expected = (range(-2, 3), range(-2, 3), range(H), range(W))
    for values, possible in zip((*shifts, *holes), expected, strict=True):
        found, counts = np.unique(values, return_counts=True)
        assert found.tolist() == list(possible)
        assert counts.min() > 2000 / len(possible) * 0.8


def test_alternating_flip_mirrors_each_image_every_other_epoch():
    sides = np.zeros((4, 400), int)
    for epoch in range(4):
        plan = image_data.drawn((Flip(SHAPE, alternate=True),), n=400, epoch=epoch)
        sides[epoch, plan.rows] = plan.draws[0].is_mirrored
    assert 150 < sides[0].sum() < 250
    np.testing.assert_array_equal(sides[1:], [1 - sides[0], sides[0], 1 - sides[0]])
    flip = (Flip(SHAPE),)
    random = [image_data.drawn(flip, n=400, epoch=e).draws[0].is_mirrored for e in range(2)]
    assert 100 < np.sum(random[0] == random[1]) < 300


WRONG_SETTINGS = [
    (lambda: Flip((32, 32)), "`image_shape` must be three integers of at least 1"),
    (lambda: Flip((3, 32.0, 32)), "got (3, 32.0, 32); set it to"),
    (lambda: Flip(SHAPE, "yes"), "`alternate` must be True or False, got 'yes'."),
    (lambda: Shift(SHAPE, 4), "`pixels` must be an integer from 1 to 3, got 4."),
    (lambda: Shift(SHAPE, True), "`pixels` must be an integer from 1 to 3, got True"),
    (lambda: Shift(SHAPE, 1, "mean"), "`padding` must be 'reflect' or 'zero', got 'mean'."),
    (lambda: Cutout(SHAPE, 0), "`size` must be an integer from 1 to 10, got 0."),
    (lambda: ColorJitter(SHAPE, contrast=2), "`contrast` must be a number from 0.0"),
    (lambda: ColorJitter(SHAPE, brightness="a"), "`brightness` must be a number from"),
    (lambda: ColorJitter(SHAPE, np.float32("nan")), "got np.float32(nan)"),
    (lambda: Shift(SHAPE, np.float32(1)), "from 1 to 3, got np.float32(1.0)"),
    (lambda: Shift(SHAPE, np.True_), "from 1 to 3, got np.True_"),
    (lambda: Mixup("a"), "`alpha` must be above 0, got 'a'"),
    (lambda: Mixup(True), "got True"),
    (lambda: Mixup(0.0), "`alpha` must be above 0, got 0.0; 0.2 is common."),
]
WRONG_FITS = [
    ({"augmentation": Flip((3, 8, 8))}, ValueError, "3 x 8 x 8 is 192, but the data have 60"),
    ({"augmentation": [Flip]}, TypeError, "create an object with ()"),
    ({"augmentation": ["flip"]}, TypeError, "'flip', which is not one of Flip, Shift, Cutout"),
    ({"augmentation": "flip"}, ValueError, "'augmentation' parameter"),
    ({"augmentation": [Mixup(), Mixup()]}, ValueError, "several Mixup"),
    ({"augmentation": [Flip(SHAPE), Flip((3, 5, 4))]}, ValueError, "different image shapes"),
    ({"augmentation": Mixup(), "solver": "lbfgs"}, ValueError, "set augmentation=None"),
    ({"tta": Cutout(SHAPE, 2)}, TypeError, "Flip, Shift, and not an Augmentation with views"),
    ({"tta": "flip"}, ValueError, "'tta' parameter"),
]


@pytest.mark.parametrize(("make", "message"), WRONG_SETTINGS)
def test_invalid_augmentation_error_says_what_to_pass(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@pytest.mark.parametrize(("settings", "kind", "message"), WRONG_FITS)
def test_fit_rejects_incompatible_augmentations(settings, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        small(**settings).fit(images(), image_data.labels())


def test_predict_rejects_incompatible_tta():
    model = small().fit(images(), image_data.labels())
    with pytest.raises(TypeError, match=re.escape("tta has 'flip', which is not one of Flip")):
        model.predict(images(), tta="flip")
    with pytest.raises(ValueError, match="tta has Flip"):
        model.predict_proba(images(), tta=Flip((1, 8, 8)))
