"""Training on augmented images, and predictions averaged over views, on every backend."""

import copy
from dataclasses import dataclass, replace

import image_data
import numpy as np
import pytest
from helpers import peak, small, tolerance
from image_data import BATCH, BOTH, CLASSES, EVERYTHING, FEATURES, SHAPE, C, H, N, W, images, labels
from scipy import sparse
from sklearn.base import clone

from mlp_xp import MLPRegressor
from mlp_xp._utils.tree import leaves, map_leaves, rebuild
from mlp_xp.augmentation import ColorJitter, Cutout, Flip, Mixup, Shift
from mlp_xp.backends import get_backend
from mlp_xp.backends._numpy.tracing.compiled_step import CompiledStep
from mlp_xp.backends.kernels import Kernels, Scaling
from mlp_xp.nn.losses import SoftmaxCrossEntropy, mean_loss
from mlp_xp.nn.network import Network, init_params
from mlp_xp.optimizers import SGD
from mlp_xp.saving import load_model, save_model
from mlp_xp.training.data.epoch_plan import plan_epoch, with_draws
from mlp_xp.training.data.placement import put_data
from mlp_xp.training.step.inputs import Batch, Selection
from mlp_xp.training.step.step import init_state, make_step
from mlp_xp.training.step.step_settings import Rules
from mlp_xp.training.trainer import Trainer


def scaling_of(backend, dtype="float64"):
    return Scaling(*(backend.put(np.full(FEATURES, s, dtype)) for s in (128.0, 1 / 64)))


def trained(backend, augmentation, x, *, placement="resident", weights=None, dtype="float64"):
    """Train for two epochs; return the loss and the accuracy of each, and the parameters."""
    network, loss = Network((FEATURES, 9, CLASSES), "tanh"), SoftmaxCrossEntropy(0.1)
    settings = {"learning_rate": 0.1, "alpha": 0.1, "augmentation": augmentation}
    rules, params = Rules(network, loss, SGD(), **settings), init_params(network, 3)
    settings = {"scaling": scaling_of(backend, dtype), "seed": 3, "with_accuracy": True}
    trainer = Trainer(backend, rules, params=params, dtype=dtype, **settings)
    data, numbers = put_data(backend, x, labels(len(x)), dtype, placement), []
    for epoch in range(2):
        settings = {"weights": weights, "pad": trainer.backend.fixed_shapes}
        plan = plan_epoch(len(x), BATCH, seed=7, epoch=epoch, **settings)
        record = trainer.run_epoch(data, plan, n_epochs=2)
        numbers.append((record.loss, record.accuracy))
    return numbers, [backend.get(leaf) for leaf in leaves(trainer.state.params)]


@pytest.mark.parametrize(
    ("n", "placement", "weighted"),
    [(N, "resident", False), (BATCH, "resident", True), (N, "streamed", True)],
)
def test_all_backends_train_on_the_same_augmented_images(backend, n, placement, weighted):
    x, weights = images(n=n), np.random.default_rng(1).random(n) if weighted else None
    plain = get_backend("numpy")
    plain.kernels = Kernels()
    expected = trained(plain, EVERYTHING, x, weights=weights)
    found = trained(backend, EVERYTHING, x, weights=weights, placement=placement)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-10)
    for mine, reference in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(mine, reference, rtol=0, atol=1e-10)
    assert not np.allclose(trained(plain, (), x, weights=weights)[0], expected[0], rtol=1e-3)


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["torch", "jax"])
@pytest.mark.parametrize(("precision", "dtype"), [("bf16", "bfloat16"), ("float16", "float16")])
def test_augmented_images_stay_in_16_bit_precision(name, precision, dtype):
    pytest.importorskip(name)
    backend, seen = get_backend(name, "cpu").with_precision(precision), set()
    dense = backend.kernels.dense

    def watched(params, x, *, xp):
        seen.add(str(x.dtype).rpartition(".")[2])
        return dense(params, x, xp=xp)

    backend.kernels = replace(backend.kernels, dense=watched)
    trained(backend, EVERYTHING, images(), dtype="float32")
    assert seen == {dtype}


