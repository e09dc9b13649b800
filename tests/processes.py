"""Start processes in 50 ms by forking a server that has already imported the library.

A new ``python -c`` would spend one or two seconds on imports. Tests of imports, or of environment
variables that are read during an import, need a new Python instead.
"""

import atexit
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from helpers import PATIENCE

IMPORTED = "pytest matplotlib.pyplot sklearn.pipeline mlp_xp.saving mlp_xp.callbacks"
IMPORTED += " mlp_xp.distributed mlp_xp.cli.commands.train mlp_xp.cli.commands.compare"
IMPORTED += " mlp_xp.cli.commands.predict"


@functools.cache
def warm_python(modules: str = IMPORTED, **variables: str) -> list[str]:
    """Start the server, and return a command to use instead of python."""
    folder = tempfile.mkdtemp()
    program = str(Path(__file__).with_name("warm_python.py"))
    names = [name for name in modules.split() if find_spec(name.partition(".")[0])]
    server = subprocess.Popen(
        [sys.executable, program, "serve", f"{folder}/socket", *names],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | variables,
        stdin=subprocess.PIPE,  # The server ends when this is closed.
        stdout=subprocess.PIPE,
    )
    assert server.stdout.readline() == b"ready\n"
    atexit.register(server.__exit__, None, None, None)
    atexit.register(shutil.rmtree, folder)
    return [sys.executable, "-I", "-S", program, f"{folder}/socket"]


class Process(subprocess.Popen):
    """A process that is killed at the end of a with block."""

    def send_signal(self, number: int) -> None:
        super().send_signal(signal.SIGUSR2 if number == signal.SIGKILL else number)

    def __exit__(self, *error: object) -> None:
        self.kill()
        super().__exit__(*error)


def start(code: str, *argv: object) -> Process:
    command = [*warm_python(), "-c", code, *map(str, argv)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return Process(command, text=True, bufsize=1, **pipes)


def run(code: str, *argv: object) -> subprocess.CompletedProcess[str]:
    with start(code, *argv) as process:
        out, err = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
