"""Infinity and NaN: noticed within a step, traced to step, layer and cause, and undone."""

import pickle

import numpy as np
import pytest
from helpers import QUIET, problem, small
from trainers import BATCH, N, assert_close, byte_data, learned, make_trainer

import mlp_xp.training.divergence.guard
from mlp_xp import MLP, MLPClassifier, MLPRegressor
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.augmentation import Mixup
from mlp_xp.backends import to_numpy
from mlp_xp.callbacks import Callback, Checkpoint
from mlp_xp.nn.layers import Norm
from mlp_xp.optimizers.schedules import Constant
from mlp_xp.saving import load_model
from mlp_xp.training.data.epoch_plan import plan_epoch
from mlp_xp.training.data.placement import put_data
from mlp_xp.training.divergence.finite import NonFiniteError, is_finite

pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide):RuntimeWarning")
SETTINGS = {"solver": "sgd", "batch_size": 16, "hidden_layer_sizes": (8, 4), "random_state": 0}
SETTINGS |= QUIET


def assert_finite(model):
    assert all(np.isfinite(to_numpy(a)).all() for a in (*model.coefs_, *model.intercepts_))


def single(n=64, targets=int):
    X, y = problem(n)
    return X.astype(np.float32), y.astype(targets)


@pytest.mark.parametrize("n", [3, 20_000])
def test_arrays_are_finite_only_if_all_elements_are(backend, n):
    for values, expected in (
        ([1.0, -1.0], True),
        ([np.finfo("float32").max, 1e30], True),  # Their sum and squares overflow.
        ([np.nan, 1.0], False),
        ([np.inf, -np.inf], False),
    ):
        arrays = np.zeros(n, "float32"), np.zeros((n, 2), "float32")
        arrays[1][-1] = values
        assert is_finite(backend, tuple(map(backend.put, arrays))) is expected, values


@pytest.mark.parametrize(
    ("cause", "estimator", "settings", "sizes", "message"),
    [
        ("rate", MLP, {"learning_rate_init": 1e6}, (1, 1, 1), "learning rate was 1e.06"),
        ("weight", MLP, {}, (1, 1, 1e-300), "sample weights of the batch average 0"),
        ("weight", MLP, {}, (1, 1, 1e300), "sample weights of the batch average inf"),
        ("input", MLP, {"learning_rate_init": 0.1}, (1e30, 1, 1), "input_scaling='standardize'"),
        ("target", MLPRegressor, {}, (1, 1e25, 1), "target_scaling='standardize'"),
        ("target", MLPRegressor, {"solver": "lbfgs"}, (1, 1e25, 1), "iteration 1: loss"),
    ],
)
def test_divergence_error_names_step_layer_and_cause_and_keeps_a_finite_model(
    on, cause, estimator, settings, sizes, message
):
    X, y = single(targets=float)
    model = estimator(**SETTINGS | on | settings)
    with pytest.raises(NonFiniteError, match=message) as caught:
        model.fit(X * np.float32(sizes[0]), y * sizes[1], np.full(len(X), sizes[2]))
    error = caught.value
    assert (error.cause, error.epoch) == (cause, 1)
    assert error.step is None if "solver" in settings else 1 <= error.step <= 4
    assert error.layer is not None
    assert error.layer in str(error)
    assert_finite(model)
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)  # noqa: S301


def test_error_names_the_first_non_finite_step_and_keeps_the_weights_before_it(on):
    X, y = single(targets=float)
    y[37] = 1e30  # Its square is no float32.
    settings = SETTINGS | on | {"shuffle": False, "max_iter": 1, "alpha": 0.0}
    model = MLPRegressor(**settings)
    with pytest.raises(NonFiniteError, match=r"epoch 1, step 3: loss"):
        model.fit(X, y)
    before = MLPRegressor(**settings).fit(X[:32], y[:32])
    assert_close(model.coefs_, before.coefs_, rtol=1e-5)


def test_divergence_in_an_earlier_epoch_is_located_by_repeating_steps(monkeypatch):
    random = {"dropout": 0.1, "augmentation": [Mixup(0.2)], "learning_rate": "cosine"}
    settings = SETTINGS | random | {"activation": "identity", "max_iter": 500}
    seen, each = [], Callback()
    each.on_step_end = lambda model, *_: seen.append([coef.tolist() for coef in model.coefs_])
    for share in (1e-9, 1e9):  # A copy before the first epoch, and one before each.
        monkeypatch.setattr(mlp_xp.training.divergence.guard, "_COPY_SHARE", share)
        model = MLPRegressor(**settings, learning_rate_init=0.2, callbacks=[each])
        seen.clear()
        with pytest.raises(NonFiniteError) as caught:
            model.fit(*single())
        assert (caught.value.epoch, caught.value.step) == (2, 4)
        assert [coef.tolist() for coef in model.coefs_] == seen[4 + 3 - 1]


def test_long_epochs_are_checked_for_divergence_before_they_end(monkeypatch):
    monkeypatch.setattr(mlp_xp.training.divergence.guard, "_LOOK_SECONDS", 0.0)
    steps, each = [], Callback()
    each.on_step_end = lambda model, done, n_steps: steps.append(done)
    model = small(solver="sgd", learning_rate_init=1e6, callbacks=[each])
    with pytest.raises(NonFiniteError) as caught:
        model.fit(*single(640))
    assert len(steps) <= caught.value.step + 1 < 10


