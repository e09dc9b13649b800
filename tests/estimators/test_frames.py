"""Frames as `pandas.read_csv` returns them: dates and numbers as text, columns in any order."""

import io
import re
import warnings

import numpy as np
import pandas
import pytest
from helpers import case, pickled_and_saved
from test_tables import tabular

from mlp_xp import MLPEnsembleClassifier, MLPRegressor
from mlp_xp.datasets import load_files
from mlp_xp.model_selection import GridSearchCV, cross_val_score

N = 120
RNG = np.random.default_rng(0)


def read(**columns):
    """Return a frame as read from a CSV file."""
    text = pandas.DataFrame(columns).to_csv(index=False)
    return pandas.read_csv(io.StringIO(text))


AGE = np.where(RNG.random(N) < 0.1, np.nan, RNG.integers(18, 80, N))
y = np.where(np.nan_to_num(AGE) > 50, "old", "young")
DAYS = pandas.Series(pandas.date_range("2024-01-30", periods=N))
X = read(
    id=[f"n{i}" for i in range(N)],
    age=AGE,
    joined=DAYS.where(DAYS.dt.day < 28),
    paid=[*map(str, range(N - 1)), "?"],
    smokes=RNG.choice(["yes", "no"], N),
    member=RNG.choice([True, False], N),
)
KINDS = ["empty", "number", "date", "number", "category", "category"]


def fitted(X=X, **settings):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Left out as inputs|.* has numbers stored as text")
        return tabular(**settings).fit(X, y)


def test_a_csv_data_frame_is_treated_as_on_the_command_line(tmp_path):
    left_out = r"Left out as inputs, since their text .* hardly repeats: X\['id'\]\. Drop"
    numbers = r"X\['paid'\] has numbers stored as text, e.g. '0', and is used as numbers\. For"
    with pytest.warns(UserWarning, match=left_out), pytest.warns(UserWarning, match=numbers):
        model = tabular().fit(X, y)
    assert [column.kind for column in model.columns_.columns] == KINDS
    parsed = X.assign(
        joined=pandas.to_datetime(X["joined"]), paid=pandas.to_numeric(X["paid"], errors="coerce")
    )
    np.testing.assert_array_equal(model.predict_proba(parsed), model.predict_proba(X))
    same = fitted(parsed.drop(columns="id"))
    np.testing.assert_array_equal(same.predict_proba(parsed[[*parsed][1:]]), model.predict_proba(X))
    assert re.search(r"\nid +left out +0\n", repr(model.columns_))
    for gap in ("?", " NA", None):
        names = ["smokes", "paid", "joined", "member"]
        rows = X[:1].assign(**dict.fromkeys(names, gap)), X[:1].assign(**dict.fromkeys(names))
        np.testing.assert_array_equal(*map(model.columns_.transform, rows))
    holes = tabular().fit(pandas.DataFrame({"city": ["Bern", "Oslo", "?", "None"] * 30}), y)
    assert holes.columns_.input_names == ("city=Bern", "city=Oslo", "city is missing")
    zones = X.assign(joined=X["joined"] + "T02:00+02:00", age=X["age"].astype(str))
    np.testing.assert_array_equal(model.predict_proba(zones), model.predict_proba(X))
    for other in pickled_and_saved(model, tmp_path):
        np.testing.assert_array_equal(other.predict_proba(X), model.predict_proba(X))


COLUMNS = {  # The columns of a file, and what the command line and a fit do with each.
    "number": (AGE, [f"{i}e3" for i in range(N)], [*map(str, range(N - 1)), "?"], [3] * N),
    "date": (DAYS.astype(str), DAYS.astype(str) + "T10:00:00Z", ["", "2025-12-31"] * 60),
    "text": (["a", "b"] * 60, ["a", "", "c"] * 40, [f"1.{i % 9}.{i % 3}" for i in range(N)]),
    "left out": (
        [f"n{i}" for i in range(N)],
        ["web"] * N,
        [""] * N,
        DAYS.dt.strftime("%d/%m/%Y"),
        [f"044 {i:03} {i % 97:02} 11" for i in range(N)],
        [f"{i:04x}" for i in range(N)],
    ),
    "wrong": (
        [f"{i / 7:.2f} %" for i in range(N)],
        [f"${i * 37:,}" for i in range(N)],
        [f"{i},5" for i in range(N)],
        [f"-{i}.234,5 EUR" for i in range(N)],
        [i if i % 20 else "n.a." for i in range(N)],
        [day if i % 30 else "soon" for i, day in enumerate(DAYS.astype(str))],
    ),
}


