"""Fixtures for tests of captured steps; CuPy's tests run if its stand-in is on the path."""

import importlib.util

import pytest

SPEC = importlib.util.find_spec("cupy")
if SPEC is None or "stand_in" not in str(SPEC.origin):
    collect_ignore = ["launches.py", "test_launches.py", "test_cupy_loop.py"]


@pytest.fixture
def soon(monkeypatch):
    """Capture after two steps."""
    monkeypatch.setattr("mlp_xp.backends._cuda.captured._STEPS_BEFORE_CAPTURE", 2)


@pytest.fixture
def no_counts(backend_spec):
    """Count launches, and what was logged, from 0; in the tests that take a backend."""
    from cupy import _launch

    from mlp_xp.backends._cuda import captured as _captured

    _captured.report.cache_clear()
    for counter in (_launch.launches, _launch.replayed, _launch.waits):
        counter.clear()
