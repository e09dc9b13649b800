"""The stand-in's devices beside CuPy's and nvmath's: the same names, parameters and numbers."""

from __future__ import annotations

import pytest
import side_by_side

# What NumPy's array, which stands for a buffer, has beside.
BUFFERS = {"PinnedMemoryPointer"}
# What Python says of parameters that Cython does not show.
HIDDEN = ["args", "kwargs"]


@pytest.fixture(scope="module")
def both() -> tuple[dict, dict]:
    return side_by_side.offered("device_names.py", packages=("cupy", "nvmath"))


def test_the_stand_in_has_only_names_that_are_there(both):
    ours, real = both
    for module, things in ours.items():
        assert things.keys() <= real[module].keys(), module
        for name, thing in things.items():
            for kind in ("members", "attributes"):
                if name not in BUFFERS:
                    known = real[module][name].get(kind, {})
                    assert thing.get(kind, {}).keys() <= known.keys(), f"{module}.{name}"


def test_numbers_are_the_same(both):
    ours, real = both
    for module, things in ours.items():
        for name, thing in things.items():
            theirs = real[module][name]
            assert thing.get("value") == theirs.get("value"), f"{module}.{name}"
            members = thing.get("members", {})
            assert members.items() <= theirs.get("members", {}).items(), f"{module}.{name}"


def test_parameters_are_the_same(both):
    ours, real = both
    for module, things in ours.items():
        for name, thing in things.items():
            pairs = [(name, thing.get("parameters"), real[module][name].get("parameters"))]
            for method, given in thing.get("attributes", {}).items():
                theirs = real[module][name]["attributes"].get(method)
                pairs.append((f"{name}.{method}", given, theirs))
            for label, given, theirs in pairs:
                if given is not None and theirs is not None and theirs != HIDDEN:
                    assert given == theirs, f"{module}.{label}"
