"""The memory of a fit on a map: the page that has the figures."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench"


def test_the_figures_of_the_page_are_those_of_the_newest_record(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    bench = importlib.import_module("out_of_core")
    newest = max((BENCH / "history").glob("*-out-of-core.json"))
    record = json.loads(newest.read_text())
    block = f"<!-- out-of-core -->\n{bench.section(record)}<!-- end"
    assert block in bench.PAGE.read_text(encoding="utf-8")
    assert max(map(bench.beyond, record["ranks"].values())) < bench.LIMIT
