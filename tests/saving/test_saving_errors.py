"""Models that cannot be saved are rejected, and a failed save leaves the old one."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from saved_models import CODES, X, assert_same, fitted, regressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.neural_network import MLPClassifier as SklearnClassifier

from mlp_xp import MLPClassifier
from mlp_xp.estimators.state import fitted_state
from mlp_xp.export import from_sklearn
from mlp_xp.nn.losses import Custom
from mlp_xp.optimizers import SGD
from mlp_xp.saving import SavingError, check_can_save, load_model, save_model


def test_an_unfitted_model_is_rejected(tmp_path):
    with pytest.raises(NotFittedError):
        save_model(MLPClassifier(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_rule_of_somebody_else_is_rejected(tmp_path):
    class Mine(SGD):
        pass

    with pytest.raises(SavingError, match=r"solver is .*Mine.* no JSON form: use a string"):
        save_model(fitted(solver=Mine()), tmp_path)
    assert list(tmp_path.iterdir()) == []


def my_activation(x, *, xp):
    return x * x, lambda dy: 2.0 * x * dy


def my_loss(outputs, targets, *, xp):
    error = outputs - targets
    return xp.sum(error * error, axis=-1), lambda dlosses: 2.0 * error * dlosses[..., None]


def my_score(model, X, y):
    return 0.5


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"activation": my_activation}, r"activation is .*my_activation.* pickle or joblib"),
        ({"activation": ["relu", my_activation]}, r"activation is .*my_activation"),
        ({"loss": my_loss}, r"loss is .*my_loss.* pickle or joblib"),
        ({"loss": Custom(my_loss, "exp")}, r"loss is Custom\(.* mlp_xp\.nn\.losses"),
        ({"scoring": my_score}, r"scoring is .*my_score.*set_params\(scoring=None\)"),
    ],
)
def test_functions_of_the_user_are_rejected(params, message, tmp_path):
    with pytest.raises(SavingError, match=message):
        save_model(regressor(**params), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"residual": True}, r"the fit had Network\(.*residual=False.* they say .*residual=True"),
        ({"hidden_layer_sizes": (6,)}, r"the fit had Network\(.* they say Network\(.*6, 2\)"),
        ({"input_scaling": "standardize"}, "the fit had None, and they say 'standardize'"),
        ({"precision": "float64"}, "the fit had 'float32', and they say 'float64'"),
        ({"loss": "huber"}, r"had SquaredError\(\), and they say Huber\(delta=1\.0\); set them"),
        ({"output_activation": "exp"}, "out_activation is 'identity', and params make it 'exp'"),
        ({"alpha": -1.0}, "changed since the fit: The 'alpha' parameter"),
        ({"dropout": [0.1]}, "changed since the fit: dropout has 1 entries"),
    ],
)
def test_parameters_that_no_longer_fit_are_rejected(changed, message, tmp_path):
    model = regressor().set_params(**changed)
    with pytest.raises(SavingError, match=message):
        save_model(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["layers.1.W", "layers.0.b", "moments.1.variance", "scaling.shift"]
)
@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_diverged_model_is_never_saved(name, value, tmp_path):
    model = fitted(normalization="batch", input_scaling="standardize")
    save_model(model, tmp_path)
    good = load_model(tmp_path)
    arrays = {
        "layers.1.W": model.coefs_[1],
        "layers.0.b": model.intercepts_[0],
        "moments.1.variance": model.moments_[1].variance,
        "scaling.shift": fitted_state(model).scaling.shift,
    }
    arrays[name][(0,) * arrays[name].ndim] = value
    with pytest.raises(SavingError, match=f"'{name}' has NaN or infinity.* smaller learning_rate"):
        save_model(model, tmp_path)
    assert_same(load_model(tmp_path).coefs_, good.coefs_, "the model that was there")


def test_what_is_no_estimator_of_this_library_is_rejected(tmp_path):
    with pytest.raises(SavingError, match=r"Ridge is neither .*: use pickle or joblib"):
        save_model(Ridge().fit(X, CODES), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_scikit_learn_is_rejected_with_the_way_to_convert_it(tmp_path):
    theirs = SklearnClassifier(2, max_iter=400, tol=1).fit(X, CODES)
    with pytest.raises(SavingError, match=r"^sklearn's MLPClassifier is .*from_sklearn") as caught:
        save_model(theirs, tmp_path)
    assert "pickle" not in str(caught.value)
    save_model(from_sklearn(theirs), tmp_path)
    other = type("MLPClassifier", (), {"__module__": "elsewhere"})()
    with pytest.raises(SavingError, match=r"^elsewhere's MLPClassifier is .* use pickle"):
        save_model(other, tmp_path)


@pytest.mark.parametrize("kind", [MLPClassifier, Ridge])
def test_a_class_is_no_fitted_model(kind, tmp_path):
    with pytest.raises(SavingError, match=rf"^the class {kind.__name__} is .*a fitted instance$"):
        save_model(kind, tmp_path)


def test_swapped_arguments_are_named(tmp_path):
    with pytest.raises(SavingError, match=r"type save_model\(estimator, folder\)"):
        save_model(str(tmp_path), fitted())


def test_the_folder_of_a_model_is_found_near_what_was_named(tmp_path):
    killed = tmp_path / ".good.0123abcd.partial"
    save_model(fitted(), killed)
    with pytest.raises(SavingError, match=r"save_model wrote$"):
        load_model(tmp_path)
    save_model(fitted(), tmp_path / "mine")
    for wrong in (tmp_path, tmp_path / "mine" / "model.json"):
        with pytest.raises(
            SavingError, match=f"wrote, such as {re.escape(str(tmp_path / 'mine'))}$"
        ):
            load_model(wrong)


def test_classes_without_a_json_form_are_rejected(tmp_path):
    model = fitted()
    model.classes_ = np.asarray([1, "a", None], dtype=object)
    with pytest.raises(SavingError, match=r"classes_ are of dtype object.*y\.astype\(str\)"):
        save_model(model, tmp_path)


@pytest.mark.parametrize("number", [1, 2])
def test_a_save_that_fails_leaves_the_old_model(number, tmp_path, monkeypatch):
    old, new = fitted(), fitted(random_state=1, alpha=0.5)
    save_model(old, tmp_path)
    write, written = Path.write_bytes, []

    def full_disk(path, content):
        written.append(path)
        if len(written) == number:
            write(path, content[:10])
            raise OSError("No space left on device")
        return write(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full_disk)
        with pytest.raises(OSError, match="No space left"):
            save_model(new, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.json", "model.safetensors"}
    loaded = load_model(tmp_path)
    assert loaded.alpha == old.alpha
    np.testing.assert_array_equal(loaded.predict_proba(X), old.predict_proba(X))


def test_what_can_be_saved_is_reported_without_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_can_save(fitted())
    with pytest.raises(SavingError, match=r"activation is .*my_activation.* pickle or joblib"):
        check_can_save(regressor(activation=my_activation))
    with pytest.raises(NotFittedError):
        check_can_save(MLPClassifier())
    assert list(tmp_path.iterdir()) == []


def test_another_folder_is_not_taken_for_a_damaged_model(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere", tmp_path / ("long" * 100)):
        with pytest.raises(SavingError, match=r"expected a folder that mlp_xp.saving.save_model w"):
            load_model(folder)