def test_divergence_restores_weights_replaced_during_the_epoch(backend):
    x, y = byte_data()
    trainer = make_trainer(backend)
    other = map_leaves(lambda leaf: np.full(leaf.shape, 0.5), trainer.state.params)

    def after_step(done, n_steps):
        if done == 2:
            trainer.set_learned(other, ())
        return False

    x[25] = np.inf  # In the third step.
    data, plan = put_data(backend, x, y, "float64"), plan_epoch(N, BATCH, pad=backend.fixed_shapes)
    with pytest.raises(NonFiniteError, match=r"epoch 1, step 3: input") as caught:
        trainer.run_epoch(data, plan, n_epochs=1, after_step=after_step)
    assert (caught.value.step, caught.value.cause) == (3, "input")
    assert_close(learned(trainer), leaves(other))


def test_partial_fit_that_diverges_raises_and_keeps_finite_weights(on):
    X, y = single(targets=float)
    model = MLPRegressor(**SETTINGS, **on)
    for _ in range(3):
        model.partial_fit(X, y)
    kept = np.array(to_numpy(model.coefs_[0]))
    with pytest.raises(NonFiniteError) as caught:
        model.partial_fit(X, y * 1e30)
    assert (caught.value.cause, caught.value.epoch) == ("target", 4)
    # The weights of the last copy: the data of an earlier call are no longer known.
    np.testing.assert_allclose(to_numpy(model.coefs_[0]), kept, atol=0.05)
    model.partial_fit(X, y)
    assert_finite(model)
    assert np.isfinite(model.loss_)


def test_non_finite_optimizer_state_is_an_error():
    X, y = single()
    model = MLPClassifier((8,), random_state=0).partial_fit(X, y, classes=np.unique(y))
    huge = np.array(X)
    huge[0, 0] = 9.97e36  # A missing value in NetCDF.
    with pytest.raises(NonFiniteError) as caught:
        model.partial_fit(huge, y)
    assert caught.value.cause == "input"


def test_divergence_with_early_stopping_keeps_the_best_weights_and_warns(on):
    class ExplodeAfterThreeEpochs(Constant):
        def __call__(self, step, n_steps, n_samples):
            return 1e30 if n_samples >= 3 * 180 else 1.0

    settings = {"learning_rate_init": 0.3, "early_stopping": True}
    model = MLP(**SETTINGS, **on, **settings, learning_rate=ExplodeAfterThreeEpochs())
    with pytest.warns(RuntimeWarning, match=r"try a smaller.*The best weights so far are kept\."):
        model.fit(*single(200))
    assert_finite(model)
    assert np.isnan(model.validation_scores_[-1])
    assert model.n_iter_ == len(model.history_) == len(model.loss_curve_) == 4
    assert model.best_validation_score_ == max(model.validation_scores_[:-1])
    assert type(model.loss_) is np.float64


def test_an_epoch_with_a_non_finite_last_update_is_recorded_once():
    X, y = single(200)
    settings = {"early_stopping": True, "warm_start": True, "max_iter": 1, "batch_size": 180}
    model = MLP(**SETTINGS | settings).fit(X, y)
    # A step's loss is computed before its update, so the second epoch's loss is finite.
    with pytest.warns(RuntimeWarning, match="The best weights so far are kept"):
        model.set_params(learning_rate_init=1e300).fit(X, y)
    assert [record.epoch for record in model.history_] == [1, 2]
    assert model.n_iter_ == 1
    assert len(model.loss_curve_) == len(model.validation_scores_) == 2
    assert_finite(model)


def test_checkpoints_never_contain_non_finite_weights(tmp_path):
    # A last step that leaves NaN is no part of its epoch's loss.
    X, y = single(20, float)
    y[16:] = 1e30
    settings = {"loss": "absolute_error", "shuffle": False, "alpha": 0.0, "max_iter": 3}
    watch = [Checkpoint(tmp_path)]
    with pytest.raises(NonFiniteError):
        MLPRegressor(**SETTINGS, **settings, learning_rate_init=1e38, callbacks=watch).fit(X, y)
    for folder in tmp_path.iterdir():
        assert_finite(load_model(folder))


@pytest.mark.parametrize("normalization", [None, "layer"])
@pytest.mark.parametrize(
    ("activation", "value"), [("relu", np.nan), ("relu", -np.inf), ("tanh", np.inf)]
)
def test_non_finite_assigned_weights_are_an_error_in_each_method(
    on, normalization, activation, value
):
    """Non-finite weights are also found if the activation hides them."""
    X, y = single()
    given = {"activation": activation, "normalization": normalization, "max_iter": 1}
    model = MLP(**SETTINGS, **on, **given).fit(X, y)
    if normalization:
        model.norms_[0] = Norm(*[np.full(8, value, np.float32)] * 2)
    else:
        model.coefs_[0] = np.full((6, 8), value, np.float32)
    message = rf"{'norms_' if normalization else 'coefs_'}\[0\] has infinity or NaN.*fit again"
    copy = pickle.loads(pickle.dumps(model))  # noqa: S301
    for method in (copy.predict, model.predict, model.predict_proba, model.hidden_activations):
        with pytest.raises(ValueError, match=message):
            method(X)
    with pytest.raises(NonFiniteError, match="before the first step"):
        model.set_params(warm_start=True).fit(X, y)