@pytest.mark.filterwarnings("ignore")
def test_files_and_data_frames_follow_the_same_rules(tmp_path):
    file = tmp_path / "a.csv"

    def read_file():
        data = load_files(file, target="kind")
        used = {column.name: column.kind for column in data.columns.used}
        return used.get("given", "left out")

    def fit_frame():
        kind = tabular(max_iter=1).fit(pandas.read_csv(file), "kind").columns_.columns[1].kind
        return {"empty": "left out", "category": "text"}.get(kind, kind)

    for expected, columns in COLUMNS.items():
        for column in columns:
            frame = pandas.DataFrame({"age": AGE, "given": column, "kind": y})
            frame.to_csv(file, index=False)
            for kind_of in (read_file, fit_frame):
                with case((kind_of.__name__, column)):
                    try:
                        found = kind_of()
                    except ValueError as error:
                        found = "wrong" if "among its" in str(error) else str(error)
                    assert found == expected


def test_columns_are_matched_by_name():
    model = fitted()
    expected = model.predict_proba(X)
    for same in (X[[*X][::-1]], X.drop(columns="id"), X.assign(id=[["a list"]] * N)):
        np.testing.assert_array_equal(model.predict_proba(same), expected)
        np.testing.assert_array_equal(model.columns_.transform(same), model.columns_.transform(X))
    with pytest.warns(UserWarning, match=r"did not have, ignored: 'zip', 'town'\.$"):
        found = model.predict_proba(X.assign(town="Bern", zip=[[3]] * N)[["zip", *X, "town"]])
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match=r"X lacks columns of the fit, 'age', 'paid': add"):
        model.predict(X.drop(columns=["age", "paid"]))
    renamed = X.rename(columns={"age": "Age"})
    with pytest.raises(ValueError, match="lacks columns") as caught:
        model.predict(renamed)
    cure = re.search(r"did you mean (X\.rename\(.*\))\?$", str(caught.value))[1]
    np.testing.assert_array_equal(model.predict_proba(eval(cure, {"X": renamed})), expected)
    for columns in ({"age": "wage"}, {"paid": "page", "smokes": "somes"}, {"joined": "joined2"}):
        with pytest.raises(ValueError, match=r"lacks columns of the fit, .*: add what is missing"):
            model.predict(X.rename(columns=columns))
    held = tabular().fit(X[["age", "smokes"]], y, X_val=X[["smokes", "age"]], y_val=y)
    assert held.validation_scores_[-1] == held.score(X[["age", "smokes"]], y)
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        model.predict(X.to_numpy())


def test_new_text_in_a_yes_no_column_is_an_unknown_category():
    model = fitted()
    for name, given, expected in (
        ("smokes", ["yes", "no", "perhaps", None], [1, -1, 0, 0]),
        ("member", [True, False, "perhaps", None, "True", "no"], [1, -1, 0, 0, 1, -1]),
        ("member", ["yes", "False", "never", "?", "true", "NO"], [1, -1, 0, 0, 1, -1]),
    ):
        frame = X[: len(given)].assign(**{name: pandas.Series(given, dtype=object)})
        place = [column.split("=")[0] for column in model.columns_.input_names].index(name)
        alone = [model.columns_.transform(frame.iloc[[i]])[0, place] for i in range(len(given))]
        assert model.columns_.transform(frame)[:, place].tolist() == alone == expected
    bools = X.assign(smokes=X["smokes"] == "yes")
    np.testing.assert_array_equal(model.predict_proba(bools), model.predict_proba(X))


