"""Contenders: each learns, predicts or fits something of little data, or says why it cannot."""

import importlib
import os
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.neural_network

import mlp_xp

# These peers need no packages beyond ours.
NUMPY = ("mlp_xp, NumPy", "mlp_xp, NumPy, epochs in one fit", "mlp_xp, NumPy, from uint8")
OURS = (*NUMPY, "scikit-learn", "plain NumPy, float64")
# One compiles C++ for a long time; the other needs a process without the first Keras.
ALONE = ("torch, compiled", "Keras on torch")
WORKLOADS = {
    "tiny": {"n_images": 200, "batch_size": 64},  # The last batch is a smaller one.
    "lab-full": {"n_images": 200, "batch_size": 200},
    "one-row": {"batch_size": 512},
}
# Cases of the drop-in part with as little to do as there can be.
SMALL = {"sparse": {"rows": 60, "columns": 100, "per_row": 5}, "warm start": {"calls": 3}}
SMALL |= {name: {"seeds": 1, "max_iter": 2} for name in ("lbfgs", "early stopping")}


@pytest.fixture
def turns(module):
    return module("bench.suite.turns")


def jobs_of(turns, name, folder, threads=1):
    """Return the contenders of a workload of the suite that has little to do."""
    suite = importlib.import_module("bench.suite.workloads").SUITE
    workload = next(workload for workload in suite if workload.name == name)
    rate = 0.01 if workload.solver == "adam" else 0.1
    size = WORKLOADS[name] | {"widths": (64, 16, 10), "data": "digits", "repeats": 3}
    workload = workload._replace(learning_rate=rate, **size)
    assert turns.prepare(workload, folder)["data"] == "digits"
    entries = importlib.import_module("bench.suite.contenders").entries(workload)
    where = workload, folder, threads
    return {who: turns.Measurement(entry, *where) for who, entry in entries.items()}


def check_turns(name, workload, job):
    turn = job.get_ready()
    before, after = turn(), turn()
    if workload == "one-row":
        assert before is after is None, name
    else:
        assert 0 < after < 0.999 * before < 5, name


@pytest.mark.skipif(sys.platform == "win32", reason="signals of one process to another")
def test_ctrl_c_while_a_contender_starts_is_not_lost(turns, tmp_path, monkeypatch, capfd):
    def start():
        os.write(2, b"a traceback")
        os.kill(os.getpid(), signal.SIGINT)

    process = SimpleNamespace(start=start)
    spawn = SimpleNamespace(Pipe=lambda: (None, None), Process=lambda **_: process)
    monkeypatch.setattr(turns, "SPAWN", spawn)
    with pytest.raises(KeyboardInterrupt):
        turns.Worker(None, tmp_path / "log")
    os.write(2, b"after")
    assert (tmp_path / "log").read_text() == "a traceback"
    assert capfd.readouterr().err == "after"


@pytest.mark.parametrize("workload", WORKLOADS)
def test_contenders_train_or_predict(turns, tmp_path, workload):
    jobs = jobs_of(turns, workload, tmp_path)
    for name in jobs.keys() & OURS:
        check_turns(name, workload, jobs[name])
    scaled = np.load(tmp_path / "scaled.npy")
    if workload == "tiny":  # A constant pixel stays finite.
        np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)
        assert set(np.round(scaled.std(axis=0), 4)) <= {0.0, 1.0}


@pytest.mark.matrix
@pytest.mark.filterwarnings("default")  # Peers' warnings are no failures.
@pytest.mark.parametrize("workload", WORKLOADS)
def test_peer_libraries_train_or_predict(turns, torch, tmp_path, monkeypatch, workload):
    monkeypatch.setenv("KERAS_BACKEND", "jax")  # Restored after the test.
    # So few steps use plain NumPy, which has bfloat16 on every processor.
    monkeypatch.setattr("mlp_xp.backends._numpy.backend.bfloat16_packing", lambda: True)
    missing, n_threads = set(), torch.get_num_threads()  # Threads of the whole process.
    for name, job in jobs_of(turns, workload, tmp_path, n_threads).items():
        if name not in OURS + ALONE:
            try:
                check_turns(name, workload, job)
            except ModuleNotFoundError as error:
                missing.add(error.name)
    if missing:
        pytest.skip(f"could not import {', '.join(missing)}")


