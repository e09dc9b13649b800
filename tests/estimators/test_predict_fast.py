"""Prediction's short way: plain arrays skip scikit-learn's checks, and nothing else changes."""

import warnings
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import sklearn

from mlp_xp import MLPClassifier
from mlp_xp.estimators import validation
from mlp_xp.estimators.validation import check_x
from mlp_xp.nn.losses import SoftmaxCrossEntropy

N_FEATURES = 4
X = np.random.default_rng(1).standard_normal((6, N_FEATURES))


@pytest.fixture(scope="module")
def model():
    X = np.random.default_rng(0).standard_normal((30, N_FEATURES))
    settings = {"max_iter": 2, "learning_rate": "cosine", "random_state": 0}
    return MLPClassifier(5, **settings).fit(X, np.arange(30) % 3)


def outcome(model, X):
    """Return what a check returns, or how it fails, and what it warns of."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            X = check_x(model, X, reset=False)
        except Exception as error:
            result = type(error), str(error)
        else:
            result = type(X), X.dtype, X.shape, X.tobytes()
    return result, [(w.category, str(w.message)) for w in heard]


def cases():
    """Return inputs of all kinds, good and bad."""
    bad, both = X.copy(), X.copy()
    bad[2, 1], both[0, 0], both[1, 1] = np.nan, np.inf, -np.inf
    return {
        "float64": X,
        "float32": X.astype(np.float32),
        "uint8": np.abs(X).astype(np.uint8),
        "int64": X.astype(np.int64),
        "bool": X > 0,
        "float16": X.astype(np.float16),
        "big-endian": X.astype(">f8"),
        "complex": X + 1j,
        "objects": X.astype(object),
        "text": X.astype(str),
        "huge": np.full((2, N_FEATURES), 3e38, dtype=np.float32),
        "columns": np.asfortranarray(X),
        "every other row": X[::2],
        "every other column": np.repeat(X, 2, axis=1)[:, ::2],
        "read-only": np.broadcast_to(X[0], X.shape),
        "one row": X[:1],
        "no rows": X[:0],
        "no columns": X[:, :0],
        "too many columns": np.hstack([X, X]),
        "one axis": X[0],
        "three axes": X[None],
        "NaN": bad,
        "NaN in float32": bad.astype(np.float32),
        "infinity of both signs": both,
        "NaN in columns": np.asfortranarray(bad),
        "masked": np.ma.masked_array(X, X > 0),
        "list": X.tolist(),
        "frame": pd.DataFrame(X),
        "frame with names": pd.DataFrame(X, columns=list("abcd")),
    }


@pytest.mark.parametrize("assume_finite", [False, True])
def test_the_short_way_ends_where_the_long_one_does(model, assume_finite, monkeypatch):
    with sklearn.config_context(assume_finite=assume_finite):
        short = {name: outcome(model, given) for name, given in cases().items()}
        monkeypatch.setattr(validation, "_is_plain", lambda *_: False)
        for name, given in cases().items():
            assert short[name] == outcome(model, given), name


def test_plain_arrays_take_it_and_are_not_copied(model, monkeypatch):
    monkeypatch.setattr(validation, "validate_data", None)
    for dtype in ("float64", "float32", "uint8"):
        for order in "CF":
            plain = np.ones((3, N_FEATURES), dtype=dtype, order=order)
            assert check_x(model, plain, reset=False) is plain


def test_it_is_not_for_models_that_know_names_which_a_fit_forgets(model, monkeypatch):
    frame = pd.DataFrame(np.eye(N_FEATURES), columns=list("abcd"))
    named = sklearn.clone(model).fit(frame, [0, 1, 2, 0])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        named.predict(np.eye(N_FEATURES))
    monkeypatch.setattr(validation, "validate_data", None)
    check_x(named, np.eye(3), reset=True)
    assert named.n_features_in_ == 3
    assert not hasattr(named, "feature_names_in_")


def test_predictions_follow_weights_that_are_edited_or_replaced(model):
    model = deepcopy(model)
    model.predict_proba(X)
    model.intercepts_[-1][:] = [1e3, 0.0, 0.0]
    np.testing.assert_array_equal(model.predict(X), 0)
    model.intercepts_[-1] = np.asarray([0.0, 1e3, 0.0])
    np.testing.assert_array_equal(model.predict(X), 1)
    model.intercepts_ = [model.intercepts_[0], np.asarray([0.0, 0.0, 1e3], dtype=np.float32)]
    np.testing.assert_array_equal(model.predict(X), 2)
    model.coefs_ = [W.astype(np.float32) for W in model.coefs_]
    assert model.predict_proba(X).dtype == np.float64


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8"])
def test_batches_and_rows_one_by_one_give_the_same(model, dtype):
    X = np.random.default_rng(3).integers(0, 9, (2500, N_FEATURES)).astype(dtype)
    whole = model.predict_proba(X)
    for row in (0, 1023, 1024, 2499):
        np.testing.assert_allclose(model.predict_proba(X[row : row + 1])[0], whole[row], rtol=1e-9)


def test_labels_are_those_of_the_largest_probability_and_need_no_softmax(model, monkeypatch):
    X = np.random.default_rng(2).standard_normal((500, N_FEATURES))
    others = deepcopy(model)
    others.out_activation_ = "logistic"
    likely = [m.classes_[np.argmax(m.predict_proba(X), axis=1)] for m in (model, others)]

    def activate(self, logits, *, xp):
        raise AssertionError("A softmax is a tenth of the time of sparse rows.")

    monkeypatch.setattr(SoftmaxCrossEntropy, "activate", activate)
    for each, labels in zip((model, others), likely, strict=True):
        np.testing.assert_array_equal(each.predict(X), labels)
