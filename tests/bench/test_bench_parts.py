"""The parts of the benchmarks: their arithmetic, and what they run, on little data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sklearn.neural_network

import mlp_xp

BENCH = Path(__file__).parents[2] / "bench"
# Cases of the drop-in part with as little to do as there can be.
SMALL = {
    "sparse": {"rows": 60, "columns": 100, "per_row": 5},
    "lbfgs": {"seeds": 1, "max_iter": 2},
    "early stopping": {"seeds": 1, "max_iter": 2},
    "warm start": {"calls": 3},
}
WRITABLE = "from mlp_xp.backends._numpy import machine_code as code; print(code._writable())"


@pytest.mark.matrix
@pytest.mark.parametrize("is_writable", [True, False])
def test_a_copy_has_no_machine_code_and_keeps_some_only_where_it_may(module, tmp_path, is_writable):
    environ = module("cold_start").install(tmp_path, is_writable=is_writable)
    assert not list(tmp_path.rglob("*.bin"))
    done = subprocess.run(
        [sys.executable, "-c", WRITABLE], cwd=tmp_path, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    kept = tmp_path / "mlp_xp" / "backends" / "_numpy" / "machine_code" / "__pycache__"
    assert done.stdout.strip() == (str(kept) if is_writable else "None")


def test_a_step_has_three_products_a_layer_but_the_first(module):
    products, workloads = module("products"), module("workloads")
    medium = next(w for w in workloads.WORKLOADS if w.name == "medium")
    *found, _ = products.shapes(medium)
    assert [shape.name for shape in found] == ["x1 W1", "x1^T dy1", "x2 W2", "dy2 W2^T", "x2^T dy2"]
    small = 2 * 128 * 512 * 10
    work = module("roofline").operations(medium.widths, 128, train=True)
    assert sum(shape.operations for shape in found) == work - 3 * small


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("library", [mlp_xp, sklearn.neural_network], ids=["ours", "theirs"])
def test_each_drop_in_case_runs(module, library):
    drop_in = module("drop_in")
    cases = [case for case in drop_in.CASES.values() if case.kind in SMALL]
    assert {case.kind for case in cases} == set(SMALL)
    assert set(drop_in.WANTED) == {*SMALL, "first fit", "grid search"}
    for case in cases:
        case.make(library, **(case.options | SMALL[case.kind]))()


@pytest.mark.matrix
def test_a_contender_without_numba_runs_no_machine_code():
    """Nor what was compiled before and kept."""
    code = f"""
import sys
sys.path.insert(0, {str(BENCH)!r})
import drop_in
from mlp_xp.backends import get_backend
drop_in.Job(drop_in.CASES["lbfgs, iris"], drop_in.PLAIN).get_ready()
assert not get_backend("numpy").has_machine_code
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def searches(module):
    return module("searches")


def test_contenders_find_the_same_best_score(searches):
    case = searches.CASES["iris"]
    few = case._replace(network=case.network | {"max_iter": 3}, grid={"alpha": [0.1]}, cv=2)
    runs = {who: searches.run(few, who) for who in (searches.OURS, searches.ALONE)}
    assert len({run["score"] for run in runs.values()}) == 1
    assert all(run["seconds"] > 0 and run["bytes"] >= 0 for run in runs.values())


@pytest.mark.matrix
def test_steps_and_the_rest_are_what_a_search_takes(searches):
    case = searches.CASES["iris"]
    few = case._replace(grid={"alpha": [0.1, 0.2]}, cv=3)
    found = searches.costs(few)
    assert found["n_fits"] == 6
    assert found["n_steps"] == 6 * 17  # Early stopping holds 10 of 100 samples out: one batch.
    assert found["products"] > 0
    times = {"steps": 0.051, "products": 0.01, "rest": 0.06, "first": 2.0}
    rows = searches.costs_section({"iris": {"title": "iris", "costs": found | times}}).splitlines()
    assert rows[-1] == "| iris | 102 | 500 µs | 51 ms | 10 ms | 60 ms | 10 ms | 2 s |"
    failed = {"jax": {"title": "on JAX", "costs": {"cannot_run": "ImportError: no jax"}}}
    assert "on JAX" not in searches.costs_section(failed)
