"""What a command loads before it knows what to do, and Ctrl-C meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
from running import CODE, COMMANDS, start


def heavy_after(*argv: str) -> set[str]:
    """Return which heavy libraries a command that ends by itself has loaded."""
    code = (
        "import sys\n"
        "from mlp_xp.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print('loaded', *({'numpy', 'scipy', 'sklearn', 'torch', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_help_loads_nothing_that_computes():
    assert heavy_after("--help") == set()
    assert heavy_after("trian") == set()
    for command in COMMANDS:
        assert heavy_after(command, "--help") <= {"numpy"}
    assert heavy_after("train", "--epochs", "0") <= {"numpy"}


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")
@pytest.mark.parametrize(
    ("module", "argv"),
    [
        ("argparse", ["--help"]),
        ("numpy", ["train"]),
        ("mlp_xp.cli.train", ["train"]),
        ("sklearn", ["train"]),
        ("scipy.linalg", ["evaluate", "run"]),
        ("mlp_xp.training.trainer", ["predict", "run", "a.png"]),
        ("mlp_xp.lab", ["lab"]),
        ("mlp_xp.cli.machine", ["backends"]),
    ],
)
def test_ctrl_c_while_a_command_loads_is_silent(module, argv):
    press = (
        "import os, signal, sys\n"
        "class Press:\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            print('pressed', flush=True)\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Press)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", press + CODE, *argv], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("pressed\n", "")
    assert done.returncode == 130


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")
def test_ctrl_c_in_a_callback_of_a_library_is_silent():
    # JAX has one for the garbage collector, in which Python prints an exception and goes on.
    press = (
        "import gc, os, signal, sys\n"
        "class Press:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name == 'jax':\n"
        "            gc.callbacks.append(lambda *_: os.kill(os.getpid(), signal.SIGINT))\n"
        "            gc.collect()\n"
        "sys.meta_path.insert(0, Press)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", press + CODE, "backends"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")
@pytest.mark.parametrize("argv", [["train"], ["lab"], ["backends"], ["evaluate", "run"], ["data"]])
def test_ctrl_c_in_the_first_seconds_is_silent(argv):
    for delay in (0.15, 0.3, 0.6, 1.0, 1.5, 2.0, 2.5, 3.0):
        process = start(*argv)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert "Traceback" not in err, delay
        assert "Error" not in err.replace("mlp-xp: error", ""), delay
