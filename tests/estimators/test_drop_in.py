"""Uses of scikit-learn's MLP in other people's code besides fit and predict."""

import copy
import inspect
import re
import warnings

import numpy as np
import pytest
import sklearn.neural_network as theirs
from helpers import problem
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import LabelBinarizer

import mlp_xp as ours
from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp._utils.sklearn_compat import warn_caller
from mlp_xp.backends import get_backend
from mlp_xp.nn.layers import silu
from mlp_xp.saving import load_model, save_model
from mlp_xp.training.stack.workers import work_in_threads

X, y = problem()
TARGETS = {"binary": y > 0, "multiclass": y, "multilabel": np.eye(3, dtype=int)[y]}
LIBRARIES = [theirs, ours]
SETTINGS = {"hidden_layer_sizes": (8, 5), "random_state": 0, "max_iter": 3}
pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer.*:")


def both(name, targets):
    return [getattr(library, name)(**SETTINGS).fit(X, targets) for library in LIBRARIES]


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_assigned_output_and_hidden_activations_take_effect(kind):
    their, mine = both("MLPClassifier", TARGETS[kind])
    hidden = [("activation", name) for name in ("identity", "logistic", "tanh")]
    outputs = ("identity", "tanh", "logistic", "softmax", "relu")
    for name, value in [*hidden, *(("out_activation_", output) for output in outputs)]:
        for model in (their, mine):
            setattr(model, name, value)
        np.testing.assert_allclose(mine.predict_proba(X), their.predict_proba(X), atol=1e-12)
        np.testing.assert_array_equal(mine.predict(X), their.predict(X))
    named = mine.set_params(activation=["tanh", "silu"]).logits(X)
    np.testing.assert_array_equal(mine.set_params(activation=["tanh", silu]).logits(X), named)


def test_an_assigned_regressor_output_activation_affects_only_predictions():
    their, mine = both("MLPRegressor", X[:, 0])
    their.out_activation_ = mine.out_activation_ = "logistic"
    np.testing.assert_allclose(mine.predict(X), their.predict(X), atol=1e-12)
    metric = "neg_mean_squared_error"
    error = np.mean((mine.predict(X) - y) ** 2)
    assert mine.evaluate(X, y, metrics=metric)[metric] == pytest.approx(-error)
    with pytest.raises(ValueError, match="out_activation_ was changed to 'logistic'"):
        mine.partial_fit(X, y)
    mine.out_activation_ = "no such"
    with pytest.raises(ValueError, match=r"`output` must be one of .* got 'no such'"):
        mine.predict(X)


def assigned(library, source, name="MLPRegressor"):
    model = getattr(library, name)(random_state=0)
    for attribute in ("coefs_", "intercepts_", "n_layers_", "out_activation_"):
        setattr(model, attribute, getattr(source, attribute))
    return model


def test_a_regressor_with_assigned_weights_predicts():
    source = theirs.MLPRegressor(**SETTINGS).fit(X, y)
    np.testing.assert_allclose(assigned(theirs, source).predict(X), source.predict(X), atol=1e-12)
    model, other = (assigned(ours, source) for _ in range(2))
    again = copy.deepcopy(other)
    for each in (model, again):
        np.testing.assert_allclose(each.predict(X), source.predict(X), atol=1e-12)
    assert (model.n_features_in_, model.n_outputs_) == (6, 1)
    assert again.evaluate(X, y)["r2"] == pytest.approx(source.score(X, y))
    assert again.hidden_activations(X).shape == (len(X), 5)


@pytest.mark.parametrize("kind", TARGETS)
def test_a_classifier_with_assigned_weights_predicts_and_trains_further(kind):
    source = theirs.MLPClassifier(**SETTINGS).fit(X, TARGETS[kind])
    binarizer = LabelBinarizer().fit(TARGETS[kind])  # scikit-learn predicts with it.
    for name, value in (("classes_", source.classes_), ("_label_binarizer", binarizer)):
        model = assigned(ours, source, "MLPClassifier")
        with pytest.raises(AttributeError, match="classes_ are not: assign the sorted class"):
            model.predict(X)
        setattr(model, name, value)
        np.testing.assert_array_equal(model.predict(X), source.predict(X))
        np.testing.assert_allclose(model.predict_proba(X), source.predict_proba(X), atol=1e-12)
        model.set_params(warm_start=True, hidden_layer_sizes=(8, 5), max_iter=5)
        assert model.fit(X, TARGETS[kind]).n_iter_ == len(model.loss_curve_) == 5
        assert model.loss_ < source.loss_


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("coefs_", [np.ones((6, 2)), np.ones((3, 1))], r"coefs_\[1\] must have .*2, 1.*got .3, 1"),
        ("input_scaling", "standardize", "input_scaling must be None with assigned.*=None"),
        ("normalization", "layer", "normalization must be None with assigned.*=None"),
    ],
)
def test_assigned_weights_of_the_wrong_shape_are_rejected(name, value, message):
    model = MLPRegressor()
    model.coefs_, model.intercepts_ = [np.ones((6, 2)), np.ones((2, 1))], [np.ones(2), np.ones(1)]
    setattr(model, name, value)
    with pytest.raises(ValueError, match=message):
        model.predict(np.ones((1, 6)))


