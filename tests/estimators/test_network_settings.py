"""Settings of the network: activations, dropout, normalization and residual layers."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import problem, small
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_html_repr

from mlp_xp import MLPClassifier, MLPEnsembleClassifier, MLPRegressor
from mlp_xp.nn.layers import tanh
from mlp_xp.optimizers import Muon
from mlp_xp.optimizers.schedules import OneCycle

X, y = problem()


def test_a_users_own_activation(backend):
    def square(x, *, xp):
        return x * x, lambda dy: 2.0 * x * dy

    def wrong(x, *, xp):
        return x * x, lambda dy: x * dy

    settings = {"hidden_layer_sizes": (8, 8), "activation": [square, "relu"]}
    expected = small(**settings).fit(X, y)
    model = small(**settings).fit(backend.put(X), y)
    np.testing.assert_allclose(model.loss_curve_, expected.loss_curve_, rtol=1e-8)
    with pytest.raises(ValueError, match=r"wrong.*finite difference"):
        small(activation=wrong).fit(backend.put(X), y)
    own = small(activation=lambda x, *, xp: tanh(x, xp=xp)).fit(X, y)
    np.testing.assert_array_equal(own.coefs_[0], small(activation="tanh").fit(X, y).coefs_[0])


def test_dropout_is_for_training_only():
    model = small(dropout=0.5).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), model.predict_proba(X))
    assert model.loss_curve_ != small().fit(X, y).loss_curve_
    assert model.loss_curve_ == small(dropout=0.5).fit(X, y).loss_curve_


@pytest.mark.parametrize("normalization", ["layer", "batch"])
def test_normalization_has_parameters_that_learn(normalization):
    model = small(normalization=normalization).fit(X, y)
    ((scale, shift),) = model.norms_
    assert scale.shape == shift.shape == (8,)
    assert np.any(scale != 1)
    # Each sample is predicted on its own.
    np.testing.assert_allclose(model.predict_proba(X[:1]), model.predict_proba(X)[:1], atol=1e-12)
    if normalization == "batch":
        assert not np.allclose(model.moments_[0].mean, 0.0)


def test_a_small_last_batch_does_not_ruin_the_running_moments():
    settings = {"normalization": "batch", "max_iter": 60, "learning_rate_init": 0.01}
    whole = small(**settings).fit(X[:32], y[:32])
    one_more = small(**settings).fit(X[:33], y[:33])
    expected = whole.evaluate(X[:32], y[:32])["loss"]
    assert one_more.evaluate(X[:33], y[:33])["loss"] < 2 * expected


def test_a_residual_layer_adds_its_input():
    model = small(hidden_layer_sizes=(5, 5), residual=True).fit(X, y)
    first = model.hidden_activations(X, 0)
    added = np.maximum(first @ model.coefs_[1] + model.intercepts_[1], 0)
    np.testing.assert_allclose(model.hidden_activations(X, 1), first + added, rtol=1e-10)


def test_hidden_activations(backend):
    model = small(hidden_layer_sizes=(8, 5), activation=["tanh", "relu"]).fit(X, y)
    first = np.tanh(X @ model.coefs_[0] + model.intercepts_[0])
    second = np.maximum(first @ model.coefs_[1] + model.intercepts_[1], 0)
    for layer, expected in ((0, first), (1, second), (-1, second), (-2, first)):
        found = model.hidden_activations(backend.put(X), layer)
        assert backend.holds(found)
        np.testing.assert_allclose(backend.get(found), expected, atol=1e-12)
    with pytest.raises(IndexError, match="layer is 2, and there are 2 hidden layers"):
        model.hidden_activations(X, 2)


def everything(normalization="batch"):
    """Return a model that uses most settings at once."""
    return small(
        hidden_layer_sizes=(8, 8),
        dropout=[0.1, 0.2],
        input_dropout=0.1,
        normalization=normalization,
        residual=True,
        activation=["gelu", "relu"],
        solver=Muon(),
        learning_rate=OneCycle(),
        max_grad_norm=1.0,
        ema_decay=0.9,
        input_scaling="standardize",
    )


@pytest.mark.parametrize("normalization", ["batch", "layer"])
def test_all_settings_at_once_give_the_same_numbers_on_every_backend(backend, normalization):
    X_here = backend.put(X)
    expected = everything(normalization).fit(X, y)
    model = everything(normalization).fit(X_here, y)
    np.testing.assert_allclose(model.loss_curve_, expected.loss_curve_, rtol=1e-7)
    p = backend.get(model.predict_proba(X_here))
    np.testing.assert_allclose(p, expected.predict_proba(X), atol=1e-7)
    # Training continues from a pickle.
    opened = pickle.loads(pickle.dumps(model))  # noqa: S301
    assert isinstance(opened.coefs_[0], np.ndarray)
    if normalization == "batch":
        assert isinstance(opened.moments_[0].mean, np.ndarray)
    np.testing.assert_allclose(opened.predict_proba(X), p, atol=1e-10)
    for each in (model, opened):
        each.partial_fit(X_here, y)
    np.testing.assert_allclose(opened.loss_, model.loss_, rtol=1e-10)


def test_a_copy_moves_to_another_library_and_back(backend):
    model = everything().fit(X, y)
    there = model.to(backend.name, backend.device)
    assert all(map(backend.holds, there.coefs_))
    assert all(backend.holds(norm.scale) for norm in there.norms_)
    assert isinstance(there.predict_proba(X), np.ndarray)
    np.testing.assert_allclose(there.predict_proba(X), model.predict_proba(X), atol=1e-10)
    back = there.to("numpy")
    assert isinstance(back.coefs_[0], np.ndarray)
    assert isinstance(model.coefs_[0], np.ndarray), "the original moved"
    np.testing.assert_array_equal(back.coefs_[0], model.coefs_[0])


def test_summary_and_html():
    model = everything().fit(X, y)
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


class _Metadata:
    """A package whose ``pyproject.toml`` has the address of a site."""

    def get_all(self, name, default):
        urls = ["Source, https://example.org/code", "Documentation, https://example.org/docs/"]
        return urls if name == "Project-URL" else default


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor, MLPEnsembleClassifier])
def test_a_notebook_describes_each_parameter_and_links_to_it_once_there_is_an_address(
    kind, monkeypatch
):
    parameters = set(kind().get_params(deep=False))
    for page in (kind()._repr_html_(), make_pipeline(kind())._repr_html_()):
        descriptions = dict(re.findall(r'param-doc-description"[^>]*>\s*(\w+): (.*)</span>', page))
        assert parameters <= set(descriptions)
        assert all("<br><br>" in text for text in descriptions.values())
        assert 'href="#' not in page  # No address, so no link.
    reference = Path(__file__).parents[2] / "docs" / "reference" / "estimators.rst"
    assert f"   {kind.__name__}\n" in reference.read_text()
    monkeypatch.setattr("importlib.metadata.metadata", lambda name: _Metadata())
    page = kind()._repr_html_()
    address = f"https://example.org/docs/reference/generated/mlp_xp.{kind.__name__}.html"
    assert f'href="{address}"' in page
    assert page.count(f"{address}#:~:text=") == len(parameters)
