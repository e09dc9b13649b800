"""Ranks for tests: processes that mpiexec or torchrun starts, or threads of this process."""

import contextlib
import inspect
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import helpers
import pytest
from processes import warm_python

from mlp_xp import distributed
from mlp_xp.distributed import _mpi, _processors, _ranks
from mlp_xp.distributed.communicator import Communicator

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
# Each rank has one thread, and leaves the processor to others while it waits for them.
VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "MPIR_CVAR_ENABLE_HEAVY_YIELD": "1",
    "MPIR_CVAR_POLLS_BEFORE_YIELD": "10",
    "PYTHONPATH": os.pathsep.join([*map(str, [ROOT, HERE.parent, HERE]), *sys.path]),
}
# Modules that take seconds to import if installed. None of them starts a thread.
MODULES = "pytest sklearn.neural_network mlp_xp.cli mlp_xp.callbacks trainers numba jax.numpy"
MODULES += " array_api_strict torch.distributed.run threadpoolctl"
CALL = "import sys, importlib as i; _, m, f, *a = sys.argv; getattr(i.import_module(m), f)(*a)"


@pytest.fixture(scope="session")
def run_ranks():
    """Return the function that runs a script, or a function of a test file, on ranks."""

    def run_ranks(
        n, target, *arguments, engine="mpi", fails=False, plain=False, cold=False, path=ROOT, **env
    ):
        """Run a script or a module-level function, which gets text, on n ranks.

        ``plain`` is without ``-m mpi4py``, ``cold`` imports everything anew; `path` and `env` are
        added to the environment. Unless it ``fails``, the status must be 0.
        """
        python = [sys.executable] if cold else warm_python(MODULES, **VARIABLES)
        # Otherwise, mpiexec treats ranks as failed that do not end together.
        options = [] if plain else ["-disable-auto-cleanup"]
        launch = [helpers.mpiexec(), *options, "-n", str(n), *python]
        launch += [] if plain else ["-m", "mpi4py"]
        if engine == "torch":
            launch = [*python, "-m", "torch.distributed.run", "--standalone", "--no-python"]
            launch += ["--nproc-per-node", str(n), *python]
        command = [*launch, str(target), *arguments]
        if callable(target):
            module = Path(inspect.getfile(target)).stem
            command = [*launch, "-c", CALL, module, target.__name__, *arguments]
        env["PYTHONPATH"] = os.pathsep.join([str(path), VARIABLES["PYTHONPATH"]])
        done = _run(command, os.environ | VARIABLES | env)
        assert fails or done.returncode == 0, done.stderr + done.stdout
        return done

    return run_ranks


def _run(command, env) -> subprocess.CompletedProcess[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=env, start_new_session=True, **pipes)
    try:
        stdout, stderr = process.communicate(timeout=helpers.PATIENCE)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            pytest.fail(f"{command} took more than {error.timeout} s:\n{stdout}\n{stderr}")
        raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


class Threads(Communicator):
    """Ranks that are threads of one process; what they send each other is copied."""

    def __init__(self, size: int) -> None:
        self.size, self.own, self.values = size, threading.local(), [b""] * size
        self.gate = threading.Barrier(size, timeout=helpers.PATIENCE)

    @property
    def rank(self) -> int:
        return self.own.rank

    def sum(self, arrays):
        for array in arrays:
            array[...] = sum(self.gather(array))

    def start_sum(self, array):
        self.sum([array])
        return lambda: None

    def broadcast(self, value, root=0):
        return self.gather(value)[root]

    def gather(self, value):
        self.values[self.rank] = pickle.dumps(value)
        self.gate.wait()
        found = [pickle.loads(value) for value in self.values]  # noqa: S301
        self.gate.wait()
        return found

    def barrier(self):
        self.gate.wait()

    def abort(self, code=1):
        self.gate.abort()
        raise SystemExit(code)


@pytest.fixture
def on_threads(monkeypatch):
    """Return the function that calls another on n threads, which are the ranks of MPI."""

    def on_threads(n, function, *arguments) -> list:
        ranks = Threads(n)
        monkeypatch.setattr(_mpi, "create", lambda: ranks)
        results, errors = [None] * n, []

        def run(rank) -> None:
            ranks.own.rank = rank
            try:
                results[rank] = function(*arguments)
            except BaseException as error:
                errors.append(error)
                ranks.gate.abort()

        distributed.get_communicator.cache_clear()
        distributed.get_communicator("mpi")
        threads = [threading.Thread(target=run, args=[rank]) for rank in range(n)]
        with warnings.catch_warnings(action="ignore"):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        for error in errors:
            raise error
        return results

    for owner, name in ((_ranks, "end_all_on_errors"), (_processors, "divide_processors")):
        monkeypatch.setattr(owner, name, lambda communicator: None)
    monkeypatch.setattr(distributed, "in_fixed_order", distributed.in_fixed_order.__wrapped__)
    monkeypatch.setattr(_processors, "limit_threads", lambda n_threads: None)
    yield on_threads
    distributed.get_communicator.cache_clear()
