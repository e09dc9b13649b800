"""Faults that CUDA would keep quiet about, put into a copy of the package: tests must find them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PINNED = "_pinned.py"
COPIES = "tests/backends/test_pinned.py"
CAPTURED = "_captured.py"
GRAPHS = "_cupy/captured.py"
LOOPS = "tests/backends/test_cupy_loop.py"
STEPS = "tests/backends/test_cupy_step_by_step.py"
DTYPES = "tests/backends/test_cupy_dtypes.py"


class Mutant(NamedTuple):
    """A line of the backends that is wrong, and the tests that are to fail."""

    file: str
    right: str
    wrong: str
    tests: str


MUTANTS = {
    # Waits of the streamed path.
    "no wait for a copy": Mutant(PINNED, "compute.wait_event(self._copied)", "pass", COPIES),
    "no wait for the computation": Mutant(
        PINNED, "copy.wait_event(self._computed)", "pass", COPIES
    ),
    "no wait before pinned memory is filled again": Mutant(
        PINNED, "self._copied.synchronize()", "pass", COPIES
    ),
    "no wait for reused memory": Mutant(
        PINNED,
        "# The memory may be some that work queued on `compute` still reads.\n"
        "            self._computed.record(compute)",
        "pass",
        COPIES,
    ),
    "no record of the computation": Mutant(
        PINNED,
        "with self._copier.scope():\n            self._computed.record(compute)",
        "pass",
        COPIES,
    ),
    "no wait for what is copied back": Mutant(PINNED, "copy.wait_event(computed)", "pass", COPIES),
    "no wait for results": Mutant(
        PINNED,
        "previous[0].synchronize()\n                yield",
        "yield",
        COPIES,
    ),
    "buffers freed while they are copied": Mutant(
        PINNED,
        "# A batch may still be copied to buffers that are about to be freed.\n"
        "        copy.synchronize()",
        "pass",
        COPIES,
    ),
    # Captured steps.
    "graphs that do not wait for the caller": Mutant(
        GRAPHS, "stream.wait_event(caller.record(event))", "pass", LOOPS
    ),
    "a caller that does not wait for graphs": Mutant(
        GRAPHS, "caller.wait_event(stream.record(event))", "pass", LOOPS
    ),
    "a position that stays": Mutant(CAPTURED, "self._position += n", "pass", LOOPS),
    "arguments of the first epoch": Mutant(
        CAPTURED, "if not _are(new, self._loaded):", "if not self._loaded:", LOOPS
    ),
    "data of the first fit": Mutant(
        CAPTURED, "if not _are([known() for known in self._shared], arrays):", "if 0:", LOOPS
    ),
    "a state that is not taken over": Mutant(
        CAPTURED, "_write(old, new, self._graphs)\n        else", "pass\n        else", LOOPS
    ),
    "a state that is written over before it is read": Mutant(
        CAPTURED,
        "graphs.xp.asarray(value, copy=True) if graphs.memory(value) in memory else value",
        "value",
        LOOPS,
    ),
    "memory that others reuse": Mutant(
        GRAPHS, "using_allocator(pool.malloc)", "using_allocator(cupy.cuda.alloc)", LOOPS
    ),
    "a capture that goes on after an error": Mutant(
        GRAPHS,
        "stream.end_capture()\n                raise",
        "pass\n                raise",
        STEPS,
    ),
    "finalizers during a capture": Mutant(CAPTURED, "gc.disable()", "pass", STEPS),
    "captures that the default stream waits for": Mutant(
        GRAPHS,
        "event = cupy.cuda.Event(disable_timing=True)\n            self._known[device] = "
        "cupy.cuda.Stream(non_blocking=True), event",
        "event = cupy.cuda.Event(disable_timing=True)\n            self._known[device] = "
        "cupy.cuda.Stream(), event",
        LOOPS,
    ),
    "products on the default stream": Mutant(
        "_cupy/cublaslt.py", "cupy.cuda.get_current_stream().ptr", "0", LOOPS
    ),
    # Guards of dtypes.
    "kernels of raw memory take any dtype": Mutant(
        "_cupy/rendering.py",
        "array.dtype == dtype and array.flags.c_contiguous",
        "array.flags.c_contiguous",
        DTYPES,
    ),
    "a sum takes any dtype": Mutant(
        "_cupy/accumulate.py", " and array.dtype == total.dtype", "", DTYPES
    ),
    "a gradient keeps its dtype": Mutant(
        "_cupy/activations.py", "xp.astype(dy, y.dtype, copy=False)", "dy", DTYPES
    ),
    "labels of any dtype": Mutant(
        "_cupy/losses.py", "targets.dtype.str in _LABELS", "targets.dtype.kind in 'iu'", DTYPES
    ),
    "a product of two dtypes": Mutant("_cupy/cublaslt.py", "a.dtype == b.dtype and ", "", DTYPES),
}


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """Return a copy of the package and of its tests."""
    folder = tmp_path_factory.mktemp("mutants")
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("mlp_xp", "tests", "bench", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for path in ROOT.glob("*.*"):
        if path.is_file():
            shutil.copy(path, folder)
    return folder


def run(folder: Path, tests: str) -> subprocess.CompletedProcess[str]:
    path = [str(folder / "tests" / "stand_in" / "packages"), str(folder)]
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*path, *filter(None, others)])}
    environment.pop("PYTEST_ADDOPTS", None)  # It is of this run.
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    command += ["--backends=cupy:cuda:1", *tests.split()]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)


@pytest.mark.matrix
@pytest.mark.parametrize("tests", sorted({mutant.tests for mutant in MUTANTS.values()}))
def test_all_is_right_without_a_fault(copied, tests):
    done = run(copied, tests)
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.mark.matrix
@pytest.mark.parametrize("name", MUTANTS)
def test_a_fault_is_found(copied, name):
    mutant = MUTANTS[name]
    path = copied / "mlp_xp" / "backends" / mutant.file
    text = path.read_text(encoding="utf-8")
    assert text.count(mutant.right) == 1, "the code has changed: write this mutant anew"
    path.write_text(text.replace(mutant.right, mutant.wrong), encoding="utf-8")
    try:
        done = run(copied, mutant.tests)
    finally:
        path.write_text(text, encoding="utf-8")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout[-5000:]
    print(next(line for line in done.stdout.splitlines() if line.startswith("FAILED")))
