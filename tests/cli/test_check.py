"""`mlp-xp check`: the columns of new rows, compared with the training data of a run."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from mlp_xp.saving import load_model

SETTINGS = ["--epochs", 2, "--hidden", 8, "--backend", "numpy", "--out", "run"]


def write_table(name, n_rows, seed=0, shift=0.0, town="Rome"):
    rng = np.random.default_rng(seed)
    lines = ["size,town,since,y"]
    for i, size in enumerate(rng.normal(size=n_rows).round(3).tolist()):
        date = np.datetime64("2024-01-01") + int(rng.integers(0, 300))
        lines.append(f"{size + shift},{('Oslo', town)[i % 2]},{date},{size * 2}")
    Path(name).write_text("\n".join([*lines, ""]))


@pytest.fixture
def trained(mlp_xp, undrawn):
    write_table("old.csv", 400)
    done = mlp_xp("train", "old.csv", *SETTINGS)
    assert done.status == 0, done.err


def test_rows_like_the_training_data_exit_with_0(mlp_xp, trained):
    write_table("new.csv", 200, seed=1)
    done = mlp_xp("check", "run", "new.csv")
    assert done.status == 0, done.err
    assert [line.split()[0] for line in done.out.splitlines()[:4]] == [
        *("column", "size", "town", "since")
    ]
    said = "200 rows, compared with 320 of the fit: none of 3 columns exceeds a limit\n"
    assert done.out.endswith(said)


def test_a_column_that_exceeds_a_limit_exits_with_1(mlp_xp, trained):
    write_table("new.csv", 200, seed=1, shift=2.0, town="Lima")
    done = mlp_xp("check", "run", "new.csv")
    assert done.status == 1
    assert "2 of 3 columns exceed a limit: size, town" in done.out
    done = mlp_xp("check", "run", "new.csv", "--json")
    found = json.loads(done.out)
    assert done.status == 1
    assert found["exceeded"] == {"size": ["drift", "range"], "town": ["drift", "unknown"]}
    assert found["columns"][1]["unknown"] == {"Lima": 0.5}
    assert (found["rows"], found["rows_in_fit"]) == (200, 320)
    limits = ["--drift-limit", 100, "--unseen-limit", 1]
    assert mlp_xp("check", "run", "new.csv", *limits).status == 0


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_the_file_has_a_row_for_each_column(mlp_xp, trained, ending):
    write_table("new.csv", 200, seed=1, shift=2.0, town="Lima")
    done = mlp_xp("check", "run", "new.csv", "--out", f"found.{ending}")
    assert done.out.endswith(f"size, town; written to found.{ending}\n")
    text = Path(f"found.{ending}").read_text()
    rows = json.loads(text) if ending == "json" else [*csv.DictReader(text.splitlines())]
    assert [row["name"] for row in rows] == ["size", "town", "since"]
    assert [row["exceeded"] for row in rows] == ["drift, range", "drift, unknown", ""]
    expected = load_model("run").columns_.distributions[0]
    assert float(rows[0]["low_in_fit"]) == expected.low


def test_bad_input_says_what_to_type(mlp_xp, fails, trained):
    Path("short.csv").write_text("size,since\n1,2024-01-01\n")
    assert "short.csv" in fails("check", "run", "short.csv")
    said = "--out old.csv would replace"
    assert said in fails("check", "run", "old.csv", "--out", "old.csv")
    assert "--drift-limit" in fails("check", "run", "old.csv", "--drift-limit", "-1")


def test_a_run_of_images_is_refused(mlp_xp, fails, undrawn):
    mlp_xp("train", "--data", "digits", *SETTINGS)
    assert "check is for tables, but RUN is for images" in fails("check", "run", "a.png")
