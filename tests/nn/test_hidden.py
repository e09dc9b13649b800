"""Hidden layers that are more than a width: block-diagonal ones, projections, residual branches."""

from __future__ import annotations

import pickle
from dataclasses import dataclass

import array_api_compat.numpy
import numpy as np
import pytest
from gradient import check_gradient
from helpers import tolerance
from sklearn.base import clone
from sklearn.datasets import load_digits

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends import get_backend
from mlp_xp.nn.blocks import (
    Activate,
    Affine,
    Block,
    BlockAffine,
    Context,
    Dropout,
    LayerNorm,
    Residual,
)
from mlp_xp.nn.hidden import Blocks, Branch, Layer, Project
from mlp_xp.nn.layers import Arrangement, Dense, block_dense
from mlp_xp.nn.losses import SoftmaxCrossEntropy, mean_loss
from mlp_xp.nn.network import Network, draw_params, forward, init_params
from mlp_xp.saving import load_model, save_model
from mlp_xp.training.inputs import Batch
from mlp_xp.training.step import make_gradient

# Shape, mixed axes, width.
ARRANGEMENTS = {
    "last axis": Arrangement((3, 4), (1,), 5),
    "first axis": Arrangement((3, 4), (0,), 5),
    "in place": Arrangement((3, 4), (0,)),
    "squares of an image": Arrangement((3, 2, 2, 2, 2), (0, 2, 4), 7),
    "scattered, in place": Arrangement((2, 3, 2, 2), (0, 2)),
    "everything": Arrangement((3, 4), (0, 1), 6),
}
arrangements = pytest.mark.parametrize("how", ARRANGEMENTS.values(), ids=ARRANGEMENTS)

# 24 = 3 x 2 x 4 inputs, in squares of 2 x 2 pixels: 1 x 2 squares.
SQUARES = Blocks((3, 2, 2, 2), mixed=(0, 1, 3), width=6)
NETWORKS = {
    "bottlenecks": Network((24, Project(5), Branch((7, 5)), Branch((7, 5)), 3), "tanh", "layer"),
    "no normalization": Network((24, Project(5), Branch((7, 5)), 3), "tanh"),
    "batch": Network((24, Project(5), Branch((7, 5)), 3), "silu", "batch"),
    "blocks": Network(
        (
            24,
            SQUARES,
            Branch((Blocks((2, 3, 2), (0, 1)),)),
            Branch((Blocks((2, 6), (1,), 8), Blocks((2, 8), (1,), 6))),
            3,
        ),
        "tanh",
    ),
    "with a plain layer": Network((24, 5, Branch((4, 5)), 6, 3), "tanh", "layer", 0.3, 0.2),
}
networks = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)


def plain_block_dense(W, b, x, how):
    """Do it feature by feature."""
    places = np.arange(x.shape[1]).reshape(how.shape)
    kept = [i for i in range(len(how.shape)) if i not in how.mixed]
    rows = np.transpose(places, (*kept, *how.mixed)).reshape(W.shape[0], -1)
    y = [x[:, row] @ matrix for row, matrix in zip(rows, W, strict=True)]
    if how.width is not None:
        return np.concatenate(y, axis=1) + b
    out = np.empty_like(x)
    for row, part in zip(rows, y, strict=True):
        out[:, row] = part
    return out + b


def draw(how, rng):
    W = rng.standard_normal((how.blocks, how.fan_in, how.fan_out))
    return W, rng.standard_normal(how.blocks * how.fan_out)


@arrangements
def test_blocks_mix_what_they_say(backend, how, rng):
    W, b = draw(how, rng)
    x = rng.standard_normal((5, int(np.prod(how.shape))))
    x.flags.writeable = False
    with backend.scope():
        params = Dense(backend.put(W), backend.put(b))
        y, _ = block_dense(params, backend.put(x), how, xp=backend.xp)
        found = backend.get(y)
    atol = 10 * tolerance("float64", how.fan_in)
    np.testing.assert_allclose(found, plain_block_dense(W, b, x, how), rtol=0, atol=atol)


@arrangements
def test_gradients_of_blocks(backend, how, rng):
    W, b = draw(how, rng)
    x = rng.standard_normal((5, int(np.prod(how.shape))))
    direction = rng.standard_normal((5, how.blocks * how.fan_out))

    def function(point):
        x, params = point
        y, pullback = block_dense(params, x, how, xp=backend.xp)
        dy = backend.put(direction)
        dx, grads = pullback(dy, need_dx=True)
        none, again = pullback(dy, need_dx=False)
        assert none is None
        for mine, other in zip(grads, again, strict=True):
            np.testing.assert_array_equal(backend.get(mine), backend.get(other))
        return backend.xp.sum(y * dy), (dx, grads)

    check_gradient(backend, function, (x, Dense(W, b)), rng)


