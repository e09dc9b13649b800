"""Infinity and NaN: noticed within a step, traced to step, layer and cause, and undone."""

from __future__ import annotations

import gc
import pickle
import weakref

import numpy as np
import pytest
import trainers
from helpers import QUIET, problem, small

import mlp_xp.training.divergence
from mlp_xp import MLP, MLPRegressor
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.augmentation import Mixup
from mlp_xp.callbacks import Callback, Checkpoint
from mlp_xp.optimizers.schedules import Constant
from mlp_xp.saving import load_model
from mlp_xp.training.batches import place
from mlp_xp.training.epochs import plan_epoch
from mlp_xp.training.finite import NonFiniteError, is_finite

pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide):RuntimeWarning")

SETTINGS = {"solver": "sgd", "batch_size": 16, "hidden_layer_sizes": (8, 4), "random_state": 0}


def settings_on(spec):
    name, _, device = spec.partition(":")
    return SETTINGS | QUIET | {"backend": name, "device": device or None}


def assert_finite(model):
    arrays = map(mlp_xp.get_backend("numpy").put, (*model.coefs_, *model.intercepts_))
    assert all(np.isfinite(array).all() for array in arrays)


def single(n=64):
    X, y = problem(n)
    return X.astype(np.float32), y


def small_weights(X, y):
    return {"sample_weight": np.full(len(X), 1e-300)}


def large_input(X, y):
    X *= np.float32(1e30)
    return {}


def large_target(X, y):
    y *= 1e25
    return {}


CAUSES = {
    "rate": (MLP, {"learning_rate_init": 1e6}, None, "learning rate was 1e.06"),
    "weight": (MLP, {}, small_weights, "sample weights of the batch average 0"),
    "input": (MLP, {"learning_rate_init": 0.1}, large_input, "input_scaling='standardize'"),
    "target": (MLPRegressor, {}, large_target, "TransformedTargetRegressor"),
}


@pytest.mark.parametrize("n", [3, 20_000])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, -1.0], True),
        ([np.finfo("float32").max, 1e30], True),  # Neither their sum nor their squares are.
        ([np.nan, 1.0], False),
        ([np.inf, -np.inf], False),
    ],
    ids=["small", "large", "nan", "opposite infinities"],
)
def test_short_and_long_arrays_are_finite_if_all_their_numbers_are(backend, n, values, expected):
    arrays = np.zeros(n, "float32"), np.zeros((n, 2), "float32")
    arrays[1][-1] = values
    assert is_finite(backend, tuple(map(backend.put, arrays))) is expected


@pytest.mark.parametrize("cause", CAUSES)
def test_the_error_names_step_layer_and_cause_and_the_model_stays_finite(backend_spec, cause):
    estimator, settings, change, message = CAUSES[cause]
    X, y = single()
    y = y if estimator is MLP else y.astype(float)
    given = change(X, y) if change else {}
    model = estimator(**settings_on(backend_spec) | settings)
    with pytest.raises(NonFiniteError, match=message) as caught:
        model.fit(X, y, **given)
    error = caught.value
    assert (error.cause, error.epoch) == (cause, 1)
    assert 1 <= error.step <= 4
    assert error.layer is not None
    assert error.layer in str(error)
    assert_finite(model)


def test_the_step_is_the_one_that_is_not_finite_and_the_weights_those_before_it(backend_spec):
    X, y = single()
    y = y.astype(float)
    y[37] = 1e30  # Its square is no float32.
    settings = settings_on(backend_spec) | {"shuffle": False, "max_iter": 1, "alpha": 0.0}
    model = MLPRegressor(**settings)
    with pytest.raises(NonFiniteError) as caught:
        model.fit(X, y)
    error = caught.value
    assert (error.epoch, error.step, error.layer, error.cause) == (1, 3, "loss", "target")
    before = MLPRegressor(**settings).fit(X[:32], y[:32])
    for mine, theirs in zip(model.coefs_, before.coefs_, strict=True):
        np.testing.assert_allclose(np.asarray(mine), np.asarray(theirs), rtol=1e-5)