@pytest.mark.parametrize("weighted", [False, True])
def test_mixup_gradient_matches_finite_differences(backend, weighted, rng):
    """A step of plain descent goes along the slope of the loss that it reports."""
    xp, rule = backend.xp, SGD(momentum=0.0)
    network, loss = Network((FEATURES, 7, CLASSES), "tanh"), SoftmaxCrossEntropy(0.1)
    options = {"with_penalty": False, "augmentation": EVERYTHING, "xp": xp}
    step = make_step(network, loss, rule, backend.kernels, **options)
    weights = rng.random(N) if weighted else None
    plan = image_data.drawn(EVERYTHING, pad=True, weights=weights)
    last = slice(2 * BATCH, None)  # With padding.
    start = leaves(init_params(network, 1))
    slope = [rng.standard_normal(leaf.shape) for leaf in start]

    def after(distance):
        here = [leaf + distance * way for leaf, way in zip(start, slope, strict=True)]
        with backend.scope():
            own = [backend.put(leaf.copy()) for leaf in here]  # A step writes to its state.
            params = rebuild(init_params(network, 1), own)
            parts = (plan.rows, plan.weights, plan.draws)
            inputs = map_leaves(lambda part: backend.put(part[last]), parts)
            state = init_state(params, rule, with_accuracy=False, xp=xp)
            batch = Batch(backend.put(images()), backend.put(labels()), Selection(*inputs))
            coefs = backend.put(np.asarray([1.0, 0.0, 0.0, 0.0, 1.0]))
            state = step(state, batch, scaling_of(backend), coefs, None)
        new = [backend.get(leaf) for leaf in leaves(state.params)]
        grads = [old - leaf for old, leaf in zip(here, new, strict=True)]
        return float(backend.get(state.loss)), grads

    grads = after(0.0)[1]
    found = sum(np.sum(grad * way) for grad, way in zip(grads, slope, strict=True))
    h = 1e-5
    assert found == pytest.approx((after(h)[0] - after(-h)[0]) / (2 * h), rel=1e-6)


def test_mixup_weights_each_target_by_its_sample_weight():
    """The loss by hand: each part has the weight of the sample that its target is of."""
    x, y, weights = images("float64", 6), labels(6), np.asarray([1.0, 0.0, 2.0, 3.0, 0.5, 1.0])
    network = Network((FEATURES, CLASSES))
    params, loss, xp = init_params(network, 0), SoftmaxCrossEntropy(0.1), get_backend("numpy").xp
    rules = Rules(network, loss, SGD(), learning_rate=1e-9, augmentation=(Mixup(1.0),))
    trainer = Trainer(get_backend("numpy"), rules, params=params, dtype="float64", seed=3)
    plan = plan_epoch(6, 6, weights=weights)
    record = trainer.run_epoch(put_data(trainer.backend, x, y, "float64"), plan, n_epochs=1)
    lam = with_draws(plan, rules.augmentation, seed=3, epoch=0).draws[0].share[0]
    assert 0.01 < lam < 0.99
    logits = (lam * x + (1 - lam) * x[::-1]) @ params[0].W + params[0].b
    own, theirs = (mean_loss(loss, logits, y[::s], weights[::s], xp=xp)[0] for s in (1, -1))
    assert record.loss == pytest.approx(lam * own + (1 - lam) * theirs, rel=1e-12)


def test_augmentation_allocates_no_large_arrays_after_the_first_step():
    shape, rule = (3, 32, 32), SGD()
    chosen = (Flip(shape), Shift(shape), Cutout(shape, 8), ColorJitter(shape), Mixup())
    backend, network = get_backend("numpy"), Network((3072, 8, CLASSES))
    x = np.random.default_rng(0).integers(0, 256, (256, 3072), dtype=np.uint8)
    options = {"with_penalty": False, "augmentation": chosen, "xp": backend.xp}
    step = CompiledStep(make_step(network, SoftmaxCrossEntropy(), rule, backend.kernels, **options))
    params = map_leaves(lambda leaf: leaf.astype("float32"), init_params(network, 0))
    state = init_state(params, rule, with_accuracy=False, xp=backend.xp)
    coefs = np.asarray([1.0, 0.0, 0.0, 0.0, 0.1], "float32")
    data = put_data(backend, x, labels(256), "float32")
    batches = list(data.epoch(image_data.drawn(chosen, 256, 128)))
    with backend.scope(), backend.training(0):
        for batch in batches * 2:
            state = step(state, batch, None, coefs, None)
        most = peak(lambda: step(state, batches[0], None, coefs, None))
    assert step.is_traceable
    assert len(step.programs) == 1
    # The images of a batch have 393,216 bytes, and four times that as float32.
    assert most < 200_000


def test_augmentation_applies_in_fit_but_not_in_predict():
    x, y = images(), labels()
    plain, augmented = small().fit(x, y), small(augmentation=list(EVERYTHING)).fit(x, y)
    assert not np.allclose(plain.coefs_[0], augmented.coefs_[0])
    bare = copy.deepcopy(augmented).set_params(augmentation=None)
    np.testing.assert_array_equal(bare.predict_proba(x), augmented.predict_proba(x))


def test_partial_fit_repeats_the_augmentation_of_fit():
    x, y = images(), labels()
    settings = {"augmentation": Flip(SHAPE, alternate=True), "max_iter": 3}
    whole, parts = small(**settings).fit(x, y), small(**settings)
    for _ in range(3):
        parts.partial_fit(x, y, classes=range(CLASSES))
    np.testing.assert_array_equal(parts.coefs_[0], whole.coefs_[0])


def test_sparse_images_are_augmented_like_dense_ones():
    x, y = images("float64"), labels()
    dense = small(augmentation=EVERYTHING).fit(x, y)
    thin = small(augmentation=EVERYTHING).fit(sparse.csr_array(x), y)
    np.testing.assert_allclose(thin.coefs_[0], dense.coefs_[0], rtol=0, atol=1e-12)


