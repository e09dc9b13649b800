"""Ensembles: which networks they are made of, and what they predict."""

import re
import signal

import numpy as np
import pytest
from sklearn.datasets import load_iris, make_multilabel_classification
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_val_score

from mlp_xp import MLPClassifier, MLPEnsembleClassifier, MLPEnsembleRegressor, MLPRegressor
from mlp_xp._utils.threads import current_worker
from mlp_xp.backends import to_numpy
from mlp_xp.estimators import ensembles
from mlp_xp.estimators.many import fit_all

X, y = load_iris(return_X_y=True)
QUICK = {"max_iter": 4, "n_iter_no_change": np.inf, "learning_rate": "cosine"}


def ensemble(kind=MLPClassifier, **params):
    ensembles = {MLPRegressor: MLPEnsembleRegressor, MLPClassifier: MLPEnsembleClassifier}
    network = kind(hidden_layer_sizes=5, **QUICK)
    return ensembles[kind](network, **{"n_estimators": 3, "random_state": 0} | params)


@pytest.mark.parametrize(
    ("kind", "method", "y"),
    [(MLPRegressor, "predict", X[:, 3]), (MLPClassifier, "predict_proba", y)],
)
def test_ensemble_predictions_are_mean_and_standard_deviation(kind, method, y):
    model = ensemble(kind).fit(X, y)
    each = np.stack([getattr(member, method)(X) for member in model.estimators_])
    mean, std = getattr(model, method)(X, return_std=True)
    np.testing.assert_allclose(mean, each.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, each.std(axis=0), rtol=1e-9)
    np.testing.assert_array_equal(getattr(model, method)(X), mean)
    if kind is MLPRegressor:
        assert model.score(X, y) == r2_score(y, mean)
        return
    labels, of_label = model.predict(X, return_std=True)
    np.testing.assert_array_equal(labels, mean.argmax(axis=1))
    np.testing.assert_array_equal(of_label, std[np.arange(len(y)), labels])
    np.testing.assert_allclose(model.predict_log_proba(X), np.log(mean))
    assert model.score(X, y) == np.mean(labels == y)


def test_each_ensemble_network_matches_a_separate_fit():
    held_out = {"X_val": X[:9], "y_val": y[:9], "sample_weight_val": np.arange(9.0)}
    model = ensemble(n_jobs=2).fit(X, y, **held_out)
    for member in model.estimators_:
        alone = MLPClassifier(**member.get_params()).fit(X, y, **held_out)
        assert member.validation_scores_ == alone.validation_scores_
        np.testing.assert_array_equal(member.predict_proba(X), alone.predict_proba(X))
    seeds, more = (
        [member.random_state for member in each.estimators_]
        for each in (model, ensemble(n_estimators=4).fit(X, y))
    )
    assert len(set(seeds)) == 3
    assert more[:3] == seeds
    settings = [{"alpha": 0.5}, {"hidden_layer_sizes": (3,), "random_state": 7}]
    members = ensemble(settings=settings).fit(X, y).estimators_  # In turn.
    assert [member.alpha for member in members] == [0.5, 0.0001, 0.5]
    assert (members[1].coefs_[0].shape, members[1].random_state) == ((4, 3), 7)


def test_all_bootstrap_networks_know_a_class_with_one_sample():
    model = ensemble(bootstrap=True).fit(X, np.where(np.arange(len(y)) == 0, "rare", "usual"))
    for each in (model, *model.estimators_):
        assert each.classes_.tolist() == ["rare", "usual"]