def test_steps_of_earlier_epochs_are_repeated(monkeypatch):
    X, y = single()
    random = {"dropout": 0.1, "augmentation": [Mixup(0.2)], "learning_rate": "cosine"}
    settings = SETTINGS | QUIET | random | {"activation": "identity", "max_iter": 500}
    seen = []

    class Steps(Callback):
        def on_step_end(self, model, done, n_steps):
            seen.append([coef.tolist() for coef in model.coefs_])

    for share in (1e-9, 1e9):  # A copy before the first epoch, and one before each.
        monkeypatch.setattr(mlp_xp.training.divergence, "_COPY_SHARE", share)
        model = MLPRegressor(**settings, learning_rate_init=0.2, callbacks=[Steps()])
        seen.clear()
        with pytest.raises(NonFiniteError) as caught:
            model.fit(X, y)
        error = caught.value
        assert (error.epoch, error.step) == (2, 4)
        assert [coef.tolist() for coef in model.coefs_] == seen[4 + 3 - 1]


def test_a_long_epoch_is_looked_at_meanwhile(monkeypatch):
    monkeypatch.setattr(mlp_xp.training.divergence, "_LOOK_SECONDS", 0.0)
    X, y = single(640)
    steps = []

    class Steps(Callback):
        def on_step_end(self, model, done, n_steps):
            steps.append(done)

    model = small(solver="sgd", learning_rate_init=1e6, callbacks=[Steps()])
    with pytest.raises(NonFiniteError) as caught:
        model.fit(X, y)
    assert len(steps) <= caught.value.step + 1 < 10


