"""What other people's code does with scikit-learn's MLP besides fit and predict."""

import copy
import inspect
import warnings

import numpy as np
import pytest
import sklearn.neural_network as theirs
from helpers import problem
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import LabelBinarizer

import mlp_xp as ours
from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.nn.layers import silu
from mlp_xp.saving import load_model, save_model

X, y = problem()
TARGETS = {"binary": y > 0, "multiclass": y, "multilabel": np.eye(3, dtype=int)[y]}
LIBRARIES = [theirs, ours]
SETTINGS = {"hidden_layer_sizes": (8, 5), "random_state": 0, "max_iter": 3}
pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer.*:")


def both(name, targets):
    return [getattr(library, name)(**SETTINGS).fit(X, targets) for library in LIBRARIES]


# --- attributes that are assigned ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_output_and_hidden_activations_that_are_assigned_act(kind):
    pair = both("MLPClassifier", TARGETS[kind])

    def check(change):
        for model in pair:
            change(model)
        expected, found = (model.predict_proba(X) for model in pair)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        expected, found = (model.predict(X) for model in pair)
        np.testing.assert_array_equal(found, expected)

    for hidden in ("identity", "logistic", "tanh"):
        check(lambda model, name=hidden: model.set_params(activation=name))
    for output in ("identity", "tanh", "logistic", "softmax", "relu"):
        check(lambda model, name=output: setattr(model, "out_activation_", name))
    mine = pair[1]
    named = mine.set_params(activation=["tanh", "silu"]).logits(X)
    np.testing.assert_array_equal(mine.set_params(activation=["tanh", silu]).logits(X), named)


def test_a_regressors_output_activation_that_is_assigned_acts_and_is_not_trained_with():
    their, mine = both("MLPRegressor", X[:, 0])
    their.out_activation_ = mine.out_activation_ = "logistic"
    np.testing.assert_allclose(mine.predict(X), their.predict(X), atol=1e-12)
    metric = "neg_mean_squared_error"
    error = np.mean((mine.predict(X) - y) ** 2)
    assert mine.evaluate(X, y, metrics=metric)[metric] == pytest.approx(-error)
    with pytest.raises(ValueError, match="out_activation_ is 'logistic', which was assigned"):
        mine.partial_fit(X, y)
    mine.out_activation_ = "no such"
    with pytest.raises(ValueError, match="output is 'no such', and must be one of"):
        mine.predict(X)


def assigned(library, source, name="MLPRegressor"):
    model = getattr(library, name)(random_state=0)
    for attribute in ("coefs_", "intercepts_", "n_layers_", "out_activation_"):
        setattr(model, attribute, getattr(source, attribute))
    return model


def test_a_regressor_that_is_given_its_weights_predicts():
    source = theirs.MLPRegressor(**SETTINGS).fit(X, y)
    for library in LIBRARIES:
        model = assigned(library, source)
        np.testing.assert_allclose(model.predict(X), source.predict(X), atol=1e-12)
    assert (model.n_features_in_, model.n_outputs_) == (6, 1)
    again = copy.deepcopy(assigned(ours, source))
    np.testing.assert_allclose(again.predict(X), source.predict(X), atol=1e-12)
    assert again.evaluate(X, y)["r2"] == pytest.approx(source.score(X, y))
    assert again.hidden_activations(X).shape == (len(X), 5)


@pytest.mark.parametrize("kind", TARGETS)
def test_a_classifier_that_is_given_its_weights_predicts_and_continues(kind):
    source = theirs.MLPClassifier(**SETTINGS).fit(X, TARGETS[kind])
    for by_binarizer in (False, True):
        model = assigned(ours, source, "MLPClassifier")
        with pytest.raises(AttributeError, match="classes_ are not: assign the class labels"):
            model.predict(X)
        if by_binarizer:  # Theirs predicts with it.
            model._label_binarizer = LabelBinarizer().fit(TARGETS[kind])
        else:
            model.classes_ = source.classes_
        np.testing.assert_array_equal(model.predict(X), source.predict(X))
        np.testing.assert_allclose(model.predict_proba(X), source.predict_proba(X), atol=1e-12)
        model.set_params(warm_start=True, hidden_layer_sizes=(8, 5), max_iter=5)
        model.fit(X, TARGETS[kind])
        assert model.n_iter_ == len(model.loss_curve_) == 5
        assert model.loss_ < source.loss_


def test_weights_that_do_not_fit_are_rejected():
    for change, message in (
        ({"coefs_": [np.ones((6, 2)), np.ones((3, 1))]}, r"coefs_\[1\] is of shape \(3, 1\).*2, 1"),
        ({"input_scaling": "standardize"}, "input_scaling is 'standardize', which.*=None"),
        ({"normalization": "layer"}, "normalization is 'layer', which.*=None"),
    ):
        model = MLPRegressor()
        vars(model).update(coefs_=[np.ones((6, 2)), np.ones((2, 1))])
        vars(model).update(intercepts_=[np.ones(2), np.ones(1)])
        vars(model).update(change)
        with pytest.raises(ValueError, match=message):
            model.predict(np.ones((1, 6)))


def test_what_was_assigned_is_saved_without_a_prediction_before(tmp_path):
    source = theirs.MLPRegressor(**SETTINGS).fit(X, y)
    given = assigned(ours, source).set_params(hidden_layer_sizes=source.hidden_layer_sizes)
    fitted = MLPRegressor(**SETTINGS).fit(X, y).set_params(activation="tanh")
    for model in (given, fitted):
        save_model(model, tmp_path)
        np.testing.assert_array_equal(load_model(tmp_path).predict(X), model.predict(X))


