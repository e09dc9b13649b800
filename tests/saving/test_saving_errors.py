"""Models that cannot be saved are rejected, and a failed save leaves the old one."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from saved_models import CODES, X, assert_same, fitted, regressor, rejects
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.neural_network import MLPClassifier as SklearnClassifier

from mlp_xp import MLPClassifier
from mlp_xp.estimators.state import fitted_state
from mlp_xp.export import from_sklearn
from mlp_xp.nn.losses import Custom
from mlp_xp.optimizers import SGD
from mlp_xp.saving import check_can_save, load_model, save_model


class Mine(SGD):
    pass


def my_activation(x, *, xp):
    return x * x, lambda dy: 2.0 * x * dy


def my_loss(outputs, targets, *, xp):
    error = outputs - targets
    return xp.sum(error * error, axis=-1), lambda dlosses: 2.0 * error * dlosses[..., None]


def my_score(model, X, y):
    return 0.5


def test_what_has_no_json_form_is_rejected(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_can_save(fitted())
    for params, message in (
        ({"solver": Mine()}, r"solver is .*Mine.* no JSON form: use a string"),
        ({"activation": my_activation}, r"activation is .*my_activation.* pickle or joblib"),
        ({"activation": ["relu", my_activation]}, r"activation is .*my_activation"),
        ({"loss": my_loss}, r"loss is .*my_loss.* pickle or joblib"),
        ({"loss": Custom(my_loss, "exp")}, r"loss is Custom\(.* mlp_xp\.nn\.losses"),
        ({"scoring": my_score}, r"scoring is .*my_score.*set_params\(scoring=None\)"),
    ):
        model = regressor(**params)
        rejects(message, save_model, model, tmp_path)
        rejects(message, check_can_save, model, name=params)
    for save in (check_can_save, lambda model: save_model(model, tmp_path)):
        with pytest.raises(NotFittedError):
            save(MLPClassifier())
    model = fitted()
    model.classes_ = np.asarray([1, "a", None], dtype=object)
    rejects(r"classes_ are of dtype object.*y\.astype\(str\)", save_model, model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_parameters_that_no_longer_fit_are_rejected(tmp_path):
    model = regressor()
    before = model.get_params()
    for changed, message in (
        ({"residual": True}, r"the fit had Network\(.*residual=False.* they say .*residual=True"),
        ({"hidden_layer_sizes": (6,)}, r"the fit had Network\(.* they say Network\(.*6, 2\)"),
        ({"input_scaling": "standardize"}, "the fit had None, and they say 'standardize'"),
        ({"precision": "float64"}, "the fit had 'float32', and they say 'float64'"),
        ({"loss": "huber"}, r"had SquaredError\(\), and they say Huber\(delta=1\.0\); set them"),
        ({"output_activation": "exp"}, "out_activation is 'identity', and params make it 'exp'"),
        ({"alpha": -1.0}, "changed since the fit: The 'alpha' parameter"),
        ({"dropout": [0.1]}, "changed since the fit: dropout has 1 entries"),
    ):
        rejects(message, save_model, model.set_params(**before | changed), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_diverged_model_is_never_saved(tmp_path):
    model = fitted(normalization="batch", input_scaling="standardize")
    save_model(model, tmp_path)
    good = load_model(tmp_path)
    for name, array in {
        "layers.1.W": model.coefs_[1],
        "layers.0.b": model.intercepts_[0],
        "moments.1.variance": model.moments_[1].variance,
        "scaling.shift": fitted_state(model).scaling.shift,
    }.items():
        first, before = (0,) * array.ndim, array.flat[0]
        for value in (math.nan, math.inf, -math.inf):
            array[first] = value
            said = f"'{name}' has NaN or infinity.* smaller learning_rate"
            rejects(said, save_model, model, tmp_path)
        array[first] = before
    assert_same(load_model(tmp_path).coefs_, good.coefs_, "the model that was there")


def test_what_is_no_fitted_estimator_of_this_library_is_rejected_with_the_cure(tmp_path):
    theirs = SklearnClassifier(2, max_iter=400, tol=1).fit(X, CODES)
    other = type("MLPClassifier", (), {"__module__": "elsewhere"})()
    for model, message in (
        (Ridge().fit(X, CODES), r"^Ridge is neither .*: use pickle or joblib"),
        (theirs, r"^sklearn's MLPClassifier is .*: mlp_xp\.export\.from_sklearn makes one of it$"),
        (other, r"^elsewhere's MLPClassifier is .* use pickle"),
        (MLPClassifier, r"^the class MLPClassifier is .*a fitted instance$"),
        (Ridge, r"^the class Ridge is .*a fitted instance$"),
        (str(tmp_path), r"type save_model\(estimator, folder\)"),
    ):
        rejects(message, save_model, model, tmp_path)
    assert list(tmp_path.iterdir()) == []
    save_model(from_sklearn(theirs), tmp_path)


def test_the_folder_of_a_model_is_found_near_what_was_named(tmp_path):
    save_model(fitted(), tmp_path / ".good.0123abcd.partial")  # Of a save that was killed.
    for folder in (tmp_path, tmp_path / "nowhere", tmp_path / ("long" * 100)):
        rejects(r"a folder that mlp_xp.saving.save_model wrote$", load_model, folder)
    save_model(fitted(), tmp_path / "mine")
    said = f"wrote, such as {re.escape(str(tmp_path / 'mine'))}$"
    for wrong in (tmp_path, tmp_path / "mine" / "model.json"):
        rejects(said, load_model, wrong)


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

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_model(new, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.json", "model.safetensors"}
    loaded = load_model(tmp_path)
    assert loaded.alpha == old.alpha
    np.testing.assert_array_equal(loaded.predict_proba(X), old.predict_proba(X))
