"""Each kernel of each backend returns what its default does, for dtypes, layouts and sizes."""

from __future__ import annotations

import numpy as np
import pytest
from rules import RULES
from same_kernels import same

from mlp_xp.backends.kernels import Scaling
from mlp_xp.nn.layers import ACTIVATIONS, Norm
from mlp_xp.nn.losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    BinaryFocal,
    Gaussian,
    Huber,
    Poisson,
    Quantile,
    SoftmaxCrossEntropy,
    SoftmaxFocal,
    SquaredError,
    Through,
)
from mlp_xp.optimizers import SGD, Adam, AdamW, ByKind, Lion, init_opt_state

# The other backends have the defaults, but for JAX's gather.
pytestmark = pytest.mark.libraries("numpy", "torch", "cupy")

DTYPES = ("float32", "float64")
LAYOUTS = {
    "rows": lambda xp, put, a: put(a),
    "columns": lambda xp, put, a: xp.matrix_transpose(put(np.swapaxes(a, -1, -2).copy())),
    "every other": lambda xp, put, a: put(np.repeat(a, 2, axis=-1))[..., ::2],
}
SPECIAL = (0.0, -0.0, 90.0, -90.0, 1e4, -1e4, np.nan, np.inf, -np.inf)


@pytest.fixture(params=LAYOUTS)
def place(request, backend):
    """Return a function that places an array on the device in a layout."""
    return lambda a: LAYOUTS[request.param](backend.xp, backend.put, a)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*ACTIVATIONS, "own"])
def test_activations(backend, name, dtype, place, rng):
    def own(x, *, xp):
        return 2.0 * x, lambda dy: 2.0 * dy

    def run(kernels, x, dy):
        y, pullback = kernels.activate(own if name == "own" else name, x, xp=backend.xp)
        return y, pullback(dy), pullback(dy)

    x, dy = (4.0 * rng.standard_normal((2, 30, 7))).astype(dtype)
    with backend.scope():
        same(backend, run, place(x), place(dy))
        same(backend, run, place(np.stack((x, dy))), place(np.stack((dy, x))))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_of_extreme_numbers(backend, name, dtype):
    if backend.name == "torch":
        pytest.skip("torch's own relu drops the NaN of a slope")

    def run(kernels, x, dy):
        y, pullback = kernels.activate(name, x, xp=backend.xp)
        return y, pullback(dy)

    pairs = np.asarray([(x, dy) for x in SPECIAL for dy in (1.0, np.nan)], dtype)
    with backend.scope():
        same(backend, run, *(backend.put(a.copy()) for a in pairs.T))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5])
def test_dropout_has_the_same_mask(backend, rate, dtype, place, rng):
    def run(kernels, x, dy, key):
        y, pullback = kernels.dropout(x, key, rate, xp=backend.xp)
        return y, pullback(dy)

    x, dy = rng.standard_normal((2, 40, 9)).astype(dtype)
    # The hash of the first position with key 0 is 0, the threshold of a rate of a half.
    keys = np.asarray([-5, 2**31 - 1, 0], np.int32)
    with backend.scope():
        for key in keys:
            same(backend, run, place(x), place(dy), backend.put(np.asarray(key)), exact=True)
        stack = np.stack((x, dy, x))
        same(backend, run, place(stack), place(stack), backend.put(keys), exact=True)


