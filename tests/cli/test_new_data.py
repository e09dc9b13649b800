"""`mlp-xp predict` and `evaluate` with new files, in any format, and predictions in files."""

import csv
import io
import json
import math
import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import matrix
from PIL import Image

from mlp_xp.cli.terminal import output
from mlp_xp.saving import load_model

SETTINGS = ["--epochs", 3, "--hidden", 8, "--backend", "numpy", "--out", "run"]
HEAD, ROWS = (
    "Kennung;Größe;Straße;Preis",
    [f"00{i};{i % 60},5;{'ab'[i % 2]};{i}" for i in range(90)],
)


def write(name, lines, encoding="utf-8"):
    Path(name).write_text("\n".join([*lines, ""]), encoding=encoding)


@pytest.fixture
def trained(mlp_xp, undrawn):
    """A run on a European file whose target is Straße, a or b."""
    write("old.csv", [HEAD, *ROWS], "cp1252")
    typed = ["--decimal", ",", "--target", "Straße", "--drop", "Preis,Kennung"]
    done = mlp_xp("train", "old.csv", *typed, *SETTINGS)
    assert done.status == 0, done.err
    return done


def test_new_files_are_read_like_the_training_file(mlp_xp, fails, trained):
    assert "read as cp1252 (Western European), not UTF-8" in trained.out
    assert "columns: 1 numeric\n" in trained.out
    stored = json.loads(Path("run/config.json").read_text())["data"]
    assert (stored["separator"], stored["decimal"], stored["encoding"]) == (None, ",", None)
    write("new.csv", [HEAD, *ROWS[:4]], "utf-16")
    first = mlp_xp("predict", "run", "new.csv").out
    assert [line.split()[0] for line in first.splitlines()] == ["row", *"1234"]
    write("points.csv", ["Größe|Straße", *(f"{i}.5|{'ab'[i % 2]}" for i in range(4))], "cp1250")
    assert "set --decimal . for decimal points" in fails("predict", "run", "points.csv")
    other = ["--decimal", ".", "--separator", "|", "--encoding", "cp1250"]
    assert mlp_xp("predict", "run", "points.csv", *other).out == first
    assert "of 4 samples" in mlp_xp("evaluate", "run", "points.csv", *other).out
    said = "unknown encoding 'latin-0': set --encoding to utf-8"
    assert said in fails("predict", "run", "new.csv", "--encoding", "latin-0")
    np.savez("new.npz", X=np.ones((3, 1)))
    said = "new.npz: leave out --decimal ,, which is for .csv files"
    assert said in fails("predict", "run", "new.npz", "--decimal", ",")


def test_tab_separators_can_be_typed_and_csv_options_need_a_csv_file(mlp_xp, fails, undrawn):
    write("old.csv", ["i\tj,k\ty", *(f"{i}\t1,{i % 7}\t{'ab'[i % 2]}" for i in range(60))])
    for tab in (r"\t", "tab"):
        typed = ["--separator", tab, "--decimal", ",", *SETTINGS[:-1], tab.strip("\\")]
        assert "columns: 2 numeric\n" in mlp_xp("train", "old.csv", *typed).out
    said = "--separator is for your own data, not for digits"
    assert said in fails("train", "digits", "--separator", ";")
    said = "--separator must be one character, such as ';' or '\\t', got 'xy'"
    assert said in fails("train", "old.csv", "--separator", "xy")


@pytest.mark.parametrize("ending", ["csv", "json", *matrix("parquet")])
def test_predictions_are_written_with_ids_labels_and_probabilities(mlp_xp, trained, ending):
    write("new.csv", [HEAD, *ROWS[:30]])
    path = Path(f"made/p.{ending}")
    done = mlp_xp("predict", "run", "new.csv", "--id", "Kennung,Preis", "--out", path)
    assert done.out.startswith("30 rows: ")
    assert done.out.endswith(f"; written to {path}\n")
    assert [entry.name for entry in Path("made").iterdir()] == [path.name]
    if ending == "parquet":  # pandas would need pyarrow, too.
        found = pd.DataFrame(
            pytest.importorskip("polars").read_parquet(path).to_dict(as_series=False)
        )
    else:
        found = getattr(pd, f"read_{ending}")(path, dtype={"Kennung": str})
    names = ["row", "Kennung", "Preis", "label", "probability_a", "probability_b"]
    assert found.columns.tolist() == names
    assert found["row"].tolist() == [*range(1, 31)]
    assert found["Kennung"].tolist() == [f"00{i}" for i in range(30)]
    sizes = pd.DataFrame({"Größe": [i + 0.5 for i in range(30)]})
    p = load_model("run").predict_proba(sizes)
    np.testing.assert_allclose(found[["probability_a", "probability_b"]], p, rtol=1e-12)
    assert found["label"].tolist() == [*np.asarray(["a", "b"])[np.argmax(p, axis=1)]]


