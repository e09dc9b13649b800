"""`mlp-xp card`: each number of a card, recomputed from the run's folder and its data."""

import base64
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import headless_chromium
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error, mean_squared_error

from mlp_xp import MLPClassifier
from mlp_xp.datasets import load_files
from mlp_xp.saving import load_model

SETTINGS = ["--hidden", 8, "--backend", "numpy", "--out", "run"]


def write_table(name):
    rng = np.random.default_rng(0)
    lines = ["size,town,since,price,sold"]
    for i, size in enumerate(rng.normal(size=400).round(3).tolist()):
        date = np.datetime64("2024-01-01") + int(rng.integers(0, 300))
        gap = "" if i % 9 == 0 else size
        sold = "yes" if size + rng.normal() > 0 else "no"
        lines.append(f"{gap},{'Oslo|' if i % 3 else '<Rome>'},{date},{3 * size},{sold}")
    Path(name).write_text("\n".join([*lines, ""]))


@pytest.fixture
def card(mlp_xp, undrawn):
    """Train on a target, and return the card's numbers, the model, and the test rows."""

    def make(target, *typed, epochs=3):
        write_table("homes.csv")
        drop = {"sold": "price", "price": "sold"}[target]
        options = ["--target", target, "--drop", drop, "--epochs", epochs, *typed]
        done = mlp_xp("train", "homes.csv", *options, *SETTINGS)
        assert done.status == 0, done.err
        done = mlp_xp("card", "run", "--json")
        assert done.status == 0, done.err
        data = load_files("homes.csv", target=target, drop=[drop])
        model = load_model("run")
        del model.feature_names_in_  # The rows are an array.
        return json.loads(done.out), model, data

    return make


def table_of(title):
    """Return the rows of a table of the Markdown file, as dicts of unescaped text."""
    text = Path("run/card.md").read_text().split(f"## {title}\n\n")[1].split("\n\n")[0]
    lines = [re.split(r"(?<!\\) \| ", line[2:-2]) for line in text.splitlines()]
    lines = [[re.sub(r"\\(.)", r"\1", cell) for cell in line] for line in lines]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def rows_of(group, values):
    """Return which values are in a group, given its name in the card."""
    if group == "missing":
        return np.asarray([value != value for value in values])
    if not (ends := re.findall(r"(> |\(|<= |, )([^],]+)", group)):
        return values == group
    if values.dtype == object:
        values, ends = values.astype("datetime64[D]"), [(k, np.datetime64(v)) for k, v in ends]
    ends = [(kind, np.asarray(end).astype(values.dtype)) for kind, end in ends]
    return np.all([values > e if kind in ("> ", "(") else values <= e for kind, e in ends], axis=0)


def as_numbers(rows, *names):
    return np.asarray([[float(row[name]) for name in names] for row in rows])


def test_each_score_of_a_classifier_is_what_scikit_learn_computes(card):
    facts, model, data = card("sold")
    p, y = model.predict_proba(data.x_test), data.y_test
    values = {"sold": np.asarray(["no", "yes"])[y], "town": data.x_test[:, 1]}
    values |= {"size": data.x_test[:, 0].astype(float), "since": data.x_test[:, 2]}
    losses = -np.log(p[np.arange(len(y)), y])
    found = table_of("Test rows by group")
    for row in found:
        mask = rows_of(row["group"], values[row["column"]])
        loss = log_loss(y[mask], p[mask], labels=[0, 1])
        expected = [mask.sum(), y[mask].mean(), p[mask, 1].mean()]
        expected += [accuracy_score(y[mask], p[mask].argmax(axis=1)), loss]
        expected += [losses[mask].std(ddof=1) / np.sqrt(mask.sum())]
        names = "rows", "fraction", "predicted", "accuracy", "log loss", "standard error"
        np.testing.assert_allclose(as_numbers([row], *names)[0], expected, rtol=1e-3)
    for column in values:  # Each row is in one group of each column.
        assert sum(int(row["rows"]) for row in found if row["column"] == column) == len(y)
    assert sum(row["column"] == "size" for row in found) == 6  # Missing, and fifths.
    fractions, predicted = calibration_curve(y, p[:, 1], n_bins=10)
    shown = as_numbers(table_of("Calibration on the test rows"), "predicted", "fraction")
    np.testing.assert_allclose(shown, np.stack([predicted, fractions], axis=1), rtol=1e-3)
    bins = np.ceil(10 * p[:, 1]).astype(int)
    gaps = [abs(np.sum(y[bins == i] - p[bins == i, 1])) for i in range(11)]
    assert facts["scores"]["expected_calibration_error"] == pytest.approx(sum(gaps) / len(y))
    assert "of yes" in Path("run/card.html").read_text()
    for row in facts["coverage"]:
        sets = model.predict_set(data.x_test, row["level"])
        assert row["coverage"] == pytest.approx(np.mean(sets[np.arange(len(y)), y]))
        assert row["mean_size"] == pytest.approx(sets.sum(axis=1).mean())
    assert [row["level"] for row in facts["coverage"]] == [0.5, 0.8, 0.9, 0.95]


