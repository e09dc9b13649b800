"""What tests of the stand-in for CuPy share; it is imported only where they run."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def idle():
    """End with devices that have nothing to do."""
    from cupy import cuda

    yield
    for device in range(2):
        cuda.Device(device).synchronize()


@pytest.fixture
def pinned():
    import cupyx

    array = cupyx.empty_pinned(4, np.float32)
    array[:] = [1, 2, 3, 4]
    return array


@pytest.fixture
def copying():
    """Return a stream whose copies nothing else waits for."""
    from cupy import cuda

    return cuda.Stream(non_blocking=True)


@pytest.fixture
def soon(monkeypatch):
    """Capture after two steps."""
    monkeypatch.setattr("mlp_xp.backends._captured._STEPS_BEFORE_CAPTURE", 2)


@pytest.fixture
def no_counts():
    """Count launches, and what was logged, from 0."""
    from cupy import _launch

    from mlp_xp.backends import _captured

    _captured.report.cache_clear()
    for counter in (_launch.launches, _launch.replayed, _launch.waits):
        counter.clear()