def test_first_predictions_are_printed_and_json_contains_all(mlp_xp, trained):
    write("new.csv", [HEAD, *ROWS[:30]])
    lines = mlp_xp("predict", "run", "new.csv", "--id", "Kennung").out.splitlines()
    assert lines[0].split() == ["row", "Kennung", "label", "probability"]
    assert [line.split()[:2] for line in lines[1:11]] == [[f"{i + 1}", f"00{i}"] for i in range(10)]
    assert lines[11].startswith("30 rows: ")
    assert lines[11].endswith("; to write a row for each, type --out predictions.csv")
    found = json.loads(mlp_xp("predict", "run", "new.csv", "--id", "Kennung", "--json").out)
    assert [entry["Kennung"] for entry in found["predictions"]] == [f"00{i}" for i in range(30)]
    for entry in found["predictions"]:
        assert entry["label"] == max(entry["probabilities"], key=entry["probabilities"].get)
    done = mlp_xp("predict", "run", "new.csv", "--out", "p.csv", "--json")
    assert json.loads(done.out) == {"rows": 30, "out": "p.csv"}


def test_missing_ids_are_null_in_json_and_empty_in_other_output(mlp_xp, trained):
    polars = pytest.importorskip("polars")
    columns = {"Größe": [1.5, 2.5], "id": [7.0, None], "name": ["a", None], "nan": [math.nan] * 2}
    polars.DataFrame(columns).write_parquet("new.parquet")
    typed = ["predict", "run", "new.parquet", "--id", "id,name,nan"]

    def refuse(text):
        raise AssertionError(f"{text} is not valid JSON")

    printed = json.loads(mlp_xp(*typed, "--json").out, parse_constant=refuse)["predictions"]
    assert mlp_xp(*typed, "--out", "p.json").status == 0
    for rows in (printed, json.loads(Path("p.json").read_text(), parse_constant=refuse)):
        ids = [[row["id"], row["name"], row["nan"]] for row in rows]
        assert ids == [[7.0, "a", None], [None, None, None]]
    assert re.fullmatch(r" +2 +[ab] +[\d.]+ %", mlp_xp(*typed).out.splitlines()[2])
    assert mlp_xp(*typed, "--out", "p.csv").status == 0
    assert Path("p.csv").read_text().splitlines()[2].startswith("2,,,,")


def test_invalid_output_and_id_names_are_an_error_before_predicting(mlp_xp, fails, trained):
    write("new.csv", ["label;Größe;row", "x;1,5;7"])
    Path("folder.csv").mkdir()
    for typed, said in (
        (["--out", "p.txt"], "--out must end in .csv, .json, .parquet, got p.txt"),
        (["--out", "new.csv"], "--out new.csv would replace the rows to predict"),
        (["--out", "folder.csv"], "folder.csv is a folder: type a file after --out"),
        (["--id", "lable"], "no column 'lable' to copy: did you mean 'label'? It has label, Größe"),
        (["--id", "label", "--out", "p.csv"], "--id label is also the name of a column of the pre"),
        (["--id", "label", "--json"], "--id label is also the name of a column of the predictions"),
        (["--id", "row"], "--id row is also the name of a column of the predictions: rename it"),
    ):
        assert said in fails("predict", "run", "new.csv", *typed)
    assert not Path("p.csv").exists()


