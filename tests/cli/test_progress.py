"""The progress that `mlp-xp train` prints."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import wait_until
from running import CODE, TINY

from mlp_xp.cli import progress
from mlp_xp.cli.commands import parse
from mlp_xp.cli.output import Output
from mlp_xp.cli.tasks import Classification
from mlp_xp.training import time_budget as budget
from mlp_xp.training.records import Record, Running

CLASSES = Classification(("no", "yes"))
# Notes when a slow library is loaded.
MARK = """
import sys

class Mark:
    def find_spec(name, path=None, target=None):
        if name == "sklearn":
            sys.meta_path.remove(Mark)
            print("[sklearn]", flush=True)

sys.meta_path.insert(0, Mark)
"""


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=1000.0)
    fake = SimpleNamespace(perf_counter=lambda: clock.now)
    monkeypatch.setattr(progress, "time", fake)
    monkeypatch.setattr(budget, "time", fake)
    return clock


def record(epoch: int) -> Record:
    return Record(epoch, 1.0, 0.5, 0.001, 1000, 1.0)


def output(*options: str) -> Output:
    return Output(parse(["train", *options]))


def plain(text: str) -> str:
    """Return what a terminal shows, without its control sequences."""
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text)


def last_line(text: str) -> str:
    """Return the line that a bar leaves on a terminal."""
    return plain(text).rstrip().splitlines()[-1].rstrip()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_time_left_does_not_count_the_compilation(is_terminal, clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    monkeypatch.setenv("COLUMNS", "120")
    with progress.display(output(), CLASSES, 12, 1000) as shown:
        clock.now += 17.0
        for done in range(1, 11):
            clock.now += 1.0
            shown.update(done, 10, None)
        shown.end_epoch(record(1))
    text = capsys.readouterr().out
    assert re.search(r"loss 1.000  acc 50.0 %  1,000 images/s  1:50 left", text)


def test_the_time_left_is_at_most_that_until_the_end(clock, capsys):
    with progress.display(output(), CLASSES, 10**6, 1000, clock.now + 60.0) as shown:
        clock.now += 18.0
        shown.update(1, 1, None)
        shown.end_epoch(record(1))
        clock.now += 2.0
        shown.update(1, 1, None)
        shown.end_epoch(record(2))
    lines = capsys.readouterr().out.splitlines()
    assert [line[-9:] for line in lines] == ["0:42 left", "0:40 left"]


def test_the_bar_moves_before_the_first_step(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress.display(output(), CLASSES, 12, 1000) as shown:
        assert "preparing data and network" in last_line(capsys.readouterr().out)
        shown.stage("preparing the first step")
        out = ""

        def is_at_three_places() -> bool:
            nonlocal out
            out += capsys.readouterr().out
            parts = out.split("preparing the first step")[1:-1]
            return len({part for part in parts if "━" in part}) >= 3

        wait_until(is_at_three_places)  # The light that runs through it.


@pytest.mark.parametrize(
    ("columns", "facts"),
    [
        (50, "loss 0.700  "),
        (72, "loss 0.700  val 25.0 %  acc 60.0 %  "),
        (80, "loss 0.700  val 25.0 %  acc 60.0 %  "),
        (100, "loss 0.700  val 25.0 %  acc 60.0 %  1,000 images/s  "),
    ],
)
def test_the_bar_shows_what_has_room(columns, facts, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    with progress.display(output(), CLASSES, 12, 1000) as shown:
        shown.end_epoch(record(1)._replace(validation_score=0.25))
        shown.update(5, 10, Running(0.7, 0.6))
    line = last_line(capsys.readouterr().out)
    assert re.fullmatch(rf"2/12 [━╸╺ ]+  12 %  {facts}\d+:\d\d left", line)
    assert len(line) <= columns - len("^C")  # The terminal writes that after it.


def test_on_a_terminal_there_is_a_bar_that_ends_at_100_percent(mlp_xp, undrawn, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    done = mlp_xp(*TINY, "--epochs", 3, "--early-stopping", "--out", "run")
    lines = plain(done.out).replace("\r", "\n").splitlines()
    shown = [line for line in lines if line.startswith("3/3 ")][-1]
    facts = r"loss \d\.\d{3}  val [\d.]+ %  acc [\d.]+ %  took 0:\d\d"
    assert re.fullmatch(rf"3/3 ━+ 100 %  {facts}", shown.rstrip())
    assert any(re.match(r"test accuracy [\d.]+ %, ", line) for line in lines)
    assert lines[-4:] == [
        "next:",
        "  mlp-xp evaluate run          the accuracy of each class",
        "  mlp-xp predict run IMAGE     classify pictures",
        "  mlp-xp export run --to onnx  use the network elsewhere",
    ]


def test_lbfgs_moves_the_bar_of_a_terminal(mlp_xp, recipe, undrawn, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    done = mlp_xp("train", "--recipe", recipe, "--solver", "lbfgs", "--out", "run")
    assert re.search(r"3/3 ━+ 100 %  loss", plain(done.out))


def test_quiet_prints_the_result_alone_and_json_an_object(mlp_xp, undrawn):
    done = mlp_xp(*TINY, "--epochs", 1, "--out", "run", "--quiet")
    assert re.fullmatch(r"test accuracy [\d.]+ %, [\d.]+ s, [\d,]+ images/s\n", done.out)
    assert done.err == ""

    done = mlp_xp(*TINY, "--epochs", 2, "--out", "b", "--json")
    result = json.loads(done.out)
    stored = json.loads(Path("b/config.json").read_text())["result"]
    assert {name: result[name] for name in stored} == stored
    assert (result["run"], result["epochs"], result["diverged"]) == ("b", 2, False)
    assert "epoch 2/2  loss " in done.err
    assert mlp_xp(*TINY, "--epochs", 1, "--out", "c", "--json", "--quiet").err == ""


@pytest.mark.matrix
def test_a_terminal_shows_progress_before_anything_slow_is_loaded(tmp_path):
    """Read a pseudo-terminal of 50 columns, from the start of the process."""
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    columns = {"COLUMNS": "50", "TERM": "xterm", "NO_COLOR": "1"}
    out = str(tmp_path / "run")
    command = [sys.executable, "-c", MARK + CODE, *TINY, "--epochs", "3", "--out", out]
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=os.environ | columns
    )
    os.close(slave)
    chunks = []
    with contextlib.suppress(OSError):  # The other end was closed.
        while chunk := os.read(master, 1 << 16):
            chunks.append(chunk)
    os.close(master)
    assert process.wait() == 0
    text = plain(b"".join(chunks).decode())
    assert text.startswith("mlp-xp: loading libraries[sklearn]")
    for part in ("loading digits", "preparing the first step", " 100 %  loss", "next:"):
        assert part in text
    bars = [line.rstrip() for line in re.split(r"[\r\n]+", text) if "━" in line]
    assert max(map(len, bars)) <= 50