SIZES = [(1, 1), (5, 7), (70, 40), (300, 9), (9, 300)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_layer_normalization(backend, size, dtype, place, rng):
    def run(kernels, x, dy, *params):
        y, pullback = kernels.layer_norm(Norm(*params), x, xp=backend.xp)
        return y, *pullback(dy, need_dx=True), *pullback(dy, need_dx=False)[1]

    x, dy = (rng.standard_normal(size).astype(dtype) * 3 + 5 for _ in range(2))
    params = rng.standard_normal((2, size[1])).astype(dtype)
    with backend.scope():
        same(backend, run, place(x), place(dy), *map(backend.put, params), terms=max(size))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weights", ["none", "some", "zero"])
@pytest.mark.parametrize("size", SIZES)
def test_batch_normalization(backend, size, weights, dtype, place, rng):
    def run(kernels, x, dy, scale, shift, *weights):
        norm = Norm(scale, shift), x, *(weights or (None,))
        y, pullback, measured = kernels.batch_norm(*norm, xp=backend.xp)
        return y, measured, *pullback(dy, need_dx=True), *pullback(dy, need_dx=False)[1]

    x, dy = (rng.standard_normal(size).astype(dtype) * 3 + 5 for _ in range(2))
    params = rng.standard_normal((2, size[1])).astype(dtype)
    given = (rng.integers(0, 3, size[0]) * (weights == "some")).astype(dtype)
    with backend.scope():
        arrays = [place(x), place(dy), *map(backend.put, params)]
        arrays += [] if weights == "none" else [backend.put(given)]
        same(backend, run, *arrays, terms=8 * max(size))


# One block of threads, several, and rows shared by several threads and by a block of them.
BATCHES = [(1, 2), (7, 10), (1200, 10), (9, 40), (3, 1100)]
ELEMENTWISE = [
    SquaredError(),
    AbsoluteError(),
    Huber(0.5),
    Quantile(0.8),
    Quantile((0.1, 0.5, 0.8)),
    Gaussian(),
    Poisson(),
    BinaryCrossEntropy(),
    BinaryCrossEntropy(0.2),
    BinaryFocal(),
    Through(SquaredError(), "tanh"),
]
CLASSES = [SoftmaxCrossEntropy(), SoftmaxCrossEntropy(0.1), SoftmaxFocal()]


def mean_loss(backend, loss):
    def run(kernels, logits, targets, *weights):
        value, pullback = kernels.loss(loss, logits, targets, *weights, xp=backend.xp)
        found = value, pullback()
        if hasattr(loss, "gamma") or hasattr(loss, "label_smoothing"):
            found += (kernels.accuracy(loss, logits, targets, *weights, xp=backend.xp),)
        return found

    return run


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", BATCHES)
@pytest.mark.parametrize("loss", CLASSES, ids=repr)
def test_losses_of_classes(backend, loss, size, dtype, place, rng):
    logits = (rng.standard_normal(size) * 5).astype(dtype)
    logits[0, :2] = 1e4, -1e4
    logits[1:3] = 1.0  # The first of equal classes is predicted.
    labels, shares = rng.integers(0, size[1], size[0]), rng.dirichlet(np.ones(size[1]), size[0])
    weights = rng.integers(0, 3, size[0])
    with backend.scope():
        run, terms = mean_loss(backend, loss), 4 * max(size)
        for kind in ("uint8", "int32", "int64"):
            if size[1] < 256 or kind != "uint8":
                targets = backend.put(labels.astype(kind))
                same(backend, run, place(logits), targets, terms=terms)
        targets = backend.put(shares.astype(dtype))
        for given in (weights, 0 * weights):
            arrays = place(logits), targets, backend.put(given.astype(dtype))
            same(backend, run, *arrays, terms=terms)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_loss_of_a_sample_that_is_certain(backend, dtype):
    """The largest probability is 1 - eps."""
    logits, labels = np.asarray([[1e4, -1e4]], dtype), np.asarray([0], np.int32)
    with backend.scope():
        arrays = backend.put(logits), backend.put(labels)
        value, _ = backend.kernels.loss(SoftmaxCrossEntropy(), *arrays, xp=backend.xp)
    np.testing.assert_allclose(backend.get(value), np.finfo(dtype).eps, rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [*BATCHES, (5000, 3)])
@pytest.mark.parametrize("loss", ELEMENTWISE, ids=repr)
def test_losses_of_numbers(backend, loss, size, dtype, place, rng):
    logits = (rng.standard_normal(size) * 2).astype(dtype)
    targets = rng.poisson(0.5, size) if isinstance(loss, Poisson) else rng.random(size) > 0.5
    targets = targets.astype(dtype)
    if not isinstance(loss, Poisson | BinaryCrossEntropy | BinaryFocal):
        targets[0] = logits[0]
    logits = np.tile(logits, loss.outputs_per_target)
    logits[0, 1] = -1e4  # A step that is 0, and a variance that is held.
    if isinstance(loss, BinaryCrossEntropy):
        logits[0, :2] = 1e4, -1e4  # Probabilities are clipped.
    weights = rng.integers(0, 3, size[0]).astype(dtype)
    with backend.scope():
        run, terms = mean_loss(backend, loss), 4 * max(size)
        same(backend, run, place(logits), place(targets), terms=terms)
        for given in (weights, 0 * weights):
            arrays = place(logits), backend.put(targets), backend.put(given)
            same(backend, run, *arrays, terms=terms)


@pytest.mark.parametrize("dtype", DTYPES)
def test_averages_and_sums(backend, dtype, rng):
    def run(kernels, rate, penalty, *arrays):
        xp = backend.xp
        trees = [tuple(xp.asarray(a, copy=True) for a in arrays[i::2]) for i in (0, 1)]
        moved = kernels.average(*trees, rate, xp=xp)
        total = [xp.sum(a) for a in arrays[:4]]
        stack = xp.stack(total[:2])
        sums = kernels.accumulate(
            total[0], rate, total[1], penalty
        )  # Into the memory of the first.
        return moved, sums, kernels.accumulate(stack, rate, xp.stack(total[2:]))

    shapes = [(2100, 3), (5,), (3, 2), (1,), *[(k % 3 + 1, 2) for k in range(70)]]
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes for _ in range(2)]
    with backend.scope():
        numbers = [backend.put(np.asarray(0.3, dtype)), backend.put(np.asarray(2.0, dtype))]
        same(backend, run, *numbers, *map(backend.put, arrays))
        same(backend, run, numbers[0], 0.0, *map(backend.put, arrays))


