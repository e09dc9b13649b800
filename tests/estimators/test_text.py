"""Text in X or in the targets of a regressor: an error with code that makes numbers of it."""

import re

import numpy as np
import pandas
import pytest
from helpers import problem, small
from scipy import sparse
from sklearn import compose, impute, pipeline, preprocessing

from mlp_xp import MLPClassifier, MLPRegressor

X, y = problem()


def follow(error, X):
    """Return the pipeline that an error says to type, fitted, and its X."""
    names = vars(pipeline) | vars(compose) | vars(impute) | vars(preprocessing)
    names |= {"pandas": pandas, "X": X.copy(), "MLPClassifier": MLPClassifier}
    for line in re.findall(r"X\[\S+ = \S+\(.*?\)", error):
        exec(line, names)
    model = eval(re.findall(r"make_pipeline\(.*\)", error)[0], names)
    settings = {"hidden_layer_sizes": 5, "max_iter": 5, "learning_rate": "cosine"}
    model.set_params(**{f"mlpclassifier__{name}": value for name, value in settings.items()})
    return model.fit(names["X"], np.arange(len(X)) % 2), names["X"]


def text_error(X):
    with pytest.raises(ValueError, match="could not convert string to float") as caught:
        MLPClassifier().fit(X, np.arange(len(X)) % 2)
    return str(caught.value)


def test_text_in_x_is_encoded_as_the_error_says():
    colors = {"size": [1, 2, 3], "color": ["red", "blue", "red"], "shape": [*"oxx"]}
    frame = pandas.DataFrame(colors)
    error = text_error(frame)
    assert "'red'. MLPClassifier takes numbers in X. X['color'] and X['shape'] have text" in error
    follow(error, frame)[0].predict(frame.assign(color="green"))
    # So many that the encoder returns a sparse matrix, and some are missing.
    names = pandas.DataFrame({"size": np.arange(9.0), "name": [*"abcdefg", None, np.nan]})
    error = text_error(names)
    assert "X['name'] has text:" in error
    model, _ = follow(error, names)
    assert sparse.issparse(model[0].transform(names))
    model.predict(names.assign(name="z"))
    renamed = frame.set_axis([3, 1, 2], axis=1)
    for texts in (frame.to_numpy(), frame.to_numpy().tolist(), renamed, frame["color"]):
        assert re.search(r"takes numbers in X: .*to_numeric.*OneHotEncoder", text_error(texts))


@pytest.mark.parametrize("dtype", [str, object, "category"])
def test_a_question_mark_among_numbers_is_made_missing(dtype):
    strings = pandas.DataFrame({"hp": pandas.Series(["1", "2.5", "?", "4"], dtype=dtype)})
    mixed = pandas.DataFrame({"hp": pandas.Series([1, 2.5, "?", None, "4"], dtype=object)})
    for frame in (strings, mixed):
        error = text_error(frame)
        assert "X['hp'] has text among numbers" in error
        assert "OneHotEncoder" not in error
        model, X = follow(error, frame)
        model.predict(X)
    both = strings.assign(color=["red", "blue", "red", "blue"], digits=[*"1234"], day="2026-01-01")
    error = text_error(both.assign(day=pandas.to_datetime(both["day"])))
    assert "X['digits']" not in error
    assert "X['day']" not in error
    model, X = follow(error, both.drop(columns="day"))
    model.predict(X)


def test_errors_of_many_rows_and_of_many_columns():
    late = pandas.DataFrame({"hp": [*map(str, range(1999)), "?"]}, index=np.arange(2000) / 2)
    assert "X['hp'] has text among numbers" in text_error(late)
    error = text_error(pandas.DataFrame({f"column {i}": ["a", "b"] for i in range(300)}))
    assert "with the names of all columns of text" in error
    assert "X['column 0'], X['column 1'], X['column 2'] and 297 more have text" in error
    assert len(error) < 500


@pytest.mark.parametrize("name", ["y", "y_val"])
@pytest.mark.parametrize("kind", [str, object, bytes, np.dtypes.StringDType()])
def test_text_in_the_targets_of_a_regressor(name, kind):
    def fit(*texts):
        targets = np.resize(np.asarray(texts, dtype=object).astype(kind), len(X))
        validation = {"X_val": X, "y_val": targets} if name == "y_val" else {}
        model = MLPRegressor(max_iter=2, learning_rate="cosine")
        return model.fit(X, y if validation else targets, **validation)

    fit("1", "2.5")
    told = rf"^{name} has text, e\.g\. b?'a', .*: take MLPClassifier"
    with pytest.raises(ValueError, match=told):
        fit("1", "a")
    for text in ("nan", "inf"):
        with pytest.raises(ValueError, match=rf"^Input {name} contains (NaN|infinity)"):
            fit("1", text)


def test_missing_targets_are_said_to_be_where_they_are():
    missing = np.where(y > 0, 1.0, np.nan)
    for model in (MLPRegressor(), small()):
        with pytest.raises(ValueError, match=r"^Input y_val contains NaN"):
            model.fit(X, y, X_val=X, y_val=missing)
    for values in ([None, *missing[1:]], pandas.Series([None, *y[1:]], dtype="Int64")):
        with pytest.raises(ValueError, match=r"^Input y_val contains NaN"):
            MLPRegressor().fit(X, y, X_val=X, y_val=values)
