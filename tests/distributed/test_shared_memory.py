"""Ranks of one machine sum in memory that all of them see; others as MPI does."""

import gc
import os

import numpy as np
import pytest

from mlp_xp.distributed import get_communicator
from mlp_xp.distributed._shared_memory import SharedMemory


def numbers(shape, rank, dtype="float32"):
    return np.random.default_rng(rank).integers(-99, 99, shape).astype(dtype)


def open_files():
    return len(os.listdir("/proc/self/fd"))


def check_sums():
    """Check sums in shared memory, again and again, of all of an array and of its rows."""
    ranks = get_communicator("mpi")
    gc.collect()
    before = open_files()
    shapes = [(1000, 70), (40_001,), (3, 5, 2000)]
    for dtype in ("float32", "float64"):
        arrays = [ranks.empty(shape, dtype) for shape in shapes]
        for number in range(3):
            for array in arrays:
                array[...] = numbers(array.shape, ranks.rank + 10 * number, dtype)
            waits = [ranks.start_sum(array[:500]) for array in arrays[1:]]
            waits += [ranks.start_sum(array[500:]) for array in arrays[1:] if len(array) > 500]
            ranks.sum(arrays[:1])
            for wait in waits:
                wait()
            for array in arrays:
                every = [numbers(array.shape, i + 10 * number, dtype) for i in range(ranks.size)]
                np.testing.assert_array_equal(array, sum(every))
    # One rank's array is not shared: all sum it by MPI.
    mixed = np.empty(30_000, "float32") if ranks.rank else ranks.empty((30_000,), "float32")
    mixed[...] = ranks.rank + 1
    ranks.start_sum(mixed)()
    assert set(mixed) == {ranks.size * (ranks.size + 1) / 2}
    del arrays, array, mixed, waits, wait
    gc.collect()
    assert open_files() == before
    print(f"fine {ranks.n_machines}\n", end="", flush=True)


def check_two_machines():
    """Check sums where ranks 0 and 1 stand for one machine, 2 and 3 for another."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    node, others = (world.Split(color, world.rank) for color in (world.rank // 2, world.rank % 2))
    shared = SharedMemory(MPI, node, others)
    array = shared.empty((333, 100), "float64")
    array[...] = numbers(array.shape, world.rank, "float64")
    wait = shared.start_sum(array)
    assert wait is not None
    wait()
    every = [numbers(array.shape, i, "float64") for i in range(4)]
    np.testing.assert_array_equal(array, sum(every))


def test_ranks_of_a_machine_sum_in_shared_memory(run_ranks):
    assert run_ranks(3, check_sums).stdout.count("fine 1") == 3


def test_ranks_without_shared_memory_sum_as_mpi_does(run_ranks):
    assert run_ranks(2, check_sums, MPIR_CVAR_NOLOCAL="1").stdout.count("fine 2") == 2


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="Linux alone has such memory")
def test_ranks_of_several_machines_sum_parts(run_ranks):
    run_ranks(4, check_two_machines)
