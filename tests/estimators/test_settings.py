"""Settings of the network and of the optimizer, and what they are resolved into."""

import inspect
import pickle
import re
from dataclasses import dataclass, field

import numpy as np
import pytest
from helpers import problem, small
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_html_repr

from mlp_xp import MLPClassifier, MLPEnsembleClassifier, MLPRegressor
from mlp_xp.estimators.settings.config import resolve_config
from mlp_xp.estimators.targets import ClassTargets
from mlp_xp.nn.layers import tanh
from mlp_xp.nn.losses import SoftmaxFocal
from mlp_xp.optimizers import SGD, Adam, AdamW, ByKind, Muon
from mlp_xp.optimizers.schedules import InvScaling, OneCycle

X, y = problem()


def test_custom_activations_work_on_every_backend_and_are_checked(backend):
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


def test_a_small_last_batch_does_not_distort_running_statistics():
    settings = {"normalization": "batch", "max_iter": 60, "learning_rate_init": 0.01}
    whole, one_more = (
        small(**settings).fit(X[:n], y[:n]).evaluate(X[:n], y[:n])["loss"] for n in (32, 33)
    )
    assert one_more < 2 * whole


@pytest.mark.parametrize("residual", [False, True])
def test_hidden_activations_returns_the_chosen_layer(backend, residual):
    model = small(hidden_layer_sizes=(5, 5), activation=["tanh", "relu"], residual=residual)
    model.fit(backend.put(X), y)
    coefs, intercepts = map(backend.get, model.coefs_), map(backend.get, model.intercepts_)
    first = np.tanh(X @ next(coefs) + next(intercepts))
    second = np.maximum(first @ next(coefs) + next(intercepts), 0) + residual * first
    for layer, expected in ((0, first), (1, second), (-1, second), (-2, first)):
        found = model.hidden_activations(backend.put(X), layer)
        assert backend.holds(found)
        np.testing.assert_allclose(backend.get(found), expected, atol=1e-12)
    with pytest.raises(IndexError, match="0 to 1 for a network with 2 hidden layers, got 2"):
        model.hidden_activations(X, 2)


def everything(normalization="batch"):
    settings = {"dropout": [0.1, 0.2], "input_dropout": 0.1, "residual": True, "solver": Muon()}
    settings |= {"hidden_layer_sizes": (8, 8), "activation": ["gelu", "relu"], "ema_decay": 0.9}
    settings |= {"learning_rate": OneCycle(), "max_grad_norm": 1.0, "input_scaling": "standardize"}
    return small(**settings, normalization=normalization)


@pytest.mark.parametrize("normalization", ["batch", "layer"])
def test_all_settings_combined_give_the_same_results_on_every_backend(backend, normalization):
    X_here = backend.put(X)
    expected = everything(normalization).fit(X, y)
    model = everything(normalization).fit(X_here, y)
    np.testing.assert_allclose(model.loss_curve_, expected.loss_curve_, rtol=1e-7)
    p = backend.get(model.predict_proba(X_here))
    np.testing.assert_allclose(p, expected.predict_proba(X), atol=1e-7)
    # Training continues from a pickle.
    opened = pickle.loads(pickle.dumps(model))  # noqa: S301
    moments = [array for each in getattr(opened, "moments_", []) for array in each]
    assert all(type(array) is np.ndarray for array in (*opened.coefs_, *moments))
    np.testing.assert_allclose(opened.predict_proba(X), p, atol=1e-10)
    for each in (model, opened):
        each.partial_fit(X_here, y)
    np.testing.assert_allclose(opened.loss_, model.loss_, rtol=1e-10)


def test_a_model_moves_to_another_library_and_back(backend):
    model = everything().fit(X, y)
    there = model.to(backend.name, backend.device)
    assert all(map(backend.holds, (*there.coefs_, *(norm.scale for norm in there.norms_))))
    assert isinstance(there.predict_proba(X), np.ndarray)
    np.testing.assert_allclose(there.predict_proba(X), model.predict_proba(X), atol=1e-10)
    back = there.to("numpy")
    assert type(back.coefs_[0]) is type(model.coefs_[0]) is np.ndarray  # The original stays.
    np.testing.assert_array_equal(back.coefs_[0], model.coefs_[0])