def test_pandas_categorical_columns_are_categories():
    codes = [f"0{i // 2}" for i in range(N)]
    declared = pandas.DataFrame({"zip": pandas.Categorical(codes), "age": AGE})
    model = tabular().fit(declared, y)
    assert model.columns_.columns[0].kind == "category"
    assert len(model.columns_.columns[0].values) == 60
    text = pandas.DataFrame({"base": pandas.Categorical(["None", "Full", "Half"] * 40)})
    named = tabular().fit(text, y)
    assert named.columns_.input_names == ("base=Full", "base=Half", "base=None")
    np.testing.assert_array_equal(named.predict(text.astype(str)), named.predict(text))
    days = pandas.DataFrame({"day": pandas.Categorical(["2026-01-31", "2026-02-28"] * 60)})
    assert tabular().fit(days, y).columns_.columns[0].kind == "category"
    with pytest.warns(
        UserWarning, match=r"X\['zip'\] has numbers stored as text, e.g. '00'"
    ) as told:
        numbers = tabular().fit(undeclared := declared.astype({"zip": str}), y)
    assert numbers.columns_.columns[0].kind == "number"
    cure = re.search(r"e.g. by (column.*)\.$", str(told[0].message))[1]
    column = eval(cure, {"column": undeclared["zip"]})
    assert fitted(undeclared.assign(zip=column)).columns_.columns[0].kind == "category"
    few = tabular().fit(pandas.DataFrame({"month": [*"1234?"] * 24}), y)  # Perhaps codes.
    assert few.columns_.input_names[:2] == ("month=1", "month=2")


VALUES = RNG.uniform(1e3, 1e5, N).round(2)
WRITTEN = {  # Numbers as people write them, and what they are.
    "percent": [f"{value} %" for value in VALUES],
    "kilograms": [f"{value}kg" for value in VALUES],
    "euros": [f"€{value}" for value in VALUES],
    "swiss": [f"CHF {value:,}".replace(",", "\u2019") for value in VALUES],
    "english": [f"{value:,}" for value in VALUES],
    "dollars": [f"${value:,}" for value in VALUES],
    "german": [f"{value:,}".translate(str.maketrans(",.", ".,")) for value in VALUES],
    "comma": [str(value).replace(".", ",") for value in VALUES],
}


def test_all_columns_with_units_or_commas_are_listed_with_conversions():
    frame = pandas.DataFrame(WRITTEN).assign(age=AGE, mixed=[1, "b"] * 60, ok=["a", "b"] * 60)
    with pytest.raises(ValueError, match=r"^9 columns of X cannot be used\.\n") as caught:
        tabular().fit(frame, y)
    lines = str(caught.value).splitlines()[1:]
    for name, texts in WRITTEN.items():
        with case(name):
            (line,) = (line for line in lines if f"X['{name}'] has '" in line)
            expression = re.search(r"convert them by (pandas.to_numeric\(.*?\))(, or| if)", line)[1]
            column = pandas.Series(texts, dtype=str)
            found = eval(expression, {"pandas": pandas, "column": column})
            np.testing.assert_allclose(found, VALUES)
    assert any("X['mixed'] has text and numbers: convert" in line for line in lines)
    assert not any("age" in line or "'ok'" in line for line in lines)
    some = ["n.a." if i == 60 else text for i, text in enumerate(WRITTEN["percent"])]
    with pytest.raises(ValueError, match=r"X\['a'\] has 'n.a.' among its numbers") as caught:
        tabular().fit(pandas.DataFrame({"a": some}), y)
    expression = re.search(r"by (pandas.to_numeric\(.*\)), or drop", str(caught.value))[1]
    found = eval(expression, {"pandas": pandas, "column": pandas.Series(some)})
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(found)), [60])
    few = pandas.DataFrame({"a": ["10 %", "20 %", "30 %"] * 40})
    with pytest.warns(UserWarning, match=r"'10 %' among its numbers, but is used as 3 categories"):
        assert tabular().fit(few, y).columns_.columns[0].kind == "category"


