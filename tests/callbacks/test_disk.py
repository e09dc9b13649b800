"""Checkpoints on a disk that loses power."""

import os
import stat
import sys
from pathlib import Path

import pytest
from fake_fit import X, Y

from mlp_xp import MLPClassifier
from mlp_xp.callbacks import Checkpoint


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
