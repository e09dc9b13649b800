"""What commands print on a narrow terminal: whole words, whole columns, nothing cut off."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from running import TINY

from mlp_xp.cli.lines import fitted

LINE = "name  some words in a second column"


@pytest.fixture
def narrow(monkeypatch, mlp_xp, finished):
    """Run a command on a terminal of 50 columns; return the lines that it prints."""
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setenv("TERM", "dumb")  # No bar.

    def run(*argv: object) -> list[str]:
        for stream in (sys.stdout, sys.stderr):
            monkeypatch.setattr(stream, "isatty", lambda: True)
        done = mlp_xp(*argv)
        text = done.out + done.err.replace("mlp-xp: loading libraries\r\x1b[K", "")
        return text.splitlines()

    return run


@pytest.fixture
def two_runs(finished, tmp_path):
    """Two runs in a folder, the second with other settings."""
    folder = tmp_path / "runs"
    for name in ("first", "second"):
        shutil.copytree(finished, folder / name)
    path = folder / "second" / "config.json"
    config = path.read_text()
    assert '"relu"' in config
    path.write_text(config.replace('"relu"', '"a_name_of_over_twenty_letters"'))
    return folder


def test_lines_break_between_words_and_columns():
    assert fitted(LINE, None) == fitted(LINE, 35) == [LINE]
    assert fitted(LINE, 20) == ["name  some words in", "      a second", "      column"]
    broken = ["  a long command", "      some words in a", "      second column"]
    assert fitted(f"  a long command{LINE[4:]}", 24) == broken
    path = "/a/path/that-is/longer/than/the-terminal"  # It can be copied.
    assert fitted(f"saved in {path} now", 20) == ["saved in", f"  {path}", "  now"]


def test_facts_notes_and_errors_fit(narrow, undrawn):
    lines = narrow(*TINY, "--epochs", 1, "--out", "run")
    assert max(map(len, lines)) <= 50
    assert "saved in run" in lines
    place = lines.index("next:")
    assert lines[place + 1 : place + 3] == [
        "  mlp-xp evaluate run",
        "      the accuracy of each class",
    ]
    error = narrow("predict", "run", "picture.png")
    assert error == [
        "mlp-xp: error: picture.png cannot be read as a PNG",
        "  or JPEG file: No such file or directory",
    ]


def test_lists_break_between_words(narrow):
    for command in ("recipes", "data"):
        text = "\n".join(narrow(command))
        words = [word for word in text.split() if len(word) > 30]  # Paths and versions.
        assert all(len(line) <= 50 or line.strip() in words for line in text.splitlines())


def test_runs_lack_whole_columns(narrow, mlp_xp, two_runs, monkeypatch):
    lines = narrow("runs", two_runs)
    assert lines[0].split() == ["run", "date", "data", "score", "epochs"]
    assert all(line.endswith(" 8") for line in lines[1:])
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert mlp_xp("runs", two_runs).out.splitlines()[0].split()[-1] == "network"


def test_every_run_of_a_comparison_is_shown(narrow, two_runs):
    folders = [two_runs / "first", two_runs / "second"]
    lines = narrow("compare", *folders)
    place = lines.index("activation")
    assert lines[place + 1 : place + 3] == [
        "  first   relu",
        "  second  a_name_of_over_twenty_letters",
    ]
    assert lines[0] == "test accuracy"
    assert max(map(len, lines)) <= 50


def test_a_training_that_diverged_suggests_a_smaller_learning_rate(narrow):
    lines = narrow(*TINY, "--solver", "sgd", "--learning-rate", "1e30", "--out", "run")
    suggested = " ".join(" ".join(lines[lines.index("next:") + 1 :]).split())
    again = "--out run --learning-rate 1e+29 --out run-1e+29"
    assert f"{again} a tenth of the learning rate" in suggested
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert "try a smaller --learning-rate" in page
    assert "<h2>Training</h2>" not in page  # There is no epoch to draw.
