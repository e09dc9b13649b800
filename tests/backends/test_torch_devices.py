"""Torch's devices that no test machine has, with stand-ins for torch's functions of theirs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mlp_xp.backends import BACKENDS, get_backend

MEMORY = {"memory_reserved": 300, "memory_allocated": 100, "mem_get_info": (1000, 5000)}
CARD = {"synchronize": None, "get_device_name": "the card", **MEMORY}
# What torch's functions for a device return here.
RETURNED = {
    "cuda": CARD,
    "xpu": CARD,
    "mps": {
        "synchronize": None,
        "recommended_max_memory": 1000,
        "driver_allocated_memory": 400,
    },
}


@pytest.fixture
def on(torch):
    """Return the function that makes a backend on a device, which is not asked for."""
    from mlp_xp.backends._torch.backend import TorchBackend

    return lambda name: TorchBackend(torch.device(name))


@pytest.mark.parametrize("kind", RETURNED)
def test_each_function_is_asked_about_its_own_device(kind, on, torch, monkeypatch):
    calls = []
    for name, value in RETURNED[kind].items():
        function = lambda *args, name=name, value=value: calls.append((name, *args)) or value  # noqa: E731
        monkeypatch.setattr(getattr(torch, kind), name, function)
    is_apples = kind == "mps"  # Apple has one device.
    backend = on(kind if is_apples else f"{kind}:1")
    own = () if is_apples else (backend.device,)
    backend.synchronize()
    assert calls == [("synchronize", *own)]
    # What torch has reserved and does not use is free.
    assert backend.free_memory() == (600 if is_apples else 1200)
    assert backend.describe()["device"] == ("mps" if is_apples else f"{kind}:1, the card")
    assert len(calls) == (3 if is_apples else 5)
    assert all(call[1:] == own for call in calls)
    assert kind in BACKENDS["torch"].devices


def test_which_devices_have_double_precision(on, torch, monkeypatch):
    for name, expected in {"mps": False, "cuda:0": True, "cpu": True}.items():
        assert on(name).has_float64 is expected
    for has_fp64 in (True, False):  # An Intel card is asked.
        properties = SimpleNamespace(has_fp64=has_fp64)
        monkeypatch.setattr(torch.xpu, "get_device_properties", lambda _, p=properties: p)
        assert on("xpu:0").has_float64 is has_fp64


@pytest.mark.parametrize("name", ["xpu", "mps"])
def test_a_device_that_is_not_here_says_so(name, torch):
    if getattr(torch, name).is_available():
        pytest.skip(f"{name} is here")
    with pytest.raises(RuntimeError, match=f"Device '{name}.*' does not work with torch here"):
        get_backend("torch", name)
