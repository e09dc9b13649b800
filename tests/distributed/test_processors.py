"""The ranks of a machine share its processors."""

from __future__ import annotations

import contextlib
import os
import sys

import pytest
from joblib import cpu_count
from threadpoolctl import threadpool_info

from mlp_xp._utils.processors import usable_threads
from mlp_xp.distributed import get_communicator


def check_threads(case):
    """Check the threads of this process and of its libraries on each rank."""
    processors = sorted(os.sched_getaffinity(0))
    n_processors = cpu_count()
    if case == "bound":
        # As a launcher may do, here after the libraries were loaded.
        place = int(os.environ["PMI_RANK"]) % len(processors)
        os.sched_setaffinity(0, {processors[place]})
    wanted = {"free": max(1, n_processors // 2), "bound": 1, "set": 3}[case]
    assert get_communicator("mpi").size == 2
    assert usable_threads() == wanted
    if case != "set":  # Libraries start no more threads than there are processors.
        assert {pool["num_threads"] for pool in threadpool_info()} == {wanted}
        with contextlib.suppress(ImportError):
            import torch  # Reads the environment when it is loaded.

            assert torch.get_num_threads() == wanted
    print("fine")


@pytest.mark.parametrize(("case", "variable"), [("free", ""), ("bound", ""), ("set", "3")])
def test_ranks_divide_the_processors_of_a_machine(run_ranks, case, variable):
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    done = run_ranks(2, check_threads, case, environment=dict.fromkeys(names, variable))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("fine") == 2


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
