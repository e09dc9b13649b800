"""Processes that fork while another thread computes."""

import contextlib
import os
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import wait_until

from mlp_xp import MLPClassifier
from mlp_xp._utils.signals import forks
from mlp_xp._utils.storage import durable

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:os.fork:RuntimeWarning")
def test_a_forked_process_keeps_no_lock(tmp_path):
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


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:os.fork:RuntimeWarning")
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
        may_end.set()  # It ends while the fork waits.

    clock = SimpleNamespace(sleep=sleep, monotonic=lambda: 0.0)
    monkeypatch.setattr(forks, "time", clock)
    thread = threading.Thread(target=compute, kwargs={"seconds": 30})
    thread.start()
    assert has_begun.wait(30)
    with pytest.raises(KeyboardInterrupt) if is_interrupted else contextlib.nullcontext():
        if os.fork() == 0:
            signal.alarm(30)
            status = 1
            try:
                MLPClassifier(2, max_iter=2, learning_rate="cosine").fit(x, y).predict(x)
                status = 0 if ended else 2
            finally:
                os._exit(status)
        if is_interrupted:
            wait_until(lambda: False)  # A signal just before a single long wait would not end it.
    may_end.set()
    thread.join(30)
    assert os.waitstatus_to_exitcode(os.waitpid(-1, 0)[1]) == 0
    MLPClassifier(2, max_iter=2, learning_rate="cosine").fit(x, y).predict(x)
