"""The study of exports to C beside onnxruntime."""

import shutil

import pytest


@pytest.mark.matrix
def test_exports_are_timed_row_by_row(module, tmp_path):
    pytest.importorskip("onnxruntime")
    if shutil.which("cc") is None:
        pytest.skip("cc is not installed")
    study, options = module("bench.studies.c_export"), module("bench.suite.turns").Options
    found = study.measure(options(1, scratch=tmp_path, cases=("64-13",)), lambda turn: None)
    (table,) = study.tables(found)
    assert not table.missing
    assert [row[:2] for row in table.rows] == [
        ["962", name] for name in (study.ONNX, *study.HEADERS)
    ]
    times = {name: turns[0]["seconds"] for name, turns in found["64-13-10"].items()}
    assert 0 < times[study.C] < times[study.ONNX]  # 30 times as fast.
    sizes = {name: turns[0]["bytes"] for name, turns in found["64-13-10"].items()}
    assert sizes[study.INT8] < sizes[study.C]
