"""Ctrl-C while libraries load, while a network is trained, and after it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from running import CODE, FILES, TINY, history_of, start_training

from mlp_xp._utils.signals import interrupts, postponed
from mlp_xp.callbacks import Callback
from mlp_xp.cli import train
from mlp_xp.datasets import load_digits
from mlp_xp.saving import load_model

ELSEWHERE = pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")
# Does something when a module is imported.
FINDER = """
import gc, os, signal, sys, weakref

class Press:
    def find_spec(name, path=None, target=None):
        {found}

class Object: pass

def press(*_):
    os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Press)
"""


def run(found: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a new process that runs a line of code at each import."""
    code = FINDER.format(found=found) + CODE
    return subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=60
    )


LOADED = [
    ("numpy", "train"),
    ("mlp_xp.cli.train", "train"),
    ("sklearn", "train"),
    ("scipy.linalg", "evaluate run"),
    ("mlp_xp.training.trainer", "predict run a.png"),
    ("mlp_xp.lab", "lab"),
    ("mlp_xp.cli.listings", "backends"),
]


@ELSEWHERE
@pytest.mark.parametrize(
    ("module", "typed"),
    [("argparse", "--help"), *(pytest.param(*case, marks=pytest.mark.matrix) for case in LOADED)],
)
def test_ctrl_c_while_a_command_loads_is_silent(module, typed):
    found = f"name == {module!r} and (print('pressed', flush=True), press())"
    done = run(found, *typed.split())
    # It is repeated a moment later, when data may be about to be loaded.
    assert done.stdout.removesuffix("loading digits\n") == "pressed\n"
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.matrix
@ELSEWHERE
def test_ctrl_c_in_a_callback_is_silent_and_not_lost():
    # JAX has one for the garbage collector, in which Python prints an exception and goes on.
    done = run("name == 'jax' and (gc.callbacks.append(press), gc.collect())", "backends")
    assert (done.returncode, done.stderr) == (130, "")
    # As the import system has them.
    found = """
        raises = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if raises and 'mlp_xp.cli.train' in sys.modules:
            sys.meta_path.remove(Press)
            print('pressed', flush=True)
            thing = Object()
            place = weakref.ref(thing, press)
            del thing
    """
    done = run(found, *TINY, "--epochs", "100000")
    assert (done.returncode, done.stdout, done.stderr) == (130, "pressed\n", "")


def without_compiling(err: str) -> str:
    """Return stderr without what the first long training of an installation says."""
    return re.sub(r"(?m)^mlp_xp: compil.*\n", "", err)


@pytest.mark.matrix
@ELSEWHERE
def test_ctrl_c_keeps_the_network(tmp_path):
    with start_training("--out", tmp_path / "run") as process:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert without_compiling(err) == ""
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    rows = history_of(tmp_path / "run")
    assert 3 <= len(rows) < 1_000_000
    assert f"interrupted in epoch {len(rows)}; the network is kept" in out
    assert re.fullmatch(r"test accuracy .*", out.splitlines()[-1])
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    digits = load_digits()
    accuracy = load_model(tmp_path / "run").score(digits.x_test, digits.y_test)
    assert config["result"]["test_accuracy"] == accuracy
    assert config["result"]["interrupted"] is True


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_stops_after_the_step(mlp_xp, undrawn, monkeypatch):
    steps = []

    class Press(Callback):
        def on_step_end(self, model, done: int, n_steps: int) -> None:
            steps.append((done, n_steps))
            if len(steps) == n_steps + 3:
                signal.raise_signal(signal.SIGINT)

    real = train.Settings.callbacks
    monkeypatch.setattr(train.Settings, "callbacks", lambda *given: [*real(*given), Press()])
    done = mlp_xp(*TINY, "--epochs", 5, "--out", "run")
    assert done.status == 130
    assert steps[-1] == (3, 12)
    assert [row["n_samples"] for row in history_of(Path("run"))] == ["1438", "384"]
    assert "interrupted in epoch 2; the network is kept" in done.out
    assert json.loads(Path("run/config.json").read_text())["result"]["interrupted"] is True


@pytest.mark.usefixtures("ctrl_c")
def test_postponed_ctrl_c_is_raised_at_the_end():
    seen = []

    def press_twice():
        with interrupts() as pressed, postponed():
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)
            seen.append(pressed())

    with pytest.raises(KeyboardInterrupt):
        press_twice()
    assert seen == [False]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.matrix
@ELSEWHERE
def test_a_second_ctrl_c_stops_at_once(tmp_path):
    with start_training("--out", tmp_path / "run", held_at="interrupted") as process:
        process.send_signal(signal.SIGINT)
        next(line for line in process.stdout if line.startswith("interrupted in epoch"))
        process.send_signal(signal.SIGINT)  # It is about to evaluate.
        err = without_compiling(process.communicate("\n", timeout=60)[1])
    assert process.returncode == 130
    partial = tmp_path / "run.partial"
    kept, hint = err.rstrip("\n").split("; ")
    assert kept == f"note: kept what is in {partial}: mlp-xp evaluate {partial}"
    assert hint == f"go on with mlp-xp train --resume {tmp_path / 'run'}"
    assert load_model(partial).n_iter_ >= 3
