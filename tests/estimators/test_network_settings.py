"""Settings of the network: activations, dropout, normalization and residual layers."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import small
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_html_repr

from mlp_xp import MLPClassifier, MLPEnsembleClassifier, MLPRegressor, get_backend
from mlp_xp.nn.layers import tanh
from mlp_xp.optimizers import Muon
from mlp_xp.optimizers.schedules import OneCycle


def test_a_users_own_activation(problem, backend):
    def square(x, *, xp):
        return x * x, lambda dy: 2.0 * x * dy

    def wrong(x, *, xp):
        return x * x, lambda dy: x * dy

    X, y = problem()
    settings = {"hidden_layer_sizes": (8, 8), "activation": [square, "relu"]}
    expected = small(**settings).fit(X, y)
    model = small(**settings).fit(backend.put(X), y)
    np.testing.assert_allclose(model.loss_curve_, expected.loss_curve_, rtol=1e-8)
    with pytest.raises(ValueError, match=r"wrong.*finite difference"):
        small(activation=wrong).fit(backend.put(X), y)
    own = small(activation=lambda x, *, xp: tanh(x, xp=xp)).fit(X, y)
    np.testing.assert_array_equal(own.coefs_[0], small(activation="tanh").fit(X, y).coefs_[0])


def test_dropout_is_for_training_only(problem):
    X, y = problem()
    model = small(dropout=0.5).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), model.predict_proba(X))
    assert model.loss_curve_ != small().fit(X, y).loss_curve_
    again = small(dropout=0.5).fit(X, y)
    assert model.loss_curve_ == again.loss_curve_


def test_batch_norm_predicts_each_sample_on_its_own(problem):
    X, y = problem()
    model = small(normalization="batch").fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X[:1]), model.predict_proba(X)[:1], atol=1e-12)
    assert not np.allclose(model.moments_[0].mean, 0.0)


@pytest.mark.parametrize("normalization", ["layer", "batch"])
def test_normalization_has_parameters_that_learn(problem, normalization):
    X, y = problem()
    model = small(normalization=normalization).fit(X, y)
    ((scale, shift),) = model.norms_
    assert scale.shape == shift.shape == (8,)
    assert np.any(scale != 1)


def test_a_residual_layer_adds_its_input(problem):
    X, y = problem()
    model = small(hidden_layer_sizes=(5, 5), residual=True).fit(X, y)
    first = model.hidden_activations(X, 0)
    added = np.maximum(first @ model.coefs_[1] + model.intercepts_[1], 0)
    np.testing.assert_allclose(model.hidden_activations(X, 1), first + added, rtol=1e-10)


def test_hidden_activations(problem, backend):
    X, y = problem()
    model = small(hidden_layer_sizes=(8, 5), activation=["tanh", "relu"]).fit(X, y)
    first = np.tanh(X @ model.coefs_[0] + model.intercepts_[0])
    second = np.maximum(first @ model.coefs_[1] + model.intercepts_[1], 0)
    for layer, expected in ((0, first), (1, second), (-1, second), (-2, first)):
        found = model.hidden_activations(backend.put(X), layer)
        assert backend.holds(found)
        np.testing.assert_allclose(backend.get(found), expected, atol=1e-12)
    with pytest.raises(IndexError, match="layer is 2, and there are 2 hidden layers"):
        model.hidden_activations(X, 2)


def everything():
    """Return settings that use most features at once."""
    return {
        "hidden_layer_sizes": (8, 8),
        "dropout": [0.1, 0.2],
        "input_dropout": 0.1,
        "normalization": "batch",
        "residual": True,
        "activation": ["gelu", "relu"],
        "solver": Muon(),
        "learning_rate": OneCycle(),
        "max_grad_norm": 1.0,
        "ema_decay": 0.9,
        "input_scaling": "standardize",
    }


@pytest.mark.parametrize("normalization", ["batch", "layer"])
def test_all_settings_at_once_give_the_same_numbers_on_every_backend(
    problem, backend, normalization
):
    X, y = problem()
    settings = everything() | {"normalization": normalization}
    expected = small(**settings).fit(X, y)
    model = small(**settings).fit(backend.put(X), y)
    np.testing.assert_allclose(model.loss_curve_, expected.loss_curve_, rtol=1e-7)
    p = get_backend(model.coefs_[0]).get(model.predict_proba(backend.put(X)))
    np.testing.assert_allclose(p, expected.predict_proba(X), atol=1e-7)


def test_a_copy_moves_to_another_library_and_back(problem, backend):
    X, y = problem()
    model = small(**everything()).fit(X, y)
    there = model.to(backend.name, backend.device)
    assert all(map(backend.holds, there.coefs_))
    assert all(backend.holds(norm.scale) for norm in there.norms_)
    assert isinstance(there.predict_proba(X), np.ndarray)
    np.testing.assert_allclose(there.predict_proba(X), model.predict_proba(X), atol=1e-10)
    back = there.to("numpy")
    assert isinstance(back.coefs_[0], np.ndarray)
    assert isinstance(model.coefs_[0], np.ndarray), "the original moved"
    np.testing.assert_array_equal(back.coefs_[0], model.coefs_[0])


def test_training_continues_from_a_pickle(problem, backend):
    X, y = problem()
    model = small(**everything()).fit(backend.put(X), y)
    opened = pickle.loads(pickle.dumps(model))  # noqa: S301
    assert isinstance(opened.coefs_[0], np.ndarray)
    assert isinstance(opened.moments_[0].mean, np.ndarray)
    np.testing.assert_allclose(
        opened.predict_proba(X),
        backend.get(model.predict_proba(backend.put(X))),
        atol=1e-10,
    )
    for each in (model, opened):
        each.partial_fit(backend.put(X), y)
    np.testing.assert_allclose(opened.loss_, model.loss_, rtol=1e-10)


def test_summary_and_html(problem):
    X, y = problem()
    model = small(**everything()).fit(X, y)
    text = str(model.summary())
    for words in ("residual, dense", "batch normalization", "gelu", "dropout 0.2", "output: dense"):
        assert words in text
    learned = sum(W.size for W in model.coefs_) + sum(b.size for b in model.intercepts_)
    learned += sum(norm.scale.size + norm.shift.size for norm in model.norms_)
    assert model.summary().parameters == learned
    assert re.search(rf"in all +{learned:,}\b", text)
    assert model.summary().work == 2 * sum(W.size for W in model.coefs_)
    page = model._repr_html_()
    box = page.partition('<div class="mlp-xp-box">')[2]
    assert estimator_html_repr(model)[:20] == box[:20]
    assert "batch normalization" in page
    assert "batch normalization" not in clone(model)._repr_html_()


@pytest.mark.parametrize("estimator", [MLPClassifier, MLPRegressor, MLPEnsembleClassifier])
def test_a_notebook_shows_the_description_of_each_parameter(estimator):
    for page in (estimator()._repr_html_(), make_pipeline(estimator())._repr_html_()):
        descriptions = dict(re.findall(r'param-doc-description"[^>]*>\s*(\w+): (.*)</span>', page))
        assert set(estimator().get_params(deep=False)) <= set(descriptions)
        assert all("<br><br>" in text for text in descriptions.values())
        assert 'href="#' not in page  # No address, so no link.


class _Metadata:
    """A package whose ``pyproject.toml`` has the address of a site."""

    def get_all(self, name, default):
        urls = ["Source, https://example.org/code", "Documentation, https://example.org/docs/"]
        return urls if name == "Project-URL" else default


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor, MLPEnsembleClassifier])
def test_a_notebook_links_to_the_documentation_once_it_has_an_address(kind, monkeypatch):
    reference = Path(__file__).parents[2] / "docs" / "reference" / "estimators.rst"
    assert f"   {kind.__name__}\n" in reference.read_text()
    monkeypatch.setattr("importlib.metadata.metadata", lambda name: _Metadata())
    page = kind()._repr_html_()
    address = f"https://example.org/docs/reference/generated/mlp_xp.{kind.__name__}.html"
    assert f'href="{address}"' in page
    assert page.count(f"{address}#:~:text=") == len(kind().get_params(deep=False))
