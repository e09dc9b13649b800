"""A program that kills a fit before each access to a checkpoint's files, and resumes it.

``python killed_fits.py FOLDER`` compares each with a whole fit, and prints how many there were.
"""

import mmap
import os
import shutil
import signal
import struct
import sys
import warnings
from pathlib import Path

from mlp_xp import MLP
from mlp_xp.callbacks import Checkpoint
from mlp_xp.datasets import load_digits
from mlp_xp.training.checkpoints.checkpoints import checkpoints, read_checkpoint

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}
FOLDER = Path(sys.argv[1]) / "checkpoints"
DIGITS = load_digits()
# What the processes share: the accesses left, and the steps of the last complete checkpoint.
SHARED = mmap.mmap(-1, 16)
os.fsync = lambda file: None  # A kill loses nothing that was written.


class Reporting(Checkpoint):
    """A checkpoint that records in shared memory which one is complete."""

    def _write(self, model, pause, *rest):
        failed = super()._write(model, pause, *rest)
        SHARED[8:] = struct.pack("q", pause.n_steps)
        return failed


def fit():
    settings = {"dropout": 0.1, "ema_decay": 0.9, "early_stopping": True, "batch_size": 100}
    watch = [Reporting(FOLDER, every="12 steps", keep_last=2)]
    model = MLP((16,), max_iter=2, learning_rate="cosine", random_state=0, callbacks=watch)
    return model.set_params(**settings).fit(DIGITS.x_train, DIGITS.y_train, resume=FOLDER)


def result(model) -> list[bytes]:
    history = [record._replace(seconds=0.0) for record in model.history_]
    return [*(W.tobytes() for W in model.coefs_), repr(history).encode()]


def watch(event, args):
    left = struct.unpack("q", SHARED[:8])[0]
    if left and event in EVENTS and any(str(FOLDER) in str(arg) for arg in args):
        SHARED[:8] = struct.pack("q", left - 1)
        if left == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def status_of_child() -> int:
    pid = os.fork()
    if pid == 0:
        fit()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def check_usable() -> None:
    """Check that the newest checkpoint is whole, and no older than the last that was written."""
    last = struct.unpack("q", SHARED[8:])[0]
    if last:
        facts = read_checkpoint(list(checkpoints(FOLDER).values())[-1]).metadata
        assert facts["steps"] + facts["step"] >= last, (facts["steps"], facts["step"], last)


warnings.filterwarnings("ignore", "resume is .* which has no checkpoint")
expected = result(fit())
sys.addaudithook(watch)
for number in range(1, 1000):
    shutil.rmtree(FOLDER)
    SHARED[:] = struct.pack("qq", number, 0)
    status = status_of_child()
    SHARED[:8] = bytes(8)
    if status == 0:
        break
    assert status == -signal.SIGKILL, status
    check_usable()
    assert result(fit()) == expected, number
    left = [path.name for path in FOLDER.iterdir() if path.name.startswith(".")]
    assert left == [], left
print(f"killed at {number - 1} accesses")
