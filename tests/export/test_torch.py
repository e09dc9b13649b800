"""PyTorch modules predict what their estimators do, and become estimators again."""

import numpy as np
import pytest
from problems import REAL, TARGETS, X, Y, fitted

from mlp_xp import MLPClassifier
from mlp_xp.augmentation import Flip
from mlp_xp.export import from_torch, to_torch
from mlp_xp.nn.losses import Quantile

pytestmark = pytest.mark.matrix


@pytest.fixture(autouse=True)
def nn(torch):
    return torch.nn


def outputs(model, rows, **settings):
    import torch

    return to_torch(model, **settings)(torch.from_numpy(rows)).detach().numpy()


@pytest.mark.parametrize("what", REAL)
def test_torch_modules_return_quantiles_and_standard_deviations(what):
    model, rows = fitted(what, loss=Quantile((0.1, 0.9)))
    found = outputs(model, rows, activate=True).reshape(len(rows), 2, -1)
    expected = model.predict(rows, quantiles=(0.1, 0.9)).reshape(len(rows), -1, 2)
    np.testing.assert_allclose(found, expected.transpose(0, 2, 1), atol=1e-12)
    many, _ = fitted(what, n_members=3, target_scaling="standardize")
    width = 1 if what == "value" else 2
    assert outputs(many, rows).shape == (len(rows), 3 * width)
    expected = many.predict(rows).reshape(len(rows), width)
    np.testing.assert_allclose(outputs(many, rows, activate=True), expected, atol=1e-12)
    model, rows = fitted(what, loss="gaussian")
    pair = [values.reshape(len(rows), -1) for values in model.predict(rows, return_std=True)]
    np.testing.assert_allclose(outputs(model, rows, activate=True), np.hstack(pair), atol=1e-12)


@pytest.mark.parametrize("what", ["two classes", "several", *REAL])
def test_torch_round_trip_preserves_other_targets(what):
    model, rows = fitted(what)
    found = outputs(model, rows, activate=True)
    expected = model.predict(rows) if what in REAL else model.predict_proba(rows)
    expected = expected.reshape(len(rows), -1)[:, -found.shape[1] :]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    if what != "several":
        classes = None if what in REAL else np.unique(TARGETS[what])
        back = from_torch(to_torch(model), classes)
        np.testing.assert_array_equal(back.predict(rows), model.predict(rows))


def test_exported_module_can_be_trained_and_starts_in_eval_mode(torch, nn):
    model, rows = fitted(dropout=0.5)
    module = to_torch(model)
    assert not module.training
    optimizer = torch.optim.SGD(module.train().parameters(), lr=0.1)
    nn.functional.cross_entropy(module(torch.from_numpy(rows)), torch.from_numpy(Y)).backward()
    optimizer.step()
    for name, parameter in module.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    # The estimator has its own arrays.
    np.testing.assert_allclose(outputs(model, rows), fitted(dropout=0.5)[0].logits(rows))


@pytest.mark.parametrize("normalization", [None, "layer", "batch"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "elu", "leaky_relu", ("tanh", "identity")])
def test_torch_round_trip_preserves_predictions(normalization, activation):
    model, rows = fitted(normalization=normalization, activation=activation, dropout=(0.1, 0.0))
    back = from_torch(to_torch(model, activate=True), classes=[0, 1, 2])
    np.testing.assert_array_equal(back.predict_proba(rows), model.predict_proba(rows))
    names = ("activation", "normalization", "dropout", "hidden_layer_sizes")
    assert [getattr(back, name) for name in names] == [getattr(model, name) for name in names]
    # It can be trained further.
    back.set_params(warm_start=True, max_iter=1, learning_rate="cosine").fit(rows, Y)


def test_from_torch_converts_a_foreign_module(torch, nn):
    hidden = nn.Linear(12, 5, bias=False)
    module = nn.Sequential(nn.Flatten(), hidden, nn.ReLU(inplace=True), nn.Linear(5, 3))
    model = from_torch(module.double(), classes=["a", "b", "c"])
    logits = module(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(model.logits(X), logits, atol=1e-12)
    assert from_torch(nn.Linear(2, 1)).predict(np.zeros((3, 2), "float32")).shape == (3,)
    module.append(nn.Sigmoid())
    outputs = module(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(from_torch(module).predict(X), outputs, atol=1e-12)
    model = from_torch(module, classes=["a", "b", "c"])
    expected = outputs / outputs.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-12)
    with pytest.raises(ValueError, match=r"LogSoftmax.*no regressor has: pass classes"):
        from_torch(nn.Sequential(nn.Linear(2, 2), nn.LogSoftmax()))


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (lambda nn, dense: [], "must be a Sequential whose last layer is a Linear"),
        (lambda nn, dense: [dense, nn.ReLU()], "whose last layer is a Linear"),
        (lambda nn, dense: [nn.Conv1d(1, 1, 1), dense], "Conv1d.* is not part of"),
        (lambda nn, dense: [dense, nn.GELU(), dense], "GELU with approximate"),
        (lambda nn, dense: [dense, nn.LeakyReLU(0.3), dense], "default settings"),
        (lambda nn, dense: [dense, nn.LayerNorm(2, 1e-3), dense], "must have eps=1e-5"),
        (lambda nn, dense: [dense, nn.LayerNorm(2, bias=False), dense], "a weight and a bias"),
        (
            lambda nn, dense: [dense, nn.BatchNorm1d(2, track_running_stats=False), dense],
            "no running statistics",
        ),
        (lambda nn, dense: [dense, nn.LayerNorm(2), dense, dense], "kind after every hidden layer"),
    ],
)
def test_from_torch_rejects_unsupported_modules(nn, modules, message):
    with pytest.raises(ValueError, match=message):
        from_torch(nn.Sequential(*modules(nn, nn.Linear(2, 2))), classes=[0, 1])


def test_from_torch_and_to_torch_reject_inconsistent_settings(nn):
    with pytest.raises(ValueError, match=r"classes has 2 entries.* give 3 labels"):
        from_torch(nn.Linear(2, 3), classes=["a", "b"])
    assert isinstance(from_torch(nn.Linear(2, 1), classes=[0, 1]), MLPClassifier)
    model, _ = fitted(tta=Flip((1, 3, 4)))
    with pytest.raises(ValueError, match="does not support test-time augmentation: set tta=None"):
        to_torch(model)


def test_activation_without_a_torch_module_is_exported_as_its_formula(torch, monkeypatch):
    from mlp_xp.export import _torch_modules  # Imports torch.

    monkeypatch.delitem(_torch_modules._ACTIVATIONS, "mish")
    model, rows = fitted(activation="mish")
    module = to_torch(model, activate=True)
    found = module(torch.from_numpy(rows))
    np.testing.assert_allclose(found.detach().numpy(), model.predict_proba(rows), atol=1e-12)
    found.sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
