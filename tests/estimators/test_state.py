"""The state after a fit: for the next call, for a copy, and after an error."""

import copy
import pickle
import signal
import threading

import numpy as np
import pandas as pd
import pytest
from helpers import problem, small

from mlp_xp import MLPClassifier, MLPRegressor, get_backend
from mlp_xp.estimators.state import fitted_state

X, y = problem()
CLASSES = [0, 1, 2]


def test_the_order_in_memory_changes_nothing():
    expected = small().fit(X, y).coefs_[0]
    for data in (pd.DataFrame(X), np.asfortranarray(X), np.ascontiguousarray(X[::-1])[::-1]):
        np.testing.assert_allclose(small().fit(data, y).coefs_[0], expected, rtol=1e-12)


def test_a_warm_start_never_ends_worse_than_it_began():
    held = {"X_val": X[30:], "y_val": y[30:]}
    settings = {"learning_rate_init": 0.1, "max_iter": 40, "n_iter_no_change": 2}
    model = small(**settings, early_stopping=True, warm_start=True).fit(X[:30], y[:30], **held)
    first = model.best_validation_score_
    model.set_params(learning_rate_init=3.0).fit(X[:30], y[:30], **held)
    assert model.score(X[30:], y[30:]) == model.best_validation_score_ >= first
    # Another metric starts from what the network gives of it.
    model.set_params(scoring="loss").fit(X[:30], y[:30], **held)
    loss = model.evaluate(X[30:], y[30:])["loss"]
    assert model.best_validation_score_ == pytest.approx(-loss)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_the_callers_loop_of_partial_fits():
    calls = []

    def scorer(model, X, y):
        calls.append(model.n_iter_)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return 0.0

    model = small(scoring=scorer)
    with pytest.raises(KeyboardInterrupt):
        all(model.partial_fit(X, y, classes=CLASSES, X_val=X, y_val=y) for _ in range(5))
    assert model.n_iter_ == len(model.loss_curve_) < 4


@pytest.mark.matrix
@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_at_any_moment_ends_the_callers_loop_of_partial_fits():
    model = small(batch_size=1).partial_fit(X, y, classes=CLASSES)
    data = np.tile(X, (200, 1)), np.tile(y, 200)
    timer = threading.Timer(0.02, signal.raise_signal, [signal.SIGINT])
    with pytest.raises(KeyboardInterrupt):  # An exception outside of this would end all tests.
        all(model.partial_fit(*data) for i in range(1000) if i or timer.start() is None)
    assert model.n_iter_ < 1000
    assert np.isfinite(model.coefs_[0]).all()


def test_partial_fit_after_a_fit_goes_through_a_schedule_of_its_own():
    model = small(learning_rate="cosine", max_iter=5).fit(X, y)
    before = model.coefs_[0].copy()
    rates = [record.learning_rate for record in model.partial_fit(X, y).history_]
    assert rates[-2] == 0.0 < rates[-1]
    assert not np.array_equal(model.coefs_[0], before)


@pytest.mark.parametrize("learning_rate", ["cosine", "linear"])
def test_a_schedule_goes_through_calls_of_partial_fit_however_long_they_are(learning_rate):
    (X, y), sizes = problem(1000), [100, 1000, 50, 10, 200, 1000, 20, 30]
    settings = {"learning_rate": learning_rate, "max_iter": len(sizes), "batch_size": 10}
    model, even = small(**settings), small(**settings)
    for n in sizes:
        model.partial_fit(X[:n], y[:n], classes=CLASSES)
        even.partial_fit(X[:100], y[:100], classes=CLASSES)
        model = pickle.loads(pickle.dumps(model))  # noqa: S301
    rates, expected = ([r.learning_rate for r in each.history_] for each in (model, even))
    assert rates == sorted(rates, reverse=True)
    assert rates[-2] > rates[-1] == 0.0
    np.testing.assert_allclose(rates, expected, rtol=0, atol=0.0002)


def test_a_state_is_kept_until_something_is_assigned():
    model = small().fit(X, y)
    state = fitted_state(model)
    model.predict(X)
    assert fitted_state(model) is state
    model.coefs_[0] = model.coefs_[0].copy()
    assigned = fitted_state(model)
    assert assigned is fitted_state(model) is not state
    model.set_params(activation="tanh")
    assert fitted_state(model).network.activation == "tanh"
    assert state.network.activation == "relu"


