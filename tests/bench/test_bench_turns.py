"""Contenders in their turns: each learns something from a little data, or says why it cannot."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "bench"
# These need no more than this library does.
OURS = ("mlp_xp, NumPy", "mlp_xp, NumPy, from uint8", "scikit-learn", "plain NumPy, float64")
# One compiles C++ for long, the other needs a process without the first Keras.
ALONE = ("torch, compiled", "Keras on torch")
WORKLOADS = ("tiny", "lab-full", "one-row")


@pytest.fixture(scope="module")
def turns():
    """Return the module with its neighbors on the path, which a process it starts inherits."""
    sys.path.insert(0, str(BENCH))
    yield importlib.import_module("turns")
    sys.path.remove(str(BENCH))


def jobs_of(turns, name, folder, threads=1):
    """Return the contenders of a workload of the suite that has little to do."""
    suite = importlib.import_module("workloads").SUITE
    workload = next(workload for workload in suite if workload.name == name)
    sizes = {
        "tiny": {"n_images": 200, "batch_size": 64},  # The last batch is a smaller one.
        "lab-full": {"n_images": 200, "batch_size": 200},
        "one-row": {"batch_size": 512},
    }
    workload = workload._replace(widths=(64, 16, 10), data="digits", repeats=3, **sizes[name])
    workload = workload._replace(learning_rate=0.01 if workload.solver == "adam" else 0.1)
    facts = turns.prepare(workload, folder)
    assert facts["data"] == "digits"
    entries = importlib.import_module("contenders").entries(workload)
    return {who: turns.Job(entry, workload, folder, threads) for who, entry in entries.items()}


def check_turns(name, workload, job):
    turn = job.get_ready()
    before, after = turn(), turn()
    if workload == "one-row":
        assert before is after is None, name
    else:
        assert 0 < after < 0.999 * before < 5, name


@pytest.mark.parametrize("workload", WORKLOADS)
def test_contenders_learn_or_predict(turns, tmp_path, workload):
    jobs = jobs_of(turns, workload, tmp_path)
    for name in jobs.keys() & OURS:
        check_turns(name, workload, jobs[name])
    scaled = np.load(tmp_path / "scaled.npy")
    if workload == "tiny":  # A constant pixel stays finite.
        np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)
        assert set(np.round(scaled.std(axis=0), 4)) <= {0.0, 1.0}


@pytest.mark.matrix
@pytest.mark.filterwarnings("default")  # What a peer is warned of is the peer's.
@pytest.mark.parametrize("workload", WORKLOADS)
def test_peers_learn_or_predict(turns, torch, tmp_path, monkeypatch, workload):
    monkeypatch.setenv("KERAS_BACKEND", "jax")  # To be as it was before, afterwards.
    missing = set()
    # The threads of torch are set for the whole process.
    for name, job in jobs_of(turns, workload, tmp_path, torch.get_num_threads()).items():
        if name not in OURS + ALONE:
            try:
                check_turns(name, workload, job)
            except ModuleNotFoundError as error:
                missing.add(error.name)
    if missing:
        pytest.skip(f"could not import {', '.join(missing)}")


@pytest.mark.matrix
@pytest.mark.all_cores
@pytest.mark.parametrize("name", ALONE)
def test_contenders_that_need_a_process_learn_in_one(turns, tmp_path, name):
    run = turns.measure({name: jobs_of(turns, "tiny", tmp_path)[name]}, rounds=1)[name]
    reason = run.get("cannot_run", "")
    if "No module named" in reason or "C++ compiler" in reason:
        pytest.skip(f"could not import: {reason}")
    assert not reason
    before, after = run["losses"]
    assert 0 < after < 0.999 * before < 5


@pytest.mark.parametrize(
    "module",
    ["ours", "peers.scikit_learn", pytest.param("peers.torch_eager", marks=pytest.mark.matrix)],
)
def test_predictions_are_classes(turns, module, rng):
    task = importlib.import_module("contest").Task(
        (64, 16, 10), "relu", "adam", 0.01, 32, x=rng.random((100, 64)).astype("float32"),
        y=(rng.integers(10, size=100)).astype("int32"), threads=1,
    )  # fmt: skip
    contender = pytest.importorskip(module).make(task)
    contender.train(1)
    for rows in (1, 50):
        classes = contender.predict(task.x[:rows])
        assert classes.shape == (rows,)
        assert set(classes) <= set(range(10))


@pytest.mark.matrix
def test_contenders_that_cannot_run_are_told_and_the_others_run(turns, tmp_path, monkeypatch):
    (tmp_path / "dies.py").write_text("import os\n\ndef make(task):\n    os._exit(3)\n")
    (tmp_path / "fails.py").write_text("def make(task):\n    raise RuntimeError('too\\nsmall')\n")
    good = jobs_of(turns, "tiny", tmp_path)["scikit-learn"]
    jobs = {
        name: good._replace(entry=good.entry._replace(module=name))
        for name in ("dies", "fails", "is_not_there")
    }
    monkeypatch.syspath_prepend(tmp_path)
    ran = turns.measure({**jobs, "good": good}, rounds=1)
    assert ran["dies"]["cannot_run"] == "its process ended with status 3"
    assert ran["fails"]["cannot_run"] == "RuntimeError: too small"
    assert ran["is_not_there"]["cannot_run"].startswith("ModuleNotFoundError: No module named")
    (seconds,) = ran["good"]["seconds"]
    before, after = ran["good"]["losses"]
    assert seconds > 0
    assert 0 < after < 0.999 * before < 5
    if sys.platform == "linux":
        assert 10e6 < ran["good"]["peak_bytes"] < 1e9
