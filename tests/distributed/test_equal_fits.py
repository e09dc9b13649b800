"""A training that ranks share is the serial one, to rounding, with the same bits on all ranks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import equal_fits
import net_on_ranks
import pytest

SCRIPT = Path(equal_fits.__file__)
TESTS = SCRIPT.parents[1]


def check(run_ranks, n, *arguments, engine="mpi", cases=None, script=SCRIPT, **options):
    done = run_ranks(n, script, engine, *arguments, engine=engine, timeout=300, **options)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected = equal_fits.chosen(arguments[0], "pool" in arguments) if cases is None else cases
    assert found.keys() == expected.keys()
    wrong = {title: result for title, result in found.items() if not result[0] < 1e-10}
    assert wrong == {}
    assert [title for title, (_, agree) in found.items() if not agree] == []


@pytest.mark.parametrize(
    ("backend", "n"),
    [
        *(("numpy", n) for n in (2, 3, 4)),
        *(("torch", n) for n in (2, 3, 4)),
        *(("jax", n) for n in (2, 3, 4)),
        ("array_api_strict", 2),
    ],
)
def test_ranks_train_as_one_process(run_ranks, backend, n):
    pytest.importorskip(backend)
    check(run_ranks, n, backend)


def test_ranks_with_machine_code_train_as_one_process(run_ranks):
    pytest.importorskip("numba")
    check(run_ranks, 3, "numpy", "pool")


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_ranks_of_torchrun_train_as_one_process(run_ranks, backend):
    pytest.importorskip("torch")
    check(run_ranks, 2, backend, engine="torch")


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_estimators_are_fitted_as_by_one_process(run_ranks, backend):
    pytest.importorskip(backend)
    cases = net_on_ranks.chosen(backend)
    assert len(cases) > 15
    check(run_ranks, 2, backend, cases=cases, script=Path(net_on_ranks.__file__))


def test_ranks_on_cupy_sum_by_nccl(run_ranks):
    pytest.importorskip("ziglang")
    titles = ["plain", "batch norm, dropout, residual", "pictures"]
    cases = {title: equal_fits.FEW[title] for title in titles}
    places = TESTS / "stand_in" / "packages", TESTS.parent, TESTS
    path = {"PYTHONPATH": os.pathsep.join(map(str, places))}
    check(run_ranks, 2, "cupy", *titles, cases=cases, environment=path)
