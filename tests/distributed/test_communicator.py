"""What every engine promises: sums with the same bits on all ranks, objects, errors."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from mlp_xp._utils.optional import install_command
from mlp_xp.distributed import get_communicator


def check(engine):
    """Check a communicator on each rank."""
    ranks = get_communicator(engine)
    assert get_communicator(engine) is ranks
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
    assert ranks.broadcast(rank) == 0
    assert ranks.broadcast(("a", rank), root=size - 1) == ("a", size - 1)
    ranks.barrier()
    sys.stdout.write(f"rank {rank} of {size}\n")  # One write: mpiexec mixes what ranks print.
    sys.stdout.flush()


def fail(engine):
    """Stop all ranks from the last one, while the others wait for it."""
    ranks = get_communicator(engine)
    if ranks.rank == ranks.size - 1:
        ranks.abort(3)
    ranks.barrier()
    print("not reached")


@pytest.mark.parametrize(("engine", "n"), [("mpi", 2), ("mpi", 3), ("mpi", 4), ("torch", 2)])
def test_each_engine_does_what_a_communicator_promises(run_ranks, engine, n):
    if engine == "torch":
        pytest.importorskip("torch")
    done = run_ranks(n, check, engine, engine=engine)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n")[:-1]) == [f"rank {i} of {n}" for i in range(n)]


def test_abort_ends_all_ranks_at_once(run_ranks):
    done = run_ranks(2, fail, "mpi")
    assert done.returncode == 3
    assert "not reached" not in done.stdout


def test_an_engine_that_is_missing_says_how_to_get_it(monkeypatch):
    get_communicator.cache_clear()
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", None)
    with pytest.raises(ImportError) as error:
        get_communicator("mpi")
    assert install_command("mpi") in str(error.value)


def test_torch_without_torchrun_says_what_to_type(monkeypatch):
    pytest.importorskip("torch")
    get_communicator.cache_clear()
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(RuntimeError, match=r"RANK is not set\): type torchrun"):
        get_communicator("torch")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
