"""Objects that cannot be exported are refused by messages that say what to do."""

from __future__ import annotations

import pytest
from problems import X, Y, fitted
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier as Theirs
from sklearn.pipeline import make_pipeline

from mlp_xp import MLPClassifier, MLPEnsembleClassifier
from mlp_xp.export import to_onnx, to_sklearn, to_torch

WAYS = {"onnx": to_onnx, "torch": to_torch, "sklearn": to_sklearn}


@pytest.fixture(params=WAYS)
def export(request):
    for name in {"onnx": ("ndonnx", "onnx"), "torch": ("torch",)}.get(request.param, ()):
        pytest.importorskip(name)
    return WAYS[request.param]


@pytest.mark.parametrize(
    "model",
    [make_pipeline(MLPClassifier()), GridSearchCV(MLPClassifier(), {}), Theirs(), None],
    ids=lambda model: type(model).__name__,
)
def test_other_objects(export, model):
    expected = r"must be an estimator or ensemble of mlp_xp\. .* pipeline\[-1\] or search"
    with pytest.raises(TypeError, match=expected):
        export(model)


def test_estimators_that_are_not_fitted(export):
    with pytest.raises(NotFittedError):
        export(MLPClassifier())


def test_ensembles_have_several_networks(export):
    ensemble = MLPEnsembleClassifier(fitted()[0], 2, random_state=0)
    if export is to_onnx:
        with pytest.raises(NotFittedError):
            export(ensemble)
        return
    ensemble.fit(X, Y)
    with pytest.raises(TypeError, match=r"of several networks: .* each of its estimators_"):
        export(ensemble)
