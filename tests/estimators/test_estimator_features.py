"""Features that scikit-learn's estimators lack: losses, regularization, insight, callbacks."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from helpers import problem
from scipy import sparse
from sklearn.base import clone
from sklearn.metrics import get_scorer
from sklearn.utils import estimator_html_repr

from mlp_xp import MLPClassifier, MLPRegressor, get_backend
from mlp_xp.callbacks import Callback
from mlp_xp.estimators import prediction
from mlp_xp.nn.losses import (
    BinaryCrossEntropy,
    BinaryFocal,
    Custom,
    Huber,
    Poisson,
    Quantile,
    SoftmaxCrossEntropy,
    SoftmaxFocal,
    SquaredError,
    Through,
)
from mlp_xp.optimizers import AdamW, Muon
from mlp_xp.optimizers.schedules import OneCycle
from mlp_xp.training import inference

SETTINGS = {"hidden_layer_sizes": (8, 8), "batch_size": 16, "random_state": 0, "max_iter": 5}


def everything():
    """Return settings with as much at once as there is."""
    return SETTINGS | {
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
def test_everything_at_once_is_the_same_on_every_backend(backend, normalization):
    X, y = problem()
    settings = everything() | {"normalization": normalization}
    expected = MLPClassifier(**settings).fit(X, y)
    model = MLPClassifier(**settings).fit(backend.put(X), y)
    np.testing.assert_allclose(model.loss_curve_, expected.loss_curve_, rtol=1e-7)
    p = get_backend(model.coefs_[0]).get(model.predict_proba(backend.put(X)))
    np.testing.assert_allclose(p, expected.predict_proba(X), atol=1e-7)


def test_a_copy_moves_to_another_library_and_back(backend):
    X, y = problem()
    model = MLPClassifier(**everything()).fit(X, y)
    there = model.to(backend.name, backend.device)
    assert all(map(backend.holds, there.coefs_))
    assert all(backend.holds(norm.scale) for norm in there.norms_)
    assert isinstance(there.predict_proba(X), np.ndarray)
    np.testing.assert_allclose(there.predict_proba(X), model.predict_proba(X), atol=1e-10)
    back = there.to("numpy")
    assert isinstance(back.coefs_[0], np.ndarray)
    assert isinstance(model.coefs_[0], np.ndarray), "the original moved"
    np.testing.assert_array_equal(back.coefs_[0], model.coefs_[0])


def test_a_pickle_of_everything_goes_on_as_if_nothing_had_happened(backend):
    X, y = problem()
    model = MLPClassifier(**everything()).fit(backend.put(X), y)
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


def test_warm_start_keeps_the_optimizers_state():
    X, y = problem()
    once = MLPClassifier(**SETTINGS | {"max_iter": 6}).fit(X, y)
    twice = MLPClassifier(**SETTINGS | {"max_iter": 3}, warm_start=True).fit(X, y)
    twice = pickle.loads(pickle.dumps(twice)).fit(X, y)  # noqa: S301
    np.testing.assert_allclose(twice.loss_curve_, once.loss_curve_, rtol=1e-12)
    assert (twice.n_iter_, once.n_iter_) == (3, 6)


def test_settings_changed_between_calls_count():
    X, y = problem()
    model = MLPClassifier(**SETTINGS).partial_fit(X, y, classes=[0, 1, 2])
    before = [W.copy() for W in model.coefs_]
    model.set_params(learning_rate_init=0.0 + 1e-12).partial_fit(X, y)
    np.testing.assert_allclose(model.coefs_[0], before[0], atol=1e-9)
    model.set_params(solver="sgd", alpha=10.0, learning_rate_init=0.1).partial_fit(X, y)
    assert np.abs(model.coefs_[0]).sum() < 0.7 * np.abs(before[0]).sum()
    with pytest.warns(UserWarning, match=r"now \(4,\).*there, of \[8, 8\].*warm_start=False"):
        model.set_params(hidden_layer_sizes=(4,)).partial_fit(X, y)
    assert [W.shape for W in model.coefs_] == [(6, 8), (8, 8), (8, 3)]


def test_class_weights():
    X, _ = problem()
    y = (X[:, 0] > 1.2).astype(int)
    weights = {0: 1.0, 1: 7.0}
    by_class = MLPClassifier(**SETTINGS, class_weight=weights).fit(X, y)
    by_sample = MLPClassifier(**SETTINGS).fit(X, y, sample_weight=np.where(y, 7.0, 1.0))
    np.testing.assert_allclose(by_class.loss_curve_, by_sample.loss_curve_, rtol=1e-12)
    longer = SETTINGS | {"max_iter": 60}
    balanced = MLPClassifier(**longer, class_weight="balanced").fit(X, y)
    plain = MLPClassifier(**longer).fit(X, y)
    assert balanced.predict(X).sum() > plain.predict(X).sum()


def test_label_smoothing_is_that_of_the_loss_object():
    X, y = problem()
    named = MLPClassifier(**SETTINGS, label_smoothing=0.2).fit(X, y)
    given = MLPClassifier(**SETTINGS, loss=SoftmaxCrossEntropy(0.2)).fit(X, y)
    assert named.loss_curve_ == given.loss_curve_
    assert named.loss_ != MLPClassifier(**SETTINGS).fit(X, y).loss_
    binary = MLPClassifier(**SETTINGS | {"max_iter": 300}, label_smoothing=0.4).fit(X, y > 0)
    assert binary.predict_proba(X).max() < 0.95
    with pytest.raises(ValueError, match="only 'log_loss' takes it"):
        MLPClassifier(label_smoothing=0.1, loss="focal").fit(X, y)


@pytest.mark.parametrize("classes", [2, 3])
def test_focal_loss(classes):
    X, y = problem(200, classes=classes)
    model = MLPClassifier(**SETTINGS | {"max_iter": 60}, loss="focal").fit(X, y)
    assert model.score(X, y) > 0.9
    assert model.loss_ < MLPClassifier(**SETTINGS | {"max_iter": 60}).fit(X, y).loss_


def test_losses_for_regression_estimate_what_they_should():
    rng = np.random.default_rng(0)
    X = np.ones((2000, 1))
    y = rng.exponential(size=2000)
    settings = {"hidden_layer_sizes": (), "max_iter": 400, "alpha": 0.0, "random_state": 0}
    settings |= {"learning_rate_init": 0.05, "learning_rate": "cosine", "batch_size": 500}
    settings |= {"n_iter_no_change": np.inf}

    def estimate(loss):
        return MLPRegressor(**settings, loss=loss).fit(X, y).predict(X[:1])[0]

    assert estimate("squared_error") == pytest.approx(y.mean(), abs=0.01)
    assert estimate("poisson") == pytest.approx(y.mean(), abs=0.01)
    assert estimate("absolute_error") == pytest.approx(np.median(y), abs=0.02)
    assert estimate("quantile") == pytest.approx(np.median(y), abs=0.02)
    assert estimate(Quantile(0.9)) == pytest.approx(np.quantile(y, 0.9), abs=0.05)
    assert np.median(y) < estimate("huber") < y.mean()
    assert estimate(Huber(delta=1e3)) == pytest.approx(y.mean(), abs=0.01)


def test_outputs_by_choice():
    X, y = problem()
    target = 1 / (1 + np.exp(-X[:, 0]))
    model = MLPRegressor(**SETTINGS | {"max_iter": 100}, output_activation="logistic")
    model.fit(X, target)
    assert model.out_activation_ == "logistic"
    assert 0 <= model.predict(100 * X).min() < 0.1 < 0.9 < model.predict(100 * X).max() <= 1
    one_against_rest = MLPClassifier(**SETTINGS, output_activation="logistic").fit(X, y)
    assert one_against_rest.out_activation_ == "logistic"
    np.testing.assert_allclose(one_against_rest.predict_proba(X).sum(axis=1), 1.0)
    two = MLPClassifier(**SETTINGS, output_activation="softmax").fit(X, y > 0)
    assert two.n_outputs_ == 2
    assert two.logits(X).shape == (60,)
    np.testing.assert_array_equal(two.logits(X) > 0, two.predict(X))


def squared(outputs, targets, *, xp):
    error = outputs - targets
    return 0.5 * xp.sum(error * error, axis=-1), lambda dlosses: error * dlosses[..., None]


def twice_the_gradient(outputs, targets, *, xp):
    losses, pullback = squared(outputs, targets, xp=xp)
    return losses, lambda dlosses: 2.0 * pullback(dlosses)


def test_a_users_own_loss(backend):
    X, _ = problem()
    X_here = backend.put(X)
    for weights in (None, np.linspace(0.0, 2.0, 60)):
        mine = MLPRegressor(**SETTINGS, loss=squared).fit(X_here, X[:, 0], weights)
        named = MLPRegressor(**SETTINGS, loss=SquaredError()).fit(X_here, X[:, 0], weights)
        np.testing.assert_allclose(mine.loss_curve_, named.loss_curve_, rtol=1e-10)
    with pytest.raises(ValueError, match=r"finite difference"):
        MLPRegressor(**SETTINGS, loss=twice_the_gradient).fit(X_here, X[:, 0])


def forgets_the_weights(outputs, targets, *, xp):
    losses, _ = squared(outputs, targets, xp=xp)
    return losses, lambda dlosses: outputs - targets


def test_a_users_own_loss_is_checked_with_weights(backend):
    X, y = problem()
    X_here = backend.put(X)
    with pytest.raises(ValueError, match=r"loss forgets_the_weights .*multiplied by what it is gi"):
        MLPRegressor(**SETTINGS, loss=forgets_the_weights).fit(X_here, X[:, 0])
    with pytest.raises(ValueError, match="finite difference"):
        MLPClassifier(**SETTINGS, loss=forgets_the_weights).fit(X_here, y > 0)


@pytest.mark.parametrize(
    ("loss", "settings", "cure"),
    [
        (
            SoftmaxCrossEntropy(),
            {},
            "'softmax', .* are 'logistic': set output_activation='softmax'",
        ),
        (Custom(squared, "softmax"), {}, "set output_activation='softmax'"),
        (
            BinaryCrossEntropy(),
            {"output_activation": "softmax"},
            "set output_activation='logistic'",
        ),
        (SquaredError(), {}, r"'identity', .* use 'log_loss', or e.g. Through\(SquaredError"),
        (Poisson(), {}, "'exp', and those of output_activation='auto' for binary targets"),
        (Through(SquaredError(), "tanh"), {}, "'tanh'.* with output_activation='logistic'"),
        (Custom(squared), {}, r"give the function itself, or Custom\(\.\.\., 'logistic'\)"),
    ],
    ids=str,
)
def test_a_loss_whose_outputs_are_others_is_refused(loss, settings, cure):
    X, y = problem()
    with pytest.raises(ValueError, match=cure):
        MLPClassifier(**SETTINGS, loss=loss, **settings).fit(X, y > 0)


def test_losses_of_classes_want_the_outputs_that_the_targets_have():
    X, y = problem()
    labels = (X[:, :3] > 0).astype(int)
    with pytest.raises(ValueError, match="multilabel targets are 'logistic': use 'log_loss'"):
        MLPClassifier(**SETTINGS, loss=SoftmaxFocal()).fit(X, labels)
    with pytest.raises(ValueError, match=r"multiclass targets .*set output_activation='logistic'"):
        MLPClassifier(**SETTINGS, loss=BinaryFocal()).fit(X, y)
    settings = SETTINGS | {"max_iter": 60, "learning_rate_init": 0.01}
    for loss, output, targets in (
        (SoftmaxCrossEntropy(), "softmax", (y > 0).astype(int)),
        (BinaryCrossEntropy(), "logistic", y),
        (Through(SquaredError(), "logistic"), "auto", (y > 0).astype(int)),
        (Through(SquaredError(), "logistic"), "logistic", y),
        (BinaryCrossEntropy(), "auto", labels),
    ):
        model = MLPClassifier(**settings, loss=loss, output_activation=output).fit(X, targets)
        assert np.mean(model.predict(X) == targets) > 0.8


def test_a_regressor_with_a_loss_of_classes_estimates_probabilities_and_nothing_else():
    X, y = problem()
    settings = SETTINGS | {"max_iter": 60}
    columns = np.eye(3)[y]
    model = MLPRegressor(**settings, loss=SoftmaxCrossEntropy()).fit(X, columns)
    assert model.out_activation_ == "softmax"
    np.testing.assert_allclose(model.predict(X).sum(axis=1), 1.0)
    share = MLPRegressor(**settings, loss=BinaryCrossEntropy()).fit(X, columns[:, 0])
    assert share.out_activation_ == "logistic"
    named = MLPRegressor(**settings, loss=BinaryCrossEntropy(), output_activation="logistic")
    np.testing.assert_array_equal(named.fit(X, columns[:, 0]).predict(X), share.predict(X))
    for loss, targets, message in (
        (SoftmaxCrossEntropy(), y, "y must have several columns .* rows sum to 1; it is of shape"),
        (SoftmaxFocal(), 2 * columns, "rows sum to 1"),
        (BinaryCrossEntropy(), y, "y must be from 0 to 1; .* goes from 0 to 2. .* MLPClassifier"),
        (BinaryFocal(), -columns, "from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            MLPRegressor(**SETTINGS, loss=loss).fit(X, targets)
    with pytest.raises(ValueError, match="y_val must be from 0 to 1"):
        share.fit(X, columns[:, 0], X_val=X, y_val=y)


def test_a_users_own_loss_need_not_know_of_padding():
    """JAX fills the last batch with samples of weight 0, which this loss would count."""
    jax = pytest.importorskip("jax")
    X, _ = problem(50)
    mine, named = (
        MLPRegressor(**SETTINGS, loss=loss).fit(jax.numpy.asarray(X), X[:, 0])
        for loss in (squared, "squared_error")
    )
    np.testing.assert_allclose(mine.loss_curve_, named.loss_curve_, rtol=1e-5)


def test_a_users_own_activation(backend):
    def square(x, *, xp):
        return x * x, lambda dy: 2.0 * x * dy

    def wrong(x, *, xp):
        return x * x, lambda dy: x * dy

    X, y = problem()
    settings = SETTINGS | {"activation": [square, "relu"]}
    expected = MLPClassifier(**settings).fit(X, y)
    model = MLPClassifier(**settings).fit(backend.put(X), y)
    np.testing.assert_allclose(model.loss_curve_, expected.loss_curve_, rtol=1e-8)
    with pytest.raises(ValueError, match=r"wrong.*finite difference"):
        MLPClassifier(**SETTINGS, activation=wrong).fit(backend.put(X), y)


def test_dropout_is_for_training_only_and_regularises():
    X, y = problem()
    model = MLPClassifier(**SETTINGS, dropout=0.5).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), model.predict_proba(X))
    assert model.loss_curve_ != MLPClassifier(**SETTINGS).fit(X, y).loss_curve_
    again = MLPClassifier(**SETTINGS, dropout=0.5).fit(X, y)
    assert model.loss_curve_ == again.loss_curve_


def test_batch_norm_predicts_each_sample_on_its_own():
    X, y = problem()
    model = MLPClassifier(**SETTINGS, normalization="batch").fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X[:1]), model.predict_proba(X)[:1], atol=1e-12)
    assert not np.allclose(model.moments_[0].mean, 0.0)


def test_lbfgs_refuses_what_changes_from_call_to_call():
    X, y = problem()
    for name, value in (
        ("dropout", 0.1),
        ("input_dropout", 0.1),
        ("normalization", "batch"),
        ("ema_decay", 0.9),
        ("max_grad_norm", 1.0),
    ):
        with pytest.raises(ValueError, match=rf"{name} is .*'lbfgs' needs a loss"):
            MLPClassifier(solver="lbfgs", **{name: value}).fit(X, y)


def test_solver_and_schedule_objects():
    X, y = problem()
    model = MLPClassifier(**SETTINGS, solver=AdamW(weight_decay=0.5), learning_rate=OneCycle())
    model.fit(X, y)
    rates = [record.learning_rate for record in model.history_]
    assert max(rates) <= model.learning_rate_init
    assert rates[-1] < rates[1]
    assert clone(model).get_params()["solver"] == AdamW(weight_decay=0.5)


@pytest.mark.parametrize("solver", ["rmsprop", "lion", "muon", "adamw", "beta_lasso"])
def test_every_solver_by_name_learns(solver):
    X, y = problem(200)
    rate = {"lion": 1e-3}.get(solver, 1e-2)
    settings = SETTINGS | {"max_iter": 40, "solver": solver, "learning_rate_init": rate}
    assert MLPClassifier(**settings).fit(X, y).score(X, y) > 0.9


def test_gradients_are_held_to_a_norm():
    X, y = problem()
    settings = SETTINGS | {"solver": "sgd", "momentum": 0.0, "batch_size": 60, "alpha": 0.0}
    start = MLPClassifier(**settings | {"max_iter": 1, "learning_rate_init": 1e-300}).fit(X, y)
    model = MLPClassifier(**settings | {"max_iter": 1}, max_grad_norm=1e-3).fit(X, y)
    pairs = zip(model.coefs_ + model.intercepts_, start.coefs_ + start.intercepts_, strict=True)
    moved = np.sqrt(sum(np.sum((a - b) ** 2) for a, b in pairs))
    assert moved == pytest.approx(1e-3 * model.learning_rate_init, rel=1e-6)


def test_ema_predicts_with_an_average_of_the_weights():
    X, y = problem()
    settings = SETTINGS | {"max_iter": 3, "batch_size": 60}
    weights = []

    class Watch(Callback):
        def on_epoch_end(self, model, record):
            weights.append(model.coefs_[0].copy())

    MLPClassifier(**settings, callbacks=[Watch()]).fit(X, y)
    start = MLPClassifier(**settings | {"learning_rate_init": 1e-300}).fit(X, y).coefs_[0]
    average = start
    for step, W in enumerate(weights):
        keep = min(0.5, (1 + step) / (10 + step))
        average = keep * average + (1 - keep) * W
    model = MLPClassifier(**settings, ema_decay=0.5).fit(X, y)
    np.testing.assert_allclose(model.coefs_[0], average, rtol=1e-10)


def test_hidden_activations(backend):
    X, y = problem()
    model = MLPClassifier(**SETTINGS | {"hidden_layer_sizes": (8, 5)}).fit(X, y)
    first = np.maximum(X @ model.coefs_[0] + model.intercepts_[0], 0)
    second = np.maximum(first @ model.coefs_[1] + model.intercepts_[1], 0)
    for layer, expected in ((0, first), (1, second), (-1, second), (-2, first)):
        found = model.hidden_activations(backend.put(X), layer)
        assert backend.holds(found)
        np.testing.assert_allclose(backend.get(found), expected, atol=1e-12)
    with pytest.raises(IndexError, match="layer is 2, and there are 2 hidden layers"):
        model.hidden_activations(X, 2)


def test_evaluate_gives_several_metrics_in_one_pass(monkeypatch):
    X, y = problem(classes=2)
    weights = np.linspace(0.1, 2.0, len(y))
    model = MLPClassifier(**SETTINGS).fit(X, y)
    names = ["accuracy", "roc_auc", "average_precision", "neg_log_loss", "f1"]
    expected = {n: get_scorer(n)(model, X, y, sample_weight=weights) for n in names}
    passes = []
    whole = prediction.predict
    monkeypatch.setattr(
        prediction, "predict", lambda *args, **kw: passes.append(1) or whole(*args, **kw)
    )
    found = model.evaluate(X, y, weights, metrics=names)
    assert len(passes) == 1
    assert found.pop("loss") == pytest.approx(-expected["neg_log_loss"])
    assert found == pytest.approx(expected)
    assert model.evaluate(X, y).keys() == {"loss", "accuracy"}
    regressor = MLPRegressor(**SETTINGS).fit(X, X[:, :2])
    scores = regressor.evaluate(X, X[:, :2], metrics={"mse": "neg_mean_squared_error"})
    assert scores["loss"] == pytest.approx(-scores["mse"] / 2)
    assert regressor.evaluate(X, X[:, :2])["r2"] == regressor.score(X, X[:, :2])


def test_metrics_of_one_name_are_refused():
    X, y = problem()
    model = MLPClassifier(**SETTINGS).fit(X, y)

    def loss(model, X, y):
        return 1.0

    first, second = (lambda model, X, y: 1.0), (lambda model, X, y: 2.0)
    for metrics, name in (
        ([first, second], "<lambda>"),
        ([loss], "loss"),
        (loss, "loss"),
        ({"loss": first}, "loss"),
    ):
        with pytest.raises(ValueError, match=rf"metrics has \['{name}'\] more than once.* a dict"):
            model.evaluate(X, y, metrics=metrics)
    assert set(model.evaluate(X, y, metrics=np.asarray(["accuracy"]))) == {"loss", "accuracy"}
    found = model.evaluate(X, y, metrics={"first": first, "second": second})
    assert (found["first"], found["second"]) == (1.0, 2.0)


def test_history_turns_into_a_data_frame():
    X, y = problem()
    model = MLPClassifier(**SETTINGS).fit(X, y, X_val=X, y_val=y)
    frame = pd.DataFrame(model.history_)
    assert frame["loss"].tolist() == model.loss_curve_
    assert frame["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert frame["validation_score"].tolist() == model.validation_scores_


def test_summary_and_html():
    X, y = problem()
    model = MLPClassifier(**everything()).fit(X, y)
    text = str(model.summary())
    for words in ("residual, dense", "batch normalization", "gelu", "dropout 0.2", "output: dense"):
        assert words in text
    learned = sum(W.size for W in model.coefs_) + sum(b.size for b in model.intercepts_)
    learned += sum(norm.scale.size + norm.shift.size for norm in model.norms_)
    assert model.summary().parameters == learned
    assert model.summary().work == 2 * sum(W.size for W in model.coefs_)
    page = model._repr_html_()
    assert estimator_html_repr(model)[:20] == page[:20]
    assert "batch normalization" in page
    assert "batch normalization" not in clone(model)._repr_html_()


def test_predictions_keep_within_working_memory(monkeypatch):
    X, y = problem()
    model = MLPClassifier(**SETTINGS).fit(X, y)
    whole = model.predict_proba(X)
    rows = []
    take = inference.take_rows

    def watched(x, which):
        block = take(x, which)
        rows.append(block.shape[0])
        return block

    monkeypatch.setattr(inference, "take_rows", watched)
    # Three rows of 8 numbers of 8 bytes, and what they are turned into.
    with sklearn.config_context(working_memory=7 * 3 * 8 * 8 / 2**20):
        np.testing.assert_allclose(model.predict_proba(X), whole, atol=1e-15)
    assert max(rows) == 7


def test_sparse_rows_are_never_dense_as_a_whole(backend, monkeypatch):
    X, y = problem(300)
    X = sparse.csr_matrix(np.where(X > 0.5, X, 0.0))
    largest = []
    toarray = sparse.csr_matrix.toarray

    def watched(self, *args, **kwargs):
        largest.append(self.shape[0])
        return toarray(self, *args, **kwargs)

    dense = MLPClassifier(**SETTINGS).fit(X.toarray(), y)
    monkeypatch.setattr(sparse.csr_matrix, "toarray", watched)
    model = MLPClassifier(**SETTINGS, backend=backend.name, device=backend.device).fit(X, y)
    assert max(largest, default=0) == (0 if backend.has_sparse_products else 16)
    np.testing.assert_allclose(model.loss_curve_, dense.loss_curve_, rtol=1e-8)
    assert isinstance(model.predict(X), np.ndarray)


def test_held_out_rows_stay_sparse_and_scorers_see_them_so(backend, monkeypatch):
    X, y = problem(600)
    X = sparse.csr_matrix(np.where(X > 0.5, X, 0.0))
    largest, seen = [], []
    toarray = sparse.csr_matrix.toarray

    def watched(self, *args, **kwargs):
        largest.append(self.shape[0])
        return toarray(self, *args, **kwargs)

    def scorer(model, X, y):
        seen.append((sparse.issparse(X), X.shape[0]))
        return float(np.mean(model.predict(X) == y))

    settings = SETTINGS | {"early_stopping": True, "scoring": scorer}
    dense = MLPClassifier(**settings).fit(X.toarray(), y)
    assert set(seen) == {(False, 60)}
    seen.clear()
    monkeypatch.setattr(sparse.csr_matrix, "toarray", watched)
    model = MLPClassifier(**settings, backend=backend.name, device=backend.device).fit(X, y)
    assert max(largest, default=0) <= (0 if backend.has_sparse_products else 60)
    assert set(seen) == {(True, 60)}
    np.testing.assert_allclose(model.validation_scores_, dense.validation_scores_, rtol=1e-12)


class Notes(Callback):
    def __init__(self):
        self.heard = []

    def on_fit_begin(self, model):
        self.heard.append("begin")

    def on_step_end(self, model, done, n_steps):
        self.heard.append((done, n_steps))

    def on_epoch_end(self, model, record):
        self.heard.append(record.epoch)
        return record.epoch == 2

    def on_fit_end(self, model):
        self.heard.append("end")


def test_callbacks_hear_everything_and_can_stop():
    X, y = problem(30)
    notes = Notes()
    model = MLPClassifier(**SETTINGS, callbacks=[notes]).fit(X, y)
    epoch = [(1, 2), (2, 2)]
    assert notes.heard == ["begin", *epoch, 1, *epoch, 2, "end"]
    assert model.n_iter_ == 2


def test_callbacks_hear_of_the_end_of_a_fit_that_fails():
    class Failing(Callback):
        def on_epoch_end(self, model, record):
            raise RuntimeError("no more")

    notes = Notes()
    model = MLPClassifier(**SETTINGS, callbacks=[notes, Failing()])
    with pytest.raises(RuntimeError, match="no more"):
        model.fit(*problem(30))
    assert notes.heard[-1] == "end"
    assert model.predict(problem(30)[0]).shape == (30,), "what was learned is kept"


def test_a_callback_predicts_while_the_fit_goes_on(backend):
    X, y = problem()
    X_here = backend.put(X)
    scores = []

    class Score(Callback):
        def on_epoch_end(self, model, record):
            scores.append(model.score(X_here, y))

    model = MLPClassifier(**SETTINGS, callbacks=[Score()])
    model.fit(X_here, y, X_val=X_here, y_val=y)
    assert scores == model.validation_scores_


def test_another_rule_starts_afresh():
    """Neither slots nor step count of one rule mean anything to another."""
    X, y = problem()
    settings = SETTINGS | {"max_iter": 20, "batch_size": 60, "alpha": 0.0}
    for first, then in (("rmsprop", "lion"), ("sgd", "adam")):
        model = MLPClassifier(**settings, solver=first, warm_start=True).fit(X, y)
        fresh = MLPClassifier(**settings, solver=then, warm_start=True)
        fresh.classes_ = model.classes_
        for name in ("coefs_", "intercepts_"):
            setattr(fresh, name, [array.copy() for array in getattr(model, name)])
        for each in (model, fresh):
            each.set_params(solver=then, max_iter=1).fit(X, y)
        np.testing.assert_allclose(model.coefs_[0], fresh.coefs_[0], atol=1e-12)


def test_a_regressor_names_the_output_that_its_loss_brings():
    X, _ = problem()
    loss = Through(SquaredError(), "softplus")
    model = MLPRegressor(**SETTINGS, loss=loss).fit(X, X[:, 0] ** 2)
    assert model.out_activation_ == "softplus"
    assert model.predict(X).min() > 0
