"""Augmented pictures: pixel by pixel what a loop would do, and the same on every backend."""

from __future__ import annotations

import copy
import re
import tracemalloc

import numpy as np
import pytest
from helpers import QUIET, tolerance
from sklearn.base import clone

from mlp_xp import MLP, MLPRegressor
from mlp_xp._utils.tree import leaves, map_leaves, rebuild
from mlp_xp.augmentation import (
    ColorJitter,
    Cutout,
    Flip,
    Mixup,
    Shift,
    look,
    pick,
    view_of,
    views_of,
)
from mlp_xp.backends import get_backend
from mlp_xp.backends._numpy.compiled_step import CompiledStep
from mlp_xp.backends.kernels import Kernels, Scaling
from mlp_xp.nn.losses import SoftmaxCrossEntropy, mean_loss
from mlp_xp.nn.network import Network, init_params
from mlp_xp.optimizers import SGD
from mlp_xp.saving import load_model, save_model
from mlp_xp.training.batches import place
from mlp_xp.training.epochs import plan_epoch, with_draws
from mlp_xp.training.rules import Rules
from mlp_xp.training.step import Batch, init_state, make_step
from mlp_xp.training.trainer import Trainer

SHAPE = C, H, W = 3, 4, 5
N, FEATURES, CLASSES, BATCH = 23, C * H * W, 4, 10
GEOMETRIC = {
    "flip": (Flip(SHAPE),),
    "shift": (Shift(SHAPE, pixels=3),),
    "shift zero": (Shift(SHAPE, pixels=3, padding="zero"),),
    "cutout": (Cutout(SHAPE, 3),),
    "flip, shift": (Flip(SHAPE), Shift(SHAPE, pixels=2)),
    "all": (Shift(SHAPE, 2, "zero"), Cutout(SHAPE, 2), Flip(SHAPE), Shift(SHAPE, 3)),
}
EVERYTHING = (Flip(SHAPE, alternate=True), *GEOMETRIC["all"], ColorJitter(SHAPE), Mixup(0.7))


def pictures(dtype="uint8", n=N):
    x = np.random.default_rng(5).integers(1, 256, (n, FEATURES), dtype=np.uint8)
    x = x if dtype == "uint8" else (x / 64.0).astype(dtype)
    x.flags.writeable = False
    return x


def labels(n=N):
    return np.random.default_rng(6).integers(0, CLASSES, n).astype(np.int32)


def drawn(augmentation, n=N, batch_size=BATCH, *, seed=3, epoch=1, pad=False, **settings):
    plan = plan_epoch(n, batch_size, seed=seed, epoch=epoch, pad=pad, **settings)
    return with_draws(plan, augmentation, seed=seed, epoch=epoch)


def mirrored(i, n):
    while not 0 <= i < n:
        i = -i if i < 0 else 2 * (n - 1) - i
    return i


