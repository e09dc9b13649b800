"""Hidden layers that are more than a width: block-diagonal ones, projections, residual branches."""

from dataclasses import dataclass

import array_api_compat.numpy as np_xp
import numpy as np
import pytest
from helpers import pickled_and_saved, problem
from network_cases import SQUARES
from sklearn.base import clone
from sklearn.datasets import load_digits

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.nn import blocks
from mlp_xp.nn.blocks import Activate, Affine, Residual
from mlp_xp.nn.hidden import Blocks, Branch, Layer, Project
from mlp_xp.nn.layers import Arrangement
from mlp_xp.nn.network import Network, forward, init_params


def test_the_blocks_are_as_described():
    network = Network((24, SQUARES, Branch((8, 12)), 3), "silu", "layer", 0.1)
    norm, down, up = blocks.LayerNorm(12), Affine(12, 8, "lecun"), Affine(8, 12, "zero")
    inner = (norm, down, Activate("silu"), blocks.Dropout(0.1, 0), up)
    squares = blocks.BlockAffine(Arrangement((3, 2, 2, 2), (0, 1, 3), 6), "lecun")
    assert network.blocks == ((squares,), (Residual(inner),), (norm, Affine(12, 3, "zero")))
    assert (network.sizes, network.n_keys) == ((24, 12, 12, 3), 1)


def test_a_branch_is_nothing_at_first(rng):
    network = Network((24, Project(5), Branch((7, 5)), 4), "tanh", "layer")
    params, x, h = init_params(network, 0), rng.random((3, 24)), rng.random((3, 5))
    np.testing.assert_array_equal(forward(network, params, x, xp=np_xp)[0], 0.0)
    np.testing.assert_array_equal(network.blocks[1][0](params[1], h, blocks.Context(np_xp))[0], h)


def test_projections_start_with_a_deviation_of_one_over_the_root_of_their_inputs():
    params = init_params(Network((24, Blocks((2, 12), (1,), 500), Project(400), 2)), 0)
    for layer, fan_in in zip(params, (12, 1000), strict=False):
        assert np.std(layer.W) == pytest.approx(fan_in**-0.5, rel=0.02)
        assert not np.any(layer.b)


MISTAKES = [
    (lambda: Project(0), "`width` must be an integer of at least 1, got 0"),
    (lambda: Blocks((4, 6), ()), r"`mixed` must contain .* axes 0 to 1 .* got \(\)"),
    (lambda: Blocks((4, 6), (2,)), r"axes 0 to 1 of shape \(4, 6\), each at most once, got \(2,\)"),
    (lambda: Blocks((4, 6), (1, 1)), r"each at most once, got \(1, 1\)"),
    (lambda: Blocks((4, 6), (1,), 0), "`width` must be .* got 0"),
    (lambda: Blocks((4, 0), (1,)), "`shape` must be integers of at least 1, got 0"),
    (lambda: Branch(()), "Branch must have at least one layer"),
    (lambda: Branch((Branch((4, 5)), 5)), "may contain integers, Project and Blocks, got .* put"),
    (lambda: Branch((2.0,)), r"may contain integers, .* got 2\.0"),
    (lambda: Network((Project(3), Project(4))), "`widths` must be the widths"),
    (lambda: Network((5, Blocks((4, 6), (1,)), 2)), "5 elements, .* with 24"),
    (lambda: Network((5, Branch((7, 6)), 2)), "has 5 inputs and 6 outputs: .* have 5"),
]


def test_mistakes_are_told():
    for make, message in MISTAKES:
        with pytest.raises(ValueError, match=message):
            make()


HIDDEN = Blocks((2, 4, 2, 4), (1, 3), 8), Branch((Blocks((2, 2, 8), (0, 1)),)), 20, Branch((24, 20))
SOLVERS = {
    "adam": {"max_iter": 5, "learning_rate": "cosine", "learning_rate_init": 0.01},
    "lbfgs": {"max_iter": 12},
}
DIGITS, DIGIT_LABELS = (array[:300] for array in load_digits(return_X_y=True))


def small(solver="adam", **settings):
    settings = SOLVERS[solver] | {"batch_size": 50, "normalization": "layer"} | settings
    settings |= {"random_state": 0, "input_scaling": "standardize"}
    return MLPClassifier(HIDDEN, solver=solver, **settings)


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
@pytest.mark.parametrize("solver", SOLVERS)
def test_it_learns_alike_on_all_backends(backend, solver):
    X, y = DIGITS, DIGIT_LABELS
    model = small(solver, backend=backend.name, device=backend.device).fit(X, y)
    shapes = [(4, 16, 8), (8, 4, 4), (32, 20), (20, 24), (24, 20), (20, 10)]
    assert [tuple(W.shape) for W in model.coefs_] == shapes
    assert model.score(X, y) > 0.8
    assert model.hidden_activations(X, 0).shape == (300, 32)
    assert model.loss_ == pytest.approx(small(solver).fit(X, y).loss_, rel=1e-7)


def test_a_model_is_saved_pickled_and_cloned(tmp_path):
    X, y = DIGITS, DIGIT_LABELS
    model = small(max_iter=1).fit(X, y)
    for copy in pickled_and_saved(model, tmp_path):
        np.testing.assert_array_equal(copy.predict_proba(X), model.predict_proba(X))
        assert copy.hidden_layer_sizes == HIDDEN
    for again in (clone(model), clone(model).set_params(hidden_layer_sizes=list(HIDDEN))):
        np.testing.assert_array_equal(again.fit(X, y).coefs_[0], model.coefs_[0])
    text = str(model.summary())
    assert "4 dense blocks" in text
    assert "residual" in text


def test_one_object_may_stand_alone():
    one = MLPRegressor(hidden_layer_sizes=Project(3), max_iter=1, learning_rate="cosine")
    assert [W.shape for W in one.fit(DIGITS, DIGIT_LABELS).coefs_] == [(64, 3), (3, 1)]
    with pytest.raises(ValueError, match=r"hidden_layer_sizes must be > 0, got \[0\]"):
        MLPRegressor(hidden_layer_sizes=[Project(3), 0]).fit(DIGITS, DIGIT_LABELS)


@dataclass(frozen=True)
class Gentle(Layer):
    """A residual dense layer with the network's activation and dropout."""

    width: int

    def outputs(self, fan_in):
        return self.width

    def build(self, fan_in, around):
        return Residual((Affine(fan_in, self.width), *around.activate(self.width)))


def test_a_layer_from_outside(backend):
    settings = {"dropout": 0.2, "max_iter": 10, "random_state": 0, "learning_rate_init": 0.02}
    settings |= {"backend": backend.name, "device": backend.device}
    model = MLPClassifier((5, Gentle(5)), **settings).fit(*problem())
    assert [W.shape for W in model.coefs_] == [(6, 5), (5, 5), (5, 3)]
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    network = Network((6, Gentle(6), 3), dropout=0.2)
    assert (network.n_keys, network.takes_sparse) == (1, False)
