"""The extra `mpi` is all that two processes need to find each other."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers import mpiexec

# In one write: mpiexec mixes what ranks print.
SUM = """
import sys
from mpi4py import MPI
c = MPI.COMM_WORLD
sys.stdout.write(f"{c.size} {c.allreduce(c.rank + 1)}\\n")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="MPI is installed apart there")
def test_pip_alone_installs_mpi(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # As in an environment that is not activated.
    command = [mpiexec(), "-n", "2", sys.executable, "-m", "mpi4py", "-c", SUM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "2 3\n" * 2), done.stderr