def by_loop(augmentation, x, moves):
    """Do what geometric augmentations do, one after the other and pixel by pixel."""
    out = x.reshape(-1, C, H, W).copy()
    for b, row in enumerate(moves.tolist()):
        for each in augmentation:
            mine, row = row[: each.n_moves], row[each.n_moves :]
            old, new = out[b].copy(), np.zeros_like(out[b])
            for i in range(H):
                for j in range(W):
                    if isinstance(each, Flip):
                        new[:, i, j] = old[:, i, W - 1 - j if mine[0] else j]
                    elif isinstance(each, Shift):
                        k, m = i + mine[0], j + mine[1]
                        if each.padding == "reflect" or (0 <= k < H and 0 <= m < W):
                            new[:, i, j] = old[:, mirrored(k, H), mirrored(m, W)]
                    else:
                        low = [middle - each.size // 2 for middle in mine]
                        hole = all(a <= p < a + each.size for a, p in zip(low, (i, j), strict=True))
                        new[:, i, j] = 0 if hole else old[:, i, j]
            out[b] = new
    return out.reshape(x.shape)


# --- each against a loop --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("name", GEOMETRIC)
def test_pixels_are_where_a_loop_puts_them(backend, name, dtype):
    chosen, x = GEOMETRIC[name], pictures(dtype)
    moves = drawn(chosen).moves
    expected = by_loop(chosen, x, moves)
    xp = backend.xp
    with backend.scope():
        here = backend.put(x)
        found = look(here, view_of(chosen, backend.put(moves), xp=xp), xp=xp)
        assert backend.get(found).dtype == dtype
        np.testing.assert_array_equal(backend.get(found), expected)
        np.testing.assert_array_equal(backend.get(here), x)


@pytest.mark.parametrize("parts", [0, 2])
@pytest.mark.parametrize("is_scaled", [False, True])
@pytest.mark.parametrize("has_rows", [False, True])
@pytest.mark.parametrize("name", GEOMETRIC)
def test_the_gather_kernel_moves_pixels(backend, name, has_rows, is_scaled, parts, pool_of):
    chosen, x = GEOMETRIC[name], pictures()
    plan = drawn(chosen)
    rows = plan.rows[:BATCH] if has_rows else None
    moves = plan.moves[:BATCH] if has_rows else plan.moves
    expected = by_loop(chosen, x if rows is None else x[rows], moves).astype("float32")
    scaling = None
    with backend.scope(), pool_of(parts):
        xp = backend.xp
        if is_scaled:
            scaling = Scaling(*(backend.put(np.full(FEATURES, s, "float32")) for s in (2, 0.25)))
            expected = (expected - 2) * 0.25
        view = view_of(chosen, backend.put(moves), xp=xp)
        dtype = backend.put(np.zeros(1, "float32")).dtype
        rows = None if rows is None else backend.put(rows)
        for gather in (backend.kernels.gather, Kernels().gather):
            found = gather(backend.put(x), rows, scaling, view, dtype=dtype, xp=xp)
            np.testing.assert_array_equal(backend.get(found), expected)


def test_one_view_for_all_pictures_is_that_of_each(backend):
    x = pictures()
    chosen = (Flip(SHAPE), Shift(SHAPE, 2, "zero"))
    for moves in views_of(chosen):
        with backend.scope():
            view = view_of(chosen, backend.put(np.asarray([moves])), xp=backend.xp)
            found = backend.get(look(backend.put(x), view, xp=backend.xp))
        np.testing.assert_array_equal(found, by_loop(chosen, x, np.asarray([moves] * N)))


def test_pictures_in_another_order_are_the_same_pictures(backend, rng):
    chosen, x, order = GEOMETRIC["all"], pictures(), rng.permutation(N)
    moves = drawn(chosen).moves
    xp = backend.xp
    with backend.scope():
        found = [
            backend.get(look(backend.put(a), view_of(chosen, backend.put(m), xp=xp), xp=xp))
            for a, m in ((x, moves), (x[order], moves[order]))
        ]
    np.testing.assert_array_equal(found[1], found[0][order])


def test_jitter_and_mixup_do_what_a_loop_does(backend):
    x = pictures("float64")
    jitter, mixup = ColorJitter(SHAPE, brightness=0.5, contrast=0.3), Mixup(0.4)
    plan = drawn((jitter, mixup))
    factors, lam = plan.factors[:, :4], plan.factors[:, 4]
    assert np.all(np.abs(factors[:, 0] - 1) <= 0.3)
    assert np.all(np.abs(factors[:, 1:]) <= 0.5)
    expected = x.reshape(N, C, -1).copy()
    for b in range(N):
        for c in range(C):
            expected[b, c] = factors[b, 0] * expected[b, c] + factors[b, 1 + c]
    with backend.scope():
        xp = backend.xp
        here = backend.put(x)
        found = jitter.apply(here, None, backend.put(factors), xp=xp)
        np.testing.assert_allclose(backend.get(found), expected.reshape(N, -1), rtol=1e-14)
        step = slice(BATCH, 2 * BATCH)
        moves, share = backend.put(plan.moves[step]), backend.put(plan.factors[step, 4:])
        mixed = mixup.apply(here[step, :], moves, share, xp=xp)
        own = x[step]
        expected = lam[BATCH] * own + (1 - lam[BATCH]) * own[::-1]
        np.testing.assert_allclose(backend.get(mixed), expected, rtol=1e-13)
        np.testing.assert_array_equal(backend.get(here), x)


# --- what is drawn --------------------------------------------------------------------------------


def test_padding_changes_no_draw():
    plain, padded = drawn(EVERYTHING), drawn(EVERYTHING, pad=True)
    assert len(padded.moves) == 30
    np.testing.assert_array_equal(padded.factors[:N], plain.factors)
    np.testing.assert_array_equal(padded.moves[:N], plain.moves)
    # A sample that only fills up is its own partner, and nobody else's.
    partners = padded.moves[:, -1].reshape(3, BATCH)
    assert partners[0].tolist() == list(range(BATCH))[::-1]
    assert partners[2].tolist() == [2, 1, 0, 3, 4, 5, 6, 7, 8, 9]


def test_draws_depend_on_seed_epoch_and_place_alone():
    first, again = drawn(EVERYTHING), drawn(EVERYTHING)
    np.testing.assert_array_equal(first.moves, again.moves)
    for other in ({"seed": 4}, {"epoch": 2}):
        assert not np.array_equal(drawn(EVERYTHING, **other).moves, first.moves)
    more = drawn((*EVERYTHING[:2], Cutout(SHAPE, 1)))
    np.testing.assert_array_equal(more.moves[:, :3], first.moves[:, :3])
    # The first numbers of a seed are part of the format: a change breaks every reproduction.
    assert first.moves[:2].tolist() == FIRST_MOVES


def test_shifts_and_holes_are_everywhere():
    moves = drawn((Shift(SHAPE, 2), Cutout(SHAPE, 2)), n=2000).moves
    for column, values in enumerate((range(-2, 3), range(-2, 3), range(H), range(W))):
        found, counts = np.unique(moves[:, column], return_counts=True)
        assert found.tolist() == list(values)
        assert counts.min() > 2000 / len(values) * 0.8


def test_an_alternating_flip_shows_both_sides_in_turn():
    sides = []
    for epoch in range(4):
        plan = drawn((Flip(SHAPE, alternate=True),), n=400, epoch=epoch)
        side = np.zeros(400, int)
        side[plan.rows] = plan.moves[:, 0]
        sides.append(side)
    assert 150 < sides[0].sum() < 250
    np.testing.assert_array_equal(sides[1], 1 - sides[0])
    np.testing.assert_array_equal(sides[2], sides[0])
    np.testing.assert_array_equal(sides[3], sides[1])
    random = [drawn((Flip(SHAPE),), n=400, epoch=epoch).moves[:, 0] for epoch in range(2)]
    assert 100 < np.sum(random[0] == random[1]) < 300


# --- in training ----------------------------------------------------------------------------------


def trained(
    backend, augmentation, *, placement="resident", weights=None, pad=None, dtype="float64", x=None
):
    x = pictures() if x is None else x
    rules = Rules(
        Network((FEATURES, 9, CLASSES), "tanh"),
        SoftmaxCrossEntropy(0.1),
        SGD(),
        learning_rate=0.1,
        alpha=0.1,
        augmentation=augmentation,
    )
    scaling = Scaling(*(backend.put(np.full(FEATURES, s, dtype)) for s in (128.0, 1 / 64)))
    params = init_params(rules.network, 3)
    trainer = Trainer(
        backend, rules, params=params, dtype=dtype, scaling=scaling, seed=3, with_accuracy=True
    )
    data = place(backend, x, labels(len(x)), dtype, placement)
    records = []
    for epoch in range(2):
        pads = trainer.backend.fixed_shapes if pad is None else pad
        plan = plan_epoch(len(x), BATCH, seed=7, epoch=epoch, weights=weights, pad=pads)
        records.append(trainer.run_epoch(data, plan, n_epochs=2))
    numbers = [(record.loss, record.accuracy) for record in records]
    return numbers, [backend.get(leaf) for leaf in leaves(trainer.state.params)]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("placement", ["resident", "streamed"])
def test_the_same_pictures_on_every_backend(backend, placement, weighted):
    weights = np.random.default_rng(1).random(N) if weighted else None
    plain = get_backend("numpy")
    plain.kernels = Kernels()
    expected = trained(plain, EVERYTHING, weights=weights, pad=False)
    found = trained(backend, EVERYTHING, weights=weights, placement=placement)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-10)
    for mine, reference in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(mine, reference, rtol=0, atol=1e-10)
    assert not np.allclose(trained(plain, (), weights=weights)[0], expected[0], rtol=1e-3)


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_bfloat16_is_not_widened(name):
    pytest.importorskip(name)
    backend, seen = get_backend(name, "cpu").with_bf16(), set()
    dense = backend.kernels.dense

    def watched(params, x, *, xp):
        seen.add(str(x.dtype).rpartition(".")[2])
        return dense(params, x, xp=xp)

    backend.kernels = backend.kernels._replace(dense=watched)
    trained(backend, EVERYTHING, dtype="float32")
    assert seen == {"bfloat16"}