@pytest.mark.parametrize("weights", [None, np.linspace(0.5, 2.0, len(y))], ids=["none", "given"])
@pytest.mark.parametrize("bootstrap", [True, False])
@pytest.mark.libraries("numpy", "torch", "jax")
def test_ensemble_networks_with_different_settings_match_separate_fits(
    on, weights, bootstrap, monkeypatch
):
    tasks = []
    monkeypatch.setattr(
        ensembles, "fit_all", lambda given, **kw: tasks.extend(given) or fit_all(given, **kw)
    )
    settings = [{"alpha": 0.1}, {"learning_rate_init": 0.01, "dropout": 0.2}]
    model = MLPEnsembleClassifier(
        MLPClassifier((5,), **QUICK, **on), 4, settings=settings, random_state=0
    )
    model.set_params(bootstrap=bootstrap).fit(X, y, weights)
    drawn, close = set(), {"rtol": 0, "atol": 0 if on["backend"] == "numpy" else 1e-6}
    for member, task in zip(model.estimators_, tasks, strict=True):
        given = np.ones(len(y)) if task.sample_weight is None else task.sample_weight
        counts = given / (1 if weights is None else weights)
        assert counts.sum() == pytest.approx(len(y))
        np.testing.assert_allclose(counts, counts.round(), atol=1e-9)
        drawn.add(counts.round().tobytes())
        alone = MLPClassifier(**member.get_params()).fit(X, y, task.sample_weight)
        np.testing.assert_allclose(member.predict_proba(X), alone.predict_proba(X), **close)
    assert len(drawn) == (4 if bootstrap else 1)


def test_ensembles_support_multilabel_targets():
    X, y = make_multilabel_classification(40, 5, n_classes=3, random_state=0)
    model = ensemble().fit(X, y)
    (labels, std), mean = model.predict(X, return_std=True), model.predict_proba(X)
    assert labels.shape == std.shape == mean.shape == (40, 3)
    np.testing.assert_array_equal(labels, mean > 0.5)


def test_ensemble_predictions_stay_in_the_input_library(backend):
    single = X.astype(np.float32)
    data, expected = backend.put(single), ensemble().fit(single, y).predict_proba(single)
    model = ensemble().fit(data, y)
    mean = model.predict_proba(data)
    for found in (*model.predict(data, return_std=True), mean):
        assert backend.owns(found)
    np.testing.assert_allclose(to_numpy(mean), expected, atol=1e-5)


def test_failed_networks_are_left_out_with_a_warning():
    settings = [{}, {"learning_rate_init": 1e300}]
    with pytest.warns(FitFailedWarning, match="1 of 3 networks failed and are left out.*smaller"):
        assert len(ensemble(settings=settings).fit(X, y).estimators_) == 2
    with pytest.raises(ValueError, match="try a smaller learning_rate_init"):
        ensemble(settings=settings[1:]).fit(X, y)
    model = ensemble().fit(X, y)
    with pytest.raises(ValueError, match="Unknown label type"):
        model.fit(np.hstack([X, X]), y + 0.5)
    assert len(model.predict(X)) == len(X)


def test_ctrl_c_keeps_finished_networks():
    class Pressing(MLPClassifier):
        def _params(self):
            # The error is raised in its fit, not while all fits are prepared.
            worker = current_worker()
            if self.random_state == 7 and worker is not None and not worker.is_stopped():
                signal.raise_signal(signal.SIGINT)
            return super()._params()

    network = Pressing((5,), **QUICK)
    model = MLPEnsembleClassifier(network, 5, settings=[{}, {"random_state": 7}], n_jobs=1)
    message = r"interrupted by user: (\d) of 5 networks have finished and are kept"
    with pytest.warns(match=message) as caught:
        model.fit(X, y)
    assert len(model.estimators_) == int(re.search(message, str(caught[0].message))[1]) < 5
    with pytest.raises(KeyboardInterrupt):  # No network is finished.
        model.set_params(settings=[{"random_state": 7}]).fit(X, y)


def test_invalid_ensemble_settings_say_what_to_pass():
    for model, message in (
        (MLPEnsembleClassifier(MLPRegressor()), "an MLPClassifier or None, got MLPRegressor"),
        (MLPEnsembleRegressor(n_jobs=0), "`n_jobs` must not be 0: use 1"),
        (MLPEnsembleRegressor(n_estimators=0), "n_estimators"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(X, y)
    with pytest.raises(ValueError, match=r"estimator=MLPClassifier\(missing_values='impute'\)"):
        MLPEnsembleClassifier().fit(X * np.nan, y)


def test_ensembles_report_progress_and_work_in_cross_validation(capsys):
    ensemble(verbose=True).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [f"networks {i}/3" for i in (1, 2, 3)]
    assert cross_val_score(ensemble(), X, y, cv=2).shape == (2,)
