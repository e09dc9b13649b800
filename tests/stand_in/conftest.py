"""What the tests of the stand-in for CuPy share. They run where it is on the path."""

import importlib.util

import numpy as np
import pytest

SPEC = importlib.util.find_spec("cupy")
IS_HERE = SPEC is not None and "stand_in" in str(SPEC.origin)
collect_ignore_glob = ["offers.py"] if IS_HERE else ["*.py"]


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker("matrix")


@pytest.fixture(autouse=True)
def devices(backend_spec):
    """Belong to the tests that take a backend, and end with devices that have nothing to do."""
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
