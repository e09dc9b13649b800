"""Predictions keep the weights on the device, as long as nobody can have changed them."""

import pickle
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import make_backend, problem, small

from mlp_xp import MLP, MLPRegressor

X, Y = problem()
pytestmark = pytest.mark.libraries("array_api_strict", "torch", "jax", "cupy")


@pytest.fixture
def backend(backend_spec):
    """Return a backend; of array-api-strict, a device that does not share the host's memory."""
    strict = "array_api_strict"
    return make_backend(f"{strict}:device1" if backend_spec == strict else backend_spec)


@pytest.fixture
def puts(backend, monkeypatch):
    """Count what is copied to the device, by shape."""
    if backend.shares_host_memory and not backend.fixed_shapes:
        pytest.skip("weights are where the computation is")
    counts, kind = Counter(), type(backend)
    put = kind.put

    def counted(self, array, dtype=None):
        if not self.owns(array):
            counts[np.shape(array)] += 1
        return put(self, array, dtype)

    monkeypatch.setattr(kind, "put", counted)
    return counts


def fitted(backend, estimator=MLP, **settings):
    device = backend.device
    if backend.name == "jax":  # Its own cannot be pickled.
        device = f"{device.platform}:{device.id}"
    return small(estimator, backend=backend.name, device=device, **settings).fit(X, Y)


def uploads(puts, action):
    """Return how often the first layer's weights travel, (6, 8)."""
    puts.clear()
    action()
    return puts[6, 8]


METHODS = ("predict", "predict_proba", "predict_log_proba", "logits", "hidden_activations")


def test_weights_are_copied_to_the_device_once(backend, puts):
    model = fitted(backend, normalization="batch", input_scaling="standardize")
    assert uploads(puts, lambda: model.predict(X)) == 1
    for method in METHODS:
        assert uploads(puts, lambda name=method: getattr(model, name)(X)) == 0, method
    assert uploads(puts, lambda: model.score(X, Y)) == uploads(puts, lambda: model.evaluate(X, Y))
    # Weights, and vectors of 8 and 6 numbers: statistics, scaling and biases.
    assert puts[6, 8] == puts[8,] == puts[6,] == 0
    model = fitted(backend, MLPRegressor)
    assert [uploads(puts, lambda: model.predict(X)) for _ in range(3)] == [1, 0, 0]


def flip_an_entry(model):
    model.coefs_[0] = -model.coefs_[0]
    return model


CHANGES = {
    "fit": lambda model: model.set_params(random_state=7).fit(X, Y),
    "partial_fit": lambda model: model.partial_fit(X, Y),
    "warm start": lambda model: model.set_params(warm_start=True).fit(X, Y),
    "an entry": flip_an_entry,
    "the list": lambda model: setattr(model, "coefs_", [-W for W in model.coefs_]) or model,
    "pickle": lambda model: pickle.loads(pickle.dumps(flip_an_entry(model))),  # noqa: S301
}


@pytest.mark.parametrize("change", CHANGES)
def test_predictions_use_changed_weights(backend, puts, change):
    model = fitted(backend)
    before = model.logits(X)
    model = CHANGES[change](model)
    there = model.logits(X)
    assert np.abs(there - before).max() > 1e-3
    np.testing.assert_allclose(there, model.to("numpy").logits(X), rtol=1e-4, atol=1e-5)


def test_predictions_follow_in_place_changes_of_weights(backend, puts):
    model = fitted(backend)
    model.predict(X)
    weights = model.coefs_[-1]
    model.predict(X)
    for value in (0.0, 1.0):  # Written by a caller who already had the array.
        weights[:] = value
        assert np.ptp(model.logits(X) - model.intercepts_[-1], axis=1).max() < 1e-5
    # Arrays that were read are kept again after a fit.
    assert [uploads(puts, lambda: model.predict(X)) for _ in range(2)] == [1, 1]
    model.partial_fit(X, Y)
    assert [uploads(puts, lambda: model.predict(X)) for _ in range(2)] == [1, 0]


