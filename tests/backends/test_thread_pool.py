"""The thread pool exists while it works, and nothing hangs without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from mlp_xp._utils.processors import usable_threads
from mlp_xp.backends import get_backend
from mlp_xp.backends._numpy import jobs, thread_pool

fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")

# It forks after a fit, in one, in one that the child leaves, and beside another's pool.
FORKS = """
import os, signal, threading, warnings
import numpy as np
from mlp_xp import MLPClassifier
from mlp_xp.backends._numpy import thread_pool
from mlp_xp.callbacks import Callback

warnings.simplefilter("ignore")
os.environ["OMP_NUM_THREADS"] = "2"  # A pool of two threads, on any machine.
rng = np.random.default_rng(0)
x, y = rng.random((400, 300), dtype=np.float32), np.arange(400) % 3

class Stop(Callback):
    def on_epoch_end(self, model, record):
        return record.epoch == 2

def fit(*callbacks):
    # Long enough by its settings for a pool, and ended after two epochs.
    model = MLPClassifier((300, 300), max_iter=2_000, batch_size=200, random_state=0)
    return model.set_params(callbacks=[Stop(), *callbacks]).fit(x, y).predict_proba(x)

def fork(in_child):
    child = os.fork()
    if child == 0:
        signal.alarm(40)
        in_child()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

def fit_again():
    try:
        alike = np.allclose(fit(), expected, atol=1e-4)
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(2)
    os._exit(0 if alike else 3)

def leave():
    raise SystemExit(0)

class Fork(Callback):
    def __init__(self, in_child):
        self.in_child = in_child

    def on_step_end(self, model, done, n_steps):
        fork(self.in_child)

pools = []
start = thread_pool.ThreadPool._start
thread_pool.ThreadPool._start = lambda pool: pools.append(pool.n_threads) or start(pool)
expected = fit()
assert set(pools) == {2} or not thread_pool.can_compile(), pools
fork(fit_again)
fit(Fork(fit_again))
fit(Fork(leave))
ready, over = threading.Event(), threading.Event()
def other():
    with thread_pool.thread_pool(2):
        ready.set()
        over.wait()
thread = threading.Thread(target=other)
thread.start()
ready.wait()
fork(fit_again)
over.set()
thread.join()
"""


@fork
@pytest.mark.matrix
@pytest.mark.all_cores
def test_a_forked_process_trains_and_predicts():
    """It has none of the threads, and would wait for them."""
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Two epochs of two steps each are fits in which it forks.
    assert done.stdout.split() == ["0"] * (1 + 4 + 4 + 1), done.stdout + done.stderr


# --- beginning and end ----------------------------------------------------------------------------

pytest.importorskip("numba")
if os.name != "posix":
    pytest.skip("machine code needs POSIX threads", allow_module_level=True)


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("mlp_xp-")]


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


@pytest.fixture
def before():
    """Return how many threads each BLAS has: two, whatever other tests have left."""
    with threadpool_limits(2, user_api="blas"):
        yield blas_threads()


@pytest.fixture
def job():
    """Return a linked job, and what it writes ones to."""
    found = np.zeros((3, 4))
    array = jobs.ActivateArray(True, 12, np.ones((3, 4)), 0, found, jobs.RELU)
    words, _ = jobs.table([jobs.Job(array, True)])
    thread_pool.link([words])
    return words, found


def test_threads_go_when_told_to_and_do_no_job_for_it(job):
    words, found = job
    for n_jobs in (0, 1, 5) * 10:
        with thread_pool.thread_pool(3):
            for _ in range(n_jobs):
                thread_pool.runner()(jobs.turn(words))
            assert len(threads()) == (2 if n_jobs else 0)
            assert found.all() == bool(n_jobs)
            found[...] = 0.0
        assert not threads()
        assert not found.any()


def test_a_job_is_done_where_no_other_thread_runs(monkeypatch, job):
    """As where other programs have all other processors."""

    class Stopped(threading.Thread):
        def start(self):
            pass

        def join(self, timeout=None):
            pass

    words, found = job
    monkeypatch.setattr(thread_pool.threading, "Thread", Stopped)
    with thread_pool.thread_pool(3):
        thread_pool.runner()(jobs.turn(words))
        assert found.all()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:os.fork:RuntimeWarning")
@fork
def test_a_forked_process_has_no_pool_yet_and_no_lock_is_held_there(job):
    words, found = job
    with thread_pool.thread_pool(2):
        thread_pool.runner()(jobs.turn(words))
        found[...] = 0.0
        with thread_pool._lock, thread_pool._machine_code()._lock:
            child = os.fork()
        if child == 0:
            signal.alarm(10)
            status = 1
            try:
                assert not thread_pool.has_pool()
                with thread_pool.thread_pool(2):
                    thread_pool.link([words])
                    thread_pool.runner()(jobs.turn(words))
                assert found.all()
                status = 0
            finally:
                os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not found.any()


def test_threads_go_where_not_all_of_them_can_be_had(monkeypatch):
    start = threading.Thread.start

    def scarce(self):
        if self.name == "mlp_xp-2":
            raise RuntimeError("can't start new thread")
        start(self)

    words, _ = jobs.table([])
    thread_pool.link([words])
    monkeypatch.setattr(threading.Thread, "start", scarce)
    with pytest.raises(RuntimeError, match="can't start new thread"), thread_pool.thread_pool(4):
        thread_pool.runner()(jobs.turn(words))
    assert not threads()
    assert not thread_pool.has_pool()


def test_each_thread_has_its_own_pool():
    """Jobs are done without the interpreter's lock."""
    found = []

    def other():
        found.append(thread_pool.has_pool())
        with thread_pool.thread_pool(1):
            found.append(thread_pool.runner())

    with thread_pool.thread_pool(1):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert found[0] is False
        assert found[1] != thread_pool.runner()


# --- how many -------------------------------------------------------------------------------------


def test_a_pool_takes_no_more_than_it_may(monkeypatch):
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert usable_threads() == 1
    # Joblib knows affinity and containers.
    monkeypatch.setattr("joblib.cpu_count", lambda: 5)
    assert usable_threads() == 5
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert usable_threads() == 2


def test_the_blas_gets_its_threads_back_from_the_last_user(before):
    first, second = thread_pool.thread_pool(2), thread_pool.thread_pool(2)
    first.__enter__()
    second.__enter__()
    assert set(blas_threads()) == {1}
    second.__exit__(None, None, None)
    assert set(blas_threads()) == {1}
    first.__exit__(None, None, None)
    assert blas_threads() == before


def test_the_blas_has_one_thread_for_steps_too_small_to_share_out(before):
    for work, sparse_work in (500_000, 0), (13_000_000, 0), (40_000_000, 39_000_000):
        with get_backend("numpy").training(work, sparse_work=sparse_work):
            assert set(blas_threads()) == {1}
        assert blas_threads() == before
    for work, sparse_work in (20_000_000, 0), (40_000_000, 20_000_000), (500_000, 450_000):
        with get_backend("numpy").training(work, sparse_work=sparse_work):
            assert blas_threads() == before
