"""Commands that end early: at Ctrl-C while libraries load, in a training or later, and in time."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import PATIENCE
from running import CODE, DRAWN, FILES, FINDER, TINY, history_of, start

from mlp_xp import MLPClassifier
from mlp_xp._utils.signals import interrupts, postponed
from mlp_xp.cli.training import deadline
from mlp_xp.cli.training.deadline import Deadline
from mlp_xp.cli.training.fit import ending_of
from mlp_xp.saving import load_model
from mlp_xp.training.loop.records import Record

ELSEWHERE = pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")


def run(found, *argv):
    """Run the command in a new process that runs a line of code at each import."""
    command = [sys.executable, "-c", FINDER.format(found=found) + CODE, *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)


LOADED = [("numpy", "train"), ("sklearn", "train"), ("scipy.linalg", "evaluate run")]
LOADED += [("mlp_xp.lab", "lab"), ("mlp_xp.cli.commands.listings", "backends")]
LOADED = [pytest.param(*case, marks=pytest.mark.matrix) for case in LOADED]
EARLY = "note: interrupted before the training began: nothing was saved\n"


@ELSEWHERE
@pytest.mark.parametrize(("module", "typed"), [("argparse", "--help"), *LOADED])
def test_ctrl_c_while_a_command_loads_is_silent(module, typed):
    found = f"name == {module!r} and (print('pressed', flush=True), press())"
    done = run(found, *typed.split())
    # Ctrl-C is repeated a moment later, when data may be loading.
    assert done.stdout.removesuffix("loading digits\n") == "pressed\n"
    assert (done.returncode, done.stderr.removesuffix(EARLY)) == (130, "")


@pytest.mark.matrix
@ELSEWHERE
def test_ctrl_c_during_a_gc_callback_is_silent_and_not_lost():
    # JAX's is called by the garbage collector, where Python prints an exception and continues.
    done = run("name == 'jax' and (gc.callbacks.append(press), gc.collect())", "backends")
    assert (done.returncode, done.stderr) == (130, "")
    # The import system also has callbacks of weak references.
    found = """
        raises = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if raises and 'mlp_xp.cli.commands.train' in sys.modules:
            sys.meta_path.remove(Finder)
            print('pressed', flush=True)
            thing = Object()
            place = weakref.ref(thing, press)
            del thing
    """
    done = run(found, *TINY, "--epochs", "100000")
    shown = re.sub(r"(?<=\n)loading digits\n?\Z", "", done.stdout)  # Ctrl-C may come within a line.
    assert (done.returncode, shown, done.stderr) == (130, "pressed\n", EARLY)


def test_postponed_ctrl_c_is_raised_at_the_end():
    with pytest.raises(KeyboardInterrupt), interrupts() as pressed, postponed():
        seen = [signal.raise_signal(signal.SIGINT) or pressed() for _ in range(2)]
    assert seen == [False, False]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.matrix
@ELSEWHERE
def test_a_second_ctrl_c_stops_at_once(tmp_path):
    options = [*TINY, "--epochs", 1_000_000, "--out", tmp_path / "run"]
    with start(*options, held_at="interrupted") as process:
        next(line for line in process.stdout if line.startswith("epoch       3/"))
        process.send_signal(signal.SIGINT)
        next(line for line in process.stdout if line.startswith("interrupted in epoch"))
        process.send_signal(signal.SIGINT)  # The process is about to evaluate.
        _, err = process.communicate(timeout=PATIENCE)  # Writing to an ended process is an error.
    assert process.returncode == 130
    run, partial = tmp_path / "run", tmp_path / "run.partial"
    kept = f"note: {partial} was kept; to test it, type mlp-xp evaluate {partial}; "
    said = f"{kept}to resume it, type mlp-xp train --resume {run}\n"
    # The first long training of an installation says that it compiles.
    assert re.sub(r"(?m)^mlp_xp: compil.*\n", "", err) == said
    assert load_model(partial).n_iter_ >= 3


@pytest.mark.parametrize(
    ("n_epochs", "scores", "is_interrupted", "said"),
    [
        (5, [1, 3, 3, 2], False, "stopped early after epoch 4 of 5: the validation score did not "),
        (4, [1, 3, 3, 2], False, "the network of epoch 2 is kept, the best "),
        (5, [1, 3, 2], True, "interrupted in epoch 3; the network of epoch 2 is kept, the best "),
        (5, [1, 3], True, "interrupted in epoch 2; the current network is kept"),
        (5, [1, 3], False, ""),  # The time was over.
    ],
)
def test_command_reports_why_training_ended(n_epochs, scores, is_interrupted, said):
    model = MLPClassifier(early_stopping=True, n_iter_no_change=1, max_iter=n_epochs)
    model.best_validation_score_ = max(scores)
    model._training = SimpleNamespace(is_at_plateau=len(scores) == 4)
    model.history_ = [Record(i, 0.5, None, 0.1, 9, 0.1, 0.5, x) for i, x in enumerate(scores, 1)]
    ending = ending_of(model, is_interrupted=is_interrupted)
    assert ending.text.startswith(said)
    assert bool(ending.text) == bool(said)
    assert (ending.kept_epoch, ending.is_early) == (2, said.startswith("stopped"))


def test_lowering_the_learning_rate_at_a_plateau_is_not_early_stopping():
    stop = SimpleNamespace(on_epoch_end=lambda model, record: record.epoch == 3)
    settings = {"solver": "sgd", "learning_rate": "adaptive", "tol": 1e9, "n_iter_no_change": 1}
    model = MLPClassifier(2, **settings, callbacks=[stop]).fit(np.eye(4), [0, 1, 0, 1])
    assert model.n_iter_ == 3
    assert not ending_of(model, is_interrupted=False).is_early


def test_too_little_time_leaves_a_tenth_for_training(mlp_xp, recipe):
    done = mlp_xp("train", "--recipe", recipe, "--max-time", "0.01", "--out", "run")
    assert done.status == 0
    said = "of 0.01 s is short: .*, so no plots are drawn, the command ends about .* late"
    assert re.search(said, done.err)
    assert {path.name for path in Path("run").iterdir()} == FILES - DRAWN
    assert int(history_of(Path("run"))[0]["n_samples"]) > 0
    assert "test accuracy" in done.out


@pytest.mark.parametrize(
    ("passed", "views", "has_views", "has_pictures", "seconds"),
    [
        # Limit: 60 s; 400 images take 5 s, a quarter included, two views 10 s, and plots 2.6 s.
        (10.0, 1, True, True, 50.0 - 1.5 - 5.0 - 2.6),
        (10.0, 2, True, True, 50.0 - 1.5 - 10.0 - 2.6),
        (36.0, 2, False, True, 24.0 - 1.5 - 5.0 - 2.6),
        (41.0, 2, False, False, 19.0 - 1.5 - 5.0),
        (50.0, 2, False, False, 6.0 + 6.0),  # 6 s for the training, after 6 s of predictions
        (61.0, 2, False, False, 6.0),
    ],
)
def test_deadline_reserves_time_for_the_test_and_plots(
    passed, views, has_views, has_pictures, seconds, monkeypatch, capsys
):
    now = 100.0

    def predict(x, tta="as set"):  # Each image and view takes 0.01 s.
        nonlocal now
        now += 0.01 * len(x) * (1 if tta is None else views)
        return x[:, 0]

    monkeypatch.setattr(deadline, "time", SimpleNamespace(perf_counter=lambda: now))
    tta = None if views == 1 else ["flip"]
    model = SimpleNamespace(max_time=60.0, tta=tta, predict=predict)
    watch = Deadline(160.0 - passed, np.zeros((100, 2)), 400)
    watch.on_fit_begin(model)
    assert (watch.has_views, watch.has_report) == (has_views, has_pictures)
    assert model.max_time == pytest.approx(seconds)
    note = capsys.readouterr().err
    assert ("augmentation" in note, "plots" in note) == (not has_views, not has_pictures)
    assert ("late" in note) == (passed >= 50.0)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is unknown")
def test_the_start_time_of_the_process_is_known():
    code = "from mlp_xp.cli.terminal import process as p; "
    code += "print(p.start_time(), p.time.perf_counter(), p.start_time(is_process=False))"
    before = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    start, began, asked = map(float, done.stdout.split())
    assert before - 0.05 < start < began < asked < time.perf_counter()
