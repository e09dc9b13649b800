"""Checkpoints on a disk that loses power, and where one cannot be written."""

import os
import stat
import sys
from pathlib import Path

import processes
import pytest
from fake_fit import X, Y

from mlp_xp import MLPClassifier
from mlp_xp.callbacks import Checkpoint

# Fits with checkpoints; between the second and the fourth epoch there is no room.
FULL = """
import resource, sys, warnings
from pathlib import Path
import numpy as np
from mlp_xp import MLP
from mlp_xp.callbacks import Callback, Checkpoint
from mlp_xp.saving import load_model

folder = Path(sys.argv[1])
X, y = np.random.default_rng(0).normal(size=(60, 50)), np.arange(60) % 3


class Fill(Callback):
    def on_epoch_end(self, model, record):
        if record.epoch in (2, 4):
            most = 4096 if record.epoch == 2 else resource.RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


watch = [Fill(), Checkpoint(folder, keep_last=None)]
settings = {"max_iter": 5, "learning_rate": "cosine", "random_state": 0}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    fitted = MLP((32,), callbacks=watch, **settings).fit(X, y)
for warning in caught:
    print(str(warning.message).removeprefix(f"{folder}/"))
print(sorted(path.name for path in folder.iterdir()))
assert load_model(folder / "epoch-0004").n_iter_ == load_model(folder / "best").n_iter_ - 1 == 4
resumed = MLP((32,), **settings).fit(X, y, resume=folder)
assert all(map(np.array_equal, resumed.coefs_, fitted.coefs_))
"""


@pytest.mark.matrix
@pytest.mark.skipif(sys.platform == "win32", reason="no limits of a process")
def test_a_fit_goes_on_where_a_file_cannot_be_written(tmp_path):
    done = processes.run(FULL, tmp_path)
    assert done.returncode == 0, done.stderr
    *said, left = done.stdout.splitlines()
    assert left == "['best', 'epoch-0001', 'epoch-0004', 'epoch-0005']"
    assert [line.partition(". The fit goes on")[0] for line in said] == [
        f"{name} cannot be written: File too large"
        for name in ("epoch-0002", "best", "epoch-0003", "best")
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not flushed there")
def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    sync, rename, events = os.fsync, Path.rename, []

    def seen(facts: os.stat_result) -> tuple[int, int]:
        """Return what tells a file, with all of its content, or a folder from others."""
        return facts.st_ino, facts.st_size if stat.S_ISREG(facts.st_mode) else 0

    def synced(descriptor):
        sync(descriptor)
        events.append(("flush", {seen(os.fstat(descriptor))}))

    def renamed(path, target):
        events.append((Path(target).name, {seen(p.stat()) for p in (path, *path.rglob("*"))}))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    watch = [Checkpoint(tmp_path, keep_last=1, keep_best=0)]
    MLPClassifier((4,), max_iter=3, learning_rate="cosine", callbacks=watch).fit(X, Y)
    named = [i for i, (name, _) in enumerate(events) if name.startswith("epoch-")]
    assert len(named) == 3
    for i in named:
        flushed = set.union(*(what for name, what in events[:i] if name == "flush"))
        assert events[i][1] <= flushed
        # And the name too, before an older one loses its own.
        assert events[i + 1] == ("flush", {seen(tmp_path.stat())})
    assert [name[:7] for name, _ in events[named[1] + 2 : named[1] + 3]] == [".epoch-"]