def test_one_batch_of_all_samples(backend):
    expected = trained(get_backend("numpy"), EVERYTHING, x=pictures(n=BATCH))
    found = trained(backend, EVERYTHING, x=pictures(n=BATCH))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-10)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_of_mixup(backend, weighted, rng):
    """A step of plain descent goes along the slope of the loss that it reports."""
    xp, rule = backend.xp, SGD(momentum=0.0)
    network, loss = Network((FEATURES, 7, CLASSES), "tanh"), SoftmaxCrossEntropy(0.1)
    step = make_step(
        network, loss, rule, backend.kernels, with_penalty=False, augmentation=EVERYTHING, xp=xp
    )
    weights = rng.random(N) if weighted else None
    plan = drawn(EVERYTHING, pad=True, weights=weights)
    last = slice(2 * BATCH, None)  # With padding.
    start = list(leaves(init_params(network, 1)))
    slope = [rng.standard_normal(leaf.shape) for leaf in start]

    def after(distance):
        here = [leaf + distance * way for leaf, way in zip(start, slope, strict=True)]
        with backend.scope():
            own = [backend.put(leaf.copy()) for leaf in here]  # A step writes to its state.
            params = rebuild(init_params(network, 1), own)
            parts = (plan.rows, plan.weights, plan.moves, plan.factors)
            drawn_here = [backend.put(part[last]) for part in parts]
            state = init_state(params, rule, with_accuracy=False, xp=xp)
            batch = Batch(backend.put(pictures()), backend.put(labels()), *drawn_here)
            scaling = Scaling(*(backend.put(np.full(FEATURES, s)) for s in (128.0, 1 / 64)))
            coefs = backend.put(np.asarray([1.0, 0.0, 0.0, 0.0, 1.0]))
            state = step(state, batch, scaling, coefs, None)
        new = [backend.get(leaf) for leaf in leaves(state.params)]
        grads = [old - leaf for old, leaf in zip(here, new, strict=True)]
        return float(backend.get(state.loss)), grads

    grads = after(0.0)[1]
    found = sum(np.sum(grad * way) for grad, way in zip(grads, slope, strict=True))
    h = 1e-5
    assert found == pytest.approx((after(h)[0] - after(-h)[0]) / (2 * h), rel=1e-6)


