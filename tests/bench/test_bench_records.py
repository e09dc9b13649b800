"""Records of benchmarks: pages and tables that are made of them, and floors they are held to."""

import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import rich.console

ROOT = Path(__file__).parents[2]
OURS = "mlp_xp, NumPy"


@pytest.fixture
def reports(module):
    return module("bench.reports.__main__")


def test_pages_show_the_figures_of_the_newest_records(reports):
    pages = reports.pages()
    for name in reports.blocks():
        assert sum(f"<!-- {name} -->" in page for page in pages.values()) == 1, name
    for path, page in pages.items():
        assert path.read_text(encoding="utf-8") == page, f"{path}: type python -m bench.reports"


def test_no_benchmark_module_shadows_another_package():
    """If a folder of bench is on the path, a plain import finds its modules first."""
    own = {path.stem for path in (ROOT / "bench").rglob("*") if path.suffix in (".py", "")}
    others = {*sys.stdlib_module_names, *packages_distributions()} - {"bench"}
    assert own & others <= {"__init__", "__main__", "__pycache__"}


def test_narrow_terminals_omit_the_last_columns(module):
    tables = module("bench.suite.tables")
    table = tables.Table("times", ["name", "a" * 8, "b" * 8], [["two words", "**1**", "2"]])
    for width, n_shown in ((80, 3), (20, 2), (8, 2)):
        drawn = tables._drawn(table, rich.console.Console(width=width), "two words")
        assert len(drawn.columns) == n_shown


def test_a_ratio_below_its_floor_is_reported(module):
    def problems(floors, theirs, ours=(1.0,) * 5, bound=0.4):
        runs = {OURS: {"seconds": ours}, "JAX": theirs}
        records = {"medium": {"floor": {"seconds": bound}, "contenders": runs}}
        return module("bench.reports.targets").shortfalls({"workloads": records}, floors)

    slow = {"seconds": [1.2] * 5}
    assert problems({"medium": {"JAX": 1.2, "roofline": 0.4}}, slow) == []
    (problem,) = problems({"medium": {"JAX": 1.3}}, slow)
    assert problem.startswith("medium: the time of JAX is 1.20 ± ")
    (problem,) = problems({"medium": {"roofline": 0.6}}, slow)
    assert problem.startswith("medium: the time of roofline is 0.40 ± ")
    # Noise is not held against a ratio.
    assert problems({"medium": {"JAX": 1.2}}, {"seconds": [0.8, 1.0, 1.1, 1.3, 1.7]}) == []
    # A peer that cannot run does not pass.
    lost = problems({"medium": {"JAX": 1.0}, "wide": {"JAX": 1.0}}, {"cannot_run": "killed"})
    assert lost[0] == "medium, JAX: not compared; JAX: killed"
    assert lost[1].startswith("wide, JAX: not compared; ")


def test_benchmark_floors_depend_on_the_processor(module, monkeypatch):
    records, targets = module("bench.suite.records"), module("bench.reports.targets")
    monkeypatch.delenv("MLP_XP_WITHOUT", raising=False)
    cpuinfo = "vendor_id\t: AuthenticAMD\nmodel name\t: x\nflags\t\t: fpu avx2 avx512f\n"
    assert records.processor_kind("") == ""
    assert records.processor_kind(cpuinfo) == "AMD, AVX-512"
    monkeypatch.setenv("MLP_XP_WITHOUT", "avx512")
    assert records.processor_kind(cpuinfo) == "AMD, AVX2"
    assert targets.floors_of("another one") == targets.WANTED["floors"]
    assert targets.floors_of("AMD, AVX2")["lab"] != targets.floors_of("AMD, AVX-512")["lab"]


def test_recorded_floors_match_the_cases_of_a_quick_run(module):
    drop_in, contenders = module("bench.studies.drop_in"), module("bench.suite.contenders")
    options = module("bench.suite.turns").Options(1, 1, None, quick=True)
    workloads = module("bench.suite.workloads").QUICK
    quick = {each.name: set(contenders.entries(each, quick=True)) for each in workloads}
    assert {*drop_in.QUICK} <= drop_in.CASES.keys()
    scripts = drop_in.comparisons(options)
    quick |= {name: {"scikit-learn"} for name in scripts}
    busy = module("bench.studies.busy").QUICK
    quick |= {f"beside a busy program, {name}": {"one thread"} for name in busy}
    quick |= {"mlp-xp train, of the processors": {"torch"}}
    wanted = module("bench.reports.targets").WANTED
    floors = wanted["floors"]
    for found in (floors, *wanted["floors by processor"].values()):
        assert all(set(peers) <= quick[name] | {"roofline"} for name, peers in found.items())
    # Each case of the drop-in part that a quick run measures, and each kind, is held to a floor.
    assert scripts.keys() <= floors.keys()
    assert {drop_in.kind_of(name) for name in scripts} == drop_in.KINDS.keys()
