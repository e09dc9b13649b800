"""Scripts of scikit-learn's users run with both imports; docs/performance.md has the records."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sklearn.neural_network

import mlp_xp

ROOT = Path(__file__).parents[2]
# Cases with as little to do as there can be.
SMALL = {
    "sparse": {"rows": 250, "columns": 300, "per_row": 5},
    "lbfgs": {"seeds": 1, "max_iter": 2},
    "early stopping": {"seeds": 1, "max_iter": 2},
    "warm start": {"calls": 3},
}


@pytest.fixture
def drop_in(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "bench")
    return importlib.import_module("drop_in")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("library", [mlp_xp, sklearn.neural_network], ids=["ours", "theirs"])
def test_each_case_runs(drop_in, library):
    cases = [case for case in drop_in.CASES.values() if case.kind in SMALL]
    assert {case.kind for case in cases} == set(SMALL)
    assert set(drop_in.WANTED) == {*SMALL, "first fit", "grid search"}
    for case in cases:
        case.make(library, **(case.options | SMALL[case.kind]))()


def test_a_contender_without_numba_runs_no_machine_code():
    """Nor what was compiled before and kept."""
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "bench")!r})
import drop_in
from mlp_xp.backends import get_backend
drop_in.Job(drop_in.CASES["lbfgs, iris"], drop_in.PLAIN).get_ready()
assert not get_backend("numpy").has_machine_code
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_beginnings_of_names_choose_cases(drop_in):
    (chosen,) = drop_in.comparisons(["sparse, fit 20,000"], ["1"])
    assert chosen.case == "sparse, fit 20,000 x 1,000, 20 a row"
    with pytest.raises(SystemExit):
        drop_in.main(["--only", "sparse fit"])


@pytest.mark.matrix
@pytest.mark.parametrize("kind", ["first fit", "grid search"])
def test_a_fresh_process_and_a_turn_without_numba_take_their_time(drop_in, kind):
    times = drop_in.measure_drop_in(drop_in.comparisons([kind], ["1"]), 1)
    for result in times.values():
        for run in result["contenders"].values():
            (seconds,) = run["seconds"]
            assert 0 < seconds < 100


def test_the_table_in_the_docs_is_that_of_the_newest_record(drop_in):
    newest = max((ROOT / "bench" / "history").glob("*-drop-in.json"))
    page = drop_in.PAGE.read_text(encoding="utf-8")
    assert drop_in.written_into(page, json.loads(newest.read_text())) == page


def test_the_summary_in_the_docs_is_that_of_the_record_it_names(drop_in):
    summary = importlib.import_module("summary")
    page = drop_in.PAGE.read_text(encoding="utf-8")
    folder = re.search(r"`python bench/summary\.py (\S+)`", page)[1]
    result = json.loads((ROOT / folder / "result.json").read_text())
    assert summary.written_into(page, result) == page
