"""The pages that have figures of benchmarks: they are those of the newest records."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
BLOCKS = {"checkpoint_cost": "checkpoint-cost", "cold_start": "cold-start"}
BLOCKS |= {"out_of_core": "out-of-core"}
RECORDS = {"checkpoint_cost": "checkpoints", "cold_start": "cold-start"}
RECORDS |= {"out_of_core": "out-of-core", "distributed": "distributed"}
RECORDS |= {"drop_in": "drop-in", "searches": "search"}


def newest(script):
    """Return the newest record of a script."""
    return json.loads(
        max((ROOT / "bench" / "history").glob(f"*-{RECORDS[script]}.json")).read_text()
    )


@pytest.mark.parametrize("script", RECORDS)
def test_a_page_has_the_figures_of_the_newest_record(module, script):
    bench, record = module(script), newest(script)
    page = bench.PAGE.read_text(encoding="utf-8")
    if script in BLOCKS:
        assert f"<!-- {BLOCKS[script]} -->\n{bench.section(record)}<!-- end" in page
    else:
        assert bench.written_into(page, record) == page


def test_the_newest_records_are_within_their_limits(module):
    cold, memory = module("cold_start"), module("out_of_core")
    assert max(cold.ratios(newest("cold_start")["seconds"]).values()) <= cold.LIMIT
    assert max(map(memory.beyond, newest("out_of_core")["ranks"].values())) < memory.LIMIT


def test_the_summary_in_the_docs_is_that_of_the_record_it_names(module):
    page = module("drop_in").PAGE.read_text(encoding="utf-8")
    folder = re.search(r"`python bench/summary\.py (\S+)`", page)[1]
    result = json.loads((ROOT / folder / "result.json").read_text())
    assert module("summary").written_into(page, result) == page


def test_the_page_of_accuracies_has_the_table_of_the_newest_results(speedrun):
    page = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    assert speedrun.report() in page, "paste what bench.speedrun --report prints"


@pytest.mark.matrix
def test_charts_of_the_newest_results_are_drawn_again(speedrun, tmp_path):
    speedrun.main(["--charts", "--docs", str(tmp_path)])
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {path.name for path in ROOT.glob("docs/speedrun-*.png")}
    figure = speedrun.chart(speedrun.newest_results()["speedrun-hour"])
    assert figure.get_suptitle() == "mlp-xp train --recipe hour --seed SEED, 3 seeds"
    assert [axes.get_ylabel() for axes in figure.axes] == ["training loss", "accuracy [%]"]


def test_the_page_of_benchmarks_is_that_of_the_records(module, tmp_path, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: Path(path).touch())
    backends = max((ROOT / "bench" / "history").glob("*-backends.json"))
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    (date,) = re.findall("A run of .*, (\\d{4}-.*) \\+0000", page)
    suite = ROOT / "bench" / "history" / date.replace(":", "").replace(" ", "-")
    folders = ["--out", str(tmp_path), "--history", str(tmp_path)]
    module("report").main([str(backends), "--suite", str(suite), *folders])
    assert (tmp_path / "benchmarks.md").read_text(encoding="utf-8") == page
    assert (tmp_path / backends.name).read_bytes() == backends.read_bytes()
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {"benchmarks.png", "epochs.png", "growth.png"}


@pytest.mark.matrix
def test_the_pictures_of_many_models_are_drawn(tmp_path):
    from bench.many_models_pictures import draw, example_values

    names = {path.name for path in draw(example_values(), tmp_path)}
    page = (ROOT / "docs" / "many-models.md").read_text(encoding="utf-8")
    assert len(names) == 3
    for name in names:
        assert f"({name})" in page
        assert (ROOT / "docs" / name).exists()