def test_validation_samples_are_not_augmented():
    x, y = images(), labels()
    settings = {"augmentation": EVERYTHING, "max_iter": 1, "input_scaling": "standardize"}
    model = small(tta=Flip(SHAPE), **settings).fit(x, y, X_val=x, y_val=y)
    assert model.validation_loss_curve_[0] != pytest.approx(model.evaluate(x, y)["loss"], rel=1e-6)
    plain = model.set_params(tta=None).evaluate(x, y)["loss"]
    assert model.validation_loss_curve_[0] == pytest.approx(plain, rel=1e-6)


def views_by_hand(x):
    """Return the views: unchanged and mirrored, each in place and up, down, left and right."""
    p, views = x.reshape(-1, C, H, W), []
    for side in (p, p[..., ::-1]):
        wide = np.pad(side, ((0, 0), (0, 0), (1, 1), (1, 1)), "reflect")
        for i, j in ((1, 1), (2, 1), (0, 1), (1, 2), (1, 0)):
            views.append(wide[:, :, i : i + H, j : j + W].reshape(x.shape))
    return views


@pytest.mark.parametrize("size", [8, 1000])
def test_tta_averages_predictions_over_views(backend, size, monkeypatch):
    import mlp_xp.training.inference.inference as inference

    for name in ("_BATCH", "_HOST_BATCH"):
        monkeypatch.setattr(inference, name, size)
    x, y = images(), labels()
    model = small(backend=backend.name, device=backend.device).fit(x, y)
    expected = np.mean([model.predict_proba(view) for view in views_by_hand(x)], axis=0)
    atol = tolerance("float32", FEATURES)
    np.testing.assert_allclose(model.predict_proba(x, tta=BOTH), expected, rtol=0, atol=atol)
    plain = model.predict_proba(x)
    model.set_params(tta=list(BOTH))
    np.testing.assert_allclose(model.predict_proba(x), expected, rtol=0, atol=atol)
    np.testing.assert_allclose(model.predict_proba(x, tta=None), plain, rtol=0, atol=atol)
    two = np.mean([model.predict_proba(v, tta=None) for v in views_by_hand(x)[::5]], axis=0)
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
def test_two_class_predictions_match_the_sign_of_logits(output):
    x, y = images(), labels() % 2
    model = small(output_activation=output, tta=BOTH).fit(x, y)
    p = model.predict_proba(x)[:, 1]
    np.testing.assert_allclose(model.logits(x), np.log(p / (1 - p)), atol=1e-5)
    np.testing.assert_array_equal(model.predict(x), model.logits(x) > 0)


@pytest.mark.parametrize("output", ["auto", "logistic", "tanh", "exp", "softplus", "relu"])
def test_tta_averages_regression_predictions(output):
    x = images("float64")
    y = np.random.default_rng(0).uniform(0.1, 0.9, N)
    model = small(MLPRegressor, output_activation=output).fit(x, y)
    expected = np.mean([model.predict(view) for view in views_by_hand(x)], axis=0)
    np.testing.assert_allclose(model.predict(x, tta=BOTH), expected, rtol=1e-12, atol=1e-15)
    model.set_params(tta=BOTH)
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-12, atol=1e-15)
    # The raw outputs of what was averaged, and back.
    loss = np.mean((expected - y) ** 2) / 2
    assert model.evaluate(x, y)["loss"] == pytest.approx(loss, rel=1e-9)
    assert model.score(x, y) == pytest.approx(1 - np.mean((expected - y) ** 2) / y.var())


def test_augmented_model_can_be_saved_and_cloned_with_numpy_scalar_settings(tmp_path):
    x, y = images(), labels()
    shape, half = tuple(map(np.int64, SHAPE)), np.float32(0.5)
    given = [Flip(shape, alternate=True), Shift(shape, np.int64(1)), Cutout(shape, np.uint8(2))]
    given += [ColorJitter(shape, half, np.float16(0.25)), Mixup(half)]
    expected = [Flip(SHAPE, alternate=True), Shift(SHAPE, 1), Cutout(SHAPE, 2)]
    expected += [ColorJitter(SHAPE, 0.5, 0.25), Mixup(0.5)]
    assert repr(given) == repr(expected)
    model = small(augmentation=given, tta=given[1]).fit(x, y)
    plain = small(augmentation=expected, tta=expected[1]).fit(x, y)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    for other in (model, loaded):
        np.testing.assert_array_equal(other.predict_proba(x), plain.predict_proba(x))
    for other in (loaded, copy.deepcopy(model), clone(model)):
        assert repr(other.augmentation) == repr(expected)
        assert other.tta == expected[1]


@dataclass(frozen=True)
class Unchecked(Shift):
    """An augmentation of one's own, which stores what it is given."""

    def __post_init__(self):
        pass


def test_custom_augmentation_can_use_numpy_integers_for_views(backend):
    x, y = images(), labels()
    model = small(backend=backend.name, device=backend.device).fit(x, y)
    found = model.predict_proba(x, tta=Unchecked(SHAPE, np.int64(1)))
    np.testing.assert_array_equal(found, model.predict_proba(x, tta=Shift(SHAPE, 1)))