def test_each_number_of_a_monotone_regressor_is_recomputed(card):
    facts, model, data = card("price", "--monotonic-cst", "size=1")
    y, predicted = data.y_test, model.predict(data.x_test)
    scores = facts["scores"]
    assert scores["mean_squared_error"] == pytest.approx(mean_squared_error(y, predicted))
    assert scores["mae"] == pytest.approx(mean_absolute_error(y, predicted))
    error = np.std((y - predicted) ** 2, ddof=1) / np.sqrt(len(y))
    assert scores["standard_error"] == pytest.approx(error)
    for row in facts["coverage"]:
        low, high = model.predict(data.x_test, interval=row["level"]).T
        assert row["coverage"] == pytest.approx(np.mean((low <= y) & (y <= high)))
        assert row["mean_size"] == pytest.approx(np.mean(high - low))
    # 32 rows are held out; limits of 95 % need 39.
    assert [row["level"] for row in facts["coverage"]] == [0.5, 0.8, 0.9, 0.95]
    columns = {row["column"]: row for row in facts["columns"]}
    size = data.x_train[:, 0].astype(float)
    assert columns["size"]["direction"] == 1
    assert columns["size"]["missing"] == np.isnan(size).sum()
    assert (columns["size"]["low"], columns["size"]["high"]) == (np.nanmin(size), np.nanmax(size))
    dates = sorted(str(value)[:10] for value in data.x_train[:, 2])
    assert (columns["since"]["low"], columns["since"]["high"]) == (dates[0], dates[-1])
    assert {*columns["town"]["categories"]} == {"Oslo|", "<Rome>"}
    counts = facts["data"]
    assert (counts["training_rows"], counts["test_rows"]) == (len(data.y_train), len(y))
    saved = json.loads(Path("run/config.json").read_text())
    assert counts["sha256_of_targets"] == saved["data"]["digest"]
    assert counts["sha256_of_file"] == hashlib.sha256(Path("homes.csv").read_bytes()).hexdigest()
    assert facts["model"]["training_started"] == saved["started"]
    rows = np.random.RandomState(0).permutation(len(y))
    x, targets, generator = data.x_test[rows], y[rows], np.random.RandomState(0)
    cycles = [generator.permutation(len(y)) for _ in range(5)]
    before = (targets - model.predict(x)) ** 2
    for row in facts["importances"]:
        place = data.feature_names.index(row["column"])
        effects, mean = np.zeros(len(y)), []
        for order in cycles:  # Each row of a cycle gets the value of the last.
            permuted = x.copy()
            permuted[order, place] = x[np.roll(order, 1), place]
            rise = (targets - model.predict(permuted)) ** 2 - before
            effects[order] += (rise[order] + np.roll(rise[order], -1)) / 5
            mean.append(rise.mean())
        assert row["loss_increase"] == pytest.approx(np.mean(mean), abs=1e-9)
        error = np.std(effects, ddof=1) / np.sqrt(len(y))
        assert row["standard_error"] == pytest.approx(error, abs=1e-9)
    edges = [-np.inf, *np.unique(np.nanpercentile(size, range(10, 100, 10), method="inverted_cdf"))]
    edges += [np.inf]
    size_test = data.x_test[:, 0].astype(float)
    assert columns["size"]["stability_index_of_test"] == pytest.approx(psi(size, size_test, edges))
    page = Path("run/card.html").read_text()
    assert "&lt;Rome&gt;" in page
    assert f"{scores['mae']:.4g}" in page


PLAIN = """
description = "without held-out rows"
data = "files"
categorical_features = "from_dtype"
missing_values = "impute"
input_scaling = "standardize"
batch_size = "auto"
"""


@pytest.mark.parametrize(
    ("target", "settings", "levels"),
    [
        ("sold", PLAIN, []),
        ("price", PLAIN, []),
        # Of 320 training rows, 32 are held out; limits of 95 % need 39.
        ("price", "based_on = 'table'\nvalidation_fraction = 0.1", [0.5, 0.8, 0.9]),
    ],
)
def test_levels_for_which_too_few_rows_were_held_out_are_left_out(card, target, settings, levels):
    Path("mine.toml").write_text(settings)
    facts, *_ = card(target, "--recipe", "mine.toml", epochs=1)
    assert [row["level"] for row in facts["coverage"]] == levels
    assert ("Coverage" in Path("run/card.md").read_text()) == bool(levels)


