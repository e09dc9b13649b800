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
RANKS = {"1 process, 1 thread": 2.0, "2 ranks, 1 thread each": 1.0}
RANKS |= {"4 ranks, 1 thread each": 1.1, "1 process, 2 threads": 0.8}
RANKS["2 ranks, sums by MPI alone"] = 1.3

# --- checkpoints, machine code, products ---------------------------------------------------------


def test_costs_are_those_of_a_count_by_hand(module):
    # Ten times as many checkpoints slow down ten times as much.
    seconds = {"without": [1.0], "never": [1.01], "often": [1.11]}
    assert module("checkpoint_cost").slowdowns(seconds) == pytest.approx([0.02])
    # What an epoch waits for machine code is added to a whole training.
    cold = module("cold_start")
    record = {cold.COLD: [8.0], cold.WARM: [5.0], cold.UNWRITABLE: [9.0], cold.WHOLE: [40.0]}
    assert list(cold.ratios(record).values()) == pytest.approx([1.075, 1.1])


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


# --- ranks ---------------------------------------------------------------------------------------


@pytest.fixture
def ranks():
    """Return a record with steps of 1 ms and 10 us a row, twice as fast on two threads."""
    steps = {n: {str(b): (1e-3 + 1e-5 * b) / int(n) for b in (32, 128, 1024)} for n in "12"}
    epochs = {b: {name: [s, s, s] for name, s in RANKS.items()} for b in ("128", "1024")}
    sums = {n: {"4": 1e-5, "7360000": 1e-3} for n in "24"}
    facts = {"network": [3072, 512, 512, 10], "images": 10_240, "data": "noise", "cpus": 2}
    return facts | {"steps": steps, "epochs": epochs, "sums": sums}


def test_marks_say_what_is_missed(module, ranks):
    distributed = module("distributed")
    lines = distributed.marks_table(ranks).splitlines()
    assert lines[2].endswith("| 1.8 | 2.00 (2.00 to 2.00) |")
    assert lines[4].endswith("| 0.9 | **0.80 (0.80 to 0.80)** |")
    assert lines[5].endswith("| 2 ranks, sums by MPI alone | 1.3 s | 1 | 1.30 (1.30 to 1.30) |")


def test_more_and_faster_machines_pay_from_smaller_batches(module, ranks):
    machines = module("machines")
    slow, *_, fast = machines.NETWORKS
    times = [machines.step_seconds(ranks, 4, 4096, network) for network in machines.NETWORKS]
    assert times == sorted(times, reverse=True)
    # Two machines take half the rows, and what the network adds.
    two = machines.step_seconds(ranks, 2, 4096, fast)
    half = machines.step_seconds(ranks, 1, 2048, fast)
    stored = machines.stored_seconds(ranks)
    assert half < two < half + machines.sum_seconds(2, 8e6, fast) + stored
    # The sum of a network that takes no time is nothing.
    free = machines.Network("free", float("inf"), 0.0)
    assert machines.step_seconds(ranks, 2, 4096, free) == pytest.approx(half + stored)
    assert machines.sum_seconds(2, 1e6, slow) == pytest.approx(1e6 / slow.rate + 2 * slow.latency)
    section = machines.growth_section(ranks)
    assert section.count("\n| ") == 1 + len(machines.MACHINES)
    # 64 rows on each of two ranks take 1.64 ms, 512 take 6.12 ms, and a sum 1 ms; a step of 16.2 ms
    # leaves 13.6 ms for gradients that are stored.
    table = machines.check_table(ranks)
    assert "| 128 | 2 ranks, sums by MPI alone | 16.2 ms | 16.2 ms | 1.00 |" in table
    assert "| 1,024 | 2 ranks, sums by MPI alone | 20.7 ms | 130 ms | 0.16 |" in table


def test_blocks_of_the_page_are_written(module, ranks):
    distributed = module("distributed")
    facts = {"date": "today", "cpu": "one", "cpus": 2, "python": "3", "versions": {"numpy": "2"}}
    page = distributed.PAGE.read_text(encoding="utf-8")
    written = distributed.written_into(page, {"environment": facts, "distributed": ranks})
    assert "Measured on today; one, 2 CPUs" in written
    assert written.count("100 Gbit/s") == 1


# --- scripts of scikit-learn's users -------------------------------------------------------------


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


def test_beginnings_of_names_choose_cases(module):
    drop_in = module("drop_in")
    (chosen,) = drop_in.comparisons(["sparse, fit 20,000"], ["1"])
    assert chosen.case == "sparse, fit 20,000 x 1,000, 20 a row"
    with pytest.raises(SystemExit):
        drop_in.main(["--only", "sparse fit"])


# --- searches ------------------------------------------------------------------------------------


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


def test_the_table_of_searches_marks_what_is_below_its_target(searches):
    runs = {
        who: {"seconds": [time] * 3, "bytes": [2**20] * 3}
        for who, time in ((searches.OURS, 1.0), (searches.THEIRS, 9.0), (searches.MIXED, 1.5))
    }
    wanted = {searches.THEIRS: 8.0, searches.MIXED: 1.6}
    section = searches.search_section(
        {"digits": {"title": "digits", "wanted": wanted, "contenders": runs}}
    )
    rows = [line for line in section.splitlines() if line.startswith("| digits")]
    assert rows[0] == f"| digits | {searches.OURS} | 1 s | 1 MiB |  |  |"
    assert rows[1].endswith("| 8 | 9.00 (9.00 to 9.00) |")
    assert rows[2].endswith("| 1.6 | **1.50 (1.50 to 1.50)** |")
