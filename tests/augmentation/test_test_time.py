"""Test-time augmentation: predictions averaged over views."""

import copy
from dataclasses import dataclass

import numpy as np
import pytest
from helpers import small, tolerance
from image_data import BOTH, EVERYTHING, FEATURES, SHAPE, C, H, N, W, images, labels
from sklearn.base import clone

from mlp_xp import MLPRegressor
from mlp_xp.augmentation import ColorJitter, Cutout, Flip, Mixup, Shift
from mlp_xp.saving import load_model, save_model


def test_held_out_samples_are_left_alone():
    x, y = images(), labels()
    settings = {"augmentation": EVERYTHING, "max_iter": 1, "input_scaling": "standardize"}
    model = small(tta=Flip(SHAPE), **settings).fit(x, y, X_val=x, y_val=y)
    assert model.validation_loss_curve_[0] != pytest.approx(model.evaluate(x, y)["loss"], rel=1e-6)
    plain = model.set_params(tta=None).evaluate(x, y)["loss"]
    assert model.validation_loss_curve_[0] == pytest.approx(plain, rel=1e-6)


def views_by_hand(x):
    """Return the views: unchanged and mirrored, each in place and up, down, left and right."""
    p, views = x.reshape(-1, C, H, W), []
    for side in (p, p[..., ::-1]):
        wide = np.pad(side, ((0, 0), (0, 0), (1, 1), (1, 1)), "reflect")
        for i, j in ((1, 1), (2, 1), (0, 1), (1, 2), (1, 0)):
            views.append(wide[:, :, i : i + H, j : j + W].reshape(x.shape))
    return views


@pytest.mark.parametrize("size", [8, 1000])
def test_averages_are_those_of_hand_made_views(backend, size, monkeypatch):
    import mlp_xp.training.inference as inference

    for name in ("_BATCH", "_HOST_BATCH"):
        monkeypatch.setattr(inference, name, size)
    x, y = images(), labels()
    model = small(backend=backend.name, device=backend.device).fit(x, y)
    expected = np.mean([model.predict_proba(view) for view in views_by_hand(x)], axis=0)
    atol = tolerance("float32", FEATURES)
    np.testing.assert_allclose(model.predict_proba(x, tta=BOTH), expected, rtol=0, atol=atol)
    plain = model.predict_proba(x)
    model.set_params(tta=list(BOTH))
    np.testing.assert_allclose(model.predict_proba(x), expected, rtol=0, atol=atol)
    np.testing.assert_allclose(model.predict_proba(x, tta=None), plain, rtol=0, atol=atol)
    two = np.mean([model.predict_proba(v, tta=None) for v in views_by_hand(x)[::5]], axis=0)
    np.testing.assert_allclose(model.predict_proba(x, tta=BOTH[0]), two, rtol=0, atol=atol)
    predicted = model.classes_[np.argmax(expected, axis=1)]
    np.testing.assert_array_equal(model.predict(x), predicted)
    np.testing.assert_array_equal(np.argmax(model.logits(x), axis=1), predicted)
    assert model.score(x, y) == pytest.approx(np.mean(predicted == y))
    scores = model.evaluate(x, y)
    assert scores["accuracy"] == pytest.approx(model.score(x, y))
    eps = np.finfo("float32").eps
    truth = np.clip(expected[np.arange(N), y], eps, 1 - eps)
    assert scores["loss"] == pytest.approx(-np.mean(np.log(truth)), rel=1e-5)


@pytest.mark.parametrize("output", ["softmax", "logistic"])
def test_two_classes_are_decided_alike(output):
    x, y = images(), labels() % 2
    model = small(output_activation=output, tta=BOTH).fit(x, y)
    p = model.predict_proba(x)[:, 1]
    np.testing.assert_allclose(model.logits(x), np.log(p / (1 - p)), atol=1e-5)
    np.testing.assert_array_equal(model.predict(x), model.logits(x) > 0)


@pytest.mark.parametrize("output", ["auto", "logistic", "tanh", "exp", "softplus", "relu"])
def test_a_regressor_averages_values(output):
    x = images("float64")
    y = np.random.default_rng(0).uniform(0.1, 0.9, N)
    model = small(MLPRegressor, output_activation=output).fit(x, y)
    expected = np.mean([model.predict(view) for view in views_by_hand(x)], axis=0)
    np.testing.assert_allclose(model.predict(x, tta=BOTH), expected, rtol=1e-12, atol=1e-15)
    model.set_params(tta=BOTH)
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-12, atol=1e-15)
    # The raw outputs of what was averaged, and back.
    loss = np.mean((expected - y) ** 2) / 2
    assert model.evaluate(x, y)["loss"] == pytest.approx(loss, rel=1e-9)
    assert model.score(x, y) == pytest.approx(1 - np.mean((expected - y) ** 2) / y.var())


def test_a_model_is_saved_and_cloned_and_numbers_of_numpy_are_those_of_python(tmp_path):
    x, y = images(), labels()
    shape, half = tuple(map(np.int64, SHAPE)), np.float32(0.5)
    given = [Flip(shape, alternate=True), Shift(shape, np.int64(1)), Cutout(shape, np.uint8(2))]
    given += [ColorJitter(shape, half, np.float16(0.25)), Mixup(half)]
    expected = [Flip(SHAPE, alternate=True), Shift(SHAPE, 1), Cutout(SHAPE, 2)]
    expected += [ColorJitter(SHAPE, 0.5, 0.25), Mixup(0.5)]
    assert repr(given) == repr(expected)
    model = small(augmentation=given, tta=given[1]).fit(x, y)
    plain = small(augmentation=expected, tta=expected[1]).fit(x, y)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    for other in (model, loaded):
        np.testing.assert_array_equal(other.predict_proba(x), plain.predict_proba(x))
    for other in (loaded, copy.deepcopy(model), clone(model)):
        assert repr(other.augmentation) == repr(expected)
        assert other.tta == expected[1]


@dataclass(frozen=True)
class Unchecked(Shift):
    """An augmentation of one's own, which stores what it is given."""

    def __post_init__(self):
        pass


def test_views_of_an_augmentation_of_ones_own_have_plain_numbers(backend):
    x, y = images(), labels()
    model = small(backend=backend.name, device=backend.device).fit(x, y)
    found = model.predict_proba(x, tta=Unchecked(SHAPE, np.int64(1)))
    np.testing.assert_array_equal(found, model.predict_proba(x, tta=Shift(SHAPE, 1)))
