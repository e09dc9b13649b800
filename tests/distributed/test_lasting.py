"""Checkpoints of a distributed fit, the command on ranks, and data larger than the memory."""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import problem
from trainers import assert_same_fit

from mlp_xp import MLPClassifier
from mlp_xp.callbacks import Callback, Checkpoint
from mlp_xp.cli import main
from mlp_xp.distributed import get_communicator
from mlp_xp.saving import load_model
from mlp_xp.training.checkpoints.checkpoints import checkpoints
from mlp_xp.training.trainer import Trainer

X, Y = problem(n=157)
SETTINGS = {"hidden_layer_sizes": (8,), "max_iter": 6, "random_state": 0, "batch_size": 32}
SETTINGS |= {"dropout": 0.1, "ema_decay": 0.9, "early_stopping": True, "learning_rate": "cosine"}


class Signal(Callback):
    def __init__(self, step, number, pid):
        self.left = step
        self.number = number
        self.pid = pid

    def on_step_end(self, model, done, n_steps):
        self.left -= 1
        if not self.left:
            os.kill(self.pid, self.number)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def begin(folder: str, how: str) -> None:
    """Begin a fit with checkpoints that ends within an epoch by a signal to a rank or mpiexec."""
    launcher = parent(int(os.environ["LAUNCHER"]))
    target = (signal.SIGKILL, os.getpid()) if how == "kill" else (signal.SIGTERM, launcher)
    watch = [Checkpoint(folder, every="4 steps"), Signal(18, *target)]
    watch = watch[1:] if how == "without" else watch
    settings = SETTINGS | {"max_iter": 6 if how == "kill" else 5000}
    MLPClassifier(**settings, distributed="mpi", callbacks=watch).fit(X, Y)
    print("not reached")


def resume(folder: str) -> None:
    """Resume a fit whose checkpoints only rank 0 can read, and compare it with a whole one."""
    ranks = get_communicator("mpi")
    here = f"{folder}-{ranks.rank}" if ranks.rank else folder
    model = MLPClassifier(**SETTINGS, distributed="mpi").fit(X, Y, resume=here)
    assert_same_fit(model, MLPClassifier(**SETTINGS).fit(X, Y))


def command(*arguments: str) -> None:
    sys.exit(main(list(arguments)))


def killed_command(*arguments: str) -> None:
    run_epoch, ranks = Trainer.run_epoch, get_communicator("mpi")

    def killed(trainer, *given, **settings):
        if trainer.n_epochs == 3 and ranks.rank == ranks.size - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return run_epoch(trainer, *given, **settings)

    Trainer.run_epoch = killed
    command(*arguments)


def test_killed_fit_resumes_with_a_different_number_of_ranks(run_ranks, tmp_path):
    folder = tmp_path / "kept"
    done = run_ranks(2, begin, str(folder), "kill", fails=True, plain=True)
    assert done.returncode != 0
    assert list(checkpoints(folder)) == [(1, 3), (2, 2), (3, 1)]  # In step 18 of 5 an epoch.
    for n in (3, 1):
        run_ranks(n, resume, str(folder))


@pytest.mark.parametrize("how", ["term", "without"])
def test_sigterm_to_the_launcher_ends_the_fit(run_ranks, tmp_path, how):
    done = run_ranks(3, begin, str(tmp_path / "kept"), how, fails=True)
    assert "not reached" not in done.stdout
    if how == "term":
        assert done.returncode == 143
        assert list(checkpoints(tmp_path / "kept"))[-1][0] >= 3
    else:
        assert done.returncode != 0


def test_the_command_trains_on_several_ranks_and_writes_one_run(run_ranks, tmp_path):
    shared = ["train", "--data", "digits", "--epochs", "2", "--hidden", "16", "--seed", "1"]
    assert main([*shared, "--out", str(tmp_path / "alone")]) == 0
    out = str(tmp_path / "ranks")
    done = run_ranks(3, command, *shared, "--out", out, "--distributed", "mpi")
    assert done.stdout.count("saved in") == done.stdout.count("epoch 1/2") == 1
    assert_same_fit(*(load_model(tmp_path / name) for name in ("alone", "ranks")), 1e-5)
    done = run_ranks(3, command, *shared, "--out", out, "--distributed", "mpi", fails=True)
    assert done.returncode == 2
    assert done.stderr.count("mlp-xp: error: ") == 1
    assert "already exists" in done.stderr


def test_the_command_resumes_with_a_different_number_of_ranks(run_ranks, tmp_path):
    whole, run = str(tmp_path / "whole"), str(tmp_path / "run")
    shared = ["train", "--data", "digits", "--epochs", "5", "--hidden", "16", "--seed", "1"]
    assert main([*shared, "--out", whole]) == 0
    given = [*shared, "--out", run, "--checkpoint", "1", "--distributed", "mpi"]
    assert run_ranks(2, killed_command, *given, fails=True, plain=True).returncode != 0
    assert not Path(run).exists()
    done = run_ranks(3, command, "train", "--resume", run, "--distributed", "mpi")
    assert done.stdout.count("resumed after 3 epochs") == done.stdout.count("saved in") == 1
    assert load_model(run).n_iter_ == 5
    assert_same_fit(load_model(run), load_model(whole), 1e-4)
    # A complete run is extended, too.
    more = ["train", "--resume", run, "--epochs", "7", "--distributed", "mpi"]
    assert main(["train", "--resume", whole, "--epochs", "7"]) == 0
    assert run_ranks(2, command, *more).stdout.count("epoch 6/7") == 1
    assert_same_fit(load_model(run), load_model(whole), 1e-4)
    assert run_ranks(2, command, *more).stdout.count("complete after 7 epochs") == 1


@pytest.mark.parametrize("n", [1, 4])
def test_no_rank_copies_a_memory_map(run_ranks, tmp_path, n):
    script, path = tmp_path / "take.py", tmp_path / "x.npy"
    script.write_text(  # Use one write: mpiexec mixes output.
        "import json, sys, bench.studies.ranks as r\n"
        "sys.stdout.write(json.dumps(r.take_memory(sys.argv[1])) + '\\n')"
    )
    np.lib.format.open_memmap(path, "w+", np.float32, (24_400, 3072))  # A hole of 300 MB.
    done = run_ranks(n, script, str(path), cold=True)  # No memory of a parent.
    measured = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(measured) == n
    assert all(2 < found["peak_mb"] < 60 for found in measured), measured
