"""Ranks beside one process: the marks, and the model of many machines."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
SECONDS = {"1 process, 1 thread": 2.0, "2 ranks, 1 thread each": 1.0}
SECONDS |= {"4 ranks, 1 thread each": 1.1, "1 process, 2 threads": 0.8}
SECONDS["2 ranks, sums by MPI alone"] = 1.3


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module


@pytest.fixture
def result():
    """Return a record with steps of 1 ms and 10 us a row, twice as fast on two threads."""
    steps = {n: {str(b): (1e-3 + 1e-5 * b) / int(n) for b in (32, 128, 1024)} for n in "12"}
    epochs = {b: {name: [s, s, s] for name, s in SECONDS.items()} for b in ("128", "1024")}
    sums = {n: {"4": 1e-5, "7360000": 1e-3} for n in "24"}
    facts = {"network": [3072, 512, 512, 10], "images": 10_240, "data": "noise", "cpus": 2}
    return facts | {"steps": steps, "epochs": epochs, "sums": sums}


def test_marks_say_what_is_missed(bench, result):
    lines = bench("distributed").marks_table(result).splitlines()
    assert lines[2].endswith("| 1.8 | 2.00 (2.00 to 2.00) |")
    assert lines[4].endswith("| 0.9 | **0.80 (0.80 to 0.80)** |")
    assert lines[5].endswith("| 2 ranks, sums by MPI alone | 1.3 s | 1 | 1.30 (1.30 to 1.30) |")


def test_more_and_faster_machines_pay_from_smaller_batches(bench, result):
    machines = bench("machines")
    slow, *_, fast = machines.NETWORKS
    times = [machines.step_seconds(result, 4, 4096, network) for network in machines.NETWORKS]
    assert times == sorted(times, reverse=True)
    # Two machines take half the rows, and what the network adds.
    two = machines.step_seconds(result, 2, 4096, fast)
    half = machines.step_seconds(result, 1, 2048, fast)
    assert half < two < half + machines.sum_seconds(2, 8e6, fast) + machines.stored_seconds(result)
    # The sum of a network that takes no time is nothing.
    free = machines.Network("free", float("inf"), 0.0)
    stored = machines.stored_seconds(result)
    assert machines.step_seconds(result, 2, 4096, free) == pytest.approx(half + stored)
    assert machines.sum_seconds(2, 1e6, slow) == pytest.approx(1e6 / slow.rate + 2 * slow.latency)
    section = machines.growth_section(result)
    assert section.count("\n| ") == 1 + len(machines.MACHINES)


def test_the_model_is_compared_with_ranks(bench, result):
    table = bench("machines").check_table(result)
    # 64 rows on each of two ranks take 1.64 ms, 512 take 6.12 ms, and a sum 1 ms; a step of 16.2 ms
    # leaves 13.6 ms for gradients that are stored.
    assert "| 128 | 2 ranks, sums by MPI alone | 16.2 ms | 16.2 ms | 1.00 |" in table
    assert "| 1,024 | 2 ranks, sums by MPI alone | 20.7 ms | 130 ms | 0.16 |" in table


def test_blocks_of_the_page_are_written(bench, result):
    distributed = bench("distributed")
    facts = {"date": "today", "cpu": "one", "cpus": 2, "python": "3", "versions": {"numpy": "2"}}
    page = distributed.PAGE.read_text(encoding="utf-8")
    written = distributed.written_into(page, {"environment": facts, "distributed": result})
    assert "Measured on today; one, 2 CPUs" in written
    assert written.count("100 Gbit/s") == 1


def test_the_tables_of_the_page_are_those_of_the_newest_record(bench):
    distributed = bench("distributed")
    newest = max((BENCH / "history").glob("*-distributed.json"))
    page = distributed.PAGE.read_text(encoding="utf-8")
    assert distributed.written_into(page, json.loads(newest.read_text())) == page
