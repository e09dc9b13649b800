"""The team of threads: it is there while it works, and nothing hangs where it is not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")

CHILD = """
import os, signal, sys, threading, warnings
import numpy as np
from mlp_xp import MLPClassifier
from mlp_xp.backends import _jobs
from mlp_xp.callbacks import Callback

warnings.simplefilter("ignore")
os.environ["OMP_NUM_THREADS"] = "2"  # A team of two, on any machine.
rng = np.random.default_rng(0)
x, y = rng.random((400, 300), dtype=np.float32), np.arange(400) % 3


def fit(callbacks=None):
    model = MLPClassifier((300, 300), max_iter=2, batch_size=200, random_state=0)
    return model.set_params(callbacks=callbacks).fit(x, y).predict_proba(x)


class Fork(Callback):
    def on_step_end(self, model, done, n_steps):
        in_a_child()


def in_a_child():
    child = os.fork()
    if child == 0:
        signal.alarm(40)
        try:
            alike = np.allclose(fit(), expected, atol=1e-4)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(2)
        os._exit(0 if alike else 3)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


expected = fit()
"""
FORKS = {
    "behind a fit": "in_a_child()",
    "in a fit": "fit([Fork()])",
    "under a lock": "with _jobs._lock: in_a_child()",
    "beside a fit": """
ready, over = threading.Event(), threading.Event()
def other():
    with _jobs.team(2):
        ready.set()
        over.wait()
thread = threading.Thread(target=other)
thread.start()
ready.wait()
in_a_child()
over.set()
thread.join()
""",
}


@fork
@pytest.mark.parametrize("how", FORKS)
def test_a_forked_process_trains_and_predicts(how):
    """It has none of the threads, and would wait for them."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD + FORKS[how]], capture_output=True, text=True, timeout=100
    )
    assert set(done.stdout.split()) == {"0"}, done.stdout + done.stderr
