"""The searches that are timed run, and their table is that of the record."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def searches(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "bench")
    return importlib.import_module("searches")


def test_contenders_find_the_same_best_score(searches):
    case = searches.CASES["iris"]
    few = case._replace(network=case.network | {"max_iter": 3}, grid={"alpha": [0.1]}, cv=2)
    runs = {who: searches.run(few, who) for who in (searches.OURS, searches.ALONE)}
    assert len({run["score"] for run in runs.values()}) == 1
    assert all(run["seconds"] > 0 and run["bytes"] >= 0 for run in runs.values())


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


def test_the_table_marks_what_is_below_its_target(searches):
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


def test_the_page_has_the_table_of_the_newest_record(searches):
    *_, newest = sorted((ROOT / "bench" / "history").glob("*-search.json"))
    page = searches.PAGE.read_text(encoding="utf-8")
    assert searches.written_into(page, json.loads(newest.read_text())) == page


def test_the_pictures_of_the_page_are_drawn(tmp_path):
    from bench.many_models_pictures import draw, example_values

    names = {path.name for path in draw(example_values(), tmp_path)}
    page = (ROOT / "docs" / "many-models.md").read_text(encoding="utf-8")
    assert len(names) == 3
    for name in names:
        assert f"({name})" in page
        assert (ROOT / "docs" / name).exists()
