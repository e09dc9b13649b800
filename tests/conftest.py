"""Selection of tests and backends, and shared fixtures.

By default, `pytest` tests each public behavior once, on NumPy and array-api-strict, with each
parameter value once. ``nox -s matrix`` runs all tests; the mark ``matrix``, ``--backends`` and
``--grid`` select them.
"""

import gc
import io
import itertools
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

# JAX reads this when it is imported. With two CPU devices, transfers are tested without a GPU.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

import browser
import grids
import helpers
import numpy as np
import pytest

from mlp_xp.backends import Backend, BackendError

DEFAULT = "numpy,array_api_strict"
# Tests with these fixtures need libraries, a browser or processes that the default run lacks.
MATRIX_FIXTURES = {"torch", "chromium", "run_ranks", "mlflow", "wandb"}
collect_ignore = ["stand_in/packages", "callbacks/killed_fits.py", "faults.py"]
RAN = pytest.StashKey[Counter[str]]()
SKIPPED: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backends",
        default=DEFAULT,
        help="comma-separated backends, e.g. numpy,torch:cuda:1; all of them must be usable",
    )
    parser.addoption("--only-backends", action="store_true", help="run only tests of backends")
    parser.addoption(
        "--grid",
        choices=[*grids.SIZES, "kernels", "all"],
        default="values",
        help="run each value of a test's parameters once, each pair of values, or all cases; "
        "kernels: pairs in tests/backends, and values elsewhere",
    )
    parser.addoption(
        "--forbid-missing",
        action="store_true",
        help="fail if a test was skipped because a library or data set is missing",
    )


@pytest.hookimpl(tryfirst=True)  # Before the hook of pytest-xdist.
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Use two processes to run all tests, and a single process to run selected tests."""
    option = config.option
    if hasattr(config, "workerinput") or not hasattr(option, "numprocesses"):
        return
    is_all = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if option.numprocesses is None and is_all and not option.usepdb:
        option.numprocesses = min(2, os.cpu_count() or 1)
    if option.numprocesses:
        if option.dist == "no":
            option.dist = "worksteal"
        # OpenMP's threads spin if there are more threads than cores: 33 s instead of 3 s.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", str(os.cpu_count()))
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RAN] = Counter()
    config.specs = [spec for spec in config.getoption("--backends").split(",") if spec]
    for spec in config.specs:
        try:
            helpers.make_backend(spec)
        except (BackendError, ValueError) as error:
            raise pytest.UsageError(f"--backends: {error}") from error
    if jax := sys.modules.get("jax"):
        # Files share what JAX compiles. Processes do not: one would read what another writes.
        folder = tempfile.TemporaryDirectory()
        config.add_cleanup(folder.cleanup)
        jax.config.update("jax_compilation_cache_dir", folder.name)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if config.getoption("markexpr") == "not matrix":
        config.pluginmanager.register(OtherLibraries(), "other libraries")


class OtherLibraries:
    """Skip doctests that need optional libraries in the default run."""

    PATHS = re.compile(
        r"mlp_xp/((distributed/)?backends/_(cupy|torch|jax)|"
        r"export/_(onnx|operators|pipelines|slices|tables|tidy|torch))"
    )

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        return True if self.PATHS.search(collection_path.as_posix()) else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend_spec" not in metafunc.fixturenames:
        return
    specs = metafunc.config.specs
    if marker := metafunc.definition.get_closest_marker("libraries"):
        named = tuple(f"{name}:" for name in marker.args)  # Such as "torch" or "torch:cuda".
        specs = [spec for spec in specs if f"{spec}:".startswith(named)]
    if not metafunc.definition.get_closest_marker("every_device"):
        # Use only the last device named for each library, usually not the default device.
        specs = list({spec.partition(":")[0]: spec for spec in specs}.values())
    metafunc.parametrize("backend_spec", specs or [None], indirect=True, scope="session")


def parameters_of(item: pytest.Item) -> dict[str, object]:
    return item.callspec.params if hasattr(item, "callspec") else {}


@pytest.hookimpl(wrapper=True)
def pytest_collect_file() -> Iterator[None]:
    """Skip doctests of test files, because conftest.py occurs in several folders."""
    found = yield
    return [collector for collector in found if type(collector).__name__ != "DoctestModule"]


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]):
    """Mark tests that only the matrix can run, and select cases according to ``--grid``."""
    for item in items:
        if MATRIX_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("matrix")
    yield
    tests = defaultdict(list)
    for item in items:
        # The test names libraries, and none of the selected backends uses one of them.
        if parameters_of(item).get("backend_spec", "") is None:
            continue
        if config.getoption("--only-backends") and "backend_spec" not in parameters_of(item):
            continue
        tests[item.nodeid.partition("[")[0]].append(item)
    kept = []
    for name, found in tests.items():
        grid = config.getoption("--grid")
        if grid == "kernels":
            grid = "pairs" if name.startswith("tests/backends/") else "values"
        size = grids.SIZES.get(grid)
        if size and len(found) > 1:
            cases = [
                {name: grids.value_of(value) for name, value in parameters_of(item).items()}
                for item in found
            ]
            found = [found[i] for i in grids.covering(cases, size)]
        kept += found
    ids = set(map(id, kept))
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in ids])
    items[:] = [item for item in items if id(item) in ids]


@pytest.fixture(scope="session")
def backend_spec(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def backend(backend_spec: str, request: pytest.FixtureRequest) -> Backend:
    request.config.stash[RAN][backend_spec] += 1
    return helpers.make_backend(backend_spec)


@pytest.fixture
def on(backend_spec: str) -> dict[str, str | None]:
    """Return the estimator parameters that select the backend."""
    return helpers.place_of(backend_spec)


@pytest.fixture(autouse=True, scope="module")
def release_compiled_code() -> Iterator[None]:
    """Clear JAX's compiled functions after each file; otherwise they would need gigabytes."""
    yield
    if jax := sys.modules.get("jax"):
        jax.clear_caches()


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """End in time to write the report; see bench/gpu/check.py."""
    if time.time() > float(os.environ.get("MLP_XP_TESTS_END", "inf")):
        item.session.shouldstop = "the time is over"


