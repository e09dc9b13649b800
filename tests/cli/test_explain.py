"""`mlp-xp explain`: the contributions of a table's columns, printed and in files."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import matrix

SETTINGS = ["--epochs", 3, "--hidden", 8, "--backend", "numpy", "--out", "run"]


def write_table(name, n_rows, n_columns=3):
    rng = np.random.default_rng(n_rows)
    names = [f"c{i}" for i in range(n_columns)]
    lines = [",".join(["id", *names, "kind", "y", "class"])]
    for i, row in enumerate(rng.normal(size=(n_rows, n_columns)).round(3).tolist()):
        y = round(row[0] + 2 * row[1], 3)
        lines.append(",".join(map(str, [f"r{i}", *row, "ab"[i % 2], y, "uvw"[i % 3]])))
    Path(name).write_text("\n".join([*lines, ""]))


def read(path):
    with open(path, newline="") as file:
        return [*csv.DictReader(file)]


@pytest.fixture
def trained(mlp_xp, undrawn):
    def train(target, *, drop="id,class", n_columns=3):
        write_table("old.csv", 90, n_columns)
        done = mlp_xp("train", "old.csv", "--target", target, "--drop", drop, *SETTINGS)
        assert done.status == 0, done.err

    return train


def test_values_and_base_value_add_up_to_the_prediction(mlp_xp, trained):
    trained("y")
    write_table("new.csv", 20)
    typed = ["explain", "run", "new.csv", "--background", "old.csv", "--id", "id"]
    done = mlp_xp(*typed, "--out", "values.csv")
    assert done.out.endswith("20 rows, compared with 90 rows; written to values.csv\n")
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[0] == ["column", "mean", "|value|"]
    assert {line[0] for line in lines[1:-1]} == {"c0", "c1", "c2", "kind"}
    means = [float(line[1]) for line in lines[1:-1]]
    assert means == sorted(means, reverse=True)
    rows = read("values.csv")
    names = [f"value_{name}" for name in ("c0", "c1", "c2", "kind")]
    assert [*rows[0]] == ["row", "id", "base_value", "prediction", *names]
    for row in rows:
        total = float(row["base_value"]) + sum(float(row[name]) for name in names)
        np.testing.assert_allclose(total, float(row["prediction"]), atol=1e-9)
    mlp_xp("predict", "run", "new.csv", "--out", "predicted.csv")
    expected = [float(row["prediction"]) for row in read("predicted.csv")]
    found = [float(row["prediction"]) for row in rows]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    mean = np.mean([abs(float(row["value_c1"])) for row in rows])
    found = json.loads(mlp_xp(*typed, "--json").out)["mean_abs_value"]["c1"]
    np.testing.assert_allclose(found, mean, rtol=1e-12)


@pytest.mark.parametrize("ending", ["csv", "json", *matrix("parquet")])
def test_classes_have_a_row_each(mlp_xp, trained, ending):
    trained("class", drop="id,y")
    write_table("new.csv", 6)
    out = f"values.{ending}"
    assert mlp_xp("explain", "run", "new.csv", "--out", out).status == 0
    if ending == "parquet":
        rows = pytest.importorskip("pyarrow.parquet").read_table(out).to_pylist()
    else:
        rows = read(out) if ending == "csv" else json.loads(Path(out).read_text())
    assert [row["class"] for row in rows] == ["u", "v", "w"] * 6
    assert [int(row["row"]) for row in rows[:4]] == [1, 1, 1, 2]
    by_row = np.asarray([float(row["prediction"]) for row in rows]).reshape((6, 3))
    np.testing.assert_allclose(by_row.sum(axis=1), 1, atol=1e-6)


def test_two_classes_have_one_row(mlp_xp, trained):
    trained("kind", drop="id,y,class")
    write_table("new.csv", 6)
    mlp_xp("explain", "run", "new.csv", "--out", "values.csv")
    assert [row["class"] for row in read("values.csv")] == ["b"] * 6


def test_many_columns_have_standard_errors(mlp_xp, trained):
    trained("y", n_columns=16)
    write_table("new.csv", 4, 16)
    done = mlp_xp("explain", "run", "new.csv", "--out", "values.csv")
    assert done.status == 0, done.err
    rows = read("values.csv")
    assert all(float(row["standard_error_c0"]) >= 0 for row in rows)
    assert any(float(row["standard_error_c0"]) > 0 for row in rows)


def test_bad_input_says_what_to_type(mlp_xp, fails, trained):
    trained("y")
    write_table("new.csv", 1)
    said = "one row has no other rows to compare with: set --background to a table of them"
    assert said in fails("explain", "run", "new.csv")
    assert mlp_xp("explain", "run", "new.csv", "--background", "old.csv").status == 0
    Path("short.csv").write_text("c0,c1\n1,2\n3,4\n")
    assert "short.csv" in fails("explain", "run", "new.csv", "--background", "short.csv")
    said = "--out old.csv would replace"
    assert said in fails("explain", "run", "new.csv", "--background", "old.csv", "--out", "old.csv")
    write_table("two.csv", 2)
    Path("two.csv").write_text(Path("two.csv").read_text().replace("id,", "prediction,", 1))
    said = "--id prediction is also the name of a column of the predictions"
    assert said in fails("explain", "run", "two.csv", "--id", "prediction")
