"""The state after a fit: for the next call, for a copy, and after an error."""

from __future__ import annotations

import copy
import pickle
import signal
import threading
import time

import numpy as np
import pandas as pd
import pytest
from helpers import problem, small

from mlp_xp import MLPClassifier, MLPRegressor


def halves():
    X, y = problem(200)
    return X[:100], y[:100], X[100:], y[100:]


def test_validation_data_alone_do_not_decide_when_training_ends():
    X, y, X_val, y_val = halves()
    settings = {"learning_rate_init": 0.01, "max_iter": 300, "n_iter_no_change": 10}
    plain = small(**settings).fit(X, y)
    watched = small(**settings).fit(X, y, X_val=X_val, y_val=y_val)
    assert watched.n_iter_ == plain.n_iter_
    assert watched.loss_curve_ == plain.loss_curve_


def test_a_small_last_batch_does_not_ruin_the_running_moments(problem):
    X, y = problem(33)
    settings = {"normalization": "batch", "max_iter": 60, "learning_rate_init": 0.01}
    whole = small(**settings, batch_size=16).fit(X[:32], y[:32])
    one_more = small(**settings, batch_size=16).fit(X, y)
    assert one_more.evaluate(X, y)["loss"] < 2 * whole.evaluate(X[:32], y[:32])["loss"]


def test_columns_first_is_as_fast_as_rows_first(problem):
    X, y = problem(2000)
    wide = np.repeat(X, 100, axis=1)
    seconds = []
    for array in (wide, np.asfortranarray(wide), wide[::-1]):
        start = time.process_time()  # Others may be at work on the machine.
        model = small(max_iter=10, batch_size=50).fit(array, y)
        seconds.append(time.process_time() - start)
    assert max(seconds) < 4 * seconds[0]
    assert model.coefs_[0].shape[0] == 600
    frame = pd.DataFrame(X)
    np.testing.assert_array_equal(small().fit(frame, y).coefs_[0], small().fit(X, y).coefs_[0])


def test_a_warm_start_never_ends_worse_than_it_began():
    X, y, X_val, y_val = halves()
    settings = {"learning_rate_init": 0.1, "max_iter": 40, "n_iter_no_change": 2}
    model = small(**settings, early_stopping=True, warm_start=True)
    model.fit(X, y, X_val=X_val, y_val=y_val)
    first = model.best_validation_score_
    model.set_params(learning_rate_init=3.0).fit(X, y, X_val=X_val, y_val=y_val)
    assert model.score(X_val, y_val) == model.best_validation_score_ >= first
    # Another metric starts from what the network gives of it.
    model.set_params(scoring="loss").fit(X, y, X_val=X_val, y_val=y_val)
    assert model.best_validation_score_ == pytest.approx(-model.evaluate(X_val, y_val)["loss"])


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_the_callers_loop_of_partial_fits(problem):
    X, y = problem(200)
    model = small(batch_size=1).partial_fit(X, y, classes=[0, 1, 2])
    data = np.tile(X, (50, 1)), np.tile(y, 50)
    started = threading.Event()
    threading.Thread(
        target=lambda: started.wait() and (time.sleep(0.02), signal.raise_signal(signal.SIGINT))
    ).start()
    with pytest.raises(KeyboardInterrupt):
        # Here: an exception outside of this block would end all tests.
        all(model.partial_fit(*data) for _ in range(1000) if started.set() is None)
    assert model.n_iter_ < 1000
    assert np.isfinite(model.coefs_[0]).all()


def test_partial_fit_after_a_fit_goes_through_a_schedule_of_its_own(problem):
    X, y = problem()
    model = small(learning_rate="cosine", max_iter=5).fit(X, y)
    assert model.history_[-1].learning_rate == 0.0
    before = model.coefs_[0].copy()
    model.partial_fit(X, y)
    assert model.history_[-1].learning_rate > 0.0
    assert not np.array_equal(model.coefs_[0], before)