def test_assigned_weights_are_saved_even_before_any_prediction(tmp_path):
    source = theirs.MLPRegressor(**SETTINGS).fit(X, y)
    given = assigned(ours, source).set_params(hidden_layer_sizes=source.hidden_layer_sizes)
    for model in (given, MLPRegressor(**SETTINGS).fit(X, y).set_params(activation="tanh")):
        save_model(model, tmp_path)
        np.testing.assert_array_equal(load_model(tmp_path).predict(X), model.predict(X))


@pytest.mark.parametrize("name", ["coefs_", "intercepts_"])
def test_a_layer_without_an_array_is_rejected(name, tmp_path):
    model = MLPRegressor(**SETTINGS).fit(X, y)
    getattr(model, name)[1] = None
    for call, args in ((model.predict, (X,)), (model.partial_fit, (X, y)), (save_model, ())):
        with pytest.raises(ValueError, match=rf"`{name}\[1\]` must be an array, got None"):
            call(*(args or (model, tmp_path)))


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (AttributeError, "coefs_", lambda m: delattr(m, "coefs_") or m.predict(X)),
        (AttributeError, "out_act", lambda m: delattr(m, "out_activation_") or m.predict(X)),
        (TypeError, "int", lambda m: m.fit(X, np.asarray([1, "a"] * 30, dtype=object))),
    ],
)
def test_mistakes_raise_the_same_error_types_as_scikit_learn(error, message, call):
    for model in both("MLPClassifier", y):
        with pytest.raises(error, match=message):
            call(model)


def test_assigned_score_curves_are_continued():
    model = MLPClassifier(**SETTINGS, warm_start=True).fit(X, y)
    model.validation_scores_ = []
    model.set_params(early_stopping=True).fit(X, y)
    assert len(model.validation_scores_) == len(model.validation_loss_curve_) == 3
    assert model.best_validation_score_ == max(model.validation_scores_)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("_init_coef", "coefs_ and intercepts_ before a fit with warm_start=True"),
        ("_fit_stochastic", "partial_fit"),
        ("_validate_input", "in fit and partial_fit"),
        ("_compute_loss_grad", "mlp_xp.nn.losses.Custom"),
        ("_forward_pass", "mlp_xp.nn.hidden"),
        ("_unpack", "set coefs_"),
    ],
)
def test_overriding_an_unused_private_method_is_rejected(kind, name, instead):
    assert hasattr(getattr(theirs, kind.__name__), name)
    model = type("Mine", (kind,), {name: lambda self, *args: None})()
    classes = {"classes": [0, 1, 2]} if kind is MLPClassifier else {}
    for fit, more in ((model.fit, {}), (model.partial_fit, classes)):
        with pytest.raises(TypeError, match=f"Mine has {name}, a private.*{instead}"):
            fit(X, y, **more)
    assert not hasattr(model, "coefs_")


@pytest.mark.parametrize("kind", [*TARGETS, "real"])
def test_private_attributes_match_scikit_learn_or_name_a_replacement(kind):
    name = "MLPRegressor" if kind == "real" else "MLPClassifier"
    their, mine = both(name, TARGETS.get(kind, X[:, 0]))
    forward = mine._forward_pass([X, None, None, None])
    for found, expected in zip(forward, their._forward_pass([X, None, None, None]), strict=True):
        np.testing.assert_allclose(found, expected)
    np.testing.assert_array_equal(mine._forward_pass_fast(X, check_input=False), forward[-1])
    assert hasattr(mine, "_label_binarizer") == (kind != "real")
    if kind != "real":
        expected, found = vars(their._label_binarizer), vars(mine._label_binarizer)
        np.testing.assert_equal(found, expected)
    for name, instead in (
        ("_optimizer", "history_"),
        ("_no_improvement_count", "loss_curve_"),
        ("_backprop", "loss=..."),
        ("_unpack", "coefs_"),
        ("_coef_indptr", "shapes of coefs_"),
        ("_intercept_indptr", "shapes of coefs_"),
    ):
        with pytest.raises(AttributeError, match=f"{name}', which is private .*{instead}"):
            getattr(mine, name)
    with pytest.raises(AttributeError, match=r"This .* has no attribute 'partial_fit'"):
        mine.set_params(solver="lbfgs").partial_fit(X, X[:, 0])


