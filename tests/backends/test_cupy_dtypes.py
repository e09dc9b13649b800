"""Arrays of several dtypes: CuPy's kernels leave them to the defaults, or bring them to one."""

import numpy as np
import pytest
from same_kernels import same

from mlp_xp._utils.tree import map_leaves
from mlp_xp.backends.kernels import Scaling
from mlp_xp.nn.layers import Norm
from mlp_xp.nn.losses import SoftmaxCrossEntropy, SquaredError
from mlp_xp.optimizers import SGD, Adam, init_opt_state

pytestmark = [pytest.mark.matrix, pytest.mark.libraries("cupy")]


@pytest.fixture
def device(backend):
    with backend.scope():
        yield backend


@pytest.fixture
def numbers(rng):
    """Return a function that draws an array."""
    return lambda *shape, dtype="float32": np.asarray(rng.standard_normal(shape), dtype)


def test_normalization(device, numbers):
    x, dy = device.put(numbers(6, 4)), device.put(numbers(6, 4))
    norm = Norm(*(device.put(numbers(4, dtype="float64")) for _ in range(2)))
    weights = device.put(np.ones(6))

    def run(kernels):
        y, pullback = kernels.layer_norm(norm, x, xp=device.xp)
        z, other_pullback, _ = kernels.batch_norm(norm, x, weights, xp=device.xp)
        return y, z, *pullback(dy, need_dx=True), *other_pullback(dy, need_dx=True)

    same(device, run, precision="float32")


@pytest.mark.parametrize("labels", ["int8", "int16", "uint8", "int32", "int64"])
def test_labels(device, numbers, labels):
    logits = device.put(numbers(6, 4))
    targets = device.put(np.asarray([0, 3, 1, 2, 3, 0], labels))
    loss = SoftmaxCrossEntropy()

    def run(kernels):
        value, pullback = kernels.loss(loss, logits, targets, xp=device.xp)
        return value, pullback(), kernels.accuracy(loss, logits, targets, xp=device.xp)

    same(device, run, precision="float32")


def test_sums_and_averages(device, numbers):
    total, share = numbers(3), device.put(numbers(3, dtype="float64"))
    p = device.put(numbers(4)), device.put(numbers(2, dtype="float64"))
    rate = device.put(np.asarray(0.25, np.float32))

    def run(kernels):
        moved = kernels.average(tuple(leaf + 1 for leaf in p), p, rate, xp=device.xp)
        return (
            moved,
            kernels.accumulate(device.put(total), rate, share),
            kernels.clip(tuple(leaf * 3 for leaf in p), 0.5, xp=device.xp),
        )

    same(device, run, precision="float32")


def test_state_of_another_dtype(device, numbers):
    p, g, rule = numbers(4, 3), numbers(4, 3), Adam()

    def run(kernels):
        params, grads = (device.put(p),), (device.put(g),)
        state = init_opt_state(rule, params, xp=device.xp)
        state = map_leaves(lambda leaf: device.xp.astype(leaf, device.xp.float64), state)
        coefs = (device.put(np.asarray(0.1, np.float32)),)
        return kernels.update(rule, params, grads, state, coefs, xp=device.xp)

    same(device, run, precision="float32")


def test_products(device, numbers):
    from mlp_xp.backends._cupy.cublaslt import multiply

    a, b = device.put(numbers(5, 4)), device.put(numbers(4, 3))
    assert multiply(a, device.put(numbers(4, 3, dtype="float64"))) is None
    assert multiply(a, b) is not None
    # Rows of a batch begin anywhere: the algorithm must be one for such addresses.
    longer = device.put(numbers(9, 4))
    found = multiply(longer[1:6], b)
    np.testing.assert_allclose(device.get(found), device.get(longer[1:6] @ b), 1e-5, 1e-6)


def with_gradient(result):
    """Return a loss with its gradient."""
    value, pullback = result
    return value, pullback()


def activated(name):
    """Return a function of an activation's value and gradient."""

    def run(k, a, b, xp):
        y, pullback = k.activate(name, a["x"], xp=xp)
        return y, pullback(b["dy"])

    return run


MIXED = {
    **{name: activated(name) for name in ("tanh", "relu", "gelu")},
    "dropout": lambda k, a, b, xp: k.dropout(a["x"], a["key"], 0.5, xp=xp)[1](b["x"]),
    "layer normalization": lambda k, a, b, xp: k.layer_norm(
        Norm(b["scale"], a["scale"]), a["x"], xp=xp
    )[0],
    "batch normalization": lambda k, a, b, xp: k.batch_norm(
        Norm(a["scale"], b["scale"]), a["x"], None, xp=xp
    )[0],
    "weights of a batch": lambda k, a, b, xp: k.batch_norm(
        Norm(a["scale"], a["scale"]), a["x"], b["w"], xp=xp
    )[2],
    "targets": lambda k, a, b, xp: with_gradient(
        k.loss(SquaredError(), a["x"], b["dy"], a["w"], xp=xp)
    ),
    "targets and weights": lambda k, a, b, xp: with_gradient(
        k.loss(SquaredError(), a["x"], b["dy"], b["w"], xp=xp)
    ),
    "weights of a loss": lambda k, a, b, xp: with_gradient(
        k.loss(SoftmaxCrossEntropy(), a["x"], a["y"], b["w"], xp=xp)
    ),
    "weights of an accuracy": lambda k, a, b, xp: k.accuracy(
        SoftmaxCrossEntropy(), a["x"], a["y"], b["w"], xp=xp
    ),
    "average": lambda k, a, b, xp: k.average((a["x"],), (b["x"],), a["rate"], xp=xp),
    "rate of an average": lambda k, a, b, xp: k.average((a["x"],), (a["x"],), b["rate"], xp=xp),
    "sum": lambda k, a, b, xp: k.accumulate(a["rate"], b["rate"], a["rate"]),
    "clipping": lambda k, a, b, xp: k.clip((a["x"], b["x"]), 0.1, xp=xp),
    "rate of an update": lambda k, a, b, xp: (
        k.update(
            SGD(momentum=0.0), (a["x"],), (a["dy"],), SGD(0.0).state_type(), (b["rate"],), xp=xp
        ).params
    ),
    "scaling": lambda k, a, b, xp: k.gather(
        a["x"], a["y"], Scaling(b["scale"], a["scale"]), dtype=a["x"].dtype, xp=xp
    ),
    "scale": lambda k, a, b, xp: k.gather(
        a["x"], a["y"], Scaling(a["scale"], b["scale"]), dtype=a["x"].dtype, xp=xp
    ),
    "half precision": lambda k, a, b, xp: k.activate("relu", a["half"], xp=xp)[0],
}


@pytest.mark.parametrize("dtypes", [("float32", "float64"), ("float64", "float32")])
@pytest.mark.parametrize("name", MIXED)
def test_dtypes_that_differ_go_to_the_default(device, name, dtypes, rng):
    numbers = {
        "x": rng.standard_normal((5, 4)),
        "dy": rng.standard_normal((5, 4)),
        "scale": rng.random(4),
        "w": rng.random(5),
        "rate": np.asarray(0.3),
    }

    def run(kernels):
        a, b = (
            {key: device.put(array.astype(dtype)) for key, array in numbers.items()}
            for dtype in dtypes
        )
        a["y"] = device.put(np.asarray([0, 1, 2, 3, 0], np.int32))
        a["key"] = device.put(np.asarray(7, np.int32))
        a["half"] = device.put(numbers["x"].astype(np.float16))
        return MIXED[name](kernels, a, b, device.xp)

    same(device, run, precision="float32")
