"""The parts that an estimator is composed of, each by itself."""

import inspect
import pickle

import numpy as np
import pytest
from helpers import problem, small

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.estimators.config import resolve_config
from mlp_xp.estimators.state import fitted_state, publish
from mlp_xp.estimators.targets import RealTargets
from mlp_xp.training.history import History

X, y = problem()


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_the_documentation_has_every_parameter_once_and_in_order(kind):
    text = inspect.getdoc(kind)
    parameters, attributes = text.split("\nParameters\n")[1].split("\nAttributes\n")
    names = [
        name
        for line in parameters.splitlines()
        if " : " in line and not line.startswith(" ")
        for name in line.split(" : ")[0].split(", ")
    ]
    assert names == list(inspect.signature(kind).parameters)
    for name in ("coefs_", "moments_", "loss_curve_", "history_", "t_", "out_activation_"):
        assert f"{name} : " in attributes
    assert "\n[" not in text
    assert "\n>>> model" in text


def test_a_config_is_a_pure_function_of_parameters_and_its_network_is_made_once():
    params = MLPRegressor(hidden_layer_sizes=[8, 4], dropout=[0.1, 0.2]).get_params()
    before = pickle.dumps(params)

    def config(**changes):
        return resolve_config(params | changes, 3, RealTargets(2))

    assert config() == config()
    assert hash(config()) == hash(config())
    other = config(alpha=0.5, solver="lbfgs")
    assert (other.rules.alpha, other.loop.max_fun) == (0.5, 15000)
    assert other.rules.network is config().rules.network
    assert config(dropout=0.1).rules.network != config().rules.network
    # They are saved as they are.
    assert config(dropout=0).rules.network is not config(dropout=0.0).rules.network
    assert pickle.dumps(params) == before


def test_a_state_is_kept_until_something_is_assigned():
    model = small().fit(X, y)
    state = fitted_state(model)
    model.predict(X)
    assert fitted_state(model) is state
    model.coefs_[0] = model.coefs_[0].copy()
    assigned = fitted_state(model)
    assert assigned is not state
    assert fitted_state(model) is assigned
    model.set_params(activation="tanh")
    assert fitted_state(model).network.activation == "tanh"
    assert state.network.activation == "relu"


def test_a_state_travels_without_its_estimator(backend):
    model = small(normalization="batch", input_scaling="standardize").fit(backend.put(X), y)
    stored = pickle.dumps(fitted_state(model).to_host(progress=None))
    other = small(normalization="batch", input_scaling="standardize")
    publish(other, pickle.loads(stored), History())  # noqa: S301
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    assert type(other.moments_[0].mean) is np.ndarray
    assert other.n_iter_ == 0