def test_a_warm_start_with_other_layer_sizes_keeps_the_network():
    pytest.importorskip("sklearn.callback", reason="scikit-learn before 1.9")
    for library in LIBRARIES:
        model = library.MLPClassifier(**SETTINGS, warm_start=True).fit(X, y)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            model.set_params(hidden_layer_sizes=(30, 20)).fit(X, y)
        assert [W.shape for W in model.coefs_] == [(6, 8), (8, 5), (5, 3)]
    (told,) = [w for w in caught if "hidden_layer_sizes" in str(w.message)]
    assert re.search(r"now \(30, 20\).*network of \[8, 5\].*warm_start=False", str(told.message))
    assert told.filename == __file__


def test_warnings_from_threads_point_to_the_callers_line():
    settings = {"n_tasks": 2, "n_workers": 2, "n_threads": 1, "backend": get_backend("numpy")}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        [*work_in_threads(warn_caller, ["a", "b"], **settings)]
    assert [w.filename for w in caught] == [__file__] * 2


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_each_fit_warns_at_the_callers_line_and_one_filter_silences_it(solver):
    model = MLPClassifier(**SETTINGS, solver=solver)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(2):
            model.fit(X, y)
    assert [(w.category, w.filename) for w in caught] == [(ConvergenceWarning, __file__)] * 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for module in ("sklearn", "sklearn.neural_network"):
            warnings.filterwarnings("ignore", category=ConvergenceWarning, module=module)
            for library in LIBRARIES:
                library.MLPClassifier(**SETTINGS, solver=solver).fit(X, y)
            warnings.simplefilter("error")


@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csr_matrix, sparse.csc_matrix])
def test_sparse_labels_give_sparse_predictions(kind):
    labels = TARGETS["multilabel"]
    their, mine = both("MLPClassifier", kind(labels))
    expected, found = their.predict(X), mine.predict(X)
    assert type(found) is type(expected)
    np.testing.assert_array_equal(found.toarray(), expected.toarray())
    assert mine.score(X, kind(labels)) == mine.score(X, labels) == mine.score(X, labels.tolist())
    assert isinstance(mine.fit(X, labels).predict(X), np.ndarray)


# Our names that scikit-learn does not have.
ADDED = {"evaluate", "from_recipe", "from_weights", "hidden_activations", "history_", "to"}
ADDED |= {"input_gradient", "logits", "plot", "set_callbacks", "set_predict_proba_request"}
ADDED |= {"check", "integrated_gradients", "permutation_importance", "shap_values"}
ADDED |= {"set_predict_request", "summary", "validation_loss_curve_", "n_classes_", "member_std"}
ADDED |= {"predict_set"}


def test_dir_lists_only_public_names():
    pytest.importorskip("sklearn.callback", reason="scikit-learn before 1.9")
    assert ours.MLP is MLPClassifier
    assert set(dir(ours)) == {*ours.__all__, "__version__"}
    others, mine = (
        {name for name in dir(model) if not name.startswith("_")}
        for model in both("MLPClassifier", y)
    )
    assert mine - others - set(MLPClassifier().get_params()) <= ADDED
    assert others <= mine
    with_norms = MLPClassifier(**SETTINGS, normalization="batch").fit(X, y)
    assert len(with_norms.norms_) == len(with_norms.moments_) == 2
    assert not hasattr(with_norms.set_params(normalization=None).fit(X, y), "norms_")


def test_type_annotations_are_not_strings():
    seen = [ours.get_backend]
    for kind in (MLPClassifier, MLPRegressor):
        methods = inspect.getmembers(kind, inspect.isroutine)
        seen += [m for n, m in methods if not n.startswith("_") and m.__module__[:6] == "mlp_xp"]
        seen.append(kind)
    assert len(seen) > 15
    for function in seen:
        signature = inspect.signature(function)
        types = [p.annotation for p in signature.parameters.values()]
        assert not any(isinstance(t, str) for t in [*types, signature.return_annotation]), function


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.parametrize("make", [lambda: (np.matrix(X), y), lambda: (X, np.matrix(y).T)])
def test_np_matrix_is_rejected_with_scikit_learns_message(make):
    errors, data = set(), make()
    for library in LIBRARIES:
        with pytest.raises(TypeError, match=r"np.matrix is not supported") as error:
            library.MLPClassifier(**SETTINGS).fit(*data)
        errors.add(str(error.value))
    assert len(errors) == 1
