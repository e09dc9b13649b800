"""Contracts of every engine: sums with the same bits on all ranks, objects, errors."""

import gc
import os
import subprocess
import sys

import helpers
import numpy as np
import pytest

from mlp_xp._utils.optional import install_command
from mlp_xp.backends import get_backend
from mlp_xp.distributed import get_communicator, join_ranks
from mlp_xp.distributed._ranks import Ranks


def check(engine):
    ranks = get_communicator(engine)
    assert get_communicator(engine) is ranks
    promises(ranks)
    # Use one write, since mpiexec mixes the ranks' output.
    sys.stdout.write(f"rank {ranks.rank} of {ranks.size}\n")


def promises(ranks):
    """Check what every communicator promises; all ranks must call this."""
    rank, size = ranks.rank, ranks.size
    # Alone, together with others, without axes, and long; of two dtypes.
    shapes = [(), (3,), (2, 5), (100, 70), (1000,)]
    for dtype in ("float32", "float64", "int64"):
        generator = np.random.default_rng(0)
        whole = [generator.integers(-99, 99, (size, *shape)).astype(dtype) for shape in shapes]
        arrays = [np.array(values[rank], order="C") for values in whole]
        ranks.sum(arrays)
        for array, values in zip(arrays, whole, strict=True):
            np.testing.assert_array_equal(array, values.sum(axis=0))
        waits = [ranks.start_sum(array) for array in arrays[3:]]
        for wait in waits:
            wait()
        for array, values in zip(arrays[3:], whole[3:], strict=True):
            np.testing.assert_array_equal(array, values.sum(axis=0) * size)
    uneven = np.random.default_rng(rank).standard_normal(10_007)
    ranks.sum([uneven])
    assert len(set(ranks.gather(uneven.tobytes()))) == 1
    assert ranks.gather({"rank": rank}) == [{"rank": i} for i in range(size)]
    arrays = ranks.gather_arrays(np.full((2, 3), rank, "float32"))
    assert [array.tolist() for array in arrays] == [[[i] * 3] * 2 for i in range(size)]
    assert ranks.broadcast(rank) == 0
    assert ranks.broadcast(("a", rank), root=size - 1) == ("a", size - 1)
    ranks.barrier()


@pytest.mark.parametrize(("engine", "n"), [("mpi", 3), ("mpi", 4), ("torch", 2)])
def test_each_engine_implements_the_communicator_interface(run_ranks, engine, n):
    if engine == "torch":
        pytest.importorskip("torch")
    done = run_ranks(n, check, engine, engine=engine)
    assert sorted(done.stdout.split("\n")[:-1]) == [f"rank {i} of {n}" for i in range(n)]


def fail(engine):
    ranks = get_communicator(engine)
    if ranks.rank == ranks.size - 1:
        ranks.abort(3)
    ranks.barrier()
    print("not reached")


def test_abort_ends_all_ranks_at_once(run_ranks):
    done = run_ranks(2, fail, "mpi", fails=True)
    assert done.returncode == 3
    assert "not reached" not in done.stdout


def sum_in_group():
    """Sum tensors of which two share memory, and one is not contiguous, in a group with gloo."""
    import torch

    from mlp_xp.distributed.backends._torch import SumOverRanks

    ranks = get_communicator("mpi")
    kernel = SumOverRanks(ranks, "gloo")
    whole = torch.arange(6.0).reshape(2, 3) * 2 + 1
    for _ in range(2):  # One group serves all sums.
        a = torch.arange(6.0).reshape(2, 3) + ranks.rank
        first, (second, third), fourth = kernel((a.clone(), (a, a), a.T))
        assert all(torch.equal(found, whole) for found in (first, second, third, fourth.T))
    torch.distributed.destroy_process_group()
    sys.stdout.write("done\n")


def test_mpi_ranks_can_start_a_torch_process_group(run_ranks):
    pytest.importorskip("torch")
    assert run_ranks(2, sum_in_group).stdout == "done\n" * 2


# Use one write, since mpiexec mixes the ranks' output.
SUM = """
import sys
from mpi4py import MPI
c = MPI.COMM_WORLD
sys.stdout.write(f"{c.size} {c.allreduce(c.rank + 1)}\\n")
"""


