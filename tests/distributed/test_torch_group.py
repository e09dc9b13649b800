"""Torch's process group, which the ranks of MPI start: with NCCL on GPUs, here with gloo."""

from __future__ import annotations

import sys

import pytest

from mlp_xp.distributed import get_communicator


def check():
    """Sum tensors of which two share memory, and one is not contiguous."""
    import torch

    from mlp_xp.backends._torch.ranks import SumInGroup

    ranks = get_communicator("mpi")
    a = torch.arange(6.0).reshape(2, 3) + ranks.rank
    kernel = SumInGroup(ranks, "gloo")
    for _ in range(2):  # One group serves all sums.
        first, (second, third), fourth = kernel((a.clone(), (a, a), a.T))
        whole = torch.arange(6.0).reshape(2, 3) * 2 + 1
        assert torch.equal(first, whole)
        assert torch.equal(second, whole)
        assert torch.equal(third, whole)
        assert torch.equal(fourth, whole.T)
        a = torch.arange(6.0).reshape(2, 3) + ranks.rank
    torch.distributed.destroy_process_group()
    sys.stdout.write("done\n")


def test_ranks_of_mpi_start_a_group_of_torch(run_ranks):
    pytest.importorskip("torch")
    done = run_ranks(2, check)
    assert (done.returncode, done.stdout) == (0, "done\n" * 2), done.stderr


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