def test_summary_and_html_describe_the_network():
    model = everything().fit(X, y)
    summary, text = model.summary(), str(model.summary())
    for words in ("residual, dense", "batch normalization", "gelu", "dropout 0.2", "output: dense"):
        assert words in text
    norms = [array for norm in model.norms_ for array in norm]
    learned = sum(array.size for array in (*model.coefs_, *model.intercepts_, *norms))
    assert summary.parameters == learned
    assert re.search(rf"total +{learned:,}\b", text)
    assert summary.work == 2 * sum(W.size for W in model.coefs_)
    page = model._repr_html_()
    box = page.partition('<div class="mlp-xp-box">')[2]
    assert estimator_html_repr(model)[:20] == box[:20]
    assert "batch normalization" in page
    assert "batch normalization" not in clone(model)._repr_html_()


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor, MLPEnsembleClassifier])
def test_a_notebook_describes_each_parameter(kind):
    pytest.importorskip("sklearn.callback", reason="scikit-learn before 1.9")
    parameters = set(kind().get_params(deep=False))
    for page in (kind()._repr_html_(), make_pipeline(kind())._repr_html_()):
        descriptions = dict(re.findall(r'param-doc-description"[^>]*>\s*(\w+): (.*)</span>', page))
        assert parameters <= set(descriptions)
        assert all("<br><br>" in text for text in descriptions.values())
        assert 'href="#' not in page  # No address, so no link.


TARGETS = ClassTargets(np.arange(3), "softmax")


def test_each_kind_of_parameter_can_have_its_own_optimizer():
    rule = ByKind(Muon(), AdamW(), SGD(momentum=0.0), vector_rate=0.0, head_rate=5.0)
    start, model = (
        small(solver=rule, learning_rate_init=rate, max_iter=20).fit(X, y)
        for rate in (1e-300, 0.01)
    )
    assert model.loss_curve_[-1] < 0.8 * model.loss_curve_[0]
    for weights, before in zip(model.coefs_, start.coefs_, strict=True):
        assert np.abs(weights - before).max() > 0.01
    for bias, before in zip(model.intercepts_, start.intercepts_, strict=True):
        np.testing.assert_array_equal(bias, before)


def rates(**settings):
    return [r.learning_rate for r in small(**settings).fit(X, y).history_]


def test_schedules_apply_to_adam_except_those_that_scikit_learn_limits_to_sgd():
    for schedule in ("cosine", InvScaling()):
        found = rates(learning_rate=schedule)
        assert found == sorted(found, reverse=True)
        assert found[-1] < found[0]
    for schedule in ("invscaling", "adaptive"):  # Scikit-learn has them for SGD alone.
        settings = {"learning_rate": schedule, "tol": 10.0, "n_iter_no_change": 2}
        for solver in ("adam", "lion", AdamW(), SGD()):
            is_fixed = len(set(rates(solver=solver, **settings))) == 1
            assert is_fixed == (solver != SGD()), (schedule, solver)


def test_lbfgs_rejects_losses_that_change_from_call_to_call():
    rates = dict.fromkeys(("dropout", "input_dropout", "ema_decay", "max_grad_norm"), 0.1)
    for name, value in (rates | {"normalization": "batch"}).items():
        with pytest.raises(ValueError, match=rf"{name} is .*'lbfgs' needs a loss"):
            MLPClassifier(solver="lbfgs", **{name: value}).fit(X, y)


def test_a_warm_start_keeps_the_optimizer_state():
    once = small(max_iter=6).fit(X, y)
    twice = small(max_iter=3, warm_start=True).fit(X, y)
    twice = pickle.loads(pickle.dumps(twice)).fit(X, y)  # noqa: S301
    np.testing.assert_allclose(twice.loss_curve_, once.loss_curve_, rtol=1e-12)
    assert (twice.n_iter_, once.n_iter_) == (3, 6)


