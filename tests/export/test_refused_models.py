"""Objects that cannot be exported are refused by messages that say what to do."""

from __future__ import annotations

import sys

import pytest
from helpers import case
from problems import X, Y, fitted
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier as Theirs
from sklearn.pipeline import make_pipeline

from mlp_xp import MLPClassifier, MLPEnsembleClassifier
from mlp_xp.export import from_torch, register_skl2onnx, to_onnx, to_sklearn, to_torch

WAYS = {"sklearn": to_sklearn, "onnx": to_onnx, "torch": to_torch}


def test_other_objects(export):
    expected = r"must be an estimator or ensemble of mlp_xp\. .* pipeline\[-1\] or search"
    pipeline, search = make_pipeline(MLPClassifier()), GridSearchCV(MLPClassifier(), {})
    for model in (pipeline, search, Theirs(), None):
        with case(model), pytest.raises(TypeError, match=expected):
            WAYS[export](model)


def test_estimators_that_are_not_fitted(export):
    with pytest.raises(NotFittedError):
        WAYS[export](MLPClassifier())


def test_ensembles_have_several_networks(export):
    ensemble = MLPEnsembleClassifier(fitted()[0], 2, random_state=0)
    if export == "onnx":
        with pytest.raises(NotFittedError):
            WAYS[export](ensemble)
        return
    ensemble.fit(X, Y)
    with pytest.raises(TypeError, match=r"of several networks: .* each of its estimators_"):
        WAYS[export](ensemble)


@pytest.mark.parametrize(
    ("call", "library", "extra"),
    [
        (lambda: to_onnx(fitted()[0]), "onnx", "onnx"),
        (lambda: to_torch(fitted()[0]), "torch", "torch"),
        (lambda: from_torch(None), "torch", "torch"),
        (register_skl2onnx, "skl2onnx", "onnx"),
    ],
    ids=["to_onnx", "to_torch", "from_torch", "register_skl2onnx"],
)
def test_without_a_library_the_error_says_what_to_install(call, library, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf'pip install -e ".*\[{extra}\]"'):
        call()