@pytest.mark.parametrize("loss", ['"gaussian"', '{class = "Quantile", quantile = [0.1, 0.5, 0.9]}'])
def test_intervals_are_predicted_if_the_model_supports_them(mlp_xp, undrawn, loss):
    write("old.csv", ["i,y", *(f"{i},{2 * i}.5" for i in range(80))])
    Path("mine.toml").write_text(
        f'description = "mine"\ndata = "files"\nloss = {loss}\nmax_iter = 2\nbackend = "numpy"\n'
    )
    done = mlp_xp(
        "train", "old.csv", "--recipe", "mine.toml", "--task", "regression", *SETTINGS[-2:]
    )
    assert done.status == 0, done.err
    mlp_xp("predict", "run", "old.csv", "--out", "p.csv")
    found = pd.read_csv("p.csv")
    model, x = load_model("run"), pd.DataFrame({"i": np.arange(80.0)})
    np.testing.assert_allclose(found["prediction"], model.predict(x))
    levels = (0.1, 0.5, 0.9) if "Quantile" in loss else (0.05, 0.95)
    for level in levels:
        np.testing.assert_allclose(found[f"quantile_{level}"], model.predict(x, quantiles=level))
    assert ("std" in found) is ("gaussian" in loss)
    lines = mlp_xp("predict", "run", "old.csv").out.splitlines()
    assert lines[0].split() == found.columns.tolist()
    assert lines[-1].startswith("80 rows: mean ")


def test_calibrated_limits_and_sets_are_predicted_on_request(mlp_xp, fails, trained):
    write("new.csv", [HEAD, *ROWS[:30]])
    said = "`coverage=0.99` must have at least 99 held-out samples, got 11: hold out more"
    assert said in fails("predict", "run", "new.csv", "--interval", 0.99)
    typed = ["--target", "y", "--recipe", "table-fast", *SETTINGS[:-1]]
    rng = np.random.default_rng(0)
    x, noise = rng.uniform(size=(2, 300))
    for name, values in {"numbers": x + noise, "names": np.where(x + noise > 1, "b", "a")}.items():
        write("old.csv", ["x,y", *map("{},{}".format, x, values)])
        assert mlp_xp("train", "old.csv", *typed, name).status == 0
        mlp_xp("predict", name, "old.csv", "--interval", 0.8, "--out", "p.csv")
        found, model = pd.read_csv("p.csv"), load_model(name)
        if name == "numbers":
            limits = model.predict(pd.DataFrame({"x": x}), interval=0.8)
            np.testing.assert_allclose(found[["lower", "upper"]], limits, rtol=1e-5)
        else:
            sets = model.predict_set(pd.DataFrame({"x": x}), 0.8)
            expected = [", ".join(model.classes_[row]) for row in sets]
            assert found["set"].tolist() == expected
            lines = mlp_xp("predict", name, "old.csv", "--interval", 0.8).out.splitlines()
            assert lines[0].split()[-1] == "set"
            done = mlp_xp("predict", name, "old.csv", "--interval", 0.8, "--json")
            first = json.loads(done.out)["predictions"][0]
            assert first["set"] == expected[0].split(", ")


def test_limits_and_sets_of_a_run_cover_each_group(mlp_xp, fails, undrawn):
    rng = np.random.default_rng(0)
    regions, (x, noise) = np.tile(["north", "south"], 300), rng.normal(size=(2, 600))
    y = x + np.where(regions == "north", 0.1, 3.0) * noise
    write("old.csv", ["x,region,y", *map("{},{},{}".format, x, regions, y)])
    typed = ["train", "old.csv", "--target", "y", "--recipe", "table-fast", *SETTINGS[:-1]]
    assert mlp_xp(*typed, "run", "--coverage-by", "region").status == 0
    mlp_xp("predict", "run", "old.csv", "--interval", 0.8, "--out", "p.csv")
    widths = pd.read_csv("p.csv").eval("upper - lower")
    assert widths[1] > 3 * widths[0]
    rows = pd.DataFrame({"x": x, "region": regions})
    limits = load_model("run").predict(rows, interval=0.8)
    np.testing.assert_allclose(widths, limits[:, 1] - limits[:, 0], rtol=1e-5)
    said = "Each group of `coverage_by='region'` must have at least 199 held-out samples for the"
    assert said in fails("predict", "run", "old.csv", "--interval", 0.99)
    said = "X has no column 'regio', which `coverage_by` names: did you mean 'region'?"
    assert said in fails(*typed, "new", "--coverage-by", "regio")
    assert "--interval is for --to onnx" in fails("export", "run", "--to", "c", "--interval", 0.9)


