"""Several targets that are each one of several classes, as scikit-learn's forests learn them."""

import numpy as np
import pytest
from export.problems import run_onnx
from helpers import pickled_and_saved, problem, small
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import cross_val_predict
from sklearn.utils import compute_sample_weight

from mlp_xp import MLPClassifier, MLPEnsembleClassifier
from mlp_xp.backends import to_numpy
from mlp_xp.export import to_onnx, to_sklearn, to_torch
from mlp_xp.model_selection import GridSearchCV
from mlp_xp.nn.gradient_check import check_loss
from mlp_xp.nn.losses import EachTarget, SoftmaxCrossEntropy, SoftmaxFocal, mean_loss

X, first = problem(120)
Y = np.stack([first, 5 + 2 * (X[:, 3] > 0)], axis=1)
NAMED = np.stack([np.asarray(["ant", "bee", "cat"], object)[first], Y[:, 1]], axis=1)
LONGER = {"max_iter": 60, "learning_rate_init": 0.02, "learning_rate": "cosine"}


@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy(0.1), SoftmaxFocal()])
def test_loss_is_the_sum_of_the_losses_per_target(backend, loss):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(7, 5)), rng.integers(0, 2, (7, 2)).astype(np.int32)
    each = EachTarget(loss, (3, 2))
    with backend.scope():
        given = backend.put(logits), backend.put(labels)
        check_loss(each, *given, xp=backend.xp)
        pairs = (given[0][:, :3], given[1][:, 0]), (given[0][:, 3:], given[1][:, 1])
        parts = [float(mean_loss(loss, *pair, xp=backend.xp)[0]) for pair in pairs]
        assert float(mean_loss(each, *given, xp=backend.xp)[0]) == pytest.approx(sum(parts))
        right = [loss.is_correct(*pair, xp=backend.xp) for pair in pairs]
        both = to_numpy(each.is_correct(*given, xp=backend.xp))
    np.testing.assert_array_equal(both, to_numpy(right[0]) * to_numpy(right[1]))


@pytest.mark.parametrize("y", [Y, NAMED, Y.astype(str)], ids=["numbers", "mixed", "text"])
def test_multi_target_predictions_have_the_format_of_a_forest(backend, y):
    model = small(**LONGER).fit(backend.put(X), y)
    forest = ExtraTreesClassifier(5, random_state=0).fit(X, y if y is not NAMED else Y)
    probabilities = [to_numpy(p) for p in model.predict_proba(backend.put(X))]
    for mine, theirs in zip(probabilities, forest.predict_proba(X), strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine.sum(axis=1), 1.0)
    predicted = to_numpy(model.predict(backend.put(X)))
    assert predicted.shape == forest.predict(X).shape
    assert model.n_classes_ == forest.n_classes_
    assert [labels.tolist() for labels in model.classes_] == [
        np.unique(column.tolist()).tolist() for column in y.T
    ]
    accuracy = np.mean(np.all(predicted == y, axis=1))
    assert model.score(backend.put(X), y) == model.evaluate(X, y)["accuracy"] == accuracy > 0.85
    for log_p, p in zip(model.predict_log_proba(backend.put(X)), probabilities, strict=True):
        np.testing.assert_allclose(to_numpy(log_p), np.log(p))