def test_mixup_with_weights_is_mixup_of_what_is_there():
    """The loss by hand: each part has the weight of the sample that its target is of."""
    x, y, weights = pictures("float64", 6), labels(6), np.asarray([1.0, 0.0, 2.0, 3.0, 0.5, 1.0])
    network = Network((FEATURES, CLASSES))
    params, loss, xp = init_params(network, 0), SoftmaxCrossEntropy(0.1), get_backend("numpy").xp
    rules = Rules(network, loss, SGD(), learning_rate=1e-9, augmentation=(Mixup(1.0),))
    trainer = Trainer(get_backend("numpy"), rules, params=params, dtype="float64", seed=3)
    plan = plan_epoch(6, 6, weights=weights)
    record = trainer.run_epoch(place(trainer.backend, x, y, "float64"), plan, n_epochs=1)
    lam = with_draws(plan, rules.augmentation, seed=3, epoch=0).factors[0, 0]
    assert 0.01 < lam < 0.99
    logits = (lam * x + (1 - lam) * x[::-1]) @ params[0].W + params[0].b
    own, theirs = (mean_loss(loss, logits, y[::s], weights[::s], xp=xp)[0] for s in (1, -1))
    assert record.loss == pytest.approx(lam * own + (1 - lam) * theirs, rel=1e-12)


