"""Records of benchmarks: pages and tables that are made of them, and floors they are held to."""

import json
import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
HISTORY = ROOT / "bench" / "history"
OURS = "mlp_xp, NumPy"
BLOCKS = {"checkpoint_cost": "checkpoint-cost", "cold_start": "cold-start"}
BLOCKS |= {"out_of_core": "out-of-core"}
RECORDS = {"checkpoint_cost": "checkpoints", "cold_start": "cold-start"}
RECORDS |= {"out_of_core": "out-of-core", "distributed": "distributed"}
RECORDS |= {"drop_in": "drop-in", "searches": "search"}


def newest(script):
    """Return the newest record of a script."""
    return json.loads(max(HISTORY.glob(f"*-{RECORDS[script]}.json")).read_text())


@pytest.fixture
def suite():
    """The record of all contenders that the page of benchmarks is made of."""
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    (date,) = re.findall("A run of .*, (\\d{4}-.*) \\+0000", page)
    return HISTORY / date.replace(":", "").replace(" ", "-")


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


def test_summaries_are_those_of_the_records_they_name(module):
    page = module("drop_in").PAGE.read_text(encoding="utf-8")
    folder = re.search(r"`python bench/summary\.py (\S+)`", page)[1]
    result = json.loads((ROOT / folder / "result.json").read_text())
    assert module("summary").written_into(page, result) == page
    page = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    table = module("bench.speedrun").report()
    assert table in page, "paste what bench.speedrun --report prints"


def test_the_page_of_benchmarks_is_that_of_the_records(module, suite, tmp_path, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: Path(path).touch())
    backends = max(HISTORY.glob("*-backends.json"))
    folders = ["--out", str(tmp_path), "--history", str(tmp_path)]
    module("report").main([str(backends), "--suite", str(suite), *folders])
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert (tmp_path / "benchmarks.md").read_text(encoding="utf-8") == page
    slower = module("tables").slower(json.loads((suite / "result.json").read_text()))
    assert slower in page
    front = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert slower in front, "paste what tables.slower returns"


def test_a_ratio_below_its_floor_is_reported(module):
    def problems(floors, theirs, ours=(1.0,) * 5, bound=0.4):
        runs = {OURS: {"seconds": ours}, "JAX": theirs}
        measured = {"floor": {"seconds": bound}, "contenders": runs}
        return module("regressions").shortfalls({"workloads": {"medium": measured}}, floors)

    slow = {"seconds": [1.2] * 5}
    assert problems({"medium": {"JAX": 1.2, "roofline": 0.4}}, slow) == []
    (problem,) = problems({"medium": {"JAX": 1.3}}, slow)
    assert problem.startswith("medium: JAX takes 1.20 times our seconds")
    (problem,) = problems({"medium": {"roofline": 0.6}}, slow)
    assert problem.startswith("medium: roofline takes 0.40 times our seconds")
    # Noise is not held against a ratio.
    assert problems({"medium": {"JAX": 1.2}}, {"seconds": [0.8, 1.0, 1.1, 1.3, 1.7]}) == []
    # A peer that cannot run does not pass.
    lost = problems({"medium": {"JAX": 1.0}, "wide": {"JAX": 1.0}}, {"cannot_run": "killed"})
    assert lost[0] == "medium, JAX: not compared; JAX: killed"
    assert lost[1].startswith("wide, JAX: not compared; ")


def test_recorded_floors_name_what_a_quick_run_measures(module):
    regressions, drop_in, contenders = map(module, ("regressions", "drop_in", "contenders"))
    quick = {
        workload.name: set(contenders.entries(workload, quick=True))
        for workload in module("workloads").QUICK
    }
    quick |= {name: {"scikit-learn"} for name in drop_in.quick_names()}
    quick |= {f"beside a busy program, {x}": {"one thread"} for x in module("suite").QUICK_BUSY}
    quick |= {"mlp-xp train, of the processors": {"torch"}}
    floors = json.loads(regressions.FLOORS.read_text())
    for name, peers in floors.items():
        assert set(peers) <= quick[name] | {"roofline"}
    # Each case of the drop-in part that a quick run measures, and each kind, is held to a floor.
    assert set(drop_in.quick_names()) <= set(floors)
    assert {case.kind for case in drop_in.CASES.values() if case.quick} == set(drop_in.WANTED)
