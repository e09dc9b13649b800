"""The cost of checkpoints: its arithmetic, and the page that has the figures."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def cost(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module("checkpoint_cost")


def test_the_slowdown_is_a_tenth_of_that_of_ten_times_as_many(cost):
    seconds = {"without": [1.0], "never": [1.01], "often": [1.11]}
    assert cost.slowdowns(seconds) == pytest.approx([0.02])


def test_the_figures_of_the_page_are_those_of_the_newest_record(cost):
    newest = max((BENCH / "history").glob("*-checkpoints.json"))
    section = cost.section(json.loads(newest.read_text()))
    assert f"<!-- checkpoint-cost -->\n{section}<!-- end" in cost.PAGE.read_text(encoding="utf-8")