@pytest.mark.parametrize("learning_rate", ["cosine", "linear"])
def test_a_schedule_goes_through_calls_of_partial_fit_however_long_they_are(problem, learning_rate):
    sizes = [100, 1000, 50, 10, 200, 1000, 20, 30]
    X, y = problem(1000)
    model = small(learning_rate=learning_rate, max_iter=len(sizes), batch_size=10)
    even = small(learning_rate=learning_rate, max_iter=len(sizes), batch_size=10)
    rates = []
    for n in sizes:
        model.partial_fit(X[:n], y[:n], classes=[0, 1, 2])
        rates.append(model.history_[-1].learning_rate)
        even.partial_fit(X[:100], y[:100], classes=[0, 1, 2])
        model = pickle.loads(pickle.dumps(model))  # noqa: S301
    assert rates == sorted(rates, reverse=True)
    assert rates[-2] > rates[-1] == 0.0
    expected = [record.learning_rate for record in even.history_]
    np.testing.assert_allclose(rates, expected, rtol=0, atol=0.0002)


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": "adaptive", "solver": "sgd", "tol": 0.1, "n_iter_no_change": 2},
        {"learning_rate": "cosine", "warm_start": True},
    ],
    ids=str,
)
def test_a_pickle_goes_on_at_the_same_rate(problem, settings):
    X, y = problem()
    model = small(**{"max_iter": 12} | settings).fit(X, y)
    model.set_params(max_iter=20).partial_fit(X, y)
    opened = pickle.loads(pickle.dumps(model))  # noqa: S301
    for each in (model, opened):
        each.partial_fit(X, y)
    assert opened.history_[-1].learning_rate == model.history_[-1].learning_rate
    np.testing.assert_array_equal(opened.coefs_[0], model.coefs_[0])


def test_adaptive_counts_over_calls_of_partial_fit(problem):
    X, y = problem()
    model = small(learning_rate="adaptive", solver="sgd", tol=10.0, n_iter_no_change=3)
    rates = []
    for _ in range(10):
        model.partial_fit(X, y, classes=[0, 1, 2])
        rates.append(model.history_[-1].learning_rate)
    assert rates[0] == 0.001
    assert rates[-1] == pytest.approx(0.001 / 25)


def test_weights_go_to_a_scorer_that_takes_them_and_to_no_other():
    X, y, X_val, y_val = halves()
    weights = np.linspace(0.1, 2.0, 100)
    seen = []

    def plain(model, X, y):
        return float(np.mean(model.predict(X) == y))

    def weighted(model, X, y, sample_weight=None):
        seen.append(sample_weight)
        return float(np.average(model.predict(X) == y, weights=sample_weight))

    held = {"X_val": X_val, "y_val": y_val, "sample_weight_val": weights}
    model = small(scoring=plain).fit(X, y, **held)
    assert model.validation_scores_[-1] == model.score(X_val, y_val)
    model = small(scoring=weighted).fit(X, y, **held)
    assert model.validation_scores_[-1] == model.score(X_val, y_val, weights)
    np.testing.assert_array_equal(seen[-1], weights)
    regressor = MLPRegressor(max_iter=2, scoring="neg_max_error", early_stopping=True)
    regressor.fit(X, X[:, 0], sample_weight=np.ones(100))


def test_class_weights_are_for_training_and_not_for_the_score():
    X, y, X_val, y_val = halves()
    y = np.where(np.arange(100) % 10, 0, y)
    weights = []

    def scorer(model, X, y, sample_weight=None):
        weights.append(sample_weight)
        return 0.0

    small(class_weight="balanced", early_stopping=True, scoring=scorer).fit(X, y)
    small(class_weight="balanced", scoring=scorer).fit(X, y, X_val=X_val, y_val=0 * y_val)
    assert all(each is None for each in weights)