def test_several_targets_can_be_pickled_and_saved(tmp_path):
    model = small(early_stopping=True, calibration="temperature").fit(X, NAMED)
    expected = model.predict_proba(X)
    for copy in pickled_and_saved(model, tmp_path):
        np.testing.assert_array_equal(copy.predict(X), model.predict(X))
        for mine, theirs in zip(copy.predict_proba(X), expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(ValueError, match="2 classification targets"):
        to_sklearn(model)


@pytest.mark.matrix
def test_multi_target_exports_have_one_output_per_target():
    pytest.importorskip("onnx")
    torch, model = pytest.importorskip("torch"), small().fit(X, NAMED)
    expected = model.predict_proba(X)
    module = to_torch(model, activate=True)(torch.tensor(X)).detach().numpy()
    np.testing.assert_allclose(module, np.concatenate(expected, axis=1), atol=1e-9)
    named = run_onnx(to_onnx(model), X)
    assert list(named) == ["label_0", "probabilities_0", "label_1", "probabilities_1"]
    np.testing.assert_allclose(named["probabilities_1"], expected[1], atol=1e-9)
    np.testing.assert_array_equal(named["label_0"], model.predict(X)[:, 0])


def test_multi_target_ensembles_and_cross_validation_work():
    ensemble = MLPEnsembleClassifier(small(), n_estimators=2, random_state=0).fit(X, Y)
    each = [member.predict_proba(X)[1] for member in ensemble.estimators_]
    np.testing.assert_allclose(ensemble.predict_proba(X)[1], np.mean(each, axis=0))
    labels, std = ensemble.predict(X, return_std=True)
    assert labels.shape == std.shape == (120, 2)
    assert ensemble.score(X, Y) == np.mean(np.all(labels == Y, axis=1))
    search = GridSearchCV(small(**LONGER), {"alpha": [1e-4, 1.0]}, cv=3).fit(X, Y)
    assert search.best_score_ > 0.6
    p = cross_val_predict(small(**LONGER), X, Y, cv=3, method="predict_proba")
    assert [of_target.shape for of_target in p] == [(120, 3), (120, 2)]


def test_multi_target_class_weights_and_partial_fit():
    weights = [{0: 2.0}, "balanced"]
    by_hand = np.where(first == 0, 2.0, 1.0) * compute_sample_weight("balanced", Y[:, 1])
    model = small(class_weight=weights).fit(X, Y)
    np.testing.assert_array_equal(model.coefs_[0], small().fit(X, Y, by_hand).coefs_[0])
    online, classes = small(batch_size="auto"), [[0, 1, 2], [5, 7]]
    for _ in range(2):
        online.partial_fit(X[:8], Y[:8], classes=classes)
    online.partial_fit(X[:1], Y[:1]).predict(X)
    assert [labels.tolist() for labels in online.classes_] == classes
    small().partial_fit(X, Y, classes=np.asarray([[0, 1, 2], [4, 5, 7]]))
    with pytest.raises(ValueError, match="is not the same as on last call"):
        online.partial_fit(X, Y, classes=[[0, 1], [5, 7]])


@pytest.mark.parametrize(
    ("settings", "y", "message"),
    [
        ({"output_activation": "logistic"}, Y, "'auto' or 'softmax' for several targets"),
        ({"class_weight": [{0: 1.0}]}, Y, "a dict for each of 2 targets, got 1"),
        ({"class_weight": {0: 1.0}}, Y, "a dict for each of 2 targets, got a dict"),
        ({"early_stopping": True, "scoring": "accuracy"}, Y, "does not support several targets"),
        ({"class_weight": [{0: 1.0}]}, first, "which is only for several targets"),
        ({"class_weight": [{}, {9: 1.0}]}, Y, r"class_weight has \[9\]"),
        ({}, X[:, :2], "Unknown label type"),
    ],
)
def test_settings_that_need_a_single_target_are_an_error(settings, y, message):
    with pytest.raises(ValueError, match=message):
        small(**settings).fit(X, y)


def test_changed_number_of_targets_or_classes_is_an_error():
    model = MLPClassifier(max_iter=1, learning_rate="cosine").fit(X, Y)
    for call in (model.evaluate, model.partial_fit, model.set_params(warm_start=True).fit):
        with pytest.raises(ValueError, match="fitted on 2 targets with classes"):
            call(X, first)
    with pytest.raises(ValueError, match="`y` has the same classes"):
        model.fit(X, Y + 1)
    assert model.set_params(warm_start=False).fit(X, first).n_classes_ == 3
