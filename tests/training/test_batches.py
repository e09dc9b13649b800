"""Placement of data, their scaling, and prediction in batches."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import tolerance
from trainers import byte_data

from mlp_xp.backends import get_backend
from mlp_xp.nn.losses import BinaryCrossEntropy, SoftmaxCrossEntropy
from mlp_xp.nn.network import Network, init_params
from mlp_xp.training.batches import Resident, Streamed, place
from mlp_xp.training.inference import predict
from mlp_xp.training.input_scaling import standardization


def test_placement_follows_the_free_memory(monkeypatch):
    x, y = byte_data("uint8")
    backend = get_backend("array_api_strict", "device1")
    for free, kind in ((None, Resident), (10 * x.nbytes, Resident), (x.nbytes, Streamed)):
        monkeypatch.setattr(type(backend), "free_memory", lambda self, free=free: free)
        assert type(place(backend, x, y, "float32")) is kind
    # What is there already stays there; what is elsewhere counts like host data.
    assert type(place(backend, backend.put(x), y, "float32")) is Resident
    elsewhere = get_backend("array_api_strict").put(x)
    assert type(place(backend, elsewhere, y, "float32")) is Streamed
    with pytest.raises(ValueError, match="placement is 'gpu', and must be 'auto', 'resident'"):
        place(backend, x, y, "float32", "gpu")


def test_resident_uint8_stays_uint8(backend):
    x, y = byte_data("uint8")
    assert backend.get(place(backend, x, y, "float32", "resident").x).dtype == np.uint8


def test_a_memory_map_is_not_copied(tmp_path):
    x, y = byte_data("uint8")
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert np.shares_memory(place(get_backend("numpy"), mapped, y, "float32").x, mapped)


# --- scaling and prediction ----------------------------------------------------------------------


def standardize(backend, x, dtype="float32"):
    return [backend.get(array) for array in standardization(backend, x, dtype)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_standardization_is_scikit_learns(backend, dtype, rng, monkeypatch):
    from sklearn.preprocessing import StandardScaler

    import mlp_xp.training.input_scaling

    monkeypatch.setattr(mlp_xp.training.input_scaling, "_BLOCK", 16)
    x = rng.integers(0, 256, (50, 6)).astype(np.uint8)
    x[:, 2] = 200
    shift, scale = standardize(backend, x, dtype)
    peer = StandardScaler().fit(x)
    np.testing.assert_allclose(shift, peer.mean_, rtol=tolerance(dtype, 50))
    np.testing.assert_allclose(scale, 1 / peer.scale_, rtol=tolerance(dtype, 50))
    assert scale[2] == 1.0


@pytest.mark.parametrize("offset", [1e3, -1.7e9])
def test_an_offset_costs_standardization_no_digits(backend, offset, rng):
    x = (offset + max(1.0, abs(offset) * 1e-6) * rng.standard_normal((3000, 4))).astype(np.float32)
    x[:, 1] = offset  # A constant one stays one.
    shift, scale = standardize(backend, x)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(shift, exact.mean(axis=0), rtol=np.finfo("float32").eps)
    spread = np.where(np.arange(4) == 1, 1.0, exact.std(axis=0))
    np.testing.assert_allclose(scale, 1.0 / spread, rtol=tolerance("float32", 100))


@pytest.mark.parametrize("factor", [1e-35, 1e-25, 1e19, 1e37])
def test_standardization_is_not_bound_by_the_squares_of_float32(backend, factor, rng):
    x = (factor * (3.0 + rng.standard_normal((700, 3)))).astype(np.float32)
    shift, scale = standardize(backend, x)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(shift, exact.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(scale, 1.0 / exact.std(axis=0), rtol=1e-6)
    assert shift.dtype == scale.dtype == np.float32


def test_a_variance_that_is_not_finite_is_an_error(backend, rng):
    for dtype, factor in (("float32", 1e-44), ("float64", 1e160), ("float64", 1e308)):
        x = rng.uniform(-1.0, 1.0, (50, 3))
        x[:, 1] *= factor
        with pytest.raises(ValueError, match=r"feature 1 to variance 1.*about 1\."):
            standardization(backend, x.astype(dtype), dtype)


def test_prediction_in_batches(backend, rng, monkeypatch):
    import mlp_xp.training.inference

    network = Network((3, 5, 4))
    x = rng.standard_normal((20, 3))
    settings = backend, network, SoftmaxCrossEntropy(), init_params(network, 0)
    whole = backend.get(predict(*settings, x, dtype="float64"))
    monkeypatch.setattr(mlp_xp.training.inference, "_BATCH", 8)
    for n in (1, 7, 8, 9, 20):
        parts = backend.get(predict(*settings, x[:n], dtype="float64"))
        np.testing.assert_allclose(parts, whole[:n], rtol=0, atol=tolerance("float64"))


def test_binary_accuracy(backend):
    logits = backend.put(np.asarray([[2.0], [-1.0], [3.0]]))
    targets = backend.put(np.asarray([[1.0], [1.0], [0.0]]))
    with backend.scope():
        correct = BinaryCrossEntropy().is_correct(logits, targets, xp=backend.xp)
    assert backend.get(correct).tolist() == [1.0, 0.0, 0.0]
