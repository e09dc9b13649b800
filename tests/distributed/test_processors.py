"""The ranks of a machine share its processors."""

import contextlib
import os
import platform
from types import SimpleNamespace

from joblib import cpu_count
from threadpoolctl import threadpool_info, threadpool_limits

from mlp_xp._utils.threads import THREADS_VARIABLES, quota, usable_threads
from mlp_xp.distributed import _processors, get_communicator


def check_threads():
    processors = sorted(os.sched_getaffinity(0))
    wanted = max(1, cpu_count() // 2)
    assert get_communicator("mpi").size == 2
    assert usable_threads() == wanted
    # Libraries start no more threads than there are processors.
    assert {pool["num_threads"] for pool in threadpool_info()} == {wanted}
    with contextlib.suppress(ImportError):
        import torch  # Reads the environment when it is loaded.

        assert torch.get_num_threads() == wanted
    # Bound to one, as by a launcher, here after the libraries were loaded.
    os.sched_setaffinity(0, {processors[int(os.environ["PMI_RANK"]) % len(processors)]})
    start_again("")
    assert usable_threads() == 1
    assert {pool["num_threads"] for pool in threadpool_info()} == {1}
    start_again("3")  # Set by the user.
    assert usable_threads() == 3


def start_again(variable: str) -> None:
    os.environ |= dict.fromkeys(THREADS_VARIABLES, variable)
    threadpool_limits(2)
    get_communicator.cache_clear()
    get_communicator("mpi")


def test_ranks_divide_the_cpus_of_a_machine(run_ranks):
    run_ranks(2, check_threads, cold=True, **dict.fromkeys(THREADS_VARIABLES, ""))


SHARES = [  # Processors of the other ranks, what the user has set, and the threads of this one.
    ([], "", "8"),
    ([set(range(8))], "", "4"),
    ([{8, 9}], "", "8"),  # Bound to others by the launcher.
    ([set(range(8))] * 20, "", "1"),
    ([set(range(8))], "3", "3"),
]


def test_a_rank_uses_its_fraction_of_the_cpus(monkeypatch):
    names, limits = (*THREADS_VARIABLES, "NPROC"), []
    monkeypatch.setattr(_processors, "usable_threads", lambda: 8)
    monkeypatch.setattr(_processors, "_processors", lambda: set(range(8)))
    monkeypatch.setattr(_processors, "threadpool_limits", limits.append)
    for others, given, expected in SHARES:
        for name in names:
            monkeypatch.setenv(name, given)
        monkeypatch.setattr(_processors, "_ours", {})
        here = [(platform.node(), processors) for processors in others]
        away = "another machine", set(range(8))
        ranks = SimpleNamespace(gather=lambda own, rest=(*here, away): [own, *rest])
        limits.clear()
        for _ in range(2):  # What was set here may be replaced.
            _processors.divide_processors(ranks)
            assert [os.environ[name] for name in names] == [expected] * 3, others
        assert limits == ([] if given else [int(expected)] * 2)


def test_quotas_of_all_parent_cgroups_count(tmp_path):
    group, old = tmp_path / "sys/fs/cgroup/a/b", tmp_path / "sys/fs/cgroup/cpu,cpuacct/c"
    for folder in (tmp_path / "proc/self", group, old):
        folder.mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("3:cpu,cpuacct:/c/d\n1:memory:/\n0::/a/b\n")
    (group.parent / "cpu.max").write_text("250000 100000\n")
    assert quota.__wrapped__(tmp_path) == 3
    for name, number in (("quota", "150000"), ("period", "100000")):
        (old / f"cpu.cfs_{name}_us").write_text(number)
    assert quota.__wrapped__(tmp_path) == 2
