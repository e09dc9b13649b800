"""The examples on the page about exports run, and print what it shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "export.md"
BLOCK = re.compile(r"^```python\n(.*?)^```\n\n(?:^```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)


@pytest.mark.matrix
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Of skl2onnx.
def test_the_page(tmp_path, monkeypatch, capsys):
    for module in ("onnxruntime", "ndonnx", "skl2onnx", "torch"):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) == 6
    names: dict[str, object] = {}
    for code, shown in blocks:
        exec(code, names)
        assert capsys.readouterr().out == shown
