"""Processes for tests, forked from a server that has imported what they need: ready in 20 ms.

A new ``python -c`` spends a second or two on its imports. A process from here has those done: a
test of an import, or of an environment variable that is read at one, needs a new Python instead.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

IMPORTED = [
    "pytest",
    "matplotlib.pyplot",
    "sklearn.pipeline",
    "mlp_xp.cli.train",
    "mlp_xp.cli.compare",
    "mlp_xp.cli.predict",
    "mlp_xp.saving",
    "mlp_xp.callbacks",
    "mlp_xp.distributed",
]


class Process:
    """A process that runs code as ``__main__``, with the methods of `subprocess.Popen`."""

    def __init__(self, code: str, argv: list[str], env: Mapping[str, str], cwd: str) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        (stdin, our_stdin), *outputs = (context.Pipe(duplex=False) for _ in range(3))
        theirs = [stdin, *(end for _, end in outputs)]
        self.args = [code, *argv]
        self._process = context.Process(target=_run, args=(self.args, dict(env), cwd, theirs))
        self._process.start()
        self.pid: int = self._process.pid
        for end in theirs:
            end.close()
        self.stdin = os.fdopen(os.dup(our_stdin.fileno()), "w", buffering=1)
        self.stdout, self.stderr = (os.fdopen(os.dup(end.fileno())) for end, _ in outputs)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, text: str = "", timeout: float | None = None) -> tuple[str, str]:
        """Write to stdin, close it, and return what is left of stdout and stderr."""
        read: dict[Any, str] = {}

        def drain(file: Any) -> None:
            read[file] = file.read()

        threads = [threading.Thread(target=drain, args=[f]) for f in (self.stdout, self.stderr)]
        for thread in threads:
            thread.start()
        try:
            self.stdin.write(text)
            self.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        finally:
            for thread in threads:
                thread.join()
        return read[self.stdout], read[self.stderr]

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self._process.join()
        for file in (self.stdout, self.stderr):
            file.close()


def start(
    code: str, *argv: object, env: Mapping[str, str] | None = None, cwd: Any = "."
) -> Process:
    """Run code as ``__main__`` in a process with ``argv``; ``env`` is its whole environment."""
    return Process(code, list(map(str, argv)), os.environ if env is None else env, str(cwd))


def run(
    code: str, *argv: object, text: str = "", timeout: float = 60, **where: Any
) -> subprocess.CompletedProcess[str]:
    """Run code to its end, and return its status, stdout and stderr."""
    with start(code, *argv, **where) as process:
        out, err = process.communicate(text, timeout)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _run(args: list[str], env: dict[str, str], cwd: str, pipes: list[Any]) -> None:
    """Become the process: what a new Python does before and after the code that it runs."""
    for number, pipe in enumerate(pipes):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, buffering=1, closefd=False) for number, mode in enumerate("rww")
    )
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code, *argv = args
    sys.argv = ["-c", *argv]
    module = type(sys)("__main__")
    sys.modules["__main__"] = module
    try:
        exec(compile(code, "<string>", "exec"), module.__dict__)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        sys.excepthook(*sys.exc_info())
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