@pytest.mark.parametrize("name", ["coefs_", "intercepts_"])
def test_a_layer_without_an_array_is_rejected(name, tmp_path):
    model = MLPRegressor(**SETTINGS).fit(X, y)
    getattr(model, name)[1] = None
    for call in (
        lambda: model.predict(X),
        lambda: model.partial_fit(X, y),
        lambda: save_model(model, tmp_path),
    ):
        with pytest.raises(ValueError, match=rf"{name}\[1\] is None, and must be an array"):
            call()


def test_curves_that_are_assigned_are_continued():
    model = MLPClassifier(**SETTINGS, warm_start=True).fit(X, y)
    model.validation_scores_ = []
    model.set_params(early_stopping=True).fit(X, y)
    assert len(model.validation_scores_) == len(model.validation_loss_curve_) == 3
    assert model.best_validation_score_ == max(model.validation_scores_)


# --- subclasses ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_a_private_method_that_would_be_ignored_is_rejected(kind):
    first = {"classes": [0, 1, 2]} if kind is MLPClassifier else {}
    for name, instead in (
        ("_init_coef", "coefs_ and intercepts_ before a fit with warm_start=True"),
        ("_fit_stochastic", "partial_fit"),
        ("_validate_input", "in fit and partial_fit"),
        ("_compute_loss_grad", "mlp_xp.nn.losses.Custom"),
        ("_forward_pass", "mlp_xp.nn.hidden"),
    ):
        assert hasattr(getattr(theirs, kind.__name__), name)
        model = type("Mine", (kind,), {name: lambda self, *args: None})()
        with pytest.raises(TypeError, match=f"Mine has {name}, a private.*{instead}"):
            model.fit(X, y)
        with pytest.raises(TypeError, match=f"Mine has {name}, a private.*{instead}"):
            model.partial_fit(X, y, **first)
        assert not hasattr(model, "coefs_")


# --- warm starts, warnings, types -----------------------------------------------------------------


def test_a_warm_start_with_other_sizes_keeps_the_network():
    for library in LIBRARIES:
        model = library.MLPClassifier(**SETTINGS, warm_start=True).fit(X, y)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            model.set_params(hidden_layer_sizes=(30, 20)).fit(X, y)
        assert [W.shape for W in model.coefs_] == [(6, 8), (8, 5), (5, 3)]
    (told,) = [w for w in caught if "hidden_layer_sizes" in str(w.message)]
    assert "hidden_layer_sizes is now (30, 20)" in str(told.message)
    assert told.filename == __file__


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_each_fit_warns_at_the_callers_line_and_is_silenced_by_one_filter(solver):
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


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_losses_are_numbers_of_numpy(solver, dtype):
    model = MLPClassifier(**SETTINGS, solver=solver).fit(X.astype(dtype), y)
    for loss in (model.loss_, model.best_loss_, *model.loss_curve_):
        assert type(loss) is np.float64
    assert clone(model).get_params() == model.get_params()


@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csr_matrix, sparse.csc_matrix])
def test_sparse_labels_are_predicted_sparse(kind):
    labels = TARGETS["multilabel"]
    their, mine = both("MLPClassifier", kind(labels))
    expected, found = their.predict(X), mine.predict(X)
    assert type(found) is type(expected)
    np.testing.assert_array_equal(found.toarray(), expected.toarray())
    assert mine.score(X, kind(labels)) == mine.score(X, labels) == mine.score(X, labels.tolist())
    assert isinstance(mine.fit(X, labels).predict(X), np.ndarray)


def test_unseen_held_out_labels_are_reported_by_name():
    with pytest.raises(ValueError, match=r"`y_val` has classes not in .*\[7\].*out of y_val") as e:
        MLPClassifier(**SETTINGS).fit(X, y, X_val=X, y_val=np.where(y == 0, 7, y))
    assert "partial_fit" not in str(e.value)


# --- what is there to see ------------------------------------------------------------------------


# What ours has besides the names of scikit-learn's.
ADDED = {"evaluate", "from_recipe", "from_weights", "hidden_activations", "history_", "to"}
ADDED |= {"input_gradient", "logits", "plot", "set_callbacks", "set_predict_proba_request"}
ADDED |= {"set_predict_request", "summary", "validation_loss_curve_"}


def test_only_public_names_are_listed():
    assert set(dir(ours)) == {*ours.__all__, "__version__"}
    others, mine = (set(dir(model)) for model in both("MLPClassifier", y))
    listed = {name for name in mine - others if not name.startswith("_")}
    assert listed - set(MLPClassifier().get_params()) <= ADDED
    assert {name for name in others if not name.startswith("_")} <= mine
    with_norms = MLPClassifier(**SETTINGS, normalization="batch").fit(X, y)
    assert len(with_norms.norms_) == len(with_norms.moments_) == 2
    assert not hasattr(with_norms.set_params(normalization=None).fit(X, y), "norms_")


def test_signatures_have_types_that_are_not_strings():
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
def test_a_matrix_of_numpy_is_rejected_in_the_same_words():
    for data in ((np.matrix(X), y), (X, np.matrix(y).T)):
        errors = []
        for library in LIBRARIES:
            with pytest.raises(TypeError, match=r"np.matrix is not supported") as error:
                library.MLPClassifier(**SETTINGS).fit(*data)
            errors.append(str(error.value))
        assert errors[0] == errors[1]