def test_an_error_that_is_not_of_too_few_held_out_rows_is_shown(card, fails, monkeypatch):
    card("sold", epochs=1)

    def fail(*_):
        raise ValueError("broken")

    monkeypatch.setattr(MLPClassifier, "predict_set", fail)
    assert "broken" in fails("card", "run")


def psi(before, after, edges):
    """Return the population stability index, with a bin for missing values."""
    fractions = []
    for values in (before, after):
        places = np.searchsorted(edges, np.where(np.isnan(values), np.inf, values))
        places[np.isnan(values)] = len(edges)
        fractions.append(np.bincount(places, minlength=len(edges) + 1)[1:].clip(0.5) / len(values))
    p, q = fractions
    return np.sum((q - p) * np.log(q / p))


@pytest.fixture
def numbers(mlp_xp, undrawn):
    """Train on a table of 30 numbers, of which x3, x20 and x7 matter; return the card's numbers."""
    x = np.random.default_rng(0).normal(size=(400, 30))
    y = x[:, 3] + 2 * x[:, 20] + 0.5 * x[:, 7]
    names = ",".join(f"x{i}" for i in range(30))
    np.savetxt("wide.csv", np.c_[x, y], delimiter=",", header=f"{names},y", comments="")
    mlp_xp("train", "wide.csv", "--epochs", 20, *SETTINGS)
    return json.loads(mlp_xp("card", "run", "--json").out)


def test_the_default_groups_are_intervals_of_the_most_important_columns(numbers):
    groups = {row["column"]: [] for row in numbers["groups"]}
    data = load_files("wide.csv")
    for row in numbers["groups"]:
        groups[row["column"]].append(row["rows"])
        values = data.x_test[:, data.feature_names.index(row["column"])]
        assert row["rows"] == rows_of(row["group"], values).sum()
        assert len(row["group"]) < 20
    assert [*groups] == ["x20", "x3", "x7"]
    for counts in groups.values():  # Fifths of the training rows.
        assert len(counts) == 5
        assert sum(counts) == 80
        assert max(counts) < 28


def test_paper_has_the_first_rows_of_long_tables(numbers):
    importances = table_of("Importance on the test rows")
    assert len(importances) == 30
    assert [row["column"] for row in importances[:3]] == ["x20", "x3", "x7"]
    found = as_numbers(importances, "loss increase")[:, 0]
    assert np.all(np.diff(found) <= 0)
    page = Path("run/card.html").read_text()
    assert "x29" in page  # On screen, all rows are shown.
    assert page.count("and 17 more in card.md") == 2  # Columns and importances.


@pytest.mark.matrix
@pytest.mark.usefixtures("numbers")
def test_a_card_has_one_page_on_paper(tmp_path_factory):
    with headless_chromium(tmp_path_factory.mktemp("chromium")) as driver:
        driver.get(Path("run/card.html").absolute().as_uri())
        assert driver.get_log("browser") == []
        printed = base64.b64decode(driver.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert len(re.findall(rb"/Type */Page\b", printed)) == 1


def test_bad_input_says_what_to_type(mlp_xp, fails, card):
    card("price", epochs=1)
    assert "--group nope is no column" in fails("card", "run", "--group", "nope")
    text = Path("homes.csv").read_text()
    Path("moved.csv").write_text(text)
    Path("homes.csv").unlink()
    assert "type the table's new place after --data-path" in fails("card", "run")
    assert mlp_xp("card", "run", "--data-path", "moved.csv").status == 0
    Path("moved.csv").write_text(text.replace(",Oslo|", ",Rome", 1).rsplit("\n", 2)[0])
    assert "has changed since the training" in fails("card", "run", "--data-path", "moved.csv")
    Path("moved.csv").write_text(text.replace("Oslo|", "Roma", 1))  # The targets are unchanged.
    assert "has changed since the training" in fails("card", "run", "--data-path", "moved.csv")
    assert "is not a file" in fails("card", "run", "--data-path", ".")
    assert "config.json" in fails("card", "elsewhere")


def test_a_run_of_an_earlier_version_has_a_card(mlp_xp, card):
    card("price", epochs=1)
    config = json.loads(Path("run/config.json").read_text())
    del config["data"]["sha256"], config["started"]
    Path("run/config.json").write_text(json.dumps(config))
    done = mlp_xp("card", "run", "--json")
    assert done.status == 0, done.err
    facts = json.loads(done.out)
    assert "sha256_of_file" not in facts["data"]
    assert "training_started" not in facts["model"]


def test_a_run_of_images_is_refused(mlp_xp, fails, undrawn):
    mlp_xp("train", "--data", "digits", "--epochs", 1, *SETTINGS)
    assert "card is for tables, but RUN is for images" in fails("card", "run")
