"""The wait for machine code: what is measured, and the page that has the figures."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
WRITABLE = "from mlp_xp.backends._numpy import machine_code as code; print(code._writable())"


@pytest.fixture
def cold(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module("cold_start")


@pytest.mark.parametrize("is_writable", [True, False])
def test_a_copy_has_no_machine_code_and_keeps_some_only_where_it_may(cold, tmp_path, is_writable):
    pytest.importorskip("numba")
    environ = cold.install(tmp_path, is_writable=is_writable)
    assert not list(tmp_path.rglob("*.bin"))
    done = subprocess.run(
        [sys.executable, "-c", WRITABLE], cwd=tmp_path, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    kept = tmp_path / "mlp_xp" / "backends" / "_numpy" / "machine_code" / "__pycache__"
    assert done.stdout.strip() == (str(kept) if is_writable else "None")


def test_what_an_epoch_waits_is_added_to_a_whole_training(cold):
    record = {cold.COLD: [8.0], cold.WARM: [5.0], cold.UNWRITABLE: [9.0], cold.WHOLE: [40.0]}
    assert list(cold.ratios(record).values()) == pytest.approx([1.075, 1.1])


def test_the_newest_record_is_on_the_page_and_below_the_limit(cold):
    newest = max((BENCH / "history").glob("*-cold-start.json"))
    record = json.loads(newest.read_text())
    assert max(cold.ratios(record["seconds"]).values()) <= cold.LIMIT
    section = cold.section(record)
    assert f"<!-- cold-start -->\n{section}<!-- end" in cold.PAGE.read_text(encoding="utf-8")
