"""Command-line options of the benchmarks, and the machine recorded with the figures."""

import pytest

from bench.suite.records import environment

BACKENDS = "numpy,torch:cpu,jax:cpu,cupy,torch:cuda,jax:cuda"


def pytest_addoption(parser: pytest.Parser) -> None:
    add = parser.getgroup("mlp_xp benchmarks").addoption
    add("--bench-backends", default=BACKENDS, help="names with devices (default: %(default)s)")
    add("--bench-rounds", type=int, default=7, help="timed rounds (default: 7)")
    add("--bench-images", type=int, help="images of an epoch (default: about a second on 2 cores)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "spec" in metafunc.fixturenames:
        metafunc.parametrize("spec", metafunc.config.getoption("--bench-backends").split(","))


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict) -> None:
    del machine_info["node"]  # The host name is irrelevant to the speed.
    machine_info["environment"] = environment()
