"""Each kernel of each backend returns what its default does, for dtypes, layouts and sizes."""

import numpy as np
import pytest
from rules import RULES
from same_kernels import same

from mlp_xp.backends.kernels import Kernels, Scaling, Source
from mlp_xp.nn import losses
from mlp_xp.nn.layers import ACTIVATIONS, Arrangement, Dense, Norm
from mlp_xp.optimizers import SGD, Adam, AdamW, ByKind, Lion, Muon, init_opt_state

# If a kernel is the default, there is nothing to compare.
pytestmark = pytest.mark.libraries("numpy", "torch", "cupy")
numpy_and_cupy = pytest.mark.libraries("numpy", "cupy")
cupy_alone = pytest.mark.libraries("cupy")

DTYPES = ("float32", "float64")
LAYOUTS = {
    "rows": lambda xp, put, a: put(a),
    "columns": lambda xp, put, a: xp.matrix_transpose(put(np.swapaxes(a, -1, -2).copy())),
    "every other": lambda xp, put, a: put(np.repeat(a, 2, axis=-1))[..., ::2],
}
SPECIAL = (0.0, -0.0, 90.0, -90.0, 1e4, -1e4, np.nan, np.inf, -np.inf)


@pytest.fixture(autouse=True)
def pool(backend, pool_of):
    """Let NumPy run machine code, the larger arrays in two parts."""
    with pool_of(2 if backend.name == "numpy" else 0):
        yield


@pytest.fixture(params=LAYOUTS)
def place(request, backend):
    """Return a function that places an array on the device in a layout."""
    return lambda a: LAYOUTS[request.param](backend.xp, backend.put, a)


ARRANGEMENTS = {
    "two numbers in a row": Arrangement((3, 16, 2, 16, 2), (0, 2, 4), 8),
    "four numbers in a row": Arrangement((3, 8, 4, 8, 4), (0, 2, 4)),
    "first": Arrangement((16, 16, 8), (1, 2)),
    "middle": Arrangement((16, 16, 8), (0, 2)),
    "last": Arrangement((16, 16, 8), (0,), 24),
}


def check_dense(backend, shapes, dtype, place, rng, *how):
    def run(kernels, x, dy, W, b):
        y, pullback = kernels.dense(Dense(W, b), x, *how, xp=backend.xp)
        dx, grads = pullback(dy, need_dx=True)
        none, again = pullback(dy, need_dx=False)
        assert none is None
        return y, dx, *grads, *again

    x, dy, *params = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    with backend.scope():
        same(backend, run, place(x), place(dy), *map(backend.put, params), terms=max(x.shape))


# Whole tiles of products in machine code, parts of tiles, and sizes that are left to the BLAS.
FANS = [(1, 1), (4, 2), (9, 7), (30, 16), (70, 33), (65, 100), (259, 112), (300, 10), (800, 64)]
FANS += [(300, 1)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 7, 128, 700])
@pytest.mark.parametrize(("fan_in", "fan_out"), FANS)
def test_dense_kernel(backend, rows, fan_in, fan_out, dtype, place, rng):
    shapes = (rows, fan_in), (rows, fan_out), (fan_in, fan_out), (fan_out,)
    check_dense(backend, shapes, dtype, place, rng)


@pytest.mark.libraries("torch", "cupy")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_block_dense_kernel(backend, name, dtype, place, rng):
    how = ARRANGEMENTS[name]
    n_inputs, n_outputs = int(np.prod(how.shape)), how.blocks * how.fan_out
    shapes = (300, n_inputs), (300, n_outputs), (how.blocks, how.fan_in, how.fan_out), (n_outputs,)
    check_dense(backend, shapes, dtype, place, rng, how)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*ACTIVATIONS, "own"])
@pytest.mark.parametrize("size", [(30, 7), (300, 128)])
def test_activation_kernels(backend, name, size, dtype, place, rng):
    def own(x, *, xp):
        return 2.0 * x, lambda dy: 2.0 * dy

    def run(kernels, x, dy):
        y, pullback = kernels.activate(own if name == "own" else name, x, xp=backend.xp)
        return y, pullback(dy), pullback(dy)

    x, dy = (4.0 * rng.standard_normal((2, *size))).astype(dtype)
    x[0, :4] = SPECIAL[:4]
    with backend.scope():
        same(backend, run, place(x), place(dy))
        same(backend, run, place(np.stack((x, dy))), place(np.stack((dy, x))))