# --- how it is executed ---------------------------------------------------------------------------


def test_jax_compiles_once(monkeypatch):
    pytest.importorskip("jax")
    import mlp_xp.training.trainer as training

    traces = []

    def counted(*args, **kwargs):
        step = make_step(*args, **kwargs)
        return lambda *inner: traces.append(1) or step(*inner)

    monkeypatch.setattr(training, "_step", counted)
    trained(get_backend("jax"), EVERYTHING)
    assert len(traces) == 1


def test_a_steady_step_allocates_nothing_big():
    shape, rule = (3, 32, 32), SGD()
    chosen = (Flip(shape), Shift(shape), Cutout(shape, 8), ColorJitter(shape), Mixup())
    backend = get_backend("numpy")
    x = np.random.default_rng(0).integers(0, 256, (256, 3072), dtype=np.uint8)
    network = Network((3072, 8, CLASSES))
    options = {"with_penalty": False, "augmentation": chosen, "xp": backend.xp}
    step = CompiledStep(make_step(network, SoftmaxCrossEntropy(), rule, backend.kernels, **options))
    params = map_leaves(lambda leaf: leaf.astype("float32"), init_params(network, 0))
    state = init_state(params, rule, with_accuracy=False, xp=backend.xp)
    plan = drawn(chosen, 256, 128)
    data = place(backend, x, labels(256), "float32")
    coefs = np.asarray([1.0, 0.0, 0.0, 0.0, 0.1], "float32")
    batches = list(data.epoch(plan))
    with backend.scope(), backend.training(0):
        for _ in range(2):
            for batch in batches:
                state = step(state, batch, None, coefs, None)
        tracemalloc.start()
        step(state, batches[0], None, coefs, None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert step.is_traceable
    assert len(step._programs) == 1
    # The pictures of a batch have 393,216 bytes, and four times that as float32.
    assert peak < 200_000


def test_the_kernels_pick_like_the_default(backend, rng):
    """Where a library has a way of its own, it is the same."""
    chosen = GEOMETRIC["flip, shift"]
    with backend.scope():
        xp = backend.xp
        view = view_of(chosen, backend.put(drawn(chosen).moves), xp=xp)
        x = backend.put(rng.standard_normal((N, FEATURES)))
        whole = pick(xp.reshape(x, (N, *SHAPE)), view.lines, view.columns, xp=xp)
        found = backend.kernels.gather(x, None, None, view, dtype=x.dtype, xp=xp)
    np.testing.assert_array_equal(backend.get(found), backend.get(whole).reshape(N, -1))


# --- estimators -----------------------------------------------------------------------------------


def model_of(kind=MLP, **settings):
    defaults = {"hidden_layer_sizes": (6,), "max_iter": 3, "random_state": 0, "batch_size": 8}
    return kind(**(defaults | QUIET | settings))


def test_a_fit_augments_and_a_prediction_does_not():
    x, y = pictures(), labels()
    plain, augmented = model_of().fit(x, y), model_of(augmentation=list(EVERYTHING)).fit(x, y)
    assert not np.allclose(plain.coefs_[0], augmented.coefs_[0])
    bare = copy.deepcopy(augmented).set_params(augmentation=None)
    np.testing.assert_array_equal(bare.predict_proba(x), augmented.predict_proba(x))


def test_partial_fit_goes_through_the_same_epochs():
    x, y = pictures(), labels()
    settings = {"augmentation": Flip(SHAPE, alternate=True), "learning_rate": "constant"}
    whole, parts = model_of(**settings).fit(x, y), model_of(**settings)
    for _ in range(3):
        parts.partial_fit(x, y, classes=range(CLASSES))
    np.testing.assert_array_equal(parts.coefs_[0], whole.coefs_[0])


def test_sparse_pictures_are_pictures():
    from scipy import sparse

    x, y = pictures("float64"), labels()
    dense, thin = (
        model_of(augmentation=EVERYTHING).fit(given, y) for given in (x, sparse.csr_array(x))
    )
    np.testing.assert_allclose(thin.coefs_[0], dense.coefs_[0], rtol=0, atol=1e-12)


def test_held_out_samples_are_left_alone():
    x, y = pictures(), labels()
    model = model_of(
        augmentation=EVERYTHING, tta=Flip(SHAPE), max_iter=1, input_scaling="standardize"
    )
    model.fit(x, y, X_val=x, y_val=y)
    plain = copy.deepcopy(model).set_params(tta=None)
    assert model.validation_loss_curve_[0] == pytest.approx(plain.evaluate(x, y)["loss"], rel=1e-6)
    assert model.validation_loss_curve_[0] != pytest.approx(model.evaluate(x, y)["loss"], rel=1e-6)


def moved_by_hand(x):
    """Return the views: as it is and mirrored, each at its place, up, down, left and right."""
    p = x.reshape(-1, C, H, W)
    views = []
    for side in (p, p[..., ::-1]):
        wide = np.pad(side, ((0, 0), (0, 0), (1, 1), (1, 1)), "reflect")
        for i, j in ((1, 1), (2, 1), (0, 1), (1, 2), (1, 0)):
            views.append(wide[:, :, i : i + H, j : j + W].reshape(x.shape))
    return views


BOTH = (Flip(SHAPE), Shift(SHAPE, pixels=1))


@pytest.mark.parametrize("size", [8, 1000])
def test_averages_are_those_of_hand_made_views(backend, size, monkeypatch):
    import mlp_xp.training.inference as inference

    for name in ("_BATCH", "_HOST_BATCH"):
        monkeypatch.setattr(inference, name, size)
    x, y = pictures(), labels()
    model = model_of(backend=backend.name, device=backend.device).fit(x, y)
    expected = np.mean([model.predict_proba(view) for view in moved_by_hand(x)], axis=0)
    atol = tolerance("float32", FEATURES)
    np.testing.assert_allclose(model.predict_proba(x, tta=BOTH), expected, rtol=0, atol=atol)
    plain = model.predict_proba(x)
    model.set_params(tta=list(BOTH))
    np.testing.assert_allclose(model.predict_proba(x), expected, rtol=0, atol=atol)
    np.testing.assert_allclose(model.predict_proba(x, tta=None), plain, rtol=0, atol=atol)
    two = np.mean([model.predict_proba(v, tta=None) for v in moved_by_hand(x)[::5]], axis=0)
    np.testing.assert_allclose(model.predict_proba(x, tta=BOTH[0]), two, rtol=0, atol=atol)
    predicted = model.classes_[np.argmax(expected, axis=1)]
    np.testing.assert_array_equal(model.predict(x), predicted)
    np.testing.assert_array_equal(np.argmax(model.logits(x), axis=1), predicted)
    assert model.score(x, y) == pytest.approx(np.mean(predicted == y))
    scores = model.evaluate(x, y)
    assert scores["accuracy"] == pytest.approx(model.score(x, y))
    eps = np.finfo("float32").eps
    truth = np.clip(expected[np.arange(N), y], eps, 1 - eps)
    assert scores["loss"] == pytest.approx(-np.mean(np.log(truth)), rel=1e-5)


@pytest.mark.parametrize("output", ["softmax", "logistic"])
def test_two_classes_are_decided_alike(output):
    x, y = pictures(), labels() % 2
    model = model_of(output_activation=output, tta=BOTH).fit(x, y)
    p = model.predict_proba(x)[:, 1]
    np.testing.assert_allclose(model.logits(x), np.log(p / (1 - p)), atol=1e-5)
    np.testing.assert_array_equal(model.predict(x), model.logits(x) > 0)


@pytest.mark.parametrize("output", ["auto", "logistic", "tanh", "exp", "softplus", "relu"])
def test_a_regressor_averages_values(output):
    x = pictures("float64")
    y = np.random.default_rng(0).uniform(0.1, 0.9, N)
    model = model_of(MLPRegressor, output_activation=output).fit(x, y)
    expected = np.mean([model.predict(view) for view in moved_by_hand(x)], axis=0)
    np.testing.assert_allclose(model.predict(x, tta=BOTH), expected, rtol=1e-12, atol=1e-15)
    model.set_params(tta=BOTH)
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-12, atol=1e-15)
    # The raw outputs of what was averaged, and back.
    loss = np.mean((expected - y) ** 2) / 2
    assert model.evaluate(x, y)["loss"] == pytest.approx(loss, rel=1e-9)
    assert model.score(x, y) == pytest.approx(1 - np.mean((expected - y) ** 2) / y.var())


