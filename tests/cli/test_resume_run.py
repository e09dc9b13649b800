"""`mlp-xp train --resume`: a run that was killed or terminated goes on as if it had not been."""

import json
import signal
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from running import DRAWN, FILES, TINY, history_of, in_progress, start

from mlp_xp._utils.durable import locked
from mlp_xp.callbacks import Callback
from mlp_xp.cli import settings as settings_module
from mlp_xp.cli.settings import Settings
from mlp_xp.saving import load_model
from mlp_xp.training.checkpoints import checkpoints

# An epoch has five steps.
WORDS = "--epochs 4 --batch-size 256 --validation 0.2 --dropout 0.1 --ema-decay 0.9"
OPTIONS = [*WORDS.split(), "--schedule", "cosine"]


class StoppedError(RuntimeError):
    pass


@pytest.fixture
def stop(mlp_xp, undrawn, monkeypatch, capsys):
    """Start a run that is stopped in its third epoch, as by a kill."""

    class Stop(Callback):
        def on_step_end(self, model, done, n_steps):
            if (len(model.history_), done) == (2, 3):
                raise StoppedError

    def run(*options, interval="1 steps"):
        real = Settings.callbacks
        with monkeypatch.context() as patched:
            patched.setattr(settings_module, "_INTERVAL", interval)
            patched.setattr(Settings, "callbacks", lambda *of: [*real(*of), Stop()])
            with pytest.raises(StoppedError):
                mlp_xp(*TINY, *OPTIONS, "--out", "run", *options)
        assert not Path("run").exists()
        capsys.readouterr()

    return run


def outcome(folder):
    model, rows = load_model(folder), history_of(Path(folder))
    config = json.loads(Path(folder, "config.json").read_text())
    numbers = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    weights = [W.tobytes() for W in (*model.coefs_, *model.intercepts_)]
    result = config["result"]
    return [weights, numbers, result["test_accuracy"], result["epochs"], config["settings"]]


@pytest.mark.parametrize("name", ["run", "run.partial"])
def test_a_resumed_run_is_the_whole_one(name, mlp_xp, stop):
    stop()
    done = mlp_xp("train", "--resume", name)
    assert (done.status, done.err) == (0, "")
    for said in ("resumed after 2 epochs and 2 steps", "epoch 3/4", "saved in run\n"):
        assert said in done.out
    assert "epoch 2/4" not in done.out
    assert [path.name for path in Path().iterdir()] == ["run"]
    assert {path.name for path in Path("run").iterdir()} == FILES - DRAWN
    mlp_xp(*TINY, *OPTIONS, "--out", "whole")
    assert outcome("run") == outcome("whole")


def test_a_run_without_a_checkpoint_starts_again(mlp_xp, stop):
    stop("--seed", 3, interval="1 h")
    assert not Path("run.partial").exists()  # There was nothing to keep.
    mlp_xp(*TINY, *OPTIONS, "--seed", 3, "--out", "run")
    whole = outcome("run")
    partial = in_progress(Path("run"))
    for path in partial.iterdir():
        if path.name != "config.json":
            path.unlink()
    done = mlp_xp("train", "--resume", "run")
    assert (done.status, done.err) == (0, "")
    assert "no checkpoint yet: the training starts at its first epoch" in done.out
    assert outcome("run") == whole


def test_checkpoints_that_were_asked_for_stay(mlp_xp, stop):
    stop("--checkpoint", 1)
    assert mlp_xp("train", "--resume", "run").status == 0
    found = {path.name for path in Path("run", "checkpoints").iterdir()}
    assert {"best", "epoch-0002", "epoch-0003", "epoch-0004"} <= found
    assert len(found) <= 5
    mlp_xp(*TINY, *OPTIONS, "--out", "whole", "--checkpoint", 1)
    assert outcome("run") == outcome("whole")


def test_a_recipe_that_is_gone_is_not_needed(mlp_xp, recipe, undrawn):
    options = "--checkpoint", 1, "--epochs", 3
    assert mlp_xp("train", "--recipe", recipe, *options, "--out", "run").status == 0
    expected = outcome("run")
    in_progress(Path("run"))
    recipe.unlink()
    assert mlp_xp("train", "--resume", "run").status == 0
    assert outcome("run") == expected


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["torch", "jax"])
def test_another_library_may_go_on(name, mlp_xp, stop):
    pytest.importorskip(name)
    stop()
    assert mlp_xp("train", "--resume", "run", "--backend", name).status == 0
    assert load_model("run").n_iter_ == 4


def test_options_that_change_the_numbers_are_refused(fails, partial_run):
    for typed in ("--epochs 9", "--recipe record", "--data digits", "--out x", "--no-residual"):
        line = fails("train", "--resume", "run", *typed.split())
        option = typed.split()[0].replace("--no-", "--")
        assert f"{option} cannot be given with --resume, which takes all settings from" in line
    assert partial_run.exists()


def test_what_cannot_be_resumed_is_an_error_that_says_why(fails, finished, partial_run):
    assert "neither none.partial nor none is there" in fails("train", "--resume", "none")
    assert "is complete, there is nothing to resume" in fails("train", "--resume", finished)
    Path("empty").mkdir()
    assert "empty has no config.json" in fails("train", "--resume", "empty")
    with locked(partial_run):
        line = fails("train", "--resume", "run")
    assert "is writing to this folder: wait until it has ended" in line
    for content in ("{", "{}", '{"settings": {"params": {}, "color": 1}}'):
        (partial_run / "config.json").write_text(content)
        assert "run.partial" in fails("train", "--resume", "run")


@pytest.mark.filterwarnings("always::RuntimeWarning")
def test_a_failing_checkpoint_is_a_note(mlp_xp, undrawn, monkeypatch):
    write = Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr("mlp_xp.callbacks._checkpoint.write_snapshot", write)
    done = mlp_xp(*TINY, "--epochs", 2, "--checkpoint", 1, "--out", "run")
    assert done.status == 0
    first, second = done.err.splitlines()
    assert first.startswith("note: run.partial/checkpoints/epoch-0001 cannot be written: No space")
    assert "epoch-0002 cannot be written" in second


def test_a_time_limit_counts_what_was_used(mlp_xp, stop, monkeypatch):
    stop("--max-time", 100)
    fit = Mock(side_effect=settings_module.MLPClassifier.fit)
    monkeypatch.setattr(settings_module.MLPClassifier, "fit", lambda *data, **to: fit(*data, **to))
    assert mlp_xp("train", "--resume", "run").status == 0
    assert fit.call_args.kwargs["resume"] == Path("run.partial", "checkpoints")
    assert load_model("run").max_time == 100


@pytest.mark.matrix
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM to another process")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_is_ended_is_resumed(how, mlp_xp):
    options = [*TINY, "--epochs", 40, "--hidden", "64", "--checkpoint", 1]
    with start(*options, "--out", "run", held_at="epoch  3/") as process:
        next(line for line in process.stdout if line.startswith("epoch  3/"))
        process.send_signal(how)
        _, err = process.communicate("\n", timeout=60)
    assert process.returncode == (143 if how == signal.SIGTERM else -signal.SIGKILL)
    found = checkpoints(Path("run.partial", "checkpoints"))
    assert max(found) >= (2, 0)
    if how == signal.SIGTERM:
        assert "go on with mlp-xp train --resume run" in err
    assert mlp_xp("train", "--resume", "run").status == 0
    mlp_xp(*options, "--out", "whole")
    assert outcome("run") == outcome("whole")