@pytest.mark.libraries("torch")
def test_gelu_in_bfloat16(backend):
    x = backend.put(np.linspace(-6.0, 6.0, 301, dtype=np.float32)).bfloat16()
    y, pullback = backend.kernels.activate("gelu", x, xp=backend.xp)
    wide, pullback_wide = Kernels().activate("gelu", x.float(), xp=backend.xp)
    for low, high in ((y, wide), (pullback(x), pullback_wide(x.float()))):
        assert abs(low.float() - high).max() < 2.0**-8 * abs(high).max()


@numpy_and_cupy  # Torch's own have other limits, and drop the NaN of a slope.
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_kernels_at_extreme_values(backend, name, dtype):
    def run(kernels, x, dy):
        y, pullback = kernels.activate(name, x, xp=backend.xp)
        return y, pullback(dy)

    pairs = np.asarray([(x, dy) for x in SPECIAL for dy in (1.0, np.nan)], dtype)
    with backend.scope():
        same(backend, run, *(backend.put(a.copy()) for a in pairs.T))


@cupy_alone
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5])
def test_dropout_kernel_uses_the_same_mask_as_the_default(backend, rate, dtype, place, rng):
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


@cupy_alone
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_layer_normalization_kernel(backend, size, dtype, place, rng):
    def run(kernels, x, dy, *params):
        y, pullback = kernels.layer_norm(Norm(*params), x, xp=backend.xp)
        return y, *pullback(dy, need_dx=True), *pullback(dy, need_dx=False)[1]

    x, dy = (rng.standard_normal(size).astype(dtype) * 3 + 5 for _ in range(2))
    params = rng.standard_normal((2, size[1])).astype(dtype)
    with backend.scope():
        same(backend, run, place(x), place(dy), *map(backend.put, params), terms=max(size))


@cupy_alone
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weights", ["none", "some", "zero"])
@pytest.mark.parametrize("size", SIZES)
def test_batch_normalization_kernel(backend, size, weights, dtype, place, rng):
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
ELEMENTWISE = [losses.SquaredError(), losses.AbsoluteError(), losses.Huber(0.5), losses.Gaussian()]
ELEMENTWISE += [losses.Quantile(0.8), losses.Quantile((0.1, 0.5, 0.8)), losses.Poisson()]
ELEMENTWISE += [losses.BinaryCrossEntropy(), losses.BinaryCrossEntropy(0.2), losses.BinaryFocal()]
ELEMENTWISE += [losses.Through(losses.SquaredError(), "tanh")]
CLASSES = [losses.SoftmaxCrossEntropy(), losses.SoftmaxCrossEntropy(0.1), losses.SoftmaxFocal()]


def mean_loss(backend, loss):
    def run(kernels, logits, targets, *weights):
        value, pullback = kernels.loss(loss, logits, targets, *weights, xp=backend.xp)
        found = value, pullback()
        if hasattr(loss, "gamma") or hasattr(loss, "label_smoothing"):
            found += (kernels.accuracy(loss, logits, targets, *weights, xp=backend.xp),)
        return found

    return run


@numpy_and_cupy
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", BATCHES)
@pytest.mark.parametrize("loss", CLASSES, ids=repr)
def test_classification_loss_kernels(backend, loss, size, dtype, place, rng):
    logits = (rng.standard_normal(size) * 5).astype(dtype)
    logits[0, :2] = 1e4, -1e4
    logits[1:3] = 1.0  # The first of equal classes is predicted.
    labels, shares = rng.integers(0, size[1], size[0]), rng.dirichlet(np.ones(size[1]), size[0])
    weights = rng.integers(0, 3, size[0])
    with backend.scope():
        run, terms = mean_loss(backend, loss), 4 * max(size)
        for kind in ("uint8", "int16", "int32", "int64"):
            if size[1] < 256 or kind != "uint8":
                targets = backend.put(labels.astype(kind))
                same(backend, run, place(logits), targets, terms=terms)
        targets = backend.put(shares.astype(dtype))
        for given in (weights, 0 * weights):
            arrays = place(logits), targets, backend.put(given.astype(dtype))
            same(backend, run, *arrays, terms=terms)