def network_data(network, rng, n=8):
    params = map_leaves(
        lambda leaf: leaf + 0.3 * rng.standard_normal(leaf.shape), init_params(network, 3)
    )
    return params, rng.standard_normal((n, 24)), rng.integers(0, 3, n).astype(np.int32)


@networks
def test_gradients_of_networks(backend, network, rng):
    params, x, y = network_data(network, rng)
    how_many = network.n_keys
    keys = rng.integers(-(2**31), 2**31, how_many).astype(np.int32)

    def function(point):
        xp = backend.xp
        context = Context(
            xp,
            backend.kernels.dense,
            is_training=True,
            keys=backend.put(keys) if how_many else None,
        )
        logits, backward, _ = forward(network, point, backend.put(x), context, xp=xp)
        value, pullback = mean_loss(SoftmaxCrossEntropy(), logits, backend.put(y), xp=xp)
        return value, backward(pullback())

    check_gradient(backend, function, params, rng)


def test_the_blocks_are_as_described():
    network = Network((24, SQUARES, Branch((8, 12)), 3), "silu", "layer", 0.1)
    inner = (
        LayerNorm(12),
        Affine(12, 8, "lecun"),
        Activate("silu"),
        Dropout(0.1, 0),
        Affine(8, 12, "zero"),
    )
    squares = BlockAffine(Arrangement((3, 2, 2, 2), (0, 1, 3), 6), "lecun")
    head = (LayerNorm(12), Affine(12, 3, "zero"))
    assert network.blocks == ((squares,), (Residual(inner),), head)
    assert (network.sizes, network.n_keys) == ((24, 12, 12, 3), 1)


def test_a_branch_is_nothing_at_first(rng):
    network = Network((24, Project(5), Branch((7, 5)), 4), "tanh", "layer")
    params = init_params(network, 0)
    x = rng.standard_normal((3, 24))
    xp = array_api_compat.numpy
    logits, *_ = forward(network, params, x, xp=xp)
    np.testing.assert_array_equal(logits, 0.0)
    branch = network.blocks[1][0]
    h = rng.standard_normal((3, 5))
    y, _, _ = branch(params[1], h, Context(xp))
    np.testing.assert_array_equal(y, h)


def test_projections_start_with_a_deviation_of_one_over_the_root_of_their_inputs():
    params = init_params(Network((24, Blocks((2, 12), (1,), 500), Project(400), 2)), 0)
    for layer, fan_in in zip(params, (12, 1000), strict=False):
        assert np.std(layer.W) == pytest.approx(fan_in**-0.5, rel=0.02)
        assert not np.any(layer.b)


def test_squares_of_an_image_are_mixed_each_by_itself():
    # 1 channel of 4 x 4 pixels, in 2 x 2 squares: what one square shows moves its outputs only.
    how = Blocks((1, 2, 2, 2, 2), mixed=(0, 2, 4), width=3)
    params = draw_params(Network((16, how, 2)), np.random.default_rng(0).uniform)
    image = np.zeros((4, 4))
    image[2:, :2] = 1.0  # The square below on the left.
    block = Network((16, how, 2)).blocks[0][0]
    y, *_ = block(params[0], image.reshape(1, 16), Context(array_api_compat.numpy))
    moved = np.any(y.reshape(2, 2, 3) != 0.0, axis=2)
    np.testing.assert_array_equal(moved, [[False, False], [True, False]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Project(0), "width is 0, and must be an integer of at least 1"),
        (
            lambda: Blocks((4, 6), ()),
            r"mixed is \(\), and must name .* axes 0 to 1",
        ),
        (lambda: Blocks((4, 6), (2,)), r"mixed is \(2,\).*axes 0 to 1 of shape \(4, 6\)"),
        (lambda: Blocks((4, 6), (1, 1)), r"mixed is \(1, 1\).*each once"),
        (lambda: Blocks((4, 6), (1,), 0), "width is 0"),
        (lambda: Blocks((4, 0), (1,)), "shape has an entry that is 0"),
        (lambda: Branch(()), "Branch has no layers"),
        (lambda: Branch((Branch((4, 5)), 5)), "may hold integers, Project and Blocks: put one"),
        (lambda: Branch((2.0,)), r"holds 2\.0, and may hold integers"),
        (lambda: Network((Project(3), Project(4))), "widths is .* must name inputs"),
        (lambda: Network((5, Blocks((4, 6), (1,)), 2)), "stands for 24 features, and there are 5"),
        (
            lambda: Network((5, Branch((7, 6)), 2)),
            "takes 5 features and gives 6: .* give 5",
        ),
    ],
)
def test_mistakes_are_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- estimators ----------------------------------------------------------------------------------

