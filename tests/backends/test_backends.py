"""Backends: which one is taken, what its errors say, and the two transfers."""

import re
import shlex
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import make_backend, matrix

from mlp_xp import backends
from mlp_xp.backends import BackendError, get_backend, installed, to_numpy

pytestmark = pytest.mark.every_device
GPU_LIBRARIES = "cupy", "torch", "jax"
NO_GPU = r"must be 'cpu' for .*(: use backend='cupy' or .*inst|\. There is no NVIDIA driver)"


def test_unknown_missing_or_broken_library_is_an_error(monkeypatch):
    with pytest.raises(ValueError, match=r"'auto', 'numpy', 'cupy', 'torch'.* got 'nump'"):
        get_backend("nump")
    monkeypatch.setitem(sys.modules, "mlp_xp.backends._strict", None)
    with pytest.raises(BackendError, match="array_api_strict cannot be loaded"):
        get_backend("array_api_strict")
    monkeypatch.setattr(backends, "installed", lambda name: False)
    with pytest.raises(BackendError, match=r"needs torch.*pip install -e \".*\[torch\]\""):
        get_backend("torch")


UNKNOWN_DEVICES = [
    ("numpy", "cuda:1", NO_GPU),
    ("numpy", "mps", "must be 'cpu' for backend 'numpy', got 'mps': use backend='torch'"),
    ("array_api_strict", "device9", "`device` is not valid: .*device9"),
    ("jax", "mps", "must be 'cpu' or 'cuda' for backend 'jax', got 'mps': use backend='torch'"),
    ("jax", "cpu:7", "`device` must be one of .* got 'cpu:7'"),
    ("jax", 3, "`device` must be e.g. .* got 3"),
    ("torch", "gpu0", "`device` must be a torch device .* got 'gpu0'"),
    ("cupy", "gpu", "`device` must be e.g. 'cuda' .* got 'gpu'"),
    # The driver's reason; with a GPU, JAX counts its devices.
    *[(name, "cuda:99", "does not work|no usable GPU|must be one of") for name in GPU_LIBRARIES],
]
UNKNOWN_DEVICES = [
    pytest.param(*case, marks=[pytest.mark.matrix] if case[0] in GPU_LIBRARIES else [])
    for case in UNKNOWN_DEVICES
]


@pytest.mark.parametrize(("name", "device", "message"), UNKNOWN_DEVICES)
def test_unknown_device_is_named_in_the_error(name, device, message):
    if not installed(name):
        pytest.skip(f"{name} is not installed")
    with pytest.raises((BackendError, ValueError), match=message) as error:
        get_backend(name, device)
    assert str(device)[:4] in str(error.value).lower()


def test_gpu_without_library_error_suggests_one_to_install(monkeypatch):
    monkeypatch.setattr(backends, "installed", lambda name: name == "numpy")
    monkeypatch.setattr(backends, "has_cuda_driver", lambda: True)
    for backend in ("auto", "numpy"):
        message = r"cupy.*torch.*jax.*none is inst"
        with pytest.raises((BackendError, ValueError), match=message) as e:
            get_backend(backend, "cuda")
        (target,) = re.findall(r'pip install -e (".*\[cuda12\]")', str(e.value))
        assert shlex.split(target) == [target[1:-1]]  # In zsh, brackets need quotes.


def test_auto_selects_numpy_without_a_cuda_driver(monkeypatch):
    monkeypatch.setattr(backends, "has_cuda_driver", lambda: False)
    before = set(sys.modules)
    assert get_backend("auto").name == "numpy"
    assert not {"torch", "jax", "cupy"} & (set(sys.modules) - before)


def test_auto_selects_the_first_working_gpu_or_only_the_requested_one(monkeypatch):
    """One library finds no driver, and the next finds no cuBLAS."""
    monkeypatch.setattr(backends, "has_cuda_driver", lambda: True)
    monkeypatch.setattr(backends, "installed", lambda name: True)
    tried = []

    def no_products():
        raise OSError("libcublas.so.12 is not there")

    def load(name, device):
        tried.append((name, device))
        if name == "cupy" or device == "cuda:0":
            raise BackendError("the driver is too old")
        return SimpleNamespace(name=name, prove=no_products if name == "torch" else lambda: None)

    monkeypatch.setattr(backends, "_load", load)
    assert get_backend("auto").name == "jax"
    assert tried == [("cupy", "cuda"), ("torch", "cuda"), ("jax", "cuda")]
    assert get_backend("auto", "cuda:1").name == "jax"
    with pytest.raises(BackendError, match=r"device 'cuda:0'.*the driver is too old"):
        get_backend("auto", "cuda:0")


