"""Errors name what CuPy lacks on a machine and the package to install; on the stand-in."""

from unittest.mock import Mock

import pytest
from helpers import small

from mlp_xp import backends
from mlp_xp.backends import BackendError, get_backend
from mlp_xp.cli import main

pytestmark = pytest.mark.matrix

# The real wheel's error if a part is missing.
NO_DRIVER = RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is")
NO_HEADERS = RuntimeError("Failed to find CUDA headers. Please install CUDA toolkit headers")
NO_NVRTC = OSError('Failure finding "libnvrtc.so.13 or libnvrtc.so.12": No such file')
NO_CUBLAS = ImportError("libcublas.so.12: cannot open shared object file: No such file")


@pytest.fixture(autouse=True)
def forget():
    """Return the function that forgets which devices have been proven."""
    cupy = pytest.importorskip("cupy")
    if hasattr(cupy, "_core"):
        pytest.skip("the real CuPy has no parts to take away")
    from mlp_xp.backends._cupy import probing

    probing.prove.cache_clear()
    yield probing.prove.cache_clear
    probing.prove.cache_clear()


@pytest.fixture
def without(monkeypatch):
    return lambda name, error: monkeypatch.setattr(f"cupy.{name}", Mock(side_effect=error))


KERNEL, CURE = "ElementwiseKernel.__call__", r'.*Type .*pip install -e ".*\[cuda12\]"'
CASES = [
    ("zeros", NO_DRIVER, "found no usable GPU.*nvidia-smi"),
    (KERNEL, NO_HEADERS, r"cannot use cuda:1 without CUDA headers \(package nvidia-cuda-r" + CURE),
    (KERNEL, NO_NVRTC, r"without NVRTC \(package nvidia-cuda-nvrtc" + CURE),
    ("matmul", NO_CUBLAS, r"without cuBLAS \(package nvidia-cublas" + CURE),
    (KERNEL, ValueError("odd"), r"without CUDA headers \(package nvidia-cud" + CURE),
]


@pytest.mark.parametrize(("name", "error", "expected"), CASES)
def test_error_names_the_missing_cuda_library(name, error, expected, without):
    without(name, error)
    with pytest.raises(BackendError, match=f"(?s){expected}") as raised:
        get_backend("cupy", "cuda:1")
    assert str(error).rstrip(".") in str(raised.value)


def test_a_device_is_tested_once_but_again_after_a_failure(monkeypatch):
    import cupy

    calls, matmul = [], cupy.matmul
    with monkeypatch.context() as patch:
        patch.setattr(cupy, "matmul", lambda *args: 1 / 0)
        with pytest.raises(BackendError, match="cuBLAS"):
            get_backend("cupy", "cuda:0")
    monkeypatch.setattr(cupy, "matmul", lambda *args: calls.append(1) or matmul(*args))
    for _ in range(3):
        assert get_backend("cupy", "cuda:0").name == "cupy"
    get_backend("cupy", "cuda:1")
    assert len(calls) == 2


def test_missing_cublas_affects_auto_backend_and_estimators(
    problem, without, forget, monkeypatch, capsys
):
    monkeypatch.setattr(backends, "has_cuda_driver", lambda: True)
    assert get_backend("auto").name == "cupy"
    forget()
    without("matmul", NO_CUBLAS)
    assert get_backend("auto").name == "numpy"
    assert main(["backends"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("cupy"))
    assert "unusable: Backend 'cupy' cannot use cuda:0 without cuBLAS" in line
    with pytest.raises(BackendError, match="without cuBLAS"):
        small(backend="cupy").fit(*problem())
