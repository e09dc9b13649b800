"""Helpers for several test files."""

import contextlib
import gc
import pickle
import re
import sysconfig
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mlp_xp import MLP
from mlp_xp.backends import Backend, get_backend


def make_backend(spec: str) -> Backend:
    name, _, device = spec.partition(":")
    return get_backend(name, device or None)


def place_of(spec: str) -> dict[str, str | None]:
    """Return the estimator parameters that select a backend, as strings."""
    name, _, device = spec.partition(":")
    return {"backend": name, "device": device or None}


def tolerance(dtype: str, terms: int = 1) -> float:
    """Return the allowed relative difference between sums computed in different orders.

    The rounding error of a sum grows with the square root of the number of terms. The factor 32
    covers the rounding of each term.
    """
    return 32 * float(np.finfo(dtype).eps) * max(terms, 1) ** 0.5


def close(actual: np.ndarray, expected: np.ndarray, terms: int) -> None:
    scale = float(np.max(np.abs(expected))) + 1.0
    bound = scale * tolerance(str(expected.dtype), terms)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound)
    assert actual.dtype == expected.dtype


def matrix(*values):
    """Return parameters of tests that only the matrix runs."""
    return [pytest.param(value, marks=pytest.mark.matrix) for value in values]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def plain(text: str) -> str:
    """Return what a terminal shows, without its control sequences."""
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text)


def last_line(text: str) -> str:
    return plain(text).rstrip().splitlines()[-1].rstrip()


def mpiexec() -> str:
    """Return the path of mpiexec in the current environment, even if it is not activated."""
    return str(Path(sysconfig.get_path("scripts"), "mpiexec"))


def title(value: object) -> str:
    """Return a parameter's id without memory addresses, which differ between processes."""
    return re.sub(" at 0x[0-9a-fA-F]+", "", str(value))


# Seconds after which a test gives up waiting for another thread or process, which then hangs.
PATIENCE = 300.0
QUIET = {"n_iter_no_change": float("inf")}


def problem(n=60, features=6, classes=3):
    """Return X and y of a small classification problem."""
    rng = np.random.default_rng(2)
    X = rng.standard_normal((n, features))
    return X, np.argmax(X[:, :classes] + 0.1 * rng.standard_normal((n, classes)), axis=1)


def small(estimator=MLP, /, **settings):
    """Return a small, fast estimator for `problem`."""
    defaults = {"hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0, "batch_size": 16}
    return estimator(**(defaults | QUIET | settings))


def pickled_and_saved(model, folder):
    """Return two copies of the model, one through pickle and one through `save_model`."""
    from mlp_xp.saving import load_model, save_model

    save_model(model, folder / "saved")
    return pickle.loads(pickle.dumps(model)), load_model(folder / "saved")  # noqa: S301


def peak(function: Callable[[], object]) -> int:
    """Return the maximum memory that NumPy and Python use during a call, in bytes."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for at most `PATIENCE` until the condition is true."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"the condition is still false after {PATIENCE} s"
        time.sleep(0.01)


@contextlib.contextmanager
def case(name: object) -> Iterator[None]:
    """Add the name of the case to errors that are raised in the block."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"in the case {name!r}")
        raise


@contextlib.contextmanager
def bounded(seconds: float = 1.0, megabytes: int = 300) -> Iterator[None]:
    """Check the processor time that users are promised for a block, and on Linux also its memory.

    The time may be ten times as long, because a slow or busy machine must not fail a test.
    """
    status, memory = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def resident(name: str) -> int:
        return int(re.search(rf"{name}:\s+(\d+) kB", status.read_text())[1]) // 1000

    gc.freeze()  # Garbage collection then skips the objects of other tests.
    start = time.process_time()
    if memory.exists():
        memory.write_text("5")  # Reset the peak.
        before = resident("VmRSS")
    try:
        yield
    finally:
        gc.unfreeze()
    used = time.process_time() - start
    assert used < 10 * seconds
    if memory.exists():
        assert resident("VmHWM") - before < megabytes


def mutate(content: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """Return a file's content with one to four random changes."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(len(changed) + 1))
        if rng.random() < 0.5:  # Half of the changes are near an end, where headers are.
            at = at % 200 if rng.random() < 0.5 else max(len(changed) - at % 200, 0)
        length = int(rng.integers(1, 40))
        other = others[rng.integers(len(others))]
        start = int(rng.integers(len(other) + 1))
        piece = [
            rng.bytes(length),
            other[start : start + length],
            str(10 ** int(rng.integers(30))).encode(),
            b"\xff" * length,
        ][rng.integers(4)]
        kind = rng.integers(5)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            changed[at:at] = piece
        elif kind == 2:
            changed[at : at + len(piece)] = piece
        else:
            del changed[at : None if rng.random() < 0.2 else at + length]
    return bytes(changed)