@pytest.mark.parametrize(
    ("kind", "fitted", "held"),
    [
        (MLPRegressor, (60, 2), (60,)),
        (MLPRegressor, (60,), (60, 2)),
        (MLPClassifier, (60,), (60, 3)),
        (MLPClassifier, (60, 3), (60,)),
        (MLPClassifier, (60, 3), (60, 4)),
    ],
)
@pytest.mark.parametrize("scoring", ["loss", None])
def test_held_out_targets_of_another_shape_are_rejected(problem, kind, fitted, held, scoring):
    X, _ = problem()
    rng = np.random.default_rng(0)
    y, y_val = (rng.integers(0, 2, shape) for shape in (fitted, held))
    model = kind(max_iter=2, scoring=scoring)
    with pytest.raises(ValueError, match="y_val is of shape"):
        model.fit(X, y, X_val=X, y_val=y_val)
    assert not hasattr(model, "coefs_")
    with pytest.raises(ValueError, match="y is of shape"):
        model.fit(X, y).evaluate(X, y_val)


def test_a_scorer_that_cannot_be_used_costs_nothing():
    X, y, X_val, y_val = halves()
    model = MLPRegressor(max_iter=2).fit(X, y)
    before = model.coefs_[0].copy()
    model.set_params(scoring="neg_log_loss")
    with pytest.raises(AttributeError, match="predict_proba"):
        model.fit(X, y, X_val=X_val, y_val=y_val)
    np.testing.assert_array_equal(model.coefs_[0], before)
    weights = np.zeros(100)
    weights[0] = 1.0
    with pytest.raises(ValueError, match=r"sample_weight of the samples|non-zero"):
        model.set_params(scoring=None, early_stopping=True).fit(X, y, sample_weight=weights)
    np.testing.assert_array_equal(model.coefs_[0], before)


@pytest.mark.parametrize("output", ["softmax", "logistic"])
def test_scores_of_two_classes_are_those_of_the_estimator(problem, output):
    X, y = problem(200, classes=2)
    model = small(output_activation=output, scoring="roc_auc", early_stopping=True).fit(X, y)
    scores = model.evaluate(X, y, metrics=["roc_auc", "average_precision"])
    assert 0.5 < scores["roc_auc"] <= 1.0


def test_a_moved_copy_shares_nothing_with_the_original(problem):
    X, y = problem()
    model = small().fit(X, y)
    moved = model.to("numpy")
    moved.partial_fit(X, y)
    assert (len(model.history_), len(moved.history_)) == (5, 6)
    assert len(model.loss_curve_) == 5
    twin = copy.deepcopy(model).partial_fit(X, y)
    np.testing.assert_array_equal(twin.coefs_[0], moved.coefs_[0])
    assert not np.array_equal(model.coefs_[0], moved.coefs_[0])


def test_class_weight_as_a_dict_is_checked(problem):
    X, y = problem()
    model = small(class_weight={2: 5.0}).partial_fit(X, y, classes=[0, 1, 2])
    model.partial_fit(X[y != 2], y[y != 2])  # A chunk without the class that is named.
    for given, message in (
        ({0: -1.0}, "Negative values"),
        ({0: 0.0, 1: 0.0, 2: 0.0}, "non-zero|is 0 for all"),
        ({7: 2.0}, r"class_weight names \[7\], which are not among the classes \[0, 1, 2\]"),
    ):
        with pytest.raises(ValueError, match=message):
            small(class_weight=given).fit(X, y)
    with pytest.raises(ValueError, match="class_weight is a dict, and y has several"):
        small(class_weight={0: 2.0}).fit(X, np.eye(3, dtype=int)[y])


def test_a_failed_fit_takes_nothing_from_a_random_state(problem):
    X, y = problem()
    states = [np.random.RandomState(5) for _ in range(2)]
    with pytest.raises(ValueError, match="too small"):
        MLPRegressor(early_stopping=True, random_state=states[0], validation_fraction=0.01).fit(
            X[:20], y[:20]
        )
    first, second = (MLPRegressor(random_state=state, max_iter=1).fit(X, y) for state in states)
    np.testing.assert_array_equal(first.coefs_[0], second.coefs_[0])


