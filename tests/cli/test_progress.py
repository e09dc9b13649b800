"""The progress that `mlp-xp train` prints, and what commands print on a narrow terminal."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import last_line, plain
from running import CODE, FINDER, TINY

from mlp_xp import MLP
from mlp_xp.cli.commands import parse
from mlp_xp.cli.terminal.lines import fitted
from mlp_xp.cli.terminal.output import Output
from mlp_xp.cli.training.progress import Progress
from mlp_xp.cli.training.tasks import Classification
from mlp_xp.training.loop.records import Record, Running

RECORD = Record(1, 1.0, 0.5, 0.001, 1000, 1.0)


def display(model, *end):
    classes = Classification(("no", "yes"))
    return contextlib.closing(Progress(Output(parse(["train"])), classes, model, 1000, *end))


def test_time_left_never_exceeds_the_time_until_the_deadline(clock, capsys):
    with display(model := MLP(max_iter=10**6), clock.now + 60.0) as shown:
        for seconds in (18.0, 2.0):
            clock.now += seconds
            shown.on_progress(model, 1, 1, None)
            shown.on_epoch_end(model, RECORD)
    lines = capsys.readouterr().out.splitlines()
    assert [line[-9:] for line in lines] == ["0:42 left", "0:40 left"]


SCORES = "val 25.0 %  acc 60.0 %  "
FACTS = [(50, ""), (80, SCORES), (100, f"{SCORES}1,000 images/s  ")]


@pytest.mark.parametrize(("columns", "facts"), FACTS)
def test_the_progress_bar_fits_the_terminal_width(columns, facts, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    with display(model := MLP(max_iter=12)) as shown:
        shown.on_epoch_end(model, RECORD._replace(validation_score=0.25))
        shown.on_progress(model, 5, 10, Running(0.7, 0.6))
    line = last_line(capsys.readouterr().out)
    assert re.fullmatch(rf"2/12 [━╸╺ ]+  12 %  loss 0.700  {facts}\d+:\d\d left", line)
    assert len(line) <= columns - len("^C")  # The terminal writes that after it.


def test_the_terminal_progress_bar_ends_at_100_percent(mlp_xp, undrawn, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for solver, facts in (("adamw", r"loss .* val [\d.]+ %  acc [\d.]+ %"), ("lbfgs", "loss .*")):
        options = ["--epochs", 3, "--early-stopping", "--solver", solver, "--out", solver]
        lines = plain(mlp_xp(*TINY, *options).out).replace("\r", "\n").splitlines()
        shown = [line for line in lines if line.startswith("3/3 ")][-1]
        assert re.fullmatch(rf"3/3 ━+ 100 %  {facts}  took 0:\d\d", shown.rstrip())
        assert any(re.match(r"test accuracy [\d.]+ %, ", line) for line in lines)
        assert [line.split("  ")[1] for line in lines[lines.index("next:") + 1 :]] == [
            f"mlp-xp evaluate {solver}",
            f"mlp-xp predict {solver} IMAGE",
            f"mlp-xp export {solver} --to onnx",
        ]


def test_quiet_prints_only_the_result_and_json_one_object(mlp_xp, undrawn):
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
def test_progress_appears_before_slow_imports():
    """Read a pseudo-terminal of 50 columns, from the start of the process."""
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    columns = {"COLUMNS": "50", "TERM": "xterm", "NO_COLOR": "1"}
    mark = FINDER.format(found="name == 'sklearn' and print('[sklearn]', flush=True)")
    command = [sys.executable, "-c", mark + CODE, *TINY, "--epochs", "3", "--out", "run"]
    to = {"stdin": slave, "stdout": slave, "stderr": slave, "env": os.environ | columns}
    process = subprocess.Popen(command, **to)
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


LINE = "name  some words in a second column"


@pytest.fixture
def narrow(monkeypatch, mlp_xp):
    """Run a command on a terminal of 50 columns; return the lines that it prints."""
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setenv("TERM", "dumb")  # No bar.

    def run(*argv):
        for stream in (sys.stdout, sys.stderr):
            monkeypatch.setattr(stream, "isatty", lambda: True)
        done = mlp_xp(*argv)
        return (done.out + re.sub("mlp-xp: loading libraries\r +\r", "", done.err)).splitlines()

    return run


def test_lines_break_between_words_and_columns():
    assert fitted(LINE, None) == fitted(LINE, 35) == [LINE]
    assert fitted(LINE, 20) == ["name  some words in", "      a second", "      column"]
    broken = ["  a long command", "      some words in a", "      second column"]
    assert fitted(f"  a long command{LINE[4:]}", 24) == broken
    path = "/a/path/that-is/longer/than/the-terminal"  # A path stays in one piece.
    assert fitted(f"saved in {path} now", 20) == ["saved in", f"  {path}", "  now"]


def test_summaries_notes_and_errors_fit_the_terminal_width(narrow, undrawn):
    lines = narrow(*TINY, "--epochs", 1, "--out", "run")
    assert max(map(len, lines)) <= 50
    assert "saved in run" in lines
    place = lines.index("  mlp-xp evaluate run")
    assert lines[place + 1] == "      the accuracy of each class"
    first, second = narrow("predict", "run", "picture.png")
    assert first == "mlp-xp: error: picture.png cannot be read as a PNG"
    assert second == "  or JPEG file: No such file or directory"


def test_narrow_tables_omit_columns_but_keep_all_compared_runs(
    narrow, mlp_xp, finished, monkeypatch
):
    first, second = (shutil.copytree(finished, Path("runs", name)) for name in ("first", "second"))
    path = second / "config.json"
    path.write_text(path.read_text().replace('"relu"', '"a_name_of_over_twenty_letters"'))
    lines = narrow("runs", "runs")
    assert lines[0].split() == ["run", "date", "data", "score", "epochs"]
    assert all(line.endswith(" 8") for line in lines[1:])
    lines = narrow("compare", first, second)
    place = lines.index("activation")
    assert lines[place + 1] == "  first   relu"
    assert lines[place + 2] == "  second  a_name_of_over_twenty_letters"
    assert lines[0] == "test accuracy"
    assert max(map(len, lines)) <= 50
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert mlp_xp("runs", "runs").out.splitlines()[0].split()[-1] == "network"


def test_diverged_training_suggests_a_smaller_learning_rate(narrow):
    lines = narrow(*TINY, "--solver", "sgd", "--learning-rate", "1e30", "--out", "run")
    suggested = " ".join(" ".join(lines[lines.index("next:") + 1 :]).split())
    again = "--out run --learning-rate 1e+29 --out run-1e+29"
    assert f"{again} a tenth of the learning rate" in suggested
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert "try a smaller --learning-rate" in page
    assert "<h2>Training</h2>" not in page  # There is no epoch to draw.