def test_weights_that_are_replaced_in_an_epoch_are_where_an_error_returns_to(backend):
    x, y = trainers.byte_data()
    trainer = trainers.make_trainer(backend)
    other = map_leaves(lambda leaf: np.full(leaf.shape, 0.5), trainer.state.params)

    def after_step(done, n_steps):
        if done == 2:
            trainer.set_learned(other, ())
        return False

    x[25] = np.inf  # In the third step.
    data = place(backend, x, y, "float64")
    plan = plan_epoch(trainers.N, trainers.BATCH, pad=backend.fixed_shapes)
    with pytest.raises(NonFiniteError, match=r"epoch 1, step 3: input") as caught:
        trainer.run_epoch(data, plan, n_epochs=1, after_step=after_step)
    assert (caught.value.step, caught.value.cause) == (3, "input")
    for mine, theirs in zip(trainers.learned(trainer), leaves(other), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_partial_fit_raises_and_goes_on_from_finite_weights(backend_spec):
    X, y = single()
    y = y.astype(float)
    model = MLPRegressor(**settings_on(backend_spec))
    for _ in range(3):
        model.partial_fit(X, y)
    kept = np.array(model.coefs_[0])
    with pytest.raises(NonFiniteError) as caught:
        model.partial_fit(X, y * 1e30)
    assert (caught.value.cause, caught.value.epoch) == ("target", 4)
    np.testing.assert_allclose(np.array(model.coefs_[0]), kept, atol=0.05)
    model.partial_fit(X, y)
    assert_finite(model)
    assert np.isfinite(model.loss_)


def test_early_stopping_ends_with_the_best_weights_and_a_warning(backend_spec):
    X, y = single(200)
    model = MLP(**settings_on(backend_spec) | {"learning_rate_init": 0.3, "early_stopping": True})

    class ExplodeAfterThreeEpochs(Constant):
        def __call__(self, step, n_steps, n_samples):
            return 1e30 if n_samples >= 3 * 180 else 1.0

    model.set_params(learning_rate=ExplodeAfterThreeEpochs())
    with pytest.warns(RuntimeWarning, match=r"try a smaller.*The best weights so far are kept\."):
        model.fit(X, y)
    assert_finite(model)
    assert np.isnan(model.validation_scores_[-1])
    assert model.n_iter_ == len(model.history_) == len(model.loss_curve_) == 4
    assert model.best_validation_score_ == max(model.validation_scores_[:-1])
    assert type(model.loss_) is np.float64


@pytest.mark.parametrize("callbacks", [None, [Callback()]])
def test_an_epoch_whose_last_update_is_not_finite_is_recorded_once(callbacks):
    X, y = single(200)
    settings = {"early_stopping": True, "warm_start": True, "max_iter": 1, "batch_size": 180}
    model = MLP(**SETTINGS | QUIET | settings, callbacks=callbacks).fit(X, y)
    # A step's loss is computed before its update: that of the second epoch is finite.
    with pytest.warns(RuntimeWarning, match="The best weights so far are kept"):
        model.set_params(learning_rate_init=1e300).fit(X, y)
    assert [record.epoch for record in model.history_] == [1, 2]
    assert model.n_iter_ == 1
    assert len(model.loss_curve_) == len(model.validation_scores_) == 2
    assert_finite(model)


def test_lbfgs_names_its_iteration(backend_spec):
    X, y = single()
    model = MLPRegressor(**settings_on(backend_spec) | {"solver": "lbfgs"})
    with pytest.raises(NonFiniteError, match=r"to 2e\+25.*iteration 1: loss") as caught:
        model.fit(X, y * 1e25)
    assert (caught.value.cause, caught.value.step) == ("target", None)
    assert_finite(model)


def test_a_checkpoint_is_never_of_what_is_not_finite(tmp_path):
    # A last step that leaves NaN is no part of its epoch's loss.
    X, y = single(20)
    y = y.astype(float)
    y[16:] = 1e30
    watch = Checkpoint(tmp_path)
    model = MLPRegressor(
        **SETTINGS | QUIET, loss="absolute_error", shuffle=False, callbacks=[watch]
    )
    model.set_params(learning_rate_init=1e38, alpha=0.0, max_iter=3)
    with pytest.raises(NonFiniteError):
        model.fit(X, y)
    for folder in tmp_path.iterdir():
        assert_finite(load_model(folder))


def test_predicting_with_weights_that_are_not_finite_is_an_error(backend_spec):
    X, y = single()
    model = small(backend=backend_spec.partition(":")[0], hidden_layer_sizes=(8, 4)).fit(X, y)
    weights = np.array(model.coefs_[1])
    weights[2, 1] = np.nan
    model.coefs_[1] = weights
    for method in (model.predict, model.predict_proba, model.hidden_activations):
        with pytest.raises(ValueError, match=r"coefs_\[1\] has infinity or NaN.*fit again"):
            method(X[:3])
    with pytest.raises(NonFiniteError, match="before the first step"):
        model.set_params(warm_start=True).fit(X, y)


@pytest.mark.parametrize("name", ["coefs_", "norms_"])
@pytest.mark.parametrize(
    ("activation", "value"), [("relu", np.nan), ("relu", -np.inf), ("tanh", np.inf)]
)
def test_weights_whose_activation_hides_that_they_are_not_finite_are_found(
    backend_spec, name, activation, value
):
    X, y = single()
    normalization = "layer" if name == "norms_" else None
    given = {"activation": activation, "normalization": normalization, "max_iter": 1}
    model = MLP(**settings_on(backend_spec) | given).fit(X, y)
    entry = getattr(model, name)[0]
    if name == "norms_":
        getattr(model, name)[0] = type(entry)(*(np.full(8, value, np.float32) for _ in entry))
    else:
        model.coefs_[0] = np.full(entry.shape, value, np.float32)
    for again in (model, pickle.loads(pickle.dumps(model))):  # noqa: S301
        with pytest.raises(ValueError, match=rf"{name}\[0\] has infinity or NaN.*fit again"):
            again.predict(X)


def test_a_warm_start_keeps_no_data_after_a_fit():
    X, y = single()
    model = small(warm_start=True).fit(X, y)
    kept = weakref.ref(X)
    del X
    gc.collect()
    assert kept() is None
    model.predict(np.zeros((1, 6)))


def test_the_error_can_be_pickled():
    error = NonFiniteError("words", epoch=2, step=3, layer="loss", cause="input")
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)  # noqa: S301
