"""Torch's devices that no test machine has, with stand-ins for torch's functions of theirs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from mlp_xp.backends import BACKENDS, get_backend  # noqa: E402
from mlp_xp.backends._torch.backend import TorchBackend  # noqa: E402

FUNCTIONS = {
    "cuda": (
        "synchronize",
        "memory_reserved",
        "memory_allocated",
        "mem_get_info",
        "get_device_name",
    ),
    "xpu": (
        "synchronize",
        "memory_reserved",
        "memory_allocated",
        "mem_get_info",
        "get_device_name",
    ),
    "mps": ("synchronize", "recommended_max_memory", "driver_allocated_memory"),
}
RETURNED = {
    "synchronize": None,
    "memory_reserved": 300,
    "memory_allocated": 100,
    "mem_get_info": (1000, 5000),
    "get_device_name": "the card",
    "recommended_max_memory": 1000,
    "driver_allocated_memory": 400,
}


@pytest.fixture(params=FUNCTIONS)
def device(request):
    index = "" if request.param == "mps" else ":1"
    return torch.device(f"{request.param}{index}")


@pytest.fixture
def calls(device, monkeypatch):
    """Return the list of calls of torch's functions for a device, which return fixed numbers."""
    seen = []

    def stand_in(name):
        def function(*args):
            seen.append((name, *args))
            return RETURNED[name]

        return function

    for name in FUNCTIONS[device.type]:
        monkeypatch.setattr(getattr(torch, device.type), name, stand_in(name))
    return seen


def test_it_waits_for_its_own_device(device, calls):
    TorchBackend(device).synchronize()
    # Apple has one device.
    assert calls == [("synchronize",) if device.type == "mps" else ("synchronize", device)]


def test_free_memory_counts_what_torch_can_use_again(device, calls):
    expected = 600 if device.type == "mps" else 1200
    assert TorchBackend(device).free_memory() == expected
    assert all(call[1:] == (() if device.type == "mps" else (device,)) for call in calls)


def test_it_says_which_card(device, calls):
    facts = TorchBackend(device).describe()
    assert facts["device"] == ("mps" if device.type == "mps" else f"{device}, the card")


@pytest.mark.parametrize("has_fp64", [True, False])
def test_double_precision_is_asked_of_an_intel_card(has_fp64, monkeypatch):
    properties = SimpleNamespace(has_fp64=has_fp64)
    monkeypatch.setattr(torch.xpu, "get_device_properties", lambda device: properties)
    assert TorchBackend(torch.device("xpu:0")).has_float64 is has_fp64


def test_apples_device_has_no_double_precision():
    assert not TorchBackend(torch.device("mps")).has_float64
    assert TorchBackend(torch.device("cuda:0")).has_float64
    assert TorchBackend(torch.device("cpu")).has_float64


def test_every_device_is_named(device):
    assert device.type in BACKENDS["torch"].devices


@pytest.mark.parametrize("name", ["xpu", "mps"])
def test_a_device_that_is_not_here_says_so(name):
    if getattr(torch, name).is_available():
        pytest.skip(f"{name} is here")
    with pytest.raises(RuntimeError, match=f"Device '{name}.*' does not work with torch here"):
        get_backend("torch", name)