def test_names_of_columns_do_not_outlive_them(problem):
    jnp = pytest.importorskip("jax.numpy")
    X, y = problem()
    model = small().fit(pd.DataFrame(X, columns=list("abcdef")), y)
    model.fit(jnp.asarray(X[:, :3]), y)
    assert not hasattr(model, "feature_names_in_")
    assert model.n_features_in_ == 3


def test_classes_of_several_at_once_are_kept(problem):
    X, y = problem()
    Y = np.eye(3, dtype=int)[y]
    model = small()
    for _ in range(2):
        model.partial_fit(X, Y, classes=[10, 20, 30])
    assert model.classes_.tolist() == [10, 20, 30]
    with pytest.raises(ValueError, match="classes has 2 entries"):
        small().partial_fit(X, Y, classes=[10, 20])


def test_one_warning_for_a_clipped_batch(problem):
    with pytest.warns(
        UserWarning, match="Got `batch_size` 1000 larger than the sample size 60"
    ) as caught:
        small(batch_size=1000, max_iter=5).fit(*problem())
    assert sum("larger than the sample size" in str(each.message) for each in caught) == 1


def test_bfloat16_of_torch_is_understood(problem):
    torch = pytest.importorskip("torch")
    X, y = problem()
    here = torch.asarray(X).to(torch.bfloat16)
    expected = small().fit(here.float(), y)
    for settings in ({}, {"placement": "streamed"}, {"backend": "numpy"}):
        model = small(**settings).fit(here, y)
        np.testing.assert_allclose(model.loss_curve_, expected.loss_curve_, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "value"),
    [("precision", "float32"), ("input_scaling", "standardize"), ("output_activation", "logistic")],
)
def test_what_a_warm_start_cannot_change_is_rejected(problem, name, value):
    X, y = problem()
    model = small(warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match="warm_start=False"):
        model.set_params(**{name: value}).fit(X, y)


# --- from_weights --------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_classifier_of_given_weights(problem, n_classes):
    X, y = problem(classes=n_classes)
    names = np.asarray(["ant", "bee", "cat"])[:n_classes]
    model = small(hidden_layer_sizes=(5, 4), activation="tanh").fit(X, names[y])
    made = MLPClassifier.from_weights(
        model.coefs_, model.intercepts_, classes=names, activation="tanh", random_state=3
    )
    np.testing.assert_array_equal(made.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(made.predict(X), model.predict(X))
    assert (made.hidden_layer_sizes, made.random_state) == ((5, 4), 3)
    # It goes on to learn.
    before = made.coefs_[0].copy()
    made.partial_fit(X, names[y])
    assert (made.coefs_[0] != before).any()
    assert "from_weights" in dir(MLPClassifier)


def test_a_regressor_of_given_weights(problem):
    X, _ = problem()
    model = small(MLPRegressor).fit(X, X[:, :2])
    made = MLPRegressor.from_weights(model.coefs_, model.intercepts_)
    np.testing.assert_array_equal(made.predict(X), model.predict(X))


def test_wrong_weights_are_errors():
    W, b = [np.zeros((2, 3))], [np.zeros(3)]
    with pytest.raises(ValueError, match=r"There are 4 classes, which need 4 outputs, .* has 3"):
        MLPClassifier.from_weights(W, b, classes=[0, 1, 2, 3])
    with pytest.raises(ValueError, match="There are 1 coefs and 2 intercepts: give one of each"):
        MLPClassifier.from_weights(W, b * 2, classes=[0, 1, 2])
    with pytest.raises(ValueError, match=r"coefs_\[1\] is of shape \(2, 3\), .* of shape \(3, 3\)"):
        MLPRegressor.from_weights(W * 2, b * 2)