HIDDEN = (
    Blocks((2, 4, 2, 4), (1, 3), 8),
    Branch((Blocks((2, 2, 8), (0, 1)),)),
    20,
    Branch((24, 20)),
)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:600].astype(np.float32), y[:600]


def small(**settings):
    return MLPClassifier(
        HIDDEN, learning_rate="cosine", learning_rate_init=0.01, max_iter=4, random_state=0,
        normalization="layer", input_scaling="standardize", batch_size=50, **settings,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_it_learns_alike_on_all_backends(backend, digits, solver):
    X, y = digits
    model = small(solver=solver, backend=backend.name, device=backend.device)
    if solver == "sgd":
        model.set_params(learning_rate_init=0.05)
    if solver == "lbfgs":
        model.set_params(learning_rate="constant", max_iter=15)
    model.fit(X, y)
    shapes = [(4, 16, 8), (8, 4, 4), (32, 20), (20, 24), (24, 20), (20, 10)]
    assert [tuple(W.shape) for W in model.coefs_] == shapes
    assert model.score(X, y) > 0.8
    assert model.hidden_activations(X, 0).shape == (600, 32)


def test_the_same_numbers_on_all_backends(backend, digits):
    X, y = digits
    X = X.astype(np.float64)
    model = small(backend=backend.name, device=backend.device).fit(X, y)
    reference = small().fit(X, y)
    assert model.loss_ == pytest.approx(reference.loss_, rel=1e-9)


def test_a_model_is_saved_pickled_and_cloned(digits, tmp_path):
    X, y = digits
    model = small().fit(X, y)
    save_model(model, tmp_path)
    for copy in (load_model(tmp_path), pickle.loads(pickle.dumps(model))):  # noqa: S301
        np.testing.assert_array_equal(copy.predict_proba(X), model.predict_proba(X))
        assert copy.hidden_layer_sizes == HIDDEN
    again = clone(model).fit(X, y)
    np.testing.assert_array_equal(again.coefs_[0], model.coefs_[0])
    text = str(model.summary())
    assert "4 dense blocks" in text
    assert "residual" in text


def test_one_object_may_stand_alone_and_a_list_is_as_good(digits):
    X, y = digits
    one = MLPRegressor(hidden_layer_sizes=Project(3), max_iter=1, learning_rate="cosine").fit(X, y)
    assert [W.shape for W in one.coefs_] == [(64, 3), (3, 1)]
    small().set_params(hidden_layer_sizes=list(HIDDEN)).fit(X, y)
    with pytest.raises(ValueError, match=r"hidden_layer_sizes must be > 0, got \[0\]"):
        MLPRegressor(hidden_layer_sizes=[Project(3), 0]).fit(X, y)


def test_a_step_in_float32_rounds_as_one_in_float64_allows(digits):
    X, y = digits
    network = Network((64, *HIDDEN, 10), "relu", "layer")
    results = []
    for dtype in ("float32", "float64"):
        backend = get_backend("numpy")
        gradient = make_gradient(network, SoftmaxCrossEntropy(), backend.kernels, xp=backend.xp)
        params = map_leaves(lambda leaf, d=dtype: leaf.astype(d), init_params(network, 1))
        batch = Batch((X / 16).astype(dtype), y.astype(np.int32), None, None)
        results.append([np.asarray(leaf) for leaf in leaves(gradient(params, batch, None))])
    for single, double in zip(*results, strict=True):
        assert single.dtype == np.float32
        scale = np.abs(double).max()
        np.testing.assert_allclose(single, double, rtol=0, atol=scale * tolerance("float32", 600))


# --- layers of one's own -------------------------------------------------------------------------


class Twice(Block):
    """A block that knows only its maths."""

    has_params = False

    def __call__(self, params, x, context):
        return 2.0 * x, lambda dy, *, need_dx: (2.0 * dy if need_dx else None, ()), ()


@dataclass(frozen=True)
class Doubled(Layer):
    """A dense layer whose outputs are doubled, with dropout."""

    width: int

    def outputs(self, fan_in):
        return self.width

    def build(self, fan_in, around):
        return Residual((Affine(fan_in, self.width), Twice(), *around.activate()))


def test_a_layer_and_a_block_from_outside(backend):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 6))
    y = np.argmax(X[:, :3], axis=1)
    settings = {"dropout": 0.2, "max_iter": 5, "random_state": 0, "device": backend.device}
    settings["backend"] = backend.name
    model = MLPClassifier((5, Doubled(5)), n_iter_no_change=10, **settings).fit(X, y)
    assert [W.shape for W in model.coefs_] == [(6, 5), (5, 5), (5, 3)]
    assert "  twice" in str(model.summary())
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    network = Network((6, Doubled(5), 3), dropout=0.2)
    assert (network.n_keys, network.takes_sparse) == (1, False)
