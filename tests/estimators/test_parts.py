"""The parts that an estimator is composed of, each by itself."""

from __future__ import annotations

import ast
import inspect
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers import problem as samples
from helpers import small
from trainers import N, byte_data, learned, make_trainer

import mlp_xp
from mlp_xp import MLPClassifier, MLPRegressor, get_backend
from mlp_xp.estimators.config import resolve_config
from mlp_xp.estimators.state import fitted_state, publish
from mlp_xp.estimators.targets import ClassTargets, RealTargets
from mlp_xp.training.batches import place
from mlp_xp.training.fit_loop import FitLoop
from mlp_xp.training.fit_settings import LoopPosition
from mlp_xp.training.history import History

ESTIMATORS = [MLPClassifier, MLPRegressor]


# --- one estimator --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_one_base_and_small_mixins_are_all_that_is_inherited(kind):
    ours = [each.__name__ for each in kind.__mro__ if each.__module__.startswith("mlp_xp.")]
    assert ours == [kind.__name__, "BaseMLP", "PicturesMixin", "DescriptionMixin", "RecipeMixin"]


@pytest.mark.parametrize("kind", ESTIMATORS)
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


def test_a_network_is_made_once_for_the_same_settings():
    def network(**settings):
        return resolve_config(
            MLPClassifier((8,), **settings).get_params(), 3, targets
        ).rules.network

    targets = ClassTargets(np.arange(3), "softmax")
    assert network() is network(alpha=0.5)
    assert network(dropout=0) is not network(dropout=0.0)  # They are saved as they are.
    assert network(dropout=0.1) != network()


def test_fitted_attributes_are_set_by_publish_alone():
    package = Path(mlp_xp.__file__).parent
    files = {*package.glob("estimators/**/*.py"), *package.glob("training/*.py")}
    for file in files - {package / "estimators" / "ensembles.py"}:  # Estimators of their own.
        found = [
            node.attr
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and node.attr.endswith("_")
            and not node.attr.endswith("__")
        ]
        assert found == [], file


# --- config ---------------------------------------------------------------------------------------


def test_a_config_is_a_pure_function_of_parameters():
    params = MLPRegressor(hidden_layer_sizes=[8, 4], dropout=[0.1, 0.2]).get_params()
    before = pickle.dumps(params)
    first, second = (resolve_config(params, 3, RealTargets(2)) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert pickle.dumps(params) == before
    other = resolve_config(params | {"alpha": 0.5, "solver": "lbfgs"}, 3, RealTargets(2))
    assert (other.rules.alpha, other.loop.max_fun) == (0.5, 15000)
    assert other.rules.network == first.rules.network


def test_targets_decide_outputs_and_loss():
    params = MLPClassifier().get_params()
    for classes, output, n_outputs in (([0, 1], "logistic", 1), ([0, 1, 2], "softmax", 3)):
        config = resolve_config(params, 5, ClassTargets(np.asarray(classes), output))
        assert config.rules.network.widths == (5, 100, n_outputs)
        assert config.output == config.rules.loss.output == output


# --- state ----------------------------------------------------------------------------------------


def test_a_state_is_kept_until_something_is_assigned():
    X, y = samples()
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
    X, y = samples()
    model = small(normalization="batch", input_scaling="standardize").fit(backend.put(X), y)
    stored = pickle.dumps(fitted_state(model).to_host(progress=None))
    other = small(normalization="batch", input_scaling="standardize")
    publish(other, pickle.loads(stored), History())  # noqa: S301
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    assert type(other.moments_[0].mean) is np.ndarray
    assert other.n_iter_ == 0


# --- fit loop -------------------------------------------------------------------------------------


class Watcher:
    """Keeps what it hears, and ends the fit after some epochs."""

    watches_epochs = watches_steps = True
    watches_pauses = False

    def __init__(self, n_epochs):
        self.n_epochs = n_epochs
        self.heard = []

    def begin_epoch(self):
        self.heard.append("begin")

    def end_step(self, done, n_steps):
        self.heard.append(done)

    def report(self, done, n_steps, running):
        pass

    def end_epoch(self, record):
        self.heard.append(record)
        return record.epoch == self.n_epochs


def fit_without_estimator(seed, n_epochs=3, solver="adam"):
    x, y = byte_data()
    backend = get_backend("numpy")
    trainer = make_trainer(backend, seed=seed)
    params = MLPClassifier(batch_size=29, tol=0.0, solver=solver).get_params()
    settings = resolve_config(params, x.shape[1], ClassTargets(np.arange(4), "softmax")).loop
    loop = FitLoop(
        trainer,
        place(backend, x, y, "float64"),
        settings,
        weights=None,
        validation=None,
        history=History(),
        position=LoopPosition(),
    )
    watcher = Watcher(n_epochs)
    loop.begin()
    loop.run(0.0, settings, watcher, lambda: False)
    return loop, watcher, learned(trainer)


def test_a_fit_reports_to_its_watcher_and_ends_when_it_asks():
    loop, watcher, _ = fit_without_estimator(seed=0)
    records = loop.history.records
    assert watcher.heard == [each for record in records for each in ("begin", 1, 2, record)]
    assert [record.epoch for record in records] == [1, 2, 3]
    assert loop.history.losses == [record.loss for record in records]
    assert (loop.history.n_epochs, loop.history.n_samples) == (3, 3 * N)
    assert loop.position == LoopPosition(first_epoch=3)


def test_lbfgs_reports_through_the_same_door():
    loop, watcher, _ = fit_without_estimator(seed=0, solver="lbfgs")
    assert watcher.heard == [each for record in loop.history.records for each in ("begin", record)]
    assert (loop.history.n_epochs, loop.history.n_samples) == (3, 0)


def test_fits_beside_each_other_are_as_fits_alone():
    expected = [fit_without_estimator(seed)[2] for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = [each[2] for each in pool.map(fit_without_estimator, range(4))]
    for mine, theirs in zip(found, expected, strict=True):
        for array, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(array, other)
