"""Data in a file stay there; rows of large data are positions; many fits share one copy."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers import peak, small, title, tolerance
from trainers import assert_close, byte_data

import mlp_xp.training.data.rows
from mlp_xp.backends import get_backend
from mlp_xp.nn.losses import SoftmaxCrossEntropy
from mlp_xp.nn.network import Network, init_params
from mlp_xp.training.data.placement import Resident, Streamed, put_data
from mlp_xp.training.data.rows import is_mapped
from mlp_xp.training.data.shared import Column, SharedData
from mlp_xp.training.inference import inference

MB = 2**20


def numbers(dtype="float32"):
    x = np.random.default_rng(3).integers(0, 2 if dtype == "bool" else 90, (90, 5)).astype(dtype)
    return x, (x[:, 0] > np.mean(x[:, 0].astype(float))).astype(int)


@pytest.mark.parametrize(
    "settings",
    [
        *({"batch_size": "auto"}, {"placement": "streamed"}, {"scoring": "roc_auc"}),
        {"normalization": "batch", "dropout": 0.2},
        {"scoring": lambda model, X, y: float(np.mean(model.predict(X) == y)) + X.shape[0]},
        {"input_scaling": "standardize"},
    ],
    ids=title,
)
def test_early_stopping_gives_the_same_result_with_row_indices_and_copies(
    backend, on, settings, monkeypatch
):
    x, y = numbers()
    common = on | {"early_stopping": True, "validation_fraction": 0.3} | settings
    weights = np.random.default_rng(1).random(len(y))
    models = []
    # Arrays of the library itself are rows at positions too.
    for least, data in ((1 << 30, x), (0, x), (0, backend.put(x))):
        monkeypatch.setattr(mlp_xp.training.data.rows, "_COPIED_BYTES", least)
        models.append(small(**common).fit(data, y, weights))
    for model in models[1:]:
        assert model.validation_scores_ == pytest.approx(models[0].validation_scores_, rel=1e-6)
        assert_close(model.coefs_, models[0].coefs_, rtol=1e-4, atol=1e-6)


def test_input_scaling_uses_only_the_selected_rows():
    (x, y), rows = numbers(), np.arange(0, 60, 2)
    both = mlp_xp.training.data.rows.Rows(x, rows), x[rows]
    assert_close(*(small(input_scaling="robust").fit(X, y[rows]).coefs_ for X in both))


def test_placement_depends_on_free_memory(monkeypatch):
    x, y = byte_data("uint8")
    backend = get_backend("array_api_strict", "device1")
    for free, kind in ((None, Resident), (10 * x.nbytes, Resident), (x.nbytes, Streamed)):
        monkeypatch.setattr(type(backend), "free_memory", lambda self, free=free: free)
        assert type(put_data(backend, x, y, "float32")) is kind
    # Data already on the device stay there; data on another device count as host data.
    assert type(put_data(backend, backend.put(x), y, "float32")) is Resident
    assert type(put_data(backend, get_backend("array_api_strict").put(x), y, "float32")) is Streamed
    with pytest.raises(ValueError, match=r"`placement` must be 'auto', .*, got 'gpu'"):
        put_data(backend, x, y, "float32", "gpu")


def test_prediction_in_batches_matches_a_single_batch(backend, rng, monkeypatch):
    x, network = rng.standard_normal((20, 3)), Network((3, 5, 4))
    settings = backend, network, SoftmaxCrossEntropy(), init_params(network, 0)
    whole = backend.get(inference.predict(*settings, x, dtype="float64"))
    monkeypatch.setattr(inference, "_BATCH", 8)
    for n in (1, 7, 8, 9, 20):
        parts = backend.get(inference.predict(*settings, x[:n], dtype="float64"))
        np.testing.assert_allclose(parts, whole[:n], rtol=0, atol=tolerance("float64"))


DTYPES = ["int8", "uint16", "float16", "bool", ">f4", ">f8", ">i2", "int64", "uint8", "float32"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_mapped_files_give_the_same_results_as_arrays(on, dtype, tmp_path):
    x, y = numbers(dtype)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert is_mapped(mapped)
    assert is_mapped(np.asarray(mapped)[3:])
    assert not is_mapped(x)
    settings = {"input_scaling": "standardize", "max_iter": 1, "batch_size": 40} | on
    here, there = small(**settings).fit(x, y), small(**settings).fit(mapped, y)
    assert here.coefs_[0].dtype == there.coefs_[0].dtype
    found, expected = there.predict_proba(mapped), here.predict_proba(x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert there.score(mapped, y) == here.score(x, y)
    if np.dtype(dtype).kind == "f":
        for value, word in ((np.nan, "NaN"), (np.inf, "infinity")):
            x[-1, -1] = value
            np.save(tmp_path / "y.npy", x)
            advice = ".*missing_values='impute'" if word == "NaN" else ""
            with pytest.raises(ValueError, match=f"Input X contains {word}{advice}"):
                small().fit(np.load(tmp_path / "y.npy", mmap_mode="r"), y)


@pytest.mark.libraries("torch", "jax")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_arrays_are_computed_in_float32(backend, dtype):
    x, y = numbers()
    model = small().fit(backend.xp.astype(backend.put(x), getattr(backend.xp, dtype)), y)
    assert str(model.coefs_[0].dtype).endswith("float32")


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("dtype", ["int8", ">f4", "float32"])
@pytest.mark.parametrize("layout", ["rows", "columns", "every second row"])
def test_a_fit_does_not_copy_a_memory_mapped_file(tmp_path, layout, dtype, early_stopping):
    """The rows are converted batch by batch."""
    step = 2 if layout == "every second row" else 1
    n = step * 12 * MB // 256 // np.dtype(dtype).itemsize  # Zeros take no room on the disk.
    order = "F" if layout == "columns" else "C"
    x = np.memmap(tmp_path / "zeros", dtype, "w+", shape=(n, 256), order=order)
    x, y = x[::step], np.arange(n // step) % 2
    x[1, :2] = 3.0
    settings = {"hidden_layer_sizes": (2,), "max_iter": 1, "batch_size": 512}
    settings |= {"early_stopping": early_stopping, "input_scaling": "standardize"}
    model = small(**settings)
    assert peak(lambda: model.fit(x, y).predict(x)) < 8 * MB
    copied = small(**settings).fit(np.array(x, order="C"), y)
    np.testing.assert_allclose(model.coefs_[0], copied.coefs_[0], rtol=1e-5, atol=1e-7)


def test_a_fit_needs_little_memory_besides_the_data():
    x = np.random.default_rng(0).integers(0, 256, (8_000, 1_024), dtype=np.uint8)
    model = small(hidden_layer_sizes=(64, 64), max_iter=1, batch_size=200)
    most = peak(lambda: model.fit(x, np.arange(len(x)) % 10).predict(x))
    n_params = sum(coef.size for coef in model.coefs_)
    # Adam keeps two numbers for each parameter, and the guard against NaN a copy of all three.
    assert most - 2 * 3 * 4 * n_params < 3 * MB


def test_fits_share_one_copy_of_the_data(backend):
    shared = SharedData(np.ones((4, 2)))
    one, two = (
        shared.put(backend, np.asarray([1, 2]), "float64", np.asarray(rows, dtype=np.int32))
        for rows in ([0, 1], [2, 3])
    )
    assert one.x is two.x
    assert one.column is two.column
    np.testing.assert_array_equal(backend.get(two.column.on_device), [1, 2, 1, 2])
    other = shared.put(backend, np.asarray([5]), "float64", np.asarray([1], dtype=np.int32))
    assert other.x is one.x
    assert backend.get(other.column.on_device)[1] == 5  # Other targets of a row, elsewhere.
    assert backend.get(one.column.on_device)[1] == 2


def test_targets_added_during_a_copy_are_not_lost():
    def put(values):
        if arrives_late.pop():
            assert column.add(np.asarray([1]), np.asarray([6]))
        return values.copy()

    arrives_late = [False, True]
    column = Column(SimpleNamespace(put=put), np.asarray([5]), 2)
    assert column.add(np.asarray([0]), np.asarray([5]))
    np.testing.assert_array_equal(column.on_device, [5, 0])
    np.testing.assert_array_equal(column.on_device, [5, 6])