# The coefficients of each of the last have others after them.
DECAYS = ByKind(AdamW(weight_decay=0.3), Lion(weight_decay=0.2), AdamW(weight_decay=0.1))
OF_TREES = RULES | {"by kind, decays": DECAYS}
# One layer, two of them, one that takes several blocks, and more than one launch takes.
TREES = {
    "one layer": ((4, 3),),
    "layers": ((4, 3), (3,), (3, 2), (2,)),
    "pieces": ((2100, 3), (3,)),
    "many": ((2, 3), (3,)) * 40,
}


@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize("dtypes", [("float32",) * 2, ("float64",) * 2, ("float64", "float32")])
@pytest.mark.parametrize("shapes", TREES.values(), ids=TREES)
@pytest.mark.parametrize("name", OF_TREES)
def test_updates(backend, name, shapes, dtypes, l2, rng):
    if len(shapes) > 9 and name not in ("adamw", "lion, decay"):
        pytest.skip("one rule is enough for the number of arrays")
    check_update(backend, OF_TREES[name], shapes, dtypes, l2, rng)


@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize("rule", [SGD(), Adam(), AdamW(weight_decay=0.1)], ids=repr)
def test_update_of_vectors_alone(backend, rule, l2, rng):
    check_update(backend, rule, ((4,), (3,)), ("float32",) * 2, l2, rng)


def test_update_of_a_stack_of_models(backend, rng):
    check_update(backend, Adam(), ((3, 4, 3), (3, 3)), ("float32",) * 2, 0.1, rng, n_leading=1)


def test_update_of_arrays_that_are_not_contiguous(backend, rng):
    with backend.scope():
        check_update(
            backend, Adam(), ((4, 3),), ("float32",) * 2, 0.1, rng, layout=LAYOUTS["columns"]
        )


def check_update(backend, rule, shapes, dtypes, l2, rng, n_leading=0, layout=LAYOUTS["rows"]):
    dtype, gradient = dtypes

    def placed(a):
        return layout(backend.xp, backend.put, a.copy()) if a.ndim > 1 else backend.put(a.copy())

    def run(kernels):
        own = tuple(map(placed, params))
        opt_state = init_opt_state(rule, own, xp=backend.xp)
        penalties = ()
        for t, grads in enumerate(steps, start=1):
            coefs = backend.put(np.asarray((*rule.coefficients(0.05, t), l2)), dtype)
            *coefs, factor = (coefs[i] for i in range(coefs.shape[0]))
            own, opt_state, penalty = kernels.update(
                rule,
                own,
                tuple(map(placed, grads)),
                opt_state,
                tuple(coefs),
                factor if l2 else None,
                n_leading=n_leading,
                xp=backend.xp,
            )
            penalties += () if isinstance(penalty, float) else (penalty,)
        return own, tuple(opt_state), penalties

    params = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    steps = [[rng.standard_normal(s).astype(gradient) for s in shapes] for _ in range(3)]
    # torch's kernel adds the penalty after the cast, the default before.
    precision = gradient if backend.name == "torch" else dtype
    same(backend, run, terms=max(int(np.prod(s)) for s in shapes), precision=precision)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shapes", TREES.values(), ids=TREES)
@pytest.mark.parametrize("max_norm", [0.1, 1e6])
def test_clipped_gradients(backend, max_norm, shapes, dtype, rng):
    def run(kernels):
        return tuple(
            kernels.clip(tuple(map(backend.put, copied(grads))), max_norm, xp=backend.xp)
            for grads in (plain, infinite, nan)
        )

    def copied(grads):
        return [g.copy() for g in grads]

    plain = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    infinite, nan = copied(plain), copied(plain)
    infinite[0].flat[0], nan[0].flat[0] = np.inf, np.nan
    same(backend, run, terms=64)


def test_clipped_gradients_of_a_stack(backend, rng):
    def run(kernels):
        here = tuple(backend.put(g.copy()) for g in grads)
        return kernels.clip(here, 0.1, n_leading=1, xp=backend.xp)

    grads = [rng.standard_normal(shape) for shape in ((3, 4, 2), (3, 2))]
    same(backend, run, terms=64)


@pytest.mark.parametrize("kind", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("scaled", [False, True])
def test_gather(backend, kind, scaled, place, rng):
    def run(kernels, x, rows, *scaling):
        given = Scaling(*scaling) if scaling else None
        dtype = backend.xp.float32
        return tuple(
            kernels.gather(x, taken, given, dtype=dtype, xp=backend.xp) for taken in (rows, None)
        )

    x = rng.integers(0, 256, (40, 30)).astype(kind)
    rows = backend.put(np.arange(0, 40, 2, dtype=np.int32))
    with backend.scope():
        scaling = [backend.put(rng.random(30), "float32") for _ in range(2 * scaled)]
        same(backend, run, place(x), rows, *scaling)
