"""The temperature of a classifier's probabilities, and stopping by the log loss after it."""

import numpy as np
import pytest
from helpers import problem, small
from scipy.special import softmax
from sklearn.metrics import log_loss

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.backends import to_numpy
from mlp_xp.estimators.fitted.calibration import fit_temperature
from mlp_xp.nn.losses import SoftmaxCrossEntropy

X, labels = problem(400)
y = np.where(np.random.default_rng(0).random(400) < 0.3, 0, labels)  # Noise makes it too sure.
HELD_OUT = {"X_val": X[200:], "y_val": y[200:]}
SURE = {"max_iter": 80, "learning_rate_init": 0.03, "calibration": "temperature"}


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_best_temperature_is_applied_on_every_backend(backend, ema_decay):
    settings = SURE | {"max_iter": 12, "learning_rate_init": 0.06, "ema_decay": ema_decay}
    model = small(**settings).fit(backend.put(X[:200]), y[:200], **HELD_OUT)
    plain = small(**settings | {"calibration": None}).fit(backend.put(X[:200]), y[:200])
    logits = to_numpy(plain.logits(backend.put(X)))
    found = fit_temperature(SoftmaxCrossEntropy(), logits[200:], y[200:], None)
    assert model.temperature_ == pytest.approx(found.temperature, rel=1e-3)
    assert model.temperature_ > 1.1
    for _ in range(2):  # First if nobody else has the arrays, then if somebody may write to them.
        p = to_numpy(model.predict_proba(backend.put(X)))
        np.testing.assert_allclose(p, softmax(logits / model.temperature_, axis=1), atol=1e-6)
        np.testing.assert_array_equal(to_numpy(model.coefs_[0]), to_numpy(plain.coefs_[0]))
    mine, before = (
        log_loss(y[200:], to_numpy(m.predict_proba(backend.put(X[200:])))) for m in (model, plain)
    )
    assert mine == pytest.approx(found.loss, rel=1e-4)
    assert mine < before
    assert model.evaluate(*HELD_OUT.values())["loss"] == pytest.approx(mine, rel=1e-5)


@pytest.mark.parametrize("targets", [y, y > 0, np.eye(3, dtype=int)[y]])
def test_each_fit_has_its_own_temperature_and_assigned_weights_have_none(targets):
    model = small(**SURE, warm_start=True)
    held_out = {"X_val": X[200:], "y_val": targets[200:]}
    found = [model.fit(X[:200], targets[:200], **held_out).temperature_ for _ in range(2)]
    found.append(model.partial_fit(X[:200], targets[:200], **held_out).temperature_)
    assert len(set(found)) == 3
    assert min(found) > 1.0
    model.coefs_[0] = 0 * model.coefs_[0]
    with pytest.raises(AttributeError, match="a fit with calibration='temperature'"):
        model.temperature_  # noqa: B018


def test_temperature_stays_near_1_for_few_correct_samples():
    logits = np.asarray([[3.0, 0.0]] * 5)
    found = fit_temperature(SoftmaxCrossEntropy(), logits, np.zeros(5, dtype=int), None)
    assert 0.8 < found.temperature < 1.0


def test_refinement_keeps_the_epoch_with_the_lowest_loss_after_calibration():
    scores = []

    def refinement(model, X, y):
        logits = np.log(model.predict_proba(X))
        scores.append(-fit_temperature(SoftmaxCrossEntropy(), logits, y, None).loss)
        return scores[-1]

    settings = SURE | {"early_stopping": True, "n_iter_no_change": 5}
    model, expected = (
        MLPClassifier((8,), **settings, scoring=scoring, random_state=0).fit(
            X[:200], y[:200], **HELD_OUT
        )
        for scoring in ("refinement", refinement)
    )
    assert model.n_iter_ == expected.n_iter_ < 80
    np.testing.assert_allclose(model.validation_scores_, scores[1:], rtol=1e-6)
    assert log_loss(y[200:], model.predict_proba(X[200:])) == pytest.approx(-max(scores), rel=1e-6)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (small(calibration="temperature"), "calibration='temperature'.* early_stopping=True"),
        (small(scoring="refinement"), "scoring='refinement'.* early_stopping=True"),
        (small(**SURE, early_stopping=True, solver="lbfgs"), r"fit\(X, y, X_val=..., y_val=...\)"),
        (small(MLPRegressor, early_stopping=True, scoring="refinement"), "use scoring='loss'"),
    ],
)
def test_calibration_without_held_out_samples_or_classes_is_an_error(model, message):
    with pytest.raises(ValueError, match=message):
        model.fit(X, y)
