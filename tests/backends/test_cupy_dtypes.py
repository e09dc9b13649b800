"""Arrays of several dtypes: CuPy's kernels leave them to the defaults, or bring them to one."""

import numpy as np
import pytest
from same_kernels import same

from mlp_xp.backends.kernels import Scaling, Source
from mlp_xp.nn.layers import Norm
from mlp_xp.nn.losses import SoftmaxCrossEntropy, SquaredError
from mlp_xp.optimizers import SGD, Adam

pytestmark = [pytest.mark.matrix, pytest.mark.libraries("cupy")]
SQUARED, SOFTMAX, PLAIN = SquaredError(), SoftmaxCrossEntropy(), SGD(momentum=0.0)


@pytest.fixture
def device(backend):
    with backend.scope():
        yield backend


def test_cublaslt_products_require_matching_dtypes(device, rng):
    from mlp_xp.backends._cupy.cublaslt import multiply

    longer, b = (device.put(rng.standard_normal(shape), "float32") for shape in ((9, 4), (4, 3)))
    assert multiply(longer[:5], device.xp.astype(b, device.xp.float64)) is None
    assert multiply(longer[:5], b) is not None
    # Rows of a batch begin anywhere: the algorithm must be one for such addresses.
    found = multiply(longer[1:6], b)
    np.testing.assert_allclose(device.get(found), device.get(longer[1:6] @ b), 1e-5, 1e-6)


def with_gradient(k, *arguments, xp):
    value, pullback = k.loss(*arguments, xp=xp)
    return value, pullback()


def activated(name):
    def run(k, a, b, xp):
        y, pullback = k.activate(name, a["x"], xp=xp)
        return y, pullback(b["dy"])

    return run


def normalized(k, a, b, xp):
    """Return all that two normalizations give, with parameters and weights of the other dtype."""
    norm = Norm(b["scale"], b["scale"])
    y, pullback = k.layer_norm(norm, a["x"], xp=xp)
    z, back, _ = k.batch_norm(norm, a["x"], b["w"], xp=xp)
    return y, z, *pullback(a["dy"], need_dx=True), *back(a["dy"], need_dx=True)


def updated(k, a, b, xp):
    """Return an update by Adam, whose state has the other dtype."""
    state = Adam().state_type((b["dy"],), (b["x"] ** 2,))
    return k.update(Adam(), (a["x"],), (a["dy"],), state, (a["rate"],), xp=xp)


MIXED = {
    **{name: activated(name) for name in ("tanh", "relu", "gelu")},
    "normalizations": normalized,
    "state": updated,
    "dropout": lambda k, a, b, xp: k.dropout(a["x"], a["key"], 0.5, xp=xp)[1](b["x"]),
    "layer norm": lambda k, a, b, xp: k.layer_norm(Norm(b["scale"], a["scale"]), a["x"], xp=xp)[0],
    "batch normalization": lambda k, a, b, xp: k.batch_norm(
        Norm(a["scale"], b["scale"]), a["x"], None, xp=xp
    )[0],
    "weights of a batch": lambda k, a, b, xp: k.batch_norm(
        Norm(a["scale"], a["scale"]), a["x"], b["w"], xp=xp
    )[2],
    "targets": lambda k, a, b, xp: with_gradient(k, SQUARED, a["x"], b["dy"], a["w"], xp=xp),
    "both of a loss": lambda k, a, b, xp: with_gradient(k, SQUARED, a["x"], b["dy"], b["w"], xp=xp),
    "weights": lambda k, a, b, xp: with_gradient(k, SOFTMAX, a["x"], a["y"], b["w"], xp=xp),
    "weights of accuracy": lambda k, a, b, xp: k.accuracy(SOFTMAX, a["x"], a["y"], b["w"], xp=xp),
    "average": lambda k, a, b, xp: k.average((a["x"],), (b["x"],), a["rate"], xp=xp),
    "rate of an average": lambda k, a, b, xp: k.average((a["x"],), (a["x"],), b["rate"], xp=xp),
    "sum": lambda k, a, b, xp: k.accumulate(a["rate"], b["rate"], a["rate"]),
    "share": lambda k, a, b, xp: k.accumulate(a["scale"], a["rate"], b["scale"]),
    "clipping": lambda k, a, b, xp: k.clip((a["x"], b["x"]), 0.1, xp=xp),
    "rate of an update": lambda k, a, b, xp: (
        k.update(PLAIN, (a["x"],), (a["dy"],), PLAIN.state_type(), (b["rate"],), xp=xp).params
    ),
    "scaling": lambda k, a, b, xp: k.gather(
        Source(a["x"], a["y"], Scaling(b["scale"], a["scale"])), dtype=a["x"].dtype, xp=xp
    ),
    "scale": lambda k, a, b, xp: k.gather(
        Source(a["x"], a["y"], Scaling(a["scale"], b["scale"])), dtype=a["x"].dtype, xp=xp
    ),
    "half precision": lambda k, a, b, xp: k.activate("relu", a["half"], xp=xp)[0],
}


@pytest.mark.parametrize("dtypes", [("float32", "float64"), ("float64", "float32")])
@pytest.mark.parametrize("name", MIXED)
def test_mixed_dtypes_use_the_default_kernels(device, name, dtypes, rng):
    numbers = {name: rng.standard_normal((5, 4)) for name in ("x", "dy")}
    numbers |= {"scale": rng.random(4), "w": rng.random(5), "rate": np.asarray(0.3)}

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


@pytest.mark.parametrize("view", [np.s_[:, :], np.s_[::2, ::-1]])
@pytest.mark.parametrize("order", ["C", "F"])
def test_large_arrays_are_not_copied_through_pinned_memory(backend, order, view, monkeypatch):
    x = np.asarray(np.arange(24.0).reshape(6, 4), order=order)[view]
    monkeypatch.setattr("mlp_xp.backends._cupy.backend._MOST_PINNED", 8)
    monkeypatch.setattr("cupy.asarray", None)  # It goes through pinned memory.
    there = backend.put(x)
    assert there.flags.c_contiguous
    np.testing.assert_array_equal(there.get(), x)