def test_dates_in_another_format_are_named():
    days = [f"{i % 28 + 1:02}.{i % 12 + 1:02}.2025" for i in range(60)] * 2
    told = r"X\['day'\] has '01.01.2025', which is not an ISO 8601 date, but is used as 60 categ"
    with pytest.warns(UserWarning, match=told) as caught:
        tabular().fit(pandas.DataFrame({"day": days}), y)
    unique = X[["age"]].assign(day=DAYS.dt.strftime("%m/%d/%y"))
    with (
        pytest.warns(UserWarning, match="Left out as inputs"),
        pytest.warns(UserWarning, match="'01/30/24', which is not an ISO 8601 date, and is left"),
    ):
        tabular().fit(unique, y)
    cure = re.search(r"e.g. by (.*)\.$", str(caught[0].message))[1]
    found = eval(cure, {"pandas": pandas, "column": pandas.Series(days)})
    assert found.dt.strftime("%d.%m.%Y").tolist() == days


@pytest.mark.matrix
def test_polars_columns_are_converted_by_polars():
    polars = pytest.importorskip("polars")

    def cure_of(texts, message):
        column = polars.Series("a", texts)
        names = {"column": column, "polars": polars}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                tabular().fit(polars.DataFrame([column]), y)
            except ValueError as error:
                caught.append(error)
        said = "\n".join(str(getattr(one, "message", one)) for one in caught)
        return eval(re.search(message, said)[1], names)

    for name, texts in WRITTEN.items():
        with case(name):
            found = cure_of(texts, r"convert them by (column.*?\))(?:, or drop| if )")
            np.testing.assert_allclose(found, VALUES)
    some = ["n.a." if i == 60 else text for i, text in enumerate(WRITTEN["percent"])]
    found = cure_of(some, r"by (column.*\)), or drop")
    np.testing.assert_array_equal(np.flatnonzero(found.is_null()), [60])
    mixed = ["soon" if i == 60 else str(day) for i, day in enumerate(DAYS.dt.date)]
    found = cure_of(mixed, r"e\.g\. by (column.*\)), or drop")
    assert found.to_list() == [None if i == 60 else day for i, day in enumerate(DAYS.dt.date)]
    for form in ("%d.%m.%Y", "%Y/%m/%d", "%d/%m/%y"):
        with case(form):
            found = cure_of(DAYS.dt.strftime(form).to_list(), r"values, .* e\.g\. by (column.*)\.")
            assert found.to_list() == DAYS.dt.date.to_list()
    found = cure_of([f"0{i}" for i in range(N)], r"declare them, e\.g\. by (column.*)\.")
    assert found.dtype == polars.Categorical
    targets = polars.Series("y", WRITTEN["comma"])
    with pytest.raises(ValueError, match=r"by y\.str\..*\.cast\(polars\.Float64\) if commas"):
        tabular(MLPRegressor).fit(polars.DataFrame({"age": range(N)}), targets)


def test_identical_warnings_from_all_folds_are_printed_once():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scores = cross_val_score(tabular(), X, y, cv=3)
    assert not np.any(np.isnan(scores))
    texts = {str(one.message) for one in caught if "Stochastic" not in str(one.message)}
    assert len({text for text in texts if text.startswith("Left out")}) == 1


def test_all_unusable_columns_are_named():
    frame = pandas.DataFrame({f"c{i}": WRITTEN["percent"] for i in range(60)})
    told = r"likewise X\['c5'\], .*X\['c49'\], 10 more: conv"
    with pytest.raises(ValueError, match=told) as caught:
        tabular().fit(frame, y)
    assert str(caught.value).count("among its numbers") == 5


def test_text_that_only_resembles_numbers_is_categorical():
    names = ("044 123 45 67", "12:30", "192.168.0.1", "1.2.3", "A12", "12 Main Street 1", "5-10")
    for text in names:
        values = [f"{text}{i % 60 if i % 7 else 'x'}" for i in range(N)]
        with case(text):
            columns = tabular().fit(pandas.DataFrame({"a": values}), y).columns_.columns
            assert columns[0].kind == "category"