def test_backend_self_test_fails_if_the_backend_cannot_compute(backend, monkeypatch):
    backend.prove()
    monkeypatch.setattr(type(backend), "get", lambda self, array: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        backend.prove()


def test_get_backend_accepts_a_backend_or_an_array(backend, backend_spec):
    assert get_backend(backend) is backend
    found = get_backend(backend.put(np.ones(3)))
    assert found == backend
    assert found == make_backend(backend_spec)
    assert hash(found) == hash(backend)
    facts = backend.describe()
    assert facts["library"].startswith(backend.name)
    assert facts["device"]
    assert get_backend([[1, 2]]).name == get_backend(None).name == "numpy"


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float32", "float64", "bool"])
def test_put_and_get_preserve_arrays_of_any_memory_layout(backend, dtype):
    base = np.arange(24).reshape(4, 6).astype(dtype)
    read_only = base.copy()
    read_only.flags.writeable = False
    layouts = [base, read_only, base.T, base[::2, ::3], base[::-1], np.asarray(3, dtype), base[:0]]
    for array in layouts:
        here = backend.put(array)
        assert backend.owns(here)
        for back in (backend.get(here), to_numpy(here)):
            assert type(back) is np.ndarray
            assert back.dtype == dtype
            np.testing.assert_array_equal(back, array)
    assert to_numpy([1, 2]).tolist() == [1, 2]


def test_put_casts_and_does_not_copy_arrays_on_the_device(backend):
    for dtype in ("float32", "float64"):
        for array in (np.ones(3, np.uint8), np.ones(3), backend.put(np.ones(3, np.float32))):
            assert backend.get(backend.put(array, dtype)).dtype == dtype
    here = backend.put(np.ones(3))
    again = backend.put(here)
    if backend.name != "torch":  # torch makes a new tensor over the same memory
        assert again is here or backend.name == "jax"
    assert str(again.dtype) == str(here.dtype)


def test_put_copy_never_shares_memory(backend):
    memory = np.empty((1 << 20) + 64, np.uint8)
    array = memory[-memory.ctypes.data % 64 :][: 1 << 20].view(np.float64)  # From a cache line on.
    array[...] = 1.0
    with backend.scope():
        copies = [backend.put_copy(array), backend.put_copy(array, "float64")]
        copies.append(backend.put_copy(backend.put(array)))
        array[...] = 2.0
        for copy in copies:
            np.testing.assert_array_equal(backend.get(copy), np.ones(1 << 17))
            assert backend.get(copy).dtype == np.float64


@pytest.mark.parametrize("source", ["numpy", "array_api_strict", *matrix("torch", "jax")])
def test_put_takes_arrays_of_other_libraries(backend, source):
    pytest.importorskip(source)
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    here = backend.put(get_backend(source).put(array))
    assert backend.owns(here)
    assert get_backend(here) == backend
    np.testing.assert_array_equal(backend.get(here), array)


def test_put_goes_through_the_host_where_dlpack_is_rejected(backend):
    class Stubborn:
        """An array of a library that exports nothing but to NumPy."""

        def __dlpack__(self, **_):
            raise BufferError("no")

        def __dlpack_device__(self):
            raise BufferError("no")

        def __array__(self, dtype=None, copy=None):
            return np.ones(3)

    np.testing.assert_array_equal(backend.get(backend.put(Stubborn())), np.ones(3))


TWO_DEVICES = [("array_api_strict", None, "device1")]
TWO_DEVICES += [pytest.param("jax", "cpu:0", "cpu:1", marks=pytest.mark.matrix)]
TWO_DEVICES += [pytest.param("cupy", "cuda:0", "cuda:1", marks=pytest.mark.matrix)]


@pytest.mark.parametrize(("name", "first", "second"), TWO_DEVICES)
def test_transfers_between_two_devices(name, first, second):
    if name == "jax" and len(pytest.importorskip("jax").devices("cpu")) < 2:
        pytest.skip("JAX was started with one CPU device")
    try:
        backend = get_backend(name, second)
    except BackendError as error:
        pytest.skip(str(error))
    moved = backend.put(get_backend(name, first).put(np.ones((3, 4)))[:, 1:])
    assert moved.device == backend.device


def test_torch_put_detaches_from_the_autograd_graph(torch):
    leaf = torch.ones(3, requires_grad=True)
    assert not get_backend("torch").put(leaf * 2).requires_grad
