"""A training that ranks share is the serial one, to rounding, with the same bits on all ranks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import equal_fits
import pytest

SCRIPT = Path(equal_fits.__file__)
TESTS = SCRIPT.parents[1]


def check(run_ranks, n, *arguments, engine="mpi", cases=equal_fits.FEW, **options):
    done = run_ranks(n, SCRIPT, engine, *arguments, engine=engine, timeout=240, **options)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() == cases.keys()
    wrong = {title: result for title, result in found.items() if not result[0] < 1e-10}
    assert wrong == {}
    assert [title for title, (_, agree) in found.items() if not agree] == []


@pytest.mark.parametrize("n", [2, 3, 4])
def test_ranks_on_numpy_train_as_one_process(run_ranks, n):
    check(run_ranks, n, "numpy", cases=equal_fits.FEW | equal_fits.MORE)


def test_ranks_with_machine_code_train_as_one_process(run_ranks):
    pytest.importorskip("numba")
    check(run_ranks, 3, "numpy", "pool")


@pytest.mark.parametrize("n", [2, 3, 4])
def test_ranks_on_torch_train_as_one_process(run_ranks, n):
    pytest.importorskip("torch")
    check(run_ranks, n, "torch")


@pytest.mark.parametrize("n", [2, 3, 4])
def test_ranks_on_jax_train_as_one_process(run_ranks, n):
    pytest.importorskip("jax")
    check(run_ranks, n, "jax")


def test_ranks_need_the_standard_only(run_ranks):
    check(run_ranks, 2, "array_api_strict")


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_ranks_of_torchrun_train_as_one_process(run_ranks, backend):
    pytest.importorskip("torch")
    cases = equal_fits.FEW | equal_fits.MORE if backend == "numpy" else equal_fits.FEW
    check(run_ranks, 2, backend, engine="torch", cases=cases)


def test_ranks_on_cupy_sum_by_nccl(run_ranks):
    pytest.importorskip("ziglang")
    titles = ["plain", "batch norm, dropout, residual", "pictures"]
    cases = {title: equal_fits.FEW[title] for title in titles}
    places = TESTS / "backends" / "stand_in", TESTS.parent, TESTS
    path = {"PYTHONPATH": os.pathsep.join(map(str, places))}
    check(run_ranks, 2, "cupy", *titles, cases=cases, environment=path)
