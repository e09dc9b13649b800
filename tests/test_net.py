"""What trainings compute stays what was recorded: see `net.py`, which also compares two revisions.

A change that is wanted is recorded with ``python tests/net.py --record``, and its commit says why.
"""

import json
from functools import cache

import net
import numpy as np
import pytest
from helpers import tolerance

pytestmark = pytest.mark.matrix

# Multiplications and additions in a row, of a few steps through a few layers.
TERMS = 1000
# Four roundings to bfloat16; JAX and torch differ by less than two.
BF16_ROUNDING = 4 * 2.0**-7
CORE = [name for name, case in net.CASES.items() if case.is_core]


@cache
def reference():
    """Return the entries by case and array, and the fingerprint of where they were recorded."""
    content = json.loads(net.REFERENCE.read_text())
    fingerprint = content.pop("fingerprint")
    cases = {}
    for name, kept in content.items():
        case, _, array = name.rpartition("/")
        cases.setdefault(case, {})[array] = kept
    return cases, fingerprint


def check(name, mode):
    found = net.compute(name, mode)
    if found is None:
        pytest.skip(f"{mode} has no bfloat16")
    kept = reference()[0][name]
    assert list(found) == list(kept)
    precision = net.CASES[name].precision
    rounding = BF16_ROUNDING if precision == "bfloat16" else tolerance(precision, TERMS)
    wrong = []
    for array, value in found.items():
        expected = kept[array]
        assert list(value.shape) == expected["shape"], array
        assert value.dtype.name == expected["dtype"], array
        numbers, sizes = net.short(value)
        gaps = np.abs(numbers - np.asarray(expected["values"]))
        # A bias whose gradient is zero follows the rounding of terms that are not.
        sizes = np.maximum(sizes, 1e-3)
        # Whole numbers are equal, but the projections that stand for many are rounded.
        allowed = (1e-14 if value.dtype.kind in "biu" else rounding) * sizes
        if not np.all(gaps <= allowed):
            was, at = expected["values"], int(np.argmax(gaps))
            wrong.append(f"{array}: recorded {was[at]!r}, computed {float(numbers[at])!r}")
    assert not wrong, f"{name!r} on {mode} differs beyond {rounding:.1e}: " + "; ".join(wrong)
    return found


@pytest.mark.parametrize("name", CORE)
def test_a_training_is_as_recorded(name, backend_spec):
    check(name, backend_spec)


@cache
def differences():
    """Return in what this machine differs from where the bits were recorded."""
    recorded, here = reference()[1], net.fingerprint()
    return [
        f"{key} is {here[key]}, not {recorded[key]}" for key in here if here[key] != recorded[key]
    ]


@pytest.mark.parametrize("mode", net.NUMPY_MODES)
@pytest.mark.parametrize("name", [name for name in net.CASES if "bf16" not in name])
def test_numpy_trains_as_recorded_bit_for_bit(name, mode):
    if "machine code" in mode:
        pytest.importorskip("numba")
    found = check(name, mode)
    if differences():  # `test_bits_are_compared` says so.
        return
    place = net.NUMPY_MODES.index(mode)
    kept = reference()[0][name]
    changed = [a for a, value in found.items() if net.digest(value) != kept[a]["digests"][place]]
    assert not changed, f"{name!r} on {mode}: bits differ, and nothing beyond rounding: {changed}"


def test_bits_are_compared():
    """Bits hold only for the recorded processor, BLAS and versions; elsewhere it is rounding."""
    if differences():
        pytest.skip(f"compared to rounding only: {'; '.join(differences())}")
