"""A program that kills fits with checkpoints, resumes them, and compares them with a whole one.

``python killed_fits.py FOLDER writes`` kills one before each access to a file, and ``FOLDER
moments`` kills 100 at random moments. Prints what it has done.
"""

import mmap
import os
import shutil
import signal
import struct
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from mlp_xp import MLP
from mlp_xp.callbacks import Checkpoint
from mlp_xp.datasets import load_digits
from mlp_xp.training.checkpoints import checkpoints, read_checkpoint

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}
FOLDER = Path(sys.argv[1]) / "checkpoints"
DIGITS = load_digits()
# What the fits share: the accesses left, and the steps of the last checkpoint that was written.
SHARED = mmap.mmap(-1, 16)
os.fsync = lambda file: None  # A kill loses nothing that was written.


class Reporting(Checkpoint):
    """A checkpoint that records in shared memory which one is complete."""

    def _write(self, model, pause, *rest):
        failed = super()._write(model, pause, *rest)
        SHARED[8:] = struct.pack("q", pause.n_steps)
        return failed


def fit(every, **settings):
    defaults = {"hidden_layer_sizes": (16,), "dropout": 0.1, "ema_decay": 0.9, "random_state": 0}
    defaults |= {"early_stopping": True, "learning_rate": "cosine", "n_iter_no_change": 1000}
    watch = [Reporting(FOLDER, every=every, keep_last=2)]
    model = MLP(**(defaults | settings), callbacks=watch)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "resume is .* which has no checkpoint")
        return model.fit(DIGITS.x_train, DIGITS.y_train, resume=FOLDER)


def result(model) -> list[bytes]:
    history = [record._replace(seconds=0.0) for record in model.history_]
    return [*(W.tobytes() for W in model.coefs_), repr(history).encode()]


def watch(event, args):
    left = struct.unpack("q", SHARED[:8])[0]
    if left and event in EVENTS and any(str(FOLDER) in str(arg) for arg in args):
        SHARED[:8] = struct.pack("q", left - 1)
        if left == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def in_child(function, delay=None) -> int:
    """Run a function in a child process, killed after some seconds; return the exit status."""
    pid = os.fork()
    if pid == 0:
        function()
        os._exit(0)
    if delay is not None:
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def check_usable() -> None:
    """Check that the newest checkpoint is whole, and no older than the last that was written."""
    last = struct.unpack("q", SHARED[8:])[0]
    if not last:
        return
    facts = read_checkpoint(list(checkpoints(FOLDER).values())[-1]).facts
    assert facts["steps"] + facts["step"] >= last, (facts["steps"], facts["step"], last)


def clear() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    SHARED[:] = bytes(16)


def kill_at_every_write() -> None:
    settings = {"every": "12 steps", "max_iter": 2, "batch_size": 100}
    expected = result(fit(**settings))
    sys.addaudithook(watch)
    number = 0
    while True:
        clear()
        number += 1
        SHARED[:8] = struct.pack("q", number)
        status = in_child(lambda: fit(**settings))
        SHARED[:8] = bytes(8)
        if status == 0:
            break
        assert status == -signal.SIGKILL, status
        check_usable()
        assert result(fit(**settings)) == expected, number
        left = [path.name for path in FOLDER.iterdir() if path.name.startswith(".")]
        assert left == [], left
    print(f"killed at {number - 1} accesses")


def kill_at_moments(n_kills: int = 100) -> None:
    settings = {"every": "0.02 s", "max_iter": 12}
    expected = result(fit(**settings))
    clear()
    start = time.perf_counter()
    assert result(fit(**settings)) == expected
    longest = time.perf_counter() - start
    rng = np.random.default_rng(0)
    done = finished = 0
    clear()
    while done < n_kills:
        if in_child(lambda: fit(**settings), longest * rng.random()) == 0:
            assert result(fit(**settings)) == expected
            finished += 1
            clear()
            continue
        done += 1
        check_usable()
    assert result(fit(**settings)) == expected
    print(f"killed at {done} moments, {finished + 1} fits finished")


if __name__ == "__main__":
    if sys.argv[2] == "writes":
        kill_at_every_write()
    else:
        kill_at_moments()
