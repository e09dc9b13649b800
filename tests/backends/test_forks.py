"""Processes that fork while another thread computes."""

import contextlib
import os
import signal
import sys
import threading
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import PATIENCE, wait_until

from mlp_xp import MLPClassifier
from mlp_xp._utils.optional import optional
from mlp_xp._utils.signals import forks
from mlp_xp._utils.storage import durable
from mlp_xp.nn.hidden import Layer

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:os.fork:RuntimeWarning"),
]
_MODEL = MLPClassifier(2, max_iter=2, learning_rate="cosine")
_X, _Y = np.eye(4), [0, 0, 1, 1]


def _status_of_child(function):
    """Call a function in a forked process; return its exit status, -SIGALRM if it hangs."""
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        status = 1
        try:
            function()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Pause:
    """A point in another thread, at which it waits until `continue_` is called."""

    def __init__(self):
        self._has_begun, self._may_end = threading.Event(), threading.Event()

    def __call__(self):
        self._has_begun.set()
        assert self._may_end.wait(60)

    def continue_(self, *_):
        self._may_end.set()

    @contextlib.contextmanager
    def in_thread(self, function):
        thread = threading.Thread(target=function)
        thread.start()
        assert self._has_begun.wait(60)
        try:
            yield
        finally:
            self.continue_()
            thread.join(60)


def test_forked_child_can_build_a_network_while_a_thread_builds_one():
    pause = Pause()

    @dataclass(frozen=True)
    class SlowLayer(Layer):
        def outputs(self, fan_in):
            pause()
            raise ValueError("too slow")

    def fit():
        with pytest.raises(ValueError, match="too slow"):
            MLPClassifier((SlowLayer(),)).fit(_X, _Y)

    with pause.in_thread(fit):
        assert _status_of_child(lambda: _MODEL.fit(_X, _Y)) == 0


def test_forked_child_can_use_locks_held_by_another_thread():
    pause, lock = Pause(), forks.fork_safe_lock()

    def hold():
        with lock, np.random.get_bit_generator().lock:
            pause()

    with pause.in_thread(hold):
        assert _status_of_child(lock.acquire) == 0
        assert _status_of_child(lambda: _MODEL.fit(_X, _Y)) == 0


def test_a_fork_waits_until_another_thread_has_imported_a_library(tmp_path, monkeypatch):
    pause = Pause()
    monkeypatch.setitem(sys.modules, "pause_of_this_test", pause)
    (tmp_path / "slow_library.py").write_text("import pause_of_this_test as pause\npause()\n")
    monkeypatch.syspath_prepend(tmp_path)
    clock = SimpleNamespace(sleep=pause.continue_, monotonic=lambda: 0.0)
    monkeypatch.setattr(forks, "time", clock)
    try:
        with pause.in_thread(lambda: optional("slow_library")):
            assert _status_of_child(lambda: optional("slow_library")) == 0
    finally:
        sys.modules.pop("slow_library", None)


def test_a_forked_process_does_not_hold_the_file_lock(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    read, write = os.pipe()
    with durable.locked(tmp_path):
        child = os.fork()
        if child == 0:
            os.close(write)
            os.read(read, 1)  # Until the parent has closed its end.
            os._exit(0)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        for opened in (descriptor, read, write):
            os.close(opened)
        os.waitpid(child, 0)


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_a_fork_waits_until_no_other_thread_computes(is_interrupted, monkeypatch):
    x, y = np.eye(4), [0, 0, 1, 1]
    has_begun, may_end, ended = threading.Event(), threading.Event(), []

    @forks.between_forks
    def compute(*, seconds):
        has_begun.set()
        assert may_end.wait(seconds)
        ended.append(True)

    interrupts = [KeyboardInterrupt] * is_interrupted

    def sleep(_):
        if interrupts:
            raise interrupts.pop()
        may_end.set()  # The fit ends while the fork waits.

    clock = SimpleNamespace(sleep=sleep, monotonic=lambda: 0.0)
    monkeypatch.setattr(forks, "time", clock)
    thread = threading.Thread(target=compute, kwargs={"seconds": PATIENCE})
    thread.start()
    assert has_begun.wait(PATIENCE)
    with pytest.raises(KeyboardInterrupt) if is_interrupted else contextlib.nullcontext():
        if os.fork() == 0:
            signal.alarm(int(PATIENCE))
            status = 1
            try:
                MLPClassifier(2, max_iter=2, learning_rate="cosine").fit(x, y).predict(x)
                status = 0 if ended else 2
            finally:
                os._exit(status)
        if is_interrupted:
            wait_until(lambda: False)  # A signal just before a single long wait would not end it.
    may_end.set()
    thread.join(PATIENCE)
    assert os.waitstatus_to_exitcode(os.waitpid(-1, 0)[1]) == 0
    MLPClassifier(2, max_iter=2, learning_rate="cosine").fit(x, y).predict(x)