@pytest.mark.parametrize(("first", "then"), [("rmsprop", "lion"), ("sgd", "adam")])
def test_changing_the_solver_resets_the_optimizer_state(first, then):
    """A rule's optimizer state and step count do not apply to another rule."""
    settings = {"max_iter": 20, "batch_size": 60, "alpha": 0.0, "warm_start": True}
    model, fresh = small(**settings, solver=first).fit(X, y), small(**settings)
    fresh.classes_ = model.classes_
    for name in ("coefs_", "intercepts_"):
        setattr(fresh, name, [array.copy() for array in getattr(model, name)])
    for each in (model, fresh):
        each.set_params(solver=then, max_iter=1).fit(X, y)
    np.testing.assert_allclose(model.coefs_[0], fresh.coefs_[0], atol=1e-12)


@dataclass(frozen=True)
class Halved(OneCycle):
    """A schedule with a field that its constructor does not take."""

    extra: float = field(default=np.float64(0.5), init=False)


@pytest.mark.parametrize(
    "settings",
    [
        lambda x: {"beta_1": x, "loss": SoftmaxFocal(gamma=x), "learning_rate": OneCycle(x)},
        lambda x: {"learning_rate": Halved(x)},
        lambda x: {"power_t": x, "solver": "sgd", "learning_rate": "invscaling"},
        lambda x: {"dropout": [x], "input_dropout": x, "solver": Adam(beta_1=x, beta_2=x)},
        lambda x: {"solver": ByKind(vector=AdamW(weight_decay=x))},
    ],
)
def test_numpy_scalars_in_settings_become_python_numbers(settings):
    """Equal numbers of both types would otherwise share compiled functions and cached results."""
    numbers = np.float32(0.3), float(np.float32(0.3))
    models = [small(precision="float64", **settings(number)) for number in numbers]
    one, other = (resolve_config(model.get_params(), 6, TARGETS).rules for model in models)
    assert one == other
    assert "float32" not in repr(one) == repr(other)
    np.testing.assert_array_equal(*(clone(model).fit(X, y).coefs_[0] for model in models))


@pytest.mark.parametrize(
    "settings",
    [
        {"max_iter": np.int16(30), "learning_rate": "cosine", "n_iter_no_change": np.inf},
        {"max_iter": np.int8(100), "n_iter_no_change": np.int8(2), "tol": np.float16(1.0)},
        {"max_iter": np.int8(100), "max_time": np.float16(100.0)},
        {"batch_size": np.int8(100)},
        {"solver": "lbfgs", "max_iter": np.int8(99), "max_fun": np.int8(99), "tol": 0.1},
        {"max_iter": np.uint8(3), "early_stopping": np.True_, "verbose": np.int8(0)},
    ],
)
def test_settings_can_be_small_numpy_integers(settings):
    X, y = problem(300)
    plain = {name: getattr(value, "item", lambda v=value: v)() for name, value in settings.items()}
    model, expected = small(**settings).fit(X, y), small(**plain).fit(X, y)
    assert model.n_iter_ == expected.n_iter_
    np.testing.assert_array_equal(model.coefs_[0], expected.coefs_[0])


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_signature_and_docstring_match_the_parameter_table(kind):
    signature = inspect.signature(kind).parameters
    defaults = {name: row.default for name, row in kind._parameters.items()}
    assert defaults == {name: given.default for name, given in signature.items()}
    text = inspect.getdoc(kind)
    parameters, attributes = text.split("\nParameters\n")[1].split("\nAttributes\n")
    lines = re.findall(r"^(\S.*?) : ", parameters, re.MULTILINE)
    assert ", ".join(lines).split(", ") == list(signature)
    assert {"coefs_", "moments_", "history_", "t_"} <= set(re.findall(r"(?m)^(\w+) : ", attributes))
    assert "\n[" not in text