MISSING = re.compile("could not import|is not installed|cifar10 is not in")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and MISSING.search(str(report.longrepr)):
        SKIPPED.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["ran"] = dict(session.config.stash[RAN])
    if session.config.getoption("--forbid-missing") and SKIPPED:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error) -> None:
    """Add the number of tests that a worker process ran per backend."""
    node.config.stash[RAN].update(getattr(node, "workeroutput", {}).get("ran", {}))


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    if config.getoption("--forbid-missing") and SKIPPED:
        terminalreporter.section("skipped because something is missing: an error", red=True)
        for nodeid in SKIPPED:
            terminalreporter.write_line(nodeid)
    if config.getoption("durations") == 0:
        terminalreporter.section("seconds per folder")
        seconds = Counter()
        for report in itertools.chain(*terminalreporter.stats.values()):
            folder = "/".join(getattr(report, "nodeid", "").split("/")[:-1][:2])
            seconds[folder] += getattr(report, "duration", 0.0)
        for folder, sum_of_folder in seconds.most_common():
            terminalreporter.write_line(f"{sum_of_folder:8.1f}  {folder}")
    counts = config.stash[RAN]
    if not counts:
        return
    terminalreporter.section("backends")
    for spec in config.specs:
        ran = f"{counts[spec]} tests" if spec in counts else "no test"
        terminalreporter.write_line(f"{spec:28} {ran}")


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Restore KeyboardInterrupt for SIGINT, because background processes ignore the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True, scope="session")
def machine_code() -> None:
    """Compile all machine code that is not cached, in about ten seconds.

    Otherwise, the first test of each part would wait for the compiler.
    """
    from mlp_xp.backends._numpy.runtime.thread_pool import can_compile

    if can_compile():
        from mlp_xp.backends._numpy.machine_code import compile_all

        compile_all()


@pytest.fixture(scope="session")
def problem():
    return helpers.problem


@pytest.fixture
def compiled(caplog) -> Iterator[Callable[[], list[str]]]:
    """Return a function that returns what JAX has compiled since the last call."""
    import jax

    def take():
        found = [m.split()[4] for m in caplog.messages if m.startswith("Finished XLA")]
        caplog.clear()
        return found

    jax.clear_caches()
    jax.config.update("jax_log_compiles", True)  # Its context would apply to one thread only.
    yield take
    jax.config.update("jax_log_compiles", False)


@pytest.fixture
def new_objects() -> Iterator[None]:
    """Freeze the objects of other tests, so garbage collection visits only new objects."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """Return Selenium's driver of a headless Chromium, shared by all tests.

    The window is as wide as a laptop's. ``set_window_size`` also affects later tests.
    """
    with browser.headless_chromium(tmp_path_factory.mktemp("chromium")) as driver:
        driver.set_window_size(1280, 900)
        yield driver


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """Return a clock for progress bars and time budgets, whose `now` only tests change."""
    clock = SimpleNamespace(now=1000.0, perf_counter=lambda: clock.now)
    bars = "callbacks._progress_bar", "_utils.display.progress", "cli.training.progress"
    for module in (*bars, "training.loop.time_budget"):
        monkeypatch.setattr(f"mlp_xp.{module}.time", clock)
    return clock


@pytest.fixture
def pool_of():
    """Return a function that opens a pool of n threads, or no pool for 0."""
    import contextlib

    from mlp_xp.backends._numpy.runtime.thread_pool import can_compile, thread_pool

    return lambda n: thread_pool(n) if n and can_compile() else contextlib.nullcontext()


@pytest.fixture
def terminal(monkeypatch) -> Callable[[], io.StringIO]:
    """Return a function that replaces stdout with a terminal; call it within the test."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for name in ("TTY_COMPATIBLE", "TTY_INTERACTIVE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")

    def make() -> io.StringIO:
        screen = Terminal()
        monkeypatch.setattr(sys, "stdout", screen)
        return screen

    return make