@pytest.mark.matrix
@pytest.mark.skipif(sys.platform == "win32", reason="MPI is installed apart there")
def test_pip_installs_mpi_without_system_packages(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # The environment is not activated.
    command = [helpers.mpiexec(), "-n", "2", sys.executable, "-m", "mpi4py", "-c", SUM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=helpers.PATIENCE)
    assert (done.returncode, done.stdout) == (0, "2 3\n" * 2), done.stderr


def test_missing_communicator_error_says_what_to_install(monkeypatch):
    get_communicator.cache_clear()
    for name in ("mpi4py", "mpi4py.MPI", "torch"):
        monkeypatch.setitem(sys.modules, name, None)
    for engine in ("mpi", "torch"):
        with pytest.raises(ImportError) as error:
            get_communicator(engine)
        assert install_command(engine) in str(error.value)


def test_missing_torchrun_error_says_what_to_type(torch, monkeypatch):
    get_communicator.cache_clear()
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(RuntimeError, match="RANK is not set: type torchrun"):
        get_communicator("torch")


# --- ranks of one machine sum in memory that all of them see, others as MPI does -----------------


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
    del arrays, array, waits, wait
    gc.collect()
    assert open_files() == before
    print(f"fine {ranks.n_machines}\n", end="", flush=True)


@pytest.mark.parametrize(
    ("n", "variables", "n_machines"),
    [(3, {}, 1), (2, {"MPIR_CVAR_NOLOCAL": "1"}, 2), (4, {"MPIR_CVAR_NUM_CLIQUES": "2"}, 2)],
)
def test_sums_are_correct_on_one_and_several_machines(run_ranks, n, variables, n_machines):
    assert run_ranks(n, check_sums, **variables).stdout.count(f"fine {n_machines}") == n


# --- the kernel that sums over ranks: what it may write to, and what it returns -------------------


class Twice:
    """Two ranks with the same numbers, in one process."""

    rank, size, machine, n_shards, n_machines = 0, 2, None, 0, 1

    def sum(self, arrays):
        addresses = [array.ctypes.data for array in arrays]
        assert len(set(addresses)) == len(addresses)
        for array in arrays:
            assert array.flags.c_contiguous
            array *= 2

    def start_sum(self, array):
        self.sum([array])
        return lambda: None


@pytest.mark.libraries("numpy", "torch", "jax", "array_api_strict")
def test_each_array_is_summed_once(backend):
    xp, a = backend.xp, backend.put(np.arange(6.0).reshape(2, 3))
    kernel = Ranks(Twice()).spread(backend).gradient.sum_over_ranks
    with backend.scope():
        # The same array twice, one in other order, one without axes.
        a, (b, c), number = kernel((a, (a, a.T), xp.sum(a)))
        whole = 2 * np.arange(6.0).reshape(2, 3)
        for found, expected in ((a, whole), (b, whole), (c, whole.T), (number, 30.0)):
            np.testing.assert_array_equal(backend.get(found), expected)
        assert kernel(xp.asarray(3.0, dtype=xp.float64)).shape == ()


def test_backends_distributed_over_the_same_ranks_are_equal():
    ranks, backend = Ranks(Twice()), get_backend("numpy")
    assert join_ranks(None).spread(backend) is backend
    assert ranks.spread(backend) == ranks.spread(backend)
    assert ranks.spread(backend) != backend


@pytest.mark.libraries("jax")
def test_a_jax_function_is_compiled_in_segments_between_sums(backend):
    """With sums at its beginning, at its end, of constants and of each other's results."""
    shared = Ranks(Twice()).spread(backend)
    total, xp = shared.gradient.sum_over_ranks, backend.xp

    def function(state, x):
        a, b = state
        a = total(a)
        (c, one) = total((a @ x, xp.ones(())))
        return (total(c + b * one), b), x

    with shared.scope():
        given = backend.put(np.eye(2)), backend.put(np.ones((2, 2)))
        x = backend.put(np.full((2, 2), 3.0))
        for compiled in (shared.compile(function, donate=True), shared.compile(function)):
            copies = tuple(xp.asarray(leaf, copy=True) for leaf in given)
            (a, b), same = compiled(copies, x)
            np.testing.assert_array_equal(a, np.full((2, 2), 28.0))
            np.testing.assert_array_equal(b, np.ones((2, 2)))
            np.testing.assert_array_equal(same, x)
