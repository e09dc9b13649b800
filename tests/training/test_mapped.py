"""Data in a memory-mapped file stay there, and rows of a large array are positions in it."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from helpers import QUIET, make_backend, small, title

import mlp_xp.training.rows
from mlp_xp import MLPRegressor
from mlp_xp.datasets import Dataset
from mlp_xp.training.batches import place
from mlp_xp.training.epochs import plan_epoch
from mlp_xp.training.rows import Rows, is_mapped, take_rows

FEATURES = 5
MB = 2**20


@pytest.fixture
def mapped(tmp_path):
    """Return a memory-mapped copy of an array."""

    def write(x):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
        np.save(path, x)
        return np.load(path, mmap_mode="r")

    return write


@pytest.fixture
def without_copies(monkeypatch):
    monkeypatch.setattr(mlp_xp.training.rows, "_COPIED_BYTES", 0)


def numbers(dtype, n=90):
    rng = np.random.default_rng(3)
    x = rng.integers(0, 2 if np.dtype(dtype).kind == "b" else 90, (n, FEATURES)).astype(dtype)
    return x, (x[:, 0] > np.mean(x[:, 0].astype(float))).astype(int)


def peak(function):
    """Measure the most memory that NumPy and Python take meanwhile, in bytes."""
    tracemalloc.start()
    function()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def sparse_file(tmp_path, dtype, megabytes, order="C"):
    """Return a memory-mapped file of zeros, which takes no room on the disk."""
    n = megabytes * MB // (np.dtype(dtype).itemsize * 256)
    x = np.memmap(tmp_path / "zeros", dtype, "w+", shape=(n, 256), order=order)
    return x, np.arange(n) % 2


# --- rows are positions --------------------------------------------------------------------------

SETTINGS = [
    {},
    {"batch_size": "auto"},
    {"placement": "streamed"},
    {"normalization": "batch", "dropout": 0.2},
    {"scoring": "roc_auc"},
    {"scoring": lambda model, X, y: float(np.mean(model.predict(X) == y)) + X.shape[0]},
    {"input_scaling": "standardize"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=title)
def test_early_stopping_is_the_same_with_positions_and_with_copies(
    backend_spec, settings, monkeypatch
):
    name = make_backend(backend_spec).name
    x, y = numbers("float32")
    weights = np.random.default_rng(1).random(len(y))
    models = []
    for least in (1 << 30, 0):
        monkeypatch.setattr(mlp_xp.training.rows, "_COPIED_BYTES", least)
        model = small(backend=name, early_stopping=True, validation_fraction=0.3, **settings)
        models.append(model.fit(x, y, weights))
    assert models[0].validation_scores_ == pytest.approx(models[1].validation_scores_, rel=1e-6)
    for mine, theirs in zip(models[0].coefs_, models[1].coefs_, strict=True):
        np.testing.assert_allclose(np.asarray(mine), np.asarray(theirs), rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("without_copies")
def test_early_stopping_on_arrays_of_the_library_itself(backend):
    x, y = numbers("float32")
    model = small(early_stopping=True).fit(backend.put(x), y)
    assert len(model.validation_scores_) == model.n_iter_


@pytest.mark.parametrize("placement", ["resident", "streamed"])
@pytest.mark.parametrize("batch_size", [7, 100])
def test_batches_of_rows_are_those_of_a_copy(backend, placement, batch_size):
    x, y = numbers("float64")
    rows = np.random.default_rng(0).permutation(len(x))[:40]
    plan = plan_epoch(40, batch_size, seed=1)

    def batches(x, y):
        data = place(backend, x, y, "float64", placement)
        assert data.n_samples == 40
        with backend.scope():
            for batch in data.epoch(plan):
                taken = (batch.x, batch.y)
                if batch.rows is not None:
                    taken = [backend.xp.take(each, batch.rows, axis=0) for each in taken]
                yield [backend.get(each).tolist() for each in taken]

    assert list(batches(Rows(x, rows), y[rows])) == list(batches(x[rows], y[rows]))


def test_rows_of_rows():
    some = Rows(np.arange(10.0)[:, None], np.asarray([4, 2, 8]))
    assert take_rows(some, slice(1, 3)).tolist() == [[2.0], [8.0]]
    assert take_rows(some, np.asarray([2, 0])).tolist() == [[8.0], [4.0]]


def test_early_stopping_copies_no_file(tmp_path):
    x, y = sparse_file(tmp_path, np.float32, 40)
    model = small(hidden_layer_sizes=(2,), max_iter=1, batch_size=4096, early_stopping=True)
    assert peak(lambda: model.fit(x, y)) < 20 * MB


# --- a batch is converted at a time --------------------------------------------------------------

DTYPES = ["int8", "uint16", "float16", "bool", ">f4", ">f8", ">i2", "int64", "uint8", "float32"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_file_of_any_dtype_gives_what_its_copy_in_memory_gives(backend_spec, dtype, mapped):
    name = make_backend(backend_spec).name
    x, y = numbers(dtype)
    here, there = (small(backend=name, input_scaling="standardize") for _ in range(2))
    here.fit(x, y)
    there.fit(mapped(x), y)
    assert here.coefs_[0].dtype == there.coefs_[0].dtype
    np.testing.assert_allclose(
        here.predict_proba(x), there.predict_proba(mapped(x)), rtol=1e-4, atol=1e-6
    )
    assert there.score(mapped(x), y) == here.score(x, y)


@pytest.mark.parametrize("library", ["torch", "jax"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_of_another_library_is_computed_in_single(library, dtype):
    xp = pytest.importorskip({"torch": "torch", "jax": "jax.numpy"}[library])
    x, y = numbers("float32")
    model = small().fit(xp.asarray(x, dtype=getattr(xp, dtype)), y)
    assert str(model.coefs_[0].dtype).endswith("float32")


@pytest.mark.parametrize("dtype", ["int8", "uint16", "float16", "bool", ">f4"])
def test_a_file_is_converted_a_batch_at_a_time(tmp_path, dtype):
    x, y = sparse_file(tmp_path, dtype, 16)
    model = small(hidden_layer_sizes=(2,), max_iter=1, batch_size=1024, input_scaling="standardize")

    def work():
        model.fit(x, y).predict(x)

    assert peak(work) < 20 * MB < 8 * x.size


@pytest.mark.parametrize("layout", ["columns", "every second row"])
def test_a_file_whose_rows_are_not_one_after_another_is_not_copied(tmp_path, layout):
    x, y = sparse_file(tmp_path, np.float32, 80, order="F" if layout == "columns" else "C")
    x, y = (x, y) if layout == "columns" else (x[::2], y[::2])
    x[1, :2] = 3.0
    settings = {"hidden_layer_sizes": (2,), "max_iter": 1, "batch_size": 4096}
    model = small(**settings, early_stopping=True)
    assert peak(lambda: model.fit(x, y)) < 20 * MB
    copied = small(**settings, early_stopping=True).fit(np.array(x, order="C"), y)
    np.testing.assert_array_equal(model.coefs_[0], copied.coefs_[0])


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f4"])
@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_what_is_not_finite_in_a_file_is_found(mapped, dtype, value, word):
    x, y = numbers(dtype)
    x[-1, -1] = value
    with pytest.raises(ValueError, match=f"Input X contains {word}"):
        small().fit(mapped(x), y)


def test_a_file_in_memory_is_known(mapped):
    x, _ = numbers("float32")
    assert is_mapped(mapped(x))
    assert is_mapped(np.asarray(mapped(x))[3:])
    assert not is_mapped(x)


# --- the command ---------------------------------------------------------------------------------


def test_train_with_validation_copies_no_file(tmp_path, monkeypatch):
    from mlp_xp.cli import train
    from mlp_xp.cli.settings import Settings
    from mlp_xp.cli.tasks import Classification

    x, y = sparse_file(tmp_path, np.uint8, 48)
    names = ("even", "odd")
    data = Dataset(x, y, x[:10], y[:10], class_names=names, image_shape=(1, 16, 16), max_value=255)
    settings = Settings("digits", None, {"max_iter": 1, "random_state": 0}, None, 0.1, None, False)
    model = small(hidden_layer_sizes=(2,), max_iter=1, batch_size=4096)
    task, here = Classification(names), train._Resume(None, 0, 0.0)
    assert peak(lambda: train._fit(model, settings, task, data, [], here)) < 24 * MB
    assert len(model.validation_scores_) == 1


def test_regression_with_rows_of_several_outputs(monkeypatch):
    x, _ = numbers("float64")
    scores = []
    for least in (1 << 30, 0):
        monkeypatch.setattr(mlp_xp.training.rows, "_COPIED_BYTES", least)
        model = MLPRegressor(max_iter=4, early_stopping=True, random_state=0, **QUIET)
        scores.append(model.fit(x, x[:, :2]).validation_scores_)
    assert scores[0] == pytest.approx(scores[1], rel=1e-9)
