"""Objects that NumPy would turn into the wrong numbers: an error whose cure works as typed."""

from pathlib import Path

import numpy as np
import pandas
import pytest
from helpers import problem, small
from numpy.lib.recfunctions import structured_to_unstructured, unstructured_to_structured

from mlp_xp import MLPClassifier, MLPRegressor

X, y = problem()
DAYS = np.datetime64("2026-01-01") + np.abs(10 * X).astype("timedelta64[D]")
NAMES = {"numpy": np, "pandas": pandas, "structured_to_unstructured": structured_to_unstructured}
FILLED = "X = X.astype(float).filled(numpy.nan)"
UNUSABLE = {
    "masked": (np.ma.masked_array(X, X > 1), "masked values", FILLED),
    "masked integers": (np.ma.masked_array(X > 1, X > 1, np.uint8), "masked values", FILLED),
    "records": (
        unstructured_to_structured(X),
        "structured array with the fields f0, f1, f2",
        "X = structured_to_unstructured(X)",
    ),
    "dates": (DAYS, "got datetime64", "X = (X - X.min()) / numpy.timedelta64(1, 'D')"),
    "durations": (DAYS - DAYS.min(), "got timedelta64", "X = X / numpy.timedelta64(1, 'D')"),
    "images": (X.reshape(60, 1, 2, 3), "4D array instead: shape", "X = X.reshape(len(X), -1)"),
}


def follow(error, cure, **data):
    """Return an argument after the assignment that an error says to type."""
    assert cure in str(error.value)
    names = NAMES | data
    exec(cure, names)
    return names[cure.partition(" ")[0]]


@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_unusable_x_is_an_error_whose_suggested_fix_works(kind):
    bad, message, cure = UNUSABLE[kind]
    fitted, table = small().fit(X, y), small(missing_values="impute")
    calls = [
        lambda: small().fit(bad, y),
        lambda: small().partial_fit(bad, y, classes=[0, 1, 2]),
        lambda: small().fit(X, y, X_val=bad, y_val=y),
        lambda: fitted.predict(bad),
        lambda: fitted.score(bad, y),
    ]
    if kind not in ("dates", "durations"):  # A table has columns of dates.
        calls.append(lambda: table.fit(bad, y))
    for call in calls:
        with pytest.raises((TypeError, ValueError), match=message) as caught:
            call()
        good = follow(caught, cure, X=bad)
    assert good.shape == X.shape
    assert table.fit(good, y).predict(good).shape == y.shape


def test_three_dimensional_arrays_of_any_library_are_rejected(backend):
    with pytest.raises(
        ValueError, match=r"3D array instead: shape \(60, 2, 3\)\. Make each sample"
    ):
        small().fit(backend.put(X.reshape(60, 2, 3)), y)


def test_masked_arrays_without_masked_values_are_accepted():
    whole = np.ma.masked_array(X)
    expected = small(random_state=0).fit(X, y).predict(X)
    np.testing.assert_array_equal(small(random_state=0).fit(whole, y).predict(whole), expected)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_unusable_targets_and_weights_are_errors_whose_suggested_fixes_work(kind):
    model, masked = kind(max_iter=2, learning_rate="cosine"), np.ma.masked_array(y, y == 1)
    with pytest.raises(ValueError, match=r"^y has \d+ masked values: leave .*X.keep. and") as told:
        model.fit(X, masked)
    keep = follow(told, "keep = ~numpy.ma.getmaskarray(y)", y=masked)
    model.fit(X[keep], masked[keep])
    weights = np.ma.masked_array(np.ones(60), y == 1)
    with pytest.raises(ValueError, match=r"^sample_weight has \d+ masked values: fill") as told:
        model.fit(X, y, weights)
    cure = "sample_weight = sample_weight.filled(0)"
    model.fit(X, y, follow(told, cure, sample_weight=weights))
    with pytest.raises(TypeError, match=r"^y must be .* the fields f0, .*: pass .* y\['f0'\]"):
        model.fit(X, unstructured_to_structured(X))


@pytest.mark.parametrize("as_path", [str, Path])
@pytest.mark.parametrize("suffix", ["csv", "parquet", "npy"])
def test_a_file_path_is_an_error_whose_suggested_fix_reads_the_file(as_path, suffix, tmp_path):
    frame, path = pandas.DataFrame(X, columns=[*"abcdef"]), tmp_path / f"new.{suffix}"
    data = X if suffix == "npy" else frame
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="pandas needs it for this kind of file")
    write = {"csv": lambda: frame.to_csv(path, index=False), "npy": lambda: np.save(path, X)}
    write.get(suffix, lambda: frame.to_parquet(path))()
    fitted = small().fit(data, y)
    reader = "numpy.load" if suffix == "npy" else f"pandas.read_{suffix}"
    for call in (fitted.predict, fitted.predict_proba, lambda given: small().fit(given, y)):
        with pytest.raises(TypeError, match=r"^`X` must be the data, got the path") as told:
            call(as_path(path))
        found = fitted.predict(follow(told, f"X = {reader}({str(path)!r})"))
        np.testing.assert_array_equal(found, fitted.predict(data))