def test_a_pickle_continues_at_the_same_rate():
    adaptive = {"learning_rate": "adaptive", "solver": "sgd", "tol": 0.1, "n_iter_no_change": 2}
    for settings in (adaptive, {"learning_rate": "cosine", "warm_start": True}):
        model = small(**{"max_iter": 12} | settings).fit(X, y)
        model.set_params(max_iter=20).partial_fit(X, y)
        again = pickle.loads(pickle.dumps(model)).partial_fit(X, y)  # noqa: S301
        model.partial_fit(X, y)
        assert again.history_[-1].learning_rate == model.history_[-1].learning_rate
        np.testing.assert_array_equal(again.coefs_[0], model.coefs_[0])


def test_adaptive_counts_over_calls_of_partial_fit():
    model = small(learning_rate="adaptive", solver="sgd", tol=10.0, n_iter_no_change=3)
    for _ in range(10):
        model.partial_fit(X, y, classes=CLASSES)
    rates = [record.learning_rate for record in model.history_]
    assert (rates[0], rates[-1]) == (0.001, pytest.approx(0.001 / 25))


def test_a_copy_shares_nothing_with_the_original():
    model = small().fit(X, y)
    before, coefs = model.predict_proba(X), []
    for twin in (model.to("numpy"), copy.deepcopy(model), copy.copy(model)):
        coefs.append(twin.partial_fit(X, y).coefs_[0])
        assert (len(model.history_), len(twin.history_), len(model.loss_curve_)) == (5, 6, 5)
        np.testing.assert_array_equal(coefs[0], coefs[-1])
        np.testing.assert_array_equal(model.predict_proba(X), before)
    twin = copy.copy(model)
    model.partial_fit(X, y)
    np.testing.assert_array_equal(twin.predict_proba(X), before)


def test_a_failed_fit_takes_nothing_from_a_random_state():
    states = [np.random.RandomState(5) for _ in range(2)]
    with pytest.raises(ValueError, match="too small"):
        small(early_stopping=True, random_state=states[0], validation_fraction=0.01).fit(X, y)
    np.testing.assert_array_equal(*(small(random_state=s).fit(X, y).coefs_[0] for s in states))


def test_names_of_columns_do_not_outlive_them():
    model = small().fit(pd.DataFrame(X, columns=list("abcdef")), y)
    model.fit(get_backend("array_api_strict").put(X[:, :3].copy()), y)
    assert not hasattr(model, "feature_names_in_")
    assert model.n_features_in_ == 3


def test_classes_of_several_at_once_are_kept():
    labels, model = np.eye(3, dtype=int)[y], small()
    for _ in range(2):
        model.partial_fit(X, labels, classes=[10, 20, 30])
    assert model.classes_.tolist() == [10, 20, 30]
    with pytest.raises(ValueError, match="classes has 2 entries"):
        small().partial_fit(X, labels, classes=[10, 20])


def test_one_warning_for_a_clipped_batch():
    told = "Got `batch_size` 1000 larger than the sample size 60"
    with pytest.warns(UserWarning, match=told) as caught:
        small(batch_size=1000).fit(X, y)
    assert sum("larger than the sample size" in str(each.message) for each in caught) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("precision", "float32"), ("input_scaling", "zca"), ("output_activation", "logistic")],
)
def test_what_a_warm_start_cannot_change_is_rejected(name, value):
    model = small(warm_start=True).fit(X, y).set_params(**{name: value})
    with pytest.raises(ValueError, match="warm_start=False"):
        model.fit(X, y)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_classifier_of_given_weights(n_classes):
    X, y = problem(classes=n_classes)
    names = np.asarray(["ant", "bee", "cat"])[:n_classes]
    model = small(hidden_layer_sizes=(5, 4), activation="tanh").fit(X, names[y])
    settings = {"classes": names, "activation": "tanh", "random_state": 3}
    made = MLPClassifier.from_weights(model.coefs_, model.intercepts_, **settings)
    np.testing.assert_array_equal(made.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(made.predict(X), model.predict(X))
    assert (made.hidden_layer_sizes, made.random_state) == ((5, 4), 3)
    before = made.coefs_[0].copy()
    assert (made.partial_fit(X, names[y]).coefs_[0] != before).any()


def test_a_regressor_of_given_weights_and_wrong_weights():
    model = small(MLPRegressor).fit(X, X[:, :2])
    made = MLPRegressor.from_weights(model.coefs_, model.intercepts_)
    np.testing.assert_array_equal(made.predict(X), model.predict(X))
    W, b = [np.zeros((2, 3))], [np.zeros(3)]
    for coefs, intercepts, classes, message in (
        (W, b, [0, 1, 2, 3], r"There are 4 classes, which need 4 outputs, .* has 3"),
        (W, b * 2, [0, 1, 2], "There are 1 coefs and 2 intercepts: give one of each"),
        (W * 2, b * 2, [0, 1, 2], r"coefs_\[1\] is of shape \(2, 3\), .* of shape \(3, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            MLPClassifier.from_weights(coefs, intercepts, classes=classes)
