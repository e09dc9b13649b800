"""Ranks for tests: processes that mpiexec or torchrun starts, each with one thread."""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import helpers
import pytest

ROOT = Path(__file__).parents[2]
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
ENGINES = {
    "mpi": lambda n: [helpers.mpiexec(), "-n", str(n), sys.executable, "-m", "mpi4py"],
    "torch": lambda n: [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(n)),
    ],
}


@pytest.fixture(scope="session")
def run_ranks():
    """Return the function that runs a script, or a function of a test file, on ranks."""
    return _run_ranks


def _run_ranks(
    n: int,
    target: Path | Callable[[], None],
    *arguments: str,
    engine: str = "mpi",
    timeout: float = 120,
    environment: dict[str, str] | None = None,
    plain: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a script or a module-level function, which finds text in `sys.argv`, on n ranks.

    ``plain`` is without ``-m mpi4py``. The result has `returncode`, `stdout` and `stderr` of all.
    """
    if callable(target):
        # The file is run as a script, and calls the function that is named first.
        arguments = (target.__name__, *arguments)
        target = Path(inspect.getfile(target))
    launch = ENGINES[engine](n)
    command = [*(launch[:-2] if plain else launch), str(target), *arguments]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | ONE_THREAD | {"PYTHONPATH": path} | (environment or {}),
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            pytest.fail(f"{n} ranks took more than {timeout} s:\n{stdout}\n{stderr}")
        raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
