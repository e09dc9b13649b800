"""Command-line options and backends of the benchmarks, and the details recorded with each
figure."""

from typing import Any

import pytest

from bench.suite.records import environment
from mlp_xp.backends import Backend, BackendError, get_backend

BACKENDS = "numpy,torch:cpu,jax:cpu,cupy,torch:cuda,jax:cuda"


def pytest_addoption(parser: pytest.Parser) -> None:
    add = parser.getgroup("mlp_xp benchmarks").addoption
    add("--bench-backends", default=BACKENDS, help="names with devices (default: %(default)s)")
    add("--bench-rounds", type=int, default=7, help="timed rounds (default: 7)")
    add("--bench-images", type=int, help="images of an epoch (default: about a second on 2 cores)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        specs = metafunc.config.getoption("--bench-backends").split(",")
        metafunc.parametrize("backend", specs, indirect=True)


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> Backend:
    name, _, device = request.param.partition(":")
    try:
        return get_backend(name, device or None)
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture
def benchmark(request: pytest.FixtureRequest, benchmark: Any, backend: Backend) -> Any:
    """Record the backend and its device with each figure."""
    benchmark.extra_info["backend"] = request.node.callspec.params["backend"]
    benchmark.extra_info |= backend.describe()
    return benchmark


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict) -> None:
    del machine_info["node"]  # The host name is irrelevant to the speed.
    machine_info["environment"] = environment()