@numpy_and_cupy
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [*BATCHES, (5000, 3)])
@pytest.mark.parametrize("loss", ELEMENTWISE, ids=repr)
def test_regression_loss_kernels(backend, loss, size, dtype, place, rng):
    logits = (rng.standard_normal(size) * 2).astype(dtype)
    targets = rng.poisson(0.5, size) if isinstance(loss, losses.Poisson) else rng.random(size) > 0.5
    targets = targets.astype(dtype)
    if not isinstance(loss, losses.Poisson | losses.BinaryCrossEntropy | losses.BinaryFocal):
        targets[0] = logits[0]
    logits = np.tile(logits, loss.outputs_per_target)
    logits[0, 1] = -1e4  # A step that is 0, and a variance that is held.
    if isinstance(loss, losses.BinaryCrossEntropy):
        logits[0, :2] = 1e4, -1e4  # Probabilities are clipped.
    weights = rng.integers(0, 3, size[0]).astype(dtype)
    with backend.scope():
        run, terms = mean_loss(backend, loss), 4 * max(size)
        same(backend, run, place(logits), place(targets), terms=terms)
        for given in (weights, 0 * weights):
            arrays = place(logits), backend.put(targets), backend.put(given)
            same(backend, run, *arrays, terms=terms)


@numpy_and_cupy
@pytest.mark.parametrize("loss", ELEMENTWISE, ids=repr)
def test_loss_kernels_for_a_single_output(backend, loss, rng):
    """Columns of one number are vectors, which are summed in another way than matrices."""
    logits = rng.standard_normal((20, loss.outputs_per_target))
    targets, weights = rng.integers(0, 2, (20, 1)).astype(float), rng.integers(0, 3, 20)
    with backend.scope():
        run = mean_loss(backend, loss)
        for given in (None, backend.put(weights.astype(float))):
            same(backend, run, backend.put(logits), backend.put(targets), given, terms=80)


@cupy_alone
@pytest.mark.parametrize("dtype", DTYPES)
def test_average_and_sum_kernels(backend, dtype, rng):
    def run(kernels, rate, penalty, *arrays):
        xp = backend.xp
        trees = [tuple(xp.asarray(a, copy=True) for a in arrays[i::2]) for i in (0, 1)]
        moved = kernels.average(*trees, rate, xp=xp)
        total = [xp.sum(a) for a in arrays[:4]]
        stack = xp.stack(total[:2])
        # The result reuses the memory of the first argument.
        sums = kernels.accumulate(total[0], rate, total[1], penalty)
        return moved, sums, kernels.accumulate(stack, rate, xp.stack(total[2:]))

    shapes = [(2100, 3), (5,), (3, 2), (1,), *[(k % 3 + 1, 2) for k in range(70)]]
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes for _ in range(2)]
    with backend.scope():
        numbers = [backend.put(np.asarray(0.3, dtype)), backend.put(np.asarray(2.0, dtype))]
        same(backend, run, *numbers, *map(backend.put, arrays))
        same(backend, run, numbers[0], 0.0, *map(backend.put, arrays))


# The coefficients of each of the last have others after them.
DECAYS = ByKind(AdamW(weight_decay=0.3), Lion(weight_decay=0.2), AdamW(weight_decay=0.1))
# One rule with several learning rates.
RATES = ByKind(AdamW(), AdamW(), AdamW(), vector_rate=10.0, head_rate=3.0)
OF_TREES = RULES | {"by kind, decays": DECAYS, "by kind, rates": RATES}
# One layer, two of them, one that takes several blocks, and more than one launch takes.
ONE, LAYERS, PIECES = ((4, 3),), ((4, 3), (3,), (3, 2), (2,)), ((2100, 3), (3,))
MANY = ((2, 3), (3,)) * 40
# Two rules are enough for the number of arrays.
UPDATES = [(name, shapes) for name in OF_TREES for shapes in (ONE, LAYERS, PIECES)]
UPDATES += [("adamw", MANY), ("lion, decay", MANY)]


@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize("dtypes", [("float32",) * 2, ("float64",) * 2, ("float64", "float32")])
@pytest.mark.parametrize(("name", "shapes"), UPDATES)
def test_optimizer_update_kernels(backend, name, shapes, dtypes, l2, rng):
    check_update(backend, OF_TREES[name], shapes, dtypes, l2, rng)