@pytest.mark.matrix
@pytest.mark.parametrize("name", ALONE)
def test_contenders_in_a_separate_process_reduce_the_loss(turns, tmp_path, name):
    run = turns.measure({name: jobs_of(turns, "tiny", tmp_path)[name]}, rounds=1)[name]
    reason = run.get("cannot_run", "")
    if "No module named" in reason or "C++ compiler" in reason:
        pytest.skip(f"could not import: {reason}")
    assert not reason
    before, after = run["losses"]
    assert 0 < after < 0.999 * before < 5


@pytest.mark.matrix
def test_contenders_that_cannot_run_are_reported_and_the_rest_are_measured(
    turns, tmp_path, monkeypatch
):
    dies = "import os\n\ndef make(task):\n    os.write(2, b'why')\n    os._exit(3)\n"
    (tmp_path / "dies.py").write_text(dies)
    (tmp_path / "fails.py").write_text("def make(task):\n    raise RuntimeError('too\\nsmall')\n")
    warning = f"warnings.warn({turns.SLOW!r}, RuntimeWarning)"
    (tmp_path / "slow.py").write_text(f"import warnings\n\ndef make(task):\n    {warning}\n")
    good = jobs_of(turns, "tiny", tmp_path)["scikit-learn"]
    jobs = {
        name: good._replace(entry=good.entry._replace(module=name, options={}))
        for name in ("dies", "fails", "slow", "is_not_there")
    }
    monkeypatch.syspath_prepend(tmp_path)
    ran = turns.measure({**jobs, "good": good}, rounds=1)
    assert ran["dies"]["cannot_run"] == "its process ended with status 3: why"
    assert ran["slow"]["cannot_run"] == f"RuntimeWarning: {turns.SLOW}"
    assert ran["fails"]["cannot_run"] == "RuntimeError: too small"
    assert ran["is_not_there"]["cannot_run"].startswith("ModuleNotFoundError: No module named")
    before, after = ran["good"]["losses"]
    assert 0 < after < 0.999 * before < 5
    assert sys.platform != "linux" or 10e6 < ran["good"]["peak_bytes"] < 1e9


def test_a_contender_without_its_machine_code_cannot_run(turns, monkeypatch):
    pool = importlib.import_module("mlp_xp.backends._numpy.runtime.thread_pool")
    error = pool.machine_code_error()("no LLVM")
    code = SimpleNamespace(addresses=lambda units: (_ for _ in ()).throw(error))
    monkeypatch.setattr(pool, "_machine_code", lambda: code)
    monkeypatch.setattr(pool, "_has_failed", False)
    kernels = mlp_xp.get_backend("numpy").kernels
    with pool.thread_pool(1), pytest.raises(RuntimeWarning, match=f"{turns.SLOW}.*no LLVM"):
        kernels.activate("relu", np.ones(2), xp=np)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("library", [mlp_xp, sklearn.neural_network], ids=["ours", "theirs"])
def test_each_drop_in_case_runs(module, library):
    drop_in = module("bench.studies.drop_in")
    kinds = [*map(drop_in.kind_of, drop_in.CASES)]
    assert {*kinds} == {*drop_in.KINDS} == {*SMALL, "first fit", "grid search"}
    for kind, options in zip(kinds, drop_in.CASES.values(), strict=True):
        if kind in SMALL:
            drop_in.KINDS[kind][0](library, **(options | SMALL[kind]))()


def test_contenders_of_a_search_find_the_same_best_score(module, monkeypatch):
    searches = module("bench.studies.search")
    case = searches.CASES["iris"]
    few = case._replace(network=case.network | {"max_iter": 3}, grid={"alpha": [0.1]}, cv=2)
    monkeypatch.setitem(searches.CASES, "iris", few)
    runs = [searches.run("iris", who) for who in (searches.OURS, searches.ALONE)]
    assert len({run["score"] for run in runs}) == 1
    assert all(run["seconds"] > 0 and run["bytes"] >= 0 for run in runs)


@pytest.mark.matrix
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone")
def test_busy_machine_benchmark_measures_every_variant(module, monkeypatch):
    busy, options = module("bench.studies.busy"), module("bench.suite.turns").Options
    monkeypatch.setitem(busy.CASES, "tiny", ((8, 4, 2), 8, 32, 1))
    found = busy.measure(options(1, 1, None, cases=("tiny",)), lambda turn: None)
    assert [len(seconds) for seconds in found["tiny"].values()] == [1, 1, 1]