def test_evaluate_accepts_few_rows_or_a_single_class(mlp_xp, fails, trained):
    test = mlp_xp("evaluate", "run").out
    write("copy.csv", [HEAD, *ROWS])
    done = mlp_xp("evaluate", "run", "copy.csv")
    assert (done.out.splitlines()[1:], done.err) == (test.splitlines(), "")
    write("one.csv", ["Straße;Größe", "b;1,5"])
    done = mlp_xp("evaluate", "run", "one.csv")
    assert done.out.endswith(" % (most frequent class 100.00 %) of 1 sample\n")
    assert "one.csv differs from the training data, so all of its samples are tested" in done.err
    assert " of 91 samples" in mlp_xp("evaluate", "run", "one.csv", "copy.csv").out
    write("two.csv", ["Größe;Straße", "1,5;c", "1,5;"])
    assert "'Straße' has 'c', but the network was trained with the classes a, b: correct" in fails(
        "evaluate", "run", "two.csv"
    )
    assert "no column 'Straße' to predict" in fails("evaluate", "run", *write_new())
    said = "type one.csv or --data-path two.csv, not both"
    assert said in fails("evaluate", "run", "one.csv", "--data-path", "two.csv")


def write_new():
    write("unlabeled.csv", ["Größe", "1,5"])
    return ["unlabeled.csv"]


def test_messages_use_the_singular_for_one_epoch_and_one_row(mlp_xp, undrawn):
    write("old.csv", ["i,y", *(f"{i % 7},{'ab'[i % 7 > 2]}" for i in range(80))])
    one = [*SETTINGS[2:], "--resume"]
    assert ", 1 epoch, batches of" in mlp_xp("train", "old.csv", "--epochs", 1, *one).out
    out = mlp_xp("train", "old.csv", "--epochs", 1, *one).out
    assert "run is complete after 1 epoch: nothing to train" in out
    assert "resumed after 1 epoch," in mlp_xp("train", "--resume", "run", "--epochs", 2).out
    write("new.csv", ["i,y", "1,a"])
    assert mlp_xp("evaluate", "run", "new.csv").out.endswith(" of 1 sample\n")


def test_evaluate_scores_regression_on_new_rows(mlp_xp, fails, undrawn):
    write("old.csv", ["i,y", *(f"{i},{2 * i}.5" for i in range(80))])
    mlp_xp("train", "old.csv", *SETTINGS)
    write("new.csv", ["y,i", "3.5,1", "4.5,2", ",3"])
    assert mlp_xp("evaluate", "run", "new.csv").out.endswith(" of 2 samples\n")
    found = json.loads(mlp_xp("evaluate", "run", "new.csv", "--json").out)
    assert (found["rows"], "images" in found) == (2, False)
    write("new.csv", ["y,i", "3.5,1"])
    assert "new.csv must have at least 2 rows to compute R2, got 1" in fails(
        "evaluate", "run", "new.csv"
    )


def test_missing_columns_error_lists_the_first_ones(mlp_xp, fails):
    names = [f"c{i:02}" for i in range(60)]
    rows = np.random.default_rng(0).normal(size=(20, 60)).round(3).astype(str)
    write("wide.csv", [*map(",".join, [names, *rows])])
    mlp_xp("train", "wide.csv", *SETTINGS)
    write("new.csv", ["a,b", "1,2"])
    told = "has no column 'c00', 'c01', 'c02', 'c03', "
    line = fails("predict", "run", "new.csv")
    assert told in line
    assert "'c19', 39 more, which the network was trained with; it has a, b" in line


def test_id_option_is_only_for_tables(mlp_xp, fails, finished):
    Image.new("L", (8, 8)).save("a.png")
    said = "--id name is for tables, but RUN is for images"
    assert said in fails("predict", finished, "a.png", "--id", "name")
    mlp_xp("predict", finished, "a.png", "a.png", "--out", "p.csv")
    head, *rows = csv.reader(io.StringIO(Path("p.csv").read_text()))
    assert head == ["file", "label", *(f"probability_{i}" for i in range(10))]
    assert [row[0] for row in rows] == ["a.png", "a.png"]


def test_long_steps_are_reported_if_the_output_is_not_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(output, "_PAUSE", 1e-3)
    found = ""
    with output.Output(Namespace()).doing("loading a.csv", is_logged=True):
        while found.count("\n") < 3:
            found += capsys.readouterr().out
    first, *others = found.splitlines()
    assert first == "loading a.csv"
    assert {*others} == {"loading a.csv: 0 s so far"}
