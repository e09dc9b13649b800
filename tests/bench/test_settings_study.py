"""The study of settings: both sides compute the same losses, and marks say what is missed."""

import importlib
from itertools import pairwise

import numpy as np
import pytest

OURS, PEER = "mlp_xp, NumPy", "JAX"
SMALL = {"tiny": ((16, 12, 10), 32), "table": ((8, 16, 16, 1), 32)}


@pytest.fixture
def study(module, monkeypatch):
    """The study with small networks."""
    study = module("bench.studies.settings")
    for name, (widths, batch) in SMALL.items():
        small = study.Workload(widths, batch, 4, study.WORKLOADS[name].most, 1)
        monkeypatch.setitem(study.WORKLOADS, name, small)
    monkeypatch.setattr(study, "SHORT", 0.001)
    return study


def record(**rows):
    """Return the result of a workload from our seconds and JAX's seconds of each row."""
    found = {}
    for name, times in rows.items():
        runs = zip((OURS, PEER), times, strict=True)
        contenders = {who: {"seconds": [t, t, t], "losses": [1.0]} for who, t in runs}
        found[name.replace("_", " ")] = {"contenders": contenders}
    return {"widths": (64, 100, 10), "batch_size": 32, "rows": found}


def test_targets_are_sorted_by_how_far_they_are_missed(study):
    results = {"tiny": record(default=(1.0, 2.0), tanh=(1.7, 3.4), layer_norm=(2.3, 1.15))}
    missed = [mark.title for mark in study.marks(results) if mark.missed_by > 0]
    assert missed == ["tiny, layer norm: JAX / ours", "tiny, tanh / default"]
    rows, marks = study.tables(results)
    cells = {row[0]: row[3:6] for row in rows.rows}
    assert cells["layer norm"] == ["**0.50 (0.50 to 0.50)**", "2.30", "2.4"]
    assert cells["tanh"] == ["2.00 (2.00 to 2.00)", "**1.70**", "1.6"]
    assert marks.rows[0] == ["tiny, layer norm: JAX / ours", "0.50", "at least 1", "100%"]
    assert marks.rows[-1][0] == "tiny, the median row: JAX / ours"
    assert marks.note == "2 of 6 marks are missed, the furthest first."


def test_custom_formulas_are_compared_with_built_in_ones(study):
    rows = {"default": (1.0, 2.0), "tanh": (1.0, 2.0), "own_tanh": (1.2, 2.0)}
    missed = [mark for mark in study.marks({"tiny": record(**rows)}) if mark.missed_by > 0]
    assert [(mark.title, mark.limit) for mark in missed] == [("tiny, own tanh / tanh", 1.1)]
    (figure,) = (
        importlib.import_module("bench.reports.charts")
        .settings_figure({"tiny": record(**rows)})
        .axes
    )
    assert [label.get_text() for label in figure.get_yticklabels()][-1] == "own tanh"


def test_differing_losses_are_shown(study):
    result = record(default=(1.0, 2.0), tanh=(1.0, 2.0))
    result["rows"]["tanh"]["contenders"][PEER]["losses"] = [1.01]
    result["rows"]["gelu"] = {"contenders": {OURS: {"cannot_run": "why"}, PEER: {}}}
    table, _ = study.tables({"tiny": result})
    assert {row[0]: row[-1] for row in table.rows} == {"default": "yes", "tanh": "**no**"}
    assert table.missing == {f"gelu: {OURS}": "why"}


@pytest.mark.parametrize("name", SMALL)
def test_our_training_step_is_measured(study, name):
    workload = study.WORKLOADS[name]
    found = study.prepare(OURS, workload, "tanh", None, 0.001)
    assert [w.shape for w, _ in found["weights"]] == [*pairwise(SMALL[name][0])]
    assert len(found["losses"]) == study.STEPS_COMPARED
    assert found["losses"][-1] < found["losses"][0]
    assert np.isfinite(study.step_seconds(workload, "tanh"))


@pytest.fixture
def plain_jax():
    """Compile steps of JAX in half the time: formulas are compared, not XLA's optimizations."""
    jax = pytest.importorskip("jax")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.matrix
@pytest.mark.usefixtures("plain_jax")
@pytest.mark.parametrize("name", SMALL)
def test_losses_match_jax_in_each_row(study, name):
    workload, differences = study.WORKLOADS[name], {}
    for row in study.rows_of(workload):
        ours = study.prepare(OURS, workload, row, None, 0.001)
        theirs = study.prepare(PEER, workload, row, ours["weights"], 0.001)
        differences[row] = study.difference({"contenders": {OURS: ours, PEER: theirs}})
    is_random = {row for row in differences if "dropout" in row or row == study.EVERYTHING}
    assert {row for row, off in differences.items() if off > 1e-5} == is_random


@pytest.mark.matrix
def test_both_libraries_are_measured_in_alternating_processes(study, module):
    pytest.importorskip("jax")
    options = module("bench.suite.turns").Options(2, 1, quick=True, cases=("tiny, tanh",))
    turns = []
    found = study.measure(options, turns.append)
    assert [*found] == ["tiny"]
    runs = [row["contenders"] for row in found["tiny"]["rows"].values()]
    assert [*found["tiny"]["rows"]] == ["default", "tanh"]
    assert [len(run["seconds"]) for both in runs for run in both.values()] == [2] * 4
    first = [f"tiny, {name}: {who}" for name in ("default", "tanh") for who in (OURS, PEER)]
    assert [turn for turn in turns if "round 1" in turn] == [f"{t}, round 1 of 2" for t in first]


@pytest.mark.matrix
def test_compile_times_are_measured(module, tmp_path):
    study, options = module("bench.studies.compile_times"), module("bench.suite.turns").Options
    found = study.measure(options(1, scratch=tmp_path, cases=("default",)), lambda turn: None)
    (table,) = study.tables(found)
    assert not table.missing
    assert table.rows[0][0] == "default"
    cold, loops, cached = (found["default"][state][0]["first"] for state in study.MISSING)
    assert cold > max(loops, cached)  # numba takes seconds.
    assert found["default"]["profile"][0]["phases"]["LLVM"] > 0