def test_changes_to_assigned_weights_change_predictions(backend, puts):
    theirs = [np.ones((6, 8)), np.ones((8, 3))]
    model = small(backend=backend.name, device=backend.device)
    model.coefs_, model.intercepts_ = theirs, [np.zeros(8), np.zeros(3)]
    model.classes_ = np.arange(3)
    assert np.ptp(model.logits(X), axis=1).max() < 1e-5
    theirs[1][:, 0] = 2.0
    assert np.ptp(model.logits(X), axis=1).max() > 1e-3
    theirs[1][0, 0] = np.nan
    with pytest.raises(ValueError, match=r"coefs_\[1\] has infinity or NaN"):
        model.logits(X)
    model, theirs = fitted(backend), [np.ones((6, 8)), np.ones((8, 3))]
    model.coefs_ = theirs
    model.predict(X)
    theirs[-1][:] = 0.0
    assert np.ptp(model.logits(X), axis=0).max() == 0.0


@pytest.mark.libraries("cupy")
def test_predictions_on_another_stream_wait_for_the_copy(backend):
    """No wait is needed if the copy was done before the first use of the weights."""
    import cupy

    model, x = fitted(backend), backend.put(X)
    expected = model.predict_proba(x)
    with backend.device, cupy.cuda.Stream(non_blocking=True) as stream:
        there = model.predict_proba(x)
        stream.synchronize()
    np.testing.assert_array_equal(backend.get(there), backend.get(expected))


def test_a_pickle_contains_no_device_copies(backend, puts):
    model = fitted(backend)
    before = len(pickle.dumps(model))
    model.predict(X)
    stored = pickle.dumps(model)
    assert len(stored) == before
    again = pickle.loads(stored)  # noqa: S301
    assert [uploads(puts, lambda: again.predict(X)) for _ in range(2)] == [1, 0]


def test_concurrent_predictions_copy_weights_once(backend, puts, monkeypatch):
    model, start, put = fitted(backend), threading.Barrier(6), type(backend).put
    expected = model.to("numpy").predict(X)

    def slow_put(*args):
        time.sleep(0.01)  # Longer than the threads take to get here.
        return put(*args)

    def predict(_):
        start.wait()
        return model.predict(X)

    monkeypatch.setattr(type(backend), "put", slow_put)
    puts.clear()
    with ThreadPoolExecutor(6) as pool:
        for labels in pool.map(predict, range(6)):
            np.testing.assert_array_equal(labels, expected)
    assert puts[6, 8] == 1


def test_moved_model_has_its_own_device_copies(backend, puts):
    model = fitted(backend)
    model.predict(X)
    moved = model.to(backend.name, backend.device)
    for each in (moved, model):  # The weights are already on the device.
        assert uploads(puts, lambda each=each: each.predict(X)) == 0
    with backend.scope():
        moved.coefs_[0] = -moved.coefs_[0]
    np.testing.assert_array_equal(model.predict(X), model.to("numpy").predict(X))


def test_a_network_without_coefs_predicts_after_its_weights_are_read():
    model = small().set_params(n_members=2).fit(X, Y)
    expected = model.predict_proba(X)
    assert not hasattr(model, "coefs_")
    assert model.other_weights_
    np.testing.assert_array_equal(model.predict_proba(X), expected)
    del model.other_weights_
    with pytest.raises(AttributeError, match="other_weights_ was deleted: assign it, or fit again"):
        model.predict(X)


@pytest.mark.parametrize("name", ["coefs_", "intercepts_", "norms_", "moments_"])
def test_missing_fitted_attributes_raise_attribute_error(name):
    model = small()
    with pytest.raises(AttributeError, match=f"'MLPClassifier' object has no attribute '{name}'"):
        getattr(model, name)
    with pytest.raises(AttributeError):
        delattr(model, name)
    del model.fit(X, Y).coefs_
    assert not hasattr(model, "coefs_")
    with pytest.raises(AttributeError, match="coefs_ was deleted: assign it, or fit again"):
        model.predict(X)
