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
