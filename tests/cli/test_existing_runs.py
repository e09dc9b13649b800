"""`mlp-xp train --out RUN --resume` starts, resumes or keeps a run; `--epochs` extends one."""

import json
import re
import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from running import DRAWN, FILES, TINY, history_of
from test_command_failures import OPTIONS, in_the_third_epoch, outcome, watching

from mlp_xp._utils.storage.durable import rename_folder
from mlp_xp.cli import settings
from mlp_xp.cli.run_folder import folder as run_folder
from mlp_xp.cli.training import settings as settings_module
from mlp_xp.saving import load_model

START = [*TINY, *OPTIONS, "--out", "run"]


@pytest.fixture
def kill(mlp_xp, monkeypatch, capsys):
    """Run a command that is killed in its third epoch, between two checkpoints."""

    def run(*words, at=in_the_third_epoch, interval="1 steps", hook="on_step_end"):
        fail = at(Mock(side_effect=ZeroDivisionError))
        with watching(monkeypatch, **{hook: fail}) as patched:
            patched.setattr(settings_module, "_INTERVAL", interval)
            with pytest.raises(ZeroDivisionError):
                mlp_xp(*words)
        return capsys.readouterr().err

    return run


def contents(folder):
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


@pytest.mark.usefixtures("undrawn")
def test_the_same_command_starts_resumes_and_keeps_a_run(mlp_xp, kill, monkeypatch):
    kill(*START, "--resume")
    assert Path("run.partial", "checkpoints").exists()
    done = mlp_xp(*START, "--resume", "--checkpoint", 3)
    assert "resumed after 2 epochs and 2 steps\n" in done.out
    mlp_xp(*START[:-1], "whole", "--checkpoint", 3)
    assert outcome("run")[:-1] == outcome("whole")[:-1]
    before = contents("run")
    monkeypatch.setattr(settings, "load_data", Mock(side_effect=AssertionError))
    for words in ([*START, "--resume"], [*START, "--resume", "run"], ["train", "--resume", "run"]):
        again = mlp_xp(*words)
        said = "run is complete after 4 epochs: nothing to train"
        assert (again.status, again.err) == (0, "")
        assert again.out.splitlines() == [said, done.out.splitlines()[-1]]
    result = json.loads(mlp_xp(*START, "--resume", "--json").out)
    assert result.pop("seconds_in_all") > 0.0
    assert result == {"run": "run"} | json.loads(Path("run/config.json").read_text())["result"]
    assert contents("run") == before


@pytest.mark.usefixtures("undrawn")
def test_a_run_killed_before_its_first_checkpoint_starts_again(mlp_xp, kill):
    Path("run.partial").mkdir()  # The folder's state before training begins.
    kill(*START, "--resume", interval="1 h")
    mlp_xp(*START[:-1], "whole")
    shutil.copytree("whole", "run.partial")
    for path in Path("run.partial").iterdir():
        if path.name != "config.json":
            path.unlink()
    config = json.loads(Path("run.partial/config.json").read_text())
    del config["result"]
    Path("run.partial/config.json").write_text(json.dumps(config))
    done = mlp_xp(*START, "--resume")
    assert (done.status, done.err) == (0, "")
    assert "no checkpoint yet: the training starts at its first epoch" in done.out
    assert outcome("run") == outcome("whole")


