"""Contenders in their turns: each learns something from a little data, or says why it cannot."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
OURS = "mlp_xp, NumPy"
TRAINED = [
    OURS,
    "mlp_xp, NumPy, from uint8",
    "mlp_xp, torch",
    "mlp_xp, torch, bf16",
    "mlp_xp, JAX",
    "scikit-learn",
    "torch",
    "torch, compiled",
    "torch, bfloat16 autocast",
    "JAX",
    "JAX, epoch in a scan",
    "Keras on JAX",
    "Keras on torch",
    "skorch",
    "thinc",
]
FULL_BATCH = [OURS, "plain NumPy, float64", "torch", "JAX"]
SCAN = "JAX, epoch in a scan"  # predicts as JAX does
RUNS = [
    *[("tiny", name) for name in TRAINED],
    *[("lab-full", name) for name in FULL_BATCH],
    *[("one-row", name) for name in TRAINED if name != SCAN],
]
# One compiles C++ for long, the other needs a process without the first Keras.
ALONE = ("torch, compiled", "Keras on torch")


@pytest.fixture(scope="module")
def turns():
    """Return the module with its neighbors on the path, which a process it starts inherits."""
    sys.path.insert(0, str(BENCH))
    yield importlib.import_module("turns")
    sys.path.remove(str(BENCH))


def small(name):
    """Return a workload of the suite with little to do."""
    suite = importlib.import_module("workloads").SUITE
    workload = next(workload for workload in suite if workload.name == name)
    sizes = {
        "tiny": {"n_images": 200, "batch_size": 64},  # The last batch is a smaller one.
        "lab-full": {"n_images": 200, "batch_size": 200},
        "one-row": {"batch_size": 512},
    }
    changed = workload._replace(widths=(64, 16, 10), data="digits", repeats=3, **sizes[name])
    return changed._replace(learning_rate=0.01 if changed.solver == "adam" else 0.1)


def jobs_of(turns, name, folder):
    torch = pytest.importorskip("torch")
    turns.prepare(small(name), folder)
    entries = importlib.import_module("contenders").entries(small(name))
    threads = torch.get_num_threads()  # torch's are set for the whole process.
    return {who: turns.Job(entry, small(name), folder, threads) for who, entry in entries.items()}


def test_every_contender_is_tested(turns, tmp_path):
    for workload in ("tiny", "lab-full", "one-row"):
        names = [name for where, name in RUNS if where == workload]
        assert names == list(jobs_of(turns, workload, tmp_path))


@pytest.mark.filterwarnings("default")  # What a peer is warned of is the peer's.
@pytest.mark.parametrize(
    ("workload", "name"),
    [run for run in RUNS if run[1] not in ALONE],
    ids=lambda run: run,
)
def test_every_contender_learns_or_predicts(turns, tmp_path, monkeypatch, workload, name):
    monkeypatch.setenv("KERAS_BACKEND", "jax")  # To be as it was before, afterwards.
    job = jobs_of(turns, workload, tmp_path)[name]
    try:
        turn = job.get_ready()
    except ModuleNotFoundError as error:
        pytest.skip(f"could not import {error.name}")
    before, after = turn(), turn()
    if workload == "one-row":
        assert before is after is None
    else:
        assert 0 < after < 0.999 * before < 5


@pytest.mark.matrix
@pytest.mark.parametrize("name", ALONE)
def test_contenders_that_need_a_process_learn_in_one(turns, tmp_path, name):
    run = turns.measure({name: jobs_of(turns, "tiny", tmp_path)[name]}, rounds=1)[name]
    reason = run.get("cannot_run", "")
    if "No module named" in reason or "C++ compiler" in reason:
        pytest.skip(f"could not import: {reason}")
    assert not reason
    before, after = run["losses"]
    assert 0 < after < 0.999 * before < 5


@pytest.mark.parametrize("module", ["ours", "peers.scikit_learn", "peers.torch_eager"])
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


def test_contenders_that_cannot_run_are_told_and_the_others_run(turns, tmp_path):
    (tmp_path / "dies.py").write_text("import os\n\ndef make(task):\n    os._exit(3)\n")
    (tmp_path / "fails.py").write_text("def make(task):\n    raise RuntimeError('too\\nsmall')\n")
    good = jobs_of(turns, "tiny", tmp_path)["scikit-learn"]
    jobs = {
        name: good._replace(entry=good.entry._replace(module=name))
        for name in ("dies", "fails", "is_not_there")
    }
    sys.path.insert(0, str(tmp_path))
    try:
        ran = turns.measure({**jobs, "good": good}, rounds=1)
    finally:
        sys.path.remove(str(tmp_path))
    assert ran["dies"]["cannot_run"] == "its process ended with status 3"
    assert ran["fails"]["cannot_run"] == "RuntimeError: too small"
    assert ran["is_not_there"]["cannot_run"].startswith("ModuleNotFoundError: No module named")
    (seconds,) = ran["good"]["seconds"]
    before, after = ran["good"]["losses"]
    assert seconds > 0
    assert 0 < after < 0.999 * before < 5
    if sys.platform == "linux":
        assert 10e6 < ran["good"]["peak_bytes"] < 1e9


def test_data_are_standardized_and_a_constant_pixel_stays_finite(turns, tmp_path):
    import numpy as np

    facts = turns.prepare(small("tiny"), tmp_path)
    scaled = np.load(tmp_path / "scaled.npy")
    assert facts == {"images": 200, "data": "digits", "pixels": 200 * 64}
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)
    assert set(np.round(scaled.std(axis=0), 4)) <= {0.0, 1.0}
