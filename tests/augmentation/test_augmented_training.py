"""Training on augmented images: the same on every backend, compiled once, and in estimators."""

import copy
import tracemalloc

import image_data
import numpy as np
import pytest
from helpers import small
from image_data import BATCH, CLASSES, EVERYTHING, FEATURES, SHAPE, N, images, labels
from scipy import sparse

from mlp_xp._utils.tree import leaves, map_leaves, rebuild
from mlp_xp.augmentation import ColorJitter, Cutout, Flip, Mixup, Shift
from mlp_xp.backends import get_backend
from mlp_xp.backends._numpy.compiled_step import CompiledStep
from mlp_xp.backends.kernels import Kernels, Scaling
from mlp_xp.nn.losses import SoftmaxCrossEntropy, mean_loss
from mlp_xp.nn.network import Network, init_params
from mlp_xp.optimizers import SGD
from mlp_xp.training.batches import place
from mlp_xp.training.epochs import plan_epoch, with_draws
from mlp_xp.training.inputs import Batch
from mlp_xp.training.rules import Rules
from mlp_xp.training.step import init_state, make_step
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
    data, numbers = place(backend, x, labels(len(x)), dtype, placement), []
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
def test_the_same_images_on_every_backend(backend, n, placement, weighted):
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
def test_16_bits_are_not_widened(name, precision, dtype):
    pytest.importorskip(name)
    backend, seen = get_backend(name, "cpu").with_precision(precision), set()
    dense = backend.kernels.dense

    def watched(params, x, *, xp):
        seen.add(str(x.dtype).rpartition(".")[2])
        return dense(params, x, xp=xp)

    backend.kernels = backend.kernels._replace(dense=watched)
    trained(backend, EVERYTHING, images(), dtype="float32")
    assert seen == {dtype}


@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_of_mixup(backend, weighted, rng):
    """A step of plain descent goes along the slope of the loss that it reports."""
    xp, rule = backend.xp, SGD(momentum=0.0)
    network, loss = Network((FEATURES, 7, CLASSES), "tanh"), SoftmaxCrossEntropy(0.1)
    options = {"with_penalty": False, "augmentation": EVERYTHING, "xp": xp}
    step = make_step(network, loss, rule, backend.kernels, **options)
    weights = rng.random(N) if weighted else None
    plan = image_data.drawn(EVERYTHING, pad=True, weights=weights)
    last = slice(2 * BATCH, None)  # With padding.
    start = list(leaves(init_params(network, 1)))
    slope = [rng.standard_normal(leaf.shape) for leaf in start]

    def after(distance):
        here = [leaf + distance * way for leaf, way in zip(start, slope, strict=True)]
        with backend.scope():
            own = [backend.put(leaf.copy()) for leaf in here]  # A step writes to its state.
            params = rebuild(init_params(network, 1), own)
            parts = (plan.rows, plan.weights, plan.draws)
            inputs = map_leaves(lambda part: backend.put(part[last]), parts)
            state = init_state(params, rule, with_accuracy=False, xp=xp)
            batch = Batch(backend.put(images()), backend.put(labels()), *inputs)
            coefs = backend.put(np.asarray([1.0, 0.0, 0.0, 0.0, 1.0]))
            state = step(state, batch, scaling_of(backend), coefs, None)
        new = [backend.get(leaf) for leaf in leaves(state.params)]
        grads = [old - leaf for old, leaf in zip(here, new, strict=True)]
        return float(backend.get(state.loss)), grads

    grads = after(0.0)[1]
    found = sum(np.sum(grad * way) for grad, way in zip(grads, slope, strict=True))
    h = 1e-5
    assert found == pytest.approx((after(h)[0] - after(-h)[0]) / (2 * h), rel=1e-6)


def test_mixup_with_weights_is_mixup_of_what_is_there():
    """The loss by hand: each part has the weight of the sample that its target is of."""
    x, y, weights = images("float64", 6), labels(6), np.asarray([1.0, 0.0, 2.0, 3.0, 0.5, 1.0])
    network = Network((FEATURES, CLASSES))
    params, loss, xp = init_params(network, 0), SoftmaxCrossEntropy(0.1), get_backend("numpy").xp
    rules = Rules(network, loss, SGD(), learning_rate=1e-9, augmentation=(Mixup(1.0),))
    trainer = Trainer(get_backend("numpy"), rules, params=params, dtype="float64", seed=3)
    plan = plan_epoch(6, 6, weights=weights)
    record = trainer.run_epoch(place(trainer.backend, x, y, "float64"), plan, n_epochs=1)
    lam = with_draws(plan, rules.augmentation, seed=3, epoch=0).draws[0].share[0]
    assert 0.01 < lam < 0.99
    logits = (lam * x + (1 - lam) * x[::-1]) @ params[0].W + params[0].b
    own, theirs = (mean_loss(loss, logits, y[::s], weights[::s], xp=xp)[0] for s in (1, -1))
    assert record.loss == pytest.approx(lam * own + (1 - lam) * theirs, rel=1e-12)


def test_a_steady_step_allocates_nothing_big():
    shape, rule = (3, 32, 32), SGD()
    chosen = (Flip(shape), Shift(shape), Cutout(shape, 8), ColorJitter(shape), Mixup())
    backend, network = get_backend("numpy"), Network((3072, 8, CLASSES))
    x = np.random.default_rng(0).integers(0, 256, (256, 3072), dtype=np.uint8)
    options = {"with_penalty": False, "augmentation": chosen, "xp": backend.xp}
    step = CompiledStep(make_step(network, SoftmaxCrossEntropy(), rule, backend.kernels, **options))
    params = map_leaves(lambda leaf: leaf.astype("float32"), init_params(network, 0))
    state = init_state(params, rule, with_accuracy=False, xp=backend.xp)
    coefs = np.asarray([1.0, 0.0, 0.0, 0.0, 0.1], "float32")
    data = place(backend, x, labels(256), "float32")
    batches = list(data.epoch(image_data.drawn(chosen, 256, 128)))
    with backend.scope(), backend.training(0):
        for batch in batches * 2:
            state = step(state, batch, None, coefs, None)
        tracemalloc.start()
        step(state, batches[0], None, coefs, None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert step.is_traceable
    assert len(step.programs) == 1
    # The images of a batch have 393,216 bytes, and four times that as float32.
    assert peak < 200_000


def test_a_fit_augments_and_a_prediction_does_not():
    x, y = images(), labels()
    plain, augmented = small().fit(x, y), small(augmentation=list(EVERYTHING)).fit(x, y)
    assert not np.allclose(plain.coefs_[0], augmented.coefs_[0])
    bare = copy.deepcopy(augmented).set_params(augmentation=None)
    np.testing.assert_array_equal(bare.predict_proba(x), augmented.predict_proba(x))


def test_partial_fit_goes_through_the_same_epochs():
    x, y = images(), labels()
    settings = {"augmentation": Flip(SHAPE, alternate=True), "max_iter": 3}
    whole, parts = small(**settings).fit(x, y), small(**settings)
    for _ in range(3):
        parts.partial_fit(x, y, classes=range(CLASSES))
    np.testing.assert_array_equal(parts.coefs_[0], whole.coefs_[0])


def test_sparse_pictures_are_images():
    x, y = images("float64"), labels()
    dense = small(augmentation=EVERYTHING).fit(x, y)
    thin = small(augmentation=EVERYTHING).fit(sparse.csr_array(x), y)
    np.testing.assert_allclose(thin.coefs_[0], dense.coefs_[0], rtol=0, atol=1e-12)