@pytest.mark.usefixtures("undrawn")
def test_a_run_killed_before_its_final_rename_counts_as_complete(mlp_xp, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        patched.setattr(run_folder, "rename_folder", Mock(side_effect=ZeroDivisionError))
        with pytest.raises(ZeroDivisionError):
            mlp_xp(*START)
    assert not Path("run").exists()
    capsys.readouterr()
    done = mlp_xp(*START, "--resume")
    assert (done.status, done.err) == (0, "")
    assert "run is complete after 4 epochs" in done.out
    assert [path.name for path in Path().iterdir()] == ["run"]


@pytest.mark.usefixtures("undrawn")
def test_exit_status_of_a_diverged_run_stays_1(mlp_xp):
    words = [*TINY, "--solver", "sgd", "--learning-rate", "1e30", "--out", "run", "--resume"]
    assert mlp_xp(*words).status == mlp_xp(*words).status == 1


def test_options_that_differ_from_the_run_are_an_error(fails, mlp_xp, digits_run):
    start = [*TINY, "--epochs", "8", "--validation", "0.25", "--out", "run", "--resume"]
    before = contents("run")
    for typed, said in (
        ("--hidden 8 4", "with --hidden 16, got --hidden 8 4: type the same options, or --out r"),
        ("--dropout 0.5", "without --dropout 0.5: type the same options"),
        ("--no-residual", "without --no-residual: "),
        ("--data cifar10", "with digits, got cifar10: "),
        ("--epochs 9", "with --epochs 8, got --epochs 9: to train for more epochs, type mlp-xp "),
        ("--epochs 7", "with --epochs 8, got --epochs 7: type the same options, or --out run-2"),
    ):
        assert f"run was started {said}" in fails(*start, *typed.split())
    assert "with --validation 0.25, got no such option" in fails(*start[:9], *start[11:])
    moved = ["--backend", "numpy", "--checkpoint", "1", "--precision", "auto"]
    assert mlp_xp(*start, *moved[:4]).status == 0
    assert "without --precision auto" in fails(*start, *moved)
    assert contents("run") == before


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_an_empty_folder_can_be_used_for_a_run(resume, mlp_xp):
    Path("run").mkdir()
    assert mlp_xp(*START, *resume).status == 0
    assert Path("run", "config.json").exists()


def test_an_existing_folder_is_an_error_before_the_data_are_loaded(fails, digits_run, monkeypatch):
    monkeypatch.setattr(settings, "load_data", Mock(side_effect=AssertionError))
    line = fails(*START)
    assert "run already exists, and runs are never overwritten: add --resume to resume it" in line
    assert "or type --out run-2" in line
    Path("empty").mkdir()
    monkeypatch.chdir("empty")
    assert "a new folder: type --out run" in fails("train", "digits", "--out", ".")


def test_invalid_run_folder_error_says_what_to_type(fails, digits_run):
    assert "run already exists, and runs are never overwritten: add --resume" in fails(*START)
    assert "type --resume RUN to resume it, or --out RUN --resume" in fails(*TINY, "--resume")
    for name in ("full", "other.partial"):
        Path(name).mkdir()
        Path(name, "thesis.txt").touch()
    Path("table.csv").touch()
    for typed, said in (
        ("--out full --resume", "full has no config.json, so it is not a run folder: expected"),
        ("--out other --resume", "other.partial is not from mlp-xp train: move or remove it"),
        ("--out other", "other.partial is not from mlp-xp train: move or remove it"),
        ("--resume table.csv", "table.csv is a file, so it is not a run folder"),
        ("--out run --resume other", "or type --out run --resume to start or resume run"),
    ):
        assert said in fails(*TINY, *typed.split()), typed
    assert "run other.partial" not in fails("train", "--resume", "other")
    assert Path("other.partial/thesis.txt").exists()
    config = json.loads((digits_run / "config.json").read_text())
    del config["arguments"]
    (digits_run / "config.json").write_text(json.dumps(config))
    assert "run does not tell how it was started: type" in fails(*TINY, "--out", "run", "--resume")


# The learning rate is constant, so that an extension can be compared with a whole run.
EXTEND = ["train", "--resume", "run", "--epochs", "6"]


@pytest.mark.usefixtures("undrawn")
def test_a_complete_run_can_be_trained_for_more_epochs(mlp_xp):
    options = [*TINY, *OPTIONS, "--early-stopping", "--checkpoint", "2", "--out"]
    mlp_xp(*options, "run")
    before = load_model("run")
    done = mlp_xp(*EXTEND)
    assert (done.status, done.err) == (0, "")
    assert "resumed after 4 epochs, with a new optimizer state\nepoch 5/6" in done.out
    assert [row["epoch"] for row in history_of(Path("run"))] == list("123456")
    config = json.loads(Path("run/config.json").read_text())
    assert config["result"]["epochs"] == config["settings"]["params"]["max_iter"] == 6
    assert config["command"].endswith("--out run --epochs 6")
    after = load_model("run")
    assert after.history_[:4] == before.history_
    assert after.best_validation_score_ >= before.best_validation_score_
    assert (after.max_iter, after.warm_start) == (6, False)
    assert {path.name for path in Path("run/checkpoints").iterdir()} == {"best", "epoch-0006"}
    for words in (EXTEND, [*options, "run", "--resume", "--epochs", "6"]):
        again = mlp_xp(*words)
        assert again.status == 0
        assert again.out.startswith("run is complete after 6 epochs: nothing to train")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("interval", ["1 h", "1 steps"])
def test_extended_run_that_was_killed_resumes_to_the_same_result(mlp_xp, kill, interval):
    mlp_xp(*START)
    shutil.copytree("run", "whole")
    mlp_xp("train", "--resume", "whole", "--epochs", 6)

    def in_the_sixth_epoch(act):
        return lambda model, done, n_steps: (len(model.history_), done) == (5, 3) and act()

    note = kill(*EXTEND, at=in_the_sixth_epoch, interval=interval)
    place = "run" if interval == "1 h" else "run/checkpoints/epoch-0005-step-000002"
    assert note == f"note: run was kept; to test it, type mlp-xp evaluate {place}\n"
    assert load_model("run").n_iter_ == 4  # The complete run can still be used.
    n_epochs, n_steps = (4, "with") if interval == "1 h" else (5, "and 2 steps")
    assert re.search(f"resumed after {n_epochs} epochs,? {n_steps}", (done := mlp_xp(*EXTEND)).out)
    assert (done.status, done.err) == (0, "")
    assert f"epoch {n_epochs}/6" not in done.out
    assert outcome("run") == outcome("whole")
    assert {path.name.split("-")[0] for path in Path("run").iterdir()} <= {"model", *FILES - DRAWN}


@pytest.mark.usefixtures("undrawn")
def test_a_run_on_a_table_is_extended_unless_the_file_has_changed(mlp_xp, kill, fails):
    rng = np.random.default_rng(0)
    rows = [f"{a:.3f},{'xy'[int(a > 0)]},{a + 1:.3f}" for a in rng.normal(size=80)]
    Path("t.csv").write_text("\n".join(["size,kind,price", *rows]))
    start = ["train", "t.csv", "--epochs", "4", "--hidden", "8"]
    for out in ("run", "whole"):
        assert mlp_xp(*start, "--out", out).status == 0
    assert mlp_xp("train", "--resume", "whole", "--epochs", 6).status == 0
    model = load_model("run")
    kill(*EXTEND, at=lambda act: lambda model, *_: len(model.history_) == 5 and act())
    assert mlp_xp(*EXTEND).status == 0
    np.testing.assert_array_equal(load_model("run").coefs_[0], load_model("whole").coefs_[0])
    assert load_model("run").columns_.names == model.columns_.names == ["size", "kind"]
    Path("t.csv").write_text("\n".join(["size,kind,price", *rows[:-9]]))
    line = fails("train", "--resume", "run", "--epochs", 9)
    assert "t.csv has changed since the training of run" in line


@pytest.mark.usefixtures("undrawn")
def test_an_lbfgs_run_can_be_extended(mlp_xp, kill):
    start = [*TINY, "--solver", "lbfgs", "--epochs", "4", "--out", "run"]
    mlp_xp(*start)
    kill(*EXTEND, at=lambda act: lambda *_: act(), hook="on_epoch_end")
    assert mlp_xp(*EXTEND).status == 0
    assert [row["epoch"] for row in history_of(Path("run"))] == list("123456")


def test_runs_that_cannot_be_extended(fails, mlp_xp, digits_run):
    config = json.loads((digits_run / "config.json").read_text())
    said = "--epochs must be above the 8 epochs of run, got 6"
    assert said in fails(*EXTEND)
    diverged = config | {"result": config["result"] | {"diverged": True}}
    (digits_run / "config.json").write_text(json.dumps(diverged))
    assert "the training of run diverged: start a new run" in fails(*EXTEND[:-1], "9")
    del config["result"]
    (digits_run / "config.json").write_text(json.dumps(config))
    line = fails(*EXTEND[:-1], "9")
    assert "run is not complete after 8 epochs: type mlp-xp train --resume run to comp" in line
    rename_folder(digits_run, Path("run.partial"))
    assert "run.partial is not complete" in fails(*EXTEND[:-1], "9")