def test_y_can_be_a_column_name(tmp_path):
    frame = X[["age", "smokes"]].assign(group=y)
    model = tabular(random_state=0).fit(frame, "group", X_val=frame[:30], y_val="group")
    expected = tabular(random_state=0).fit(
        frame[["age", "smokes"]], y, X_val=frame[["age", "smokes"]][:30], y_val=y[:30]
    )
    inputs = frame.drop(columns="group")
    np.testing.assert_array_equal(model.predict_proba(inputs), expected.predict_proba(inputs))
    assert model.score(frame, "group") == expected.score(inputs, y)
    assert model.evaluate(frame, "group") == expected.evaluate(inputs, y)
    assert model.input_gradient(frame, "group").shape == (N, 3)
    model.partial_fit(frame, "group")
    scores = cross_val_score(tabular(random_state=0), frame, "group", cv=2)
    assert [*scores] == [*cross_val_score(tabular(random_state=0), inputs, y, cv=2)]
    search = GridSearchCV(tabular(random_state=0), {"alpha": [0.1]}, cv=2).fit(frame, "group")
    assert search.score(inputs, y) == search.best_estimator_.score(frame, "group")
    ensemble = MLPEnsembleClassifier(tabular(), 2).fit(frame, "group")
    assert ensemble.score(frame, "group") == ensemble.score(inputs, y)
    plain = MLPRegressor(max_iter=2, learning_rate="cosine")
    numbers = frame.assign(smokes=1.0, age=frame["age"].fillna(0.0), group=1.0)
    assert list(plain.fit(numbers, "group").feature_names_in_) == ["age", "smokes"]
    plain.partial_fit(numbers, "group").calibrate_intervals(numbers, "group")


def test_wrong_target_name_error_suggests_the_right_name():
    frame = X[["age"]].assign(group=y)
    for given, name, told in (
        (
            frame,
            "gruop",
            r"X has no column 'gruop' to use as y: did you mean 'group'\? It has 'age'",
        ),
        (
            frame.to_numpy(),
            "group",
            r"y must have a target for each sample, got the text 'group'\.",
        ),
        (frame[["age", "age", "group"]], "group", r"X has duplicate columns, \['age'\]: drop or"),
    ):
        with case(told), pytest.raises(ValueError, match=told):
            tabular().fit(given, name)
    holes = frame.assign(group=[*y[:7], None, *y[8:]])
    with pytest.raises(
        ValueError, match=r"X\['group'\], the target, is missing in row 7"
    ) as caught:
        tabular().fit(holes, "group")
    cure = re.search(r"e.g. X = (.*), or", str(caught.value))[1]
    tabular().fit(eval(cure, {"X": holes}), "group")
    with pytest.raises(ValueError, match="X has no column 'no' to use as y_val"):
        tabular().fit(frame, "group", X_val=frame, y_val="no")


@pytest.mark.matrix
@pytest.mark.filterwarnings("ignore:Left out as inputs", "ignore:.* has numbers stored as text")
def test_polars_frames_follow_the_same_rules():
    polars = pytest.importorskip("polars")
    text = X.assign(group=y).to_csv(index=False).encode()
    frame = polars.read_csv(text, infer_schema_length=None)
    model = tabular().fit(frame, "group")
    assert [column.kind for column in model.columns_.columns] == KINDS
    inputs = frame.drop("group")
    np.testing.assert_array_equal(model.predict_proba(inputs), fitted().predict_proba(X))
    turned = inputs.select(inputs.columns[:0:-1])
    np.testing.assert_array_equal(model.predict_proba(turned), model.predict_proba(inputs))
    with pytest.warns(UserWarning, match="did not have, ignored: 'group'"):
        model.predict(frame)
    with pytest.raises(ValueError, match=r"X lacks columns of the fit, 'age'"):
        model.predict(inputs.drop("age"))
    renamed = inputs.rename({"age": "Age"})
    with pytest.raises(ValueError, match="lacks columns") as caught:
        model.predict(renamed)
    cure = re.search(r"did you mean (X\.rename\(.*\))\?$", str(caught.value))[1]
    named = model.predict_proba(eval(cure, {"X": renamed}))
    np.testing.assert_array_equal(named, model.predict_proba(inputs))
    with pytest.raises(ValueError, match=r"X\['age'\] has categories, but had numbers .* 'old'"):
        model.predict(inputs.with_columns(age=polars.lit("old")))
    with pytest.raises(ValueError, match=r"^2 columns of X cannot be used\.\nX\['a'\] has '\d"):
        tabular().fit(polars.DataFrame({"a": WRITTEN["percent"], "b": [[1]] * N}), y)