OTHERS = [(rule, ((4,), (3,)), {}) for rule in (SGD(), Adam(), AdamW())]
# A stack of models, and for Muon, matrices of several tiles, of which two have one size.
STACKED, WIDE = ((3, 4, 3), (3, 3), (3, 3, 2), (3, 2)), ((130, 70), (70, 66), (66, 70), (70, 2))
OTHERS += [(rule, STACKED, {"n_leading": 1}) for rule in OF_TREES.values()]
OTHERS += [(rule, WIDE, {}) for name, rule in RULES.items() if "muon" in name]
OTHERS += [(Muon(), ((2, 70, 20), (2, 20, 70), (2, 70, 3)), {"n_leading": 1})]
OTHERS += [(Adam(), ((4, 3),), {"layout": LAYOUTS["columns"]})]


@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize(("rule", "shapes", "options"), OTHERS)
def test_optimizer_updates_of_arrays_with_unusual_shapes(backend, rule, shapes, options, l2, rng):
    check_update(backend, rule, shapes, ("float32",) * 2, l2, rng, **options)


@cupy_alone
@pytest.mark.parametrize("n_leading", [0, 1])
def test_muon_of_matrices_that_are_too_wide_for_one_launch(backend, n_leading, rng, monkeypatch):
    from mlp_xp.backends._cupy.kernels import orthogonal

    monkeypatch.setattr(orthogonal, "WIDEST", 5)
    shapes = [(7, 5), (5, 9), (9, 6), (6, 2)]
    shapes = [(3,) * n_leading + shape for shape in shapes]
    check_update(backend, Muon(), shapes, ("float32",) * 2, 0.1, rng, n_leading)


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
            given = rule, own, tuple(backend.put(g.copy()) for g in grads), opt_state, tuple(coefs)
            own, opt_state, penalty = kernels.update(
                *given, factor if l2 else None, n_leading=n_leading, xp=backend.xp
            )
            is_number = isinstance(penalty, float)  # Where there is no matrix.
            penalties += (backend.put(np.asarray(penalty, dtype)) if is_number else penalty,)
        return own, tuple(opt_state), penalties

    params = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    steps = [[rng.standard_normal(s).astype(gradient) for s in shapes] for _ in range(3)]
    # torch's kernel adds the penalty after the cast, the default before. Muon's products are in the
    # gradient's dtype.
    precision = gradient if backend.name == "torch" or isinstance(rule, Muon) else dtype
    same(backend, run, terms=max(int(np.prod(s)) for s in shapes), precision=precision)


@cupy_alone
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shapes", [ONE, LAYERS, PIECES, MANY, "stack"])
@pytest.mark.parametrize("max_norm", [0.1, 1e6])
def test_gradient_clipping_kernel(backend, max_norm, shapes, dtype, rng):
    options = {"n_leading": 1} if shapes == "stack" else {}
    shapes = ((3, 4, 2), (3, 2)) if shapes == "stack" else shapes
    grads = [rng.standard_normal(shape).astype(dtype) for shape in shapes]

    def run(kernels):
        found = []
        for first in (grads[0].flat[0], np.inf, np.nan):
            here = [g.copy() for g in grads]
            here[0].flat[0] = first
            here = tuple(map(backend.put, here))
            found.append(kernels.clip(here, max_norm, xp=backend.xp, **options))
        return tuple(found)

    same(backend, run, terms=64)


@pytest.mark.libraries("numpy", "torch", "cupy", "jax", "array_api_strict")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("size", [(40, 30), (400, 300)])
def test_gather_kernel(backend, size, kind, dtype, place, rng):
    target = getattr(backend.xp, dtype)

    def run(kernels, x, rows, *scaling):
        options = {"dtype": target, "xp": backend.xp}
        return tuple(
            kernels.gather(Source(x, taken, given), **options)
            for taken in (rows, None)
            for given in (None, Scaling(*scaling))
        )

    x = rng.integers(0, 256, size).astype(kind)
    rows = backend.put(np.asarray([*range(0, size[0], 2), 3, 3], np.int32))
    with backend.scope():
        here = place(x)
        same(backend, run, here, rows, *(backend.put(rng.random(size[1]), dtype) for _ in "12"))
        np.testing.assert_array_equal(backend.get(here), x)