def test_saved_cloned_and_pickled(tmp_path):
    x, y = pictures(), labels()
    model = model_of(augmentation=list(EVERYTHING), tta=BOTH).fit(x, y)
    save_model(model, tmp_path)
    for other in (load_model(tmp_path), copy.deepcopy(model), clone(model)):
        assert other.augmentation == list(EVERYTHING)
        assert other.tta == BOTH
    np.testing.assert_array_equal(load_model(tmp_path).predict_proba(x), model.predict_proba(x))


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Flip((32, 32)), "image_shape is (32, 32), and must be three integers"),
        (lambda: Flip((3, 32.0, 32)), "image_shape is (3, 32.0, 32)"),
        (lambda: Flip(SHAPE, "yes"), "alternate is 'yes', and must be True or False."),
        (lambda: Shift(SHAPE, 4), "pixels is 4, and must be an integer from 1 to 3."),
        (lambda: Shift(SHAPE, True), "pixels is True"),
        (lambda: Shift(SHAPE, 1, "mean"), "padding is 'mean', and must be 'reflect' or 'zero'."),
        (lambda: Cutout(SHAPE, 0), "size is 0, and must be an integer from 1 to 10."),
        (lambda: ColorJitter(SHAPE, contrast=2), "contrast is 2, and must be a number from 0.0"),
        (lambda: ColorJitter(SHAPE, brightness="a"), "brightness is 'a', and must be a number"),
        (lambda: Mixup(0.0), "alpha is 0.0, and must be above 0; 0.2 is common."),
    ],
)
def test_wrong_settings_are_told_what_to_do(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"augmentation": Flip((3, 8, 8))}, ValueError, "3 x 8 x 8 is 192, but the data have 60"),
        ({"augmentation": [Flip]}, TypeError, "give an object, with ()"),
        ({"augmentation": ["flip"]}, TypeError, "'flip', which is none of Flip, Shift, Cutout"),
        ({"augmentation": "flip"}, ValueError, "'augmentation' parameter"),
        ({"augmentation": [Mixup(), Mixup()]}, ValueError, "several Mixup"),
        ({"augmentation": [Flip(SHAPE), Flip((3, 5, 4))]}, ValueError, "different shapes"),
        ({"augmentation": Mixup(), "solver": "lbfgs"}, ValueError, "set augmentation=None"),
        ({"tta": Cutout(SHAPE, 2)}, ValueError, "'tta' parameter"),
    ],
)
def test_a_fit_refuses_what_does_not_fit(settings, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        model_of(**settings).fit(pictures(), labels())


def test_a_prediction_refuses_what_does_not_fit():
    model = model_of().fit(pictures(), labels())
    with pytest.raises(TypeError, match=re.escape("tta has 'flip', which is none of Flip, Shift")):
        model.predict(pictures(), tta="flip")
    with pytest.raises(ValueError, match="tta has Flip"):
        model.predict_proba(pictures(), tta=Flip((1, 8, 8)))


FIRST_MOVES = [[0, 2, -1, 3, 2, 1, 3, -2, 9], [0, 2, 2, 2, 4, 0, 1, 3, 8]]
