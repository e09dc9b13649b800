"""The progress that `mlp-xp train` prints."""

from __future__ import annotations

import re
import sys
import time
from types import SimpleNamespace

import pytest
from running import TINY

from mlp_xp.cli import progress
from mlp_xp.training import time_budget as budget
from mlp_xp.training.records import Record


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=1000.0)
    fake = SimpleNamespace(perf_counter=lambda: clock.now)
    monkeypatch.setattr(progress, "time", fake)
    monkeypatch.setattr(budget, "time", fake)
    return clock


def record(epoch: int) -> Record:
    return Record(epoch, 1.0, 0.5, 0.001, 1000, 1.0)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_time_left_does_not_count_the_compilation(is_terminal, clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    monkeypatch.setenv("COLUMNS", "120")
    with progress.display(12, 1000) as shown:
        clock.now += 17.0
        for done in range(1, 11):
            clock.now += 1.0
            shown.after_step(done, 10)
        shown.after_epoch(record(1))
    text = capsys.readouterr().out
    assert re.search(r"loss 1.000  acc 50.0 %  1,000 images/s  1:50 left", text)


def test_the_time_left_is_at_most_that_until_the_end(clock, capsys):
    with progress.display(10**6, 1000, clock.now + 60.0) as shown:
        clock.now += 18.0
        shown.after_step(1, 1)
        shown.after_epoch(record(1))
        clock.now += 2.0
        shown.after_step(1, 1)
        shown.after_epoch(record(2))
    assert [line[-9:] for line in capsys.readouterr().out.splitlines()] == [
        "0:42 left",
        "0:40 left",
    ]


def test_the_bar_moves_before_the_first_step(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress.display(12, 1000):
        time.sleep(0.8)
    drawn = [
        part for part in capsys.readouterr().out.split("preparing the first step") if "━" in part
    ]
    assert len(set(drawn)) >= 3  # The light that runs through it is at another place each time.


def test_on_a_terminal_there_is_a_bar(mlp_xp, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    done = mlp_xp(*TINY, "--epochs", 3, "--out", "run")
    assert "3/3" in done.out
    assert "━" in done.out
    assert re.search(r"loss \d\.\d{3}  acc [\d.]+ %  [\d,]+ images/s", done.out)
    assert "test accuracy" in done.out.splitlines()[-1]


def test_lbfgs_moves_the_bar_of_a_terminal(mlp_xp, recipe, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    done = mlp_xp("train", "--recipe", recipe, "--solver", "lbfgs", "--out", "run")
    assert re.search(r"3/3 ━+ loss", re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", done.out))
