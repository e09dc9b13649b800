"""Backends to test on, and what the tests share.

``pytest --backends=cupy,torch:cuda`` chooses them, and fails if one of them cannot be used; without
the option every backend that this machine can have is tested, and the others are skipped aloud.
"""

from __future__ import annotations

import io
import os
import re
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from importlib.util import find_spec

# JAX reads this once, at its import: two CPU devices make real transfers without a GPU.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

import browser
import helpers
import numpy as np
import pytest

from mlp_xp.backends import Backend, BackendError

DEFAULT = (
    "numpy",
    "torch:cpu",
    "jax:cpu",
    "jax:cpu:1",
    "array_api_strict",
    "array_api_strict:device1",
    "array_api_strict:device2",
)
# Another library, and a program: neither has tests or examples.
collect_ignore = ["backends/stand_in", "callbacks/killed_fits.py"]
TAKE_ALL_CORES = (
    "tests/backends/test_compiling.py",
    "tests/distributed/",
    "tests/training/test_default_training.py",
)
RAN = pytest.StashKey[Counter[str]]()
SKIPPED: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backends",
        default="",
        help="comma-separated backends, e.g. numpy,torch:cuda:1; all of them must be usable",
    )

    parser.addoption(
        "--only-backends",
        action="store_true",
        help="run only tests that take a backend",
    )
    parser.addoption(
        "--combinations",
        type=int,
        default=0,
        help="run each test with at most so many combinations of its parameters",
    )
    parser.addoption(
        "--forbid-missing",
        action="store_true",
        help="fail if a test was skipped for a library or a data set that is not there",
    )


@pytest.hookimpl(tryfirst=True)  # Before pytest-xdist's own.
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Share all tests among two processes; some tests are ready sooner in this one.

    The tests of a file share fixtures, so they stay in one process.
    """
    option = config.option
    if hasattr(config, "workerinput") or not hasattr(option, "numprocesses"):
        return
    is_all = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if option.numprocesses is None and is_all and not option.usepdb:
        option.numprocesses = min(2, os.cpu_count() or 1)
    if option.numprocesses:
        if option.dist == "no":
            option.dist = "loadfile"
        # By default, files of few but long tests come last, when the other process has no more.
        option.loadscopereorder = False
        # Where there are more threads than cores, those of OpenMP spin: 33 s instead of 3 s.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", str(os.cpu_count()))
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RAN] = Counter()
    required = [spec for spec in config.getoption("--backends").split(",") if spec]
    config.specs = required or list(DEFAULT)
    for spec in required:
        try:
            helpers.make_backend(spec)
        except (BackendError, ValueError) as error:
            raise pytest.UsageError(f"--backends: {error}") from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend_spec" not in metafunc.fixturenames:
        return
    specs = metafunc.config.specs
    if marker := metafunc.definition.get_closest_marker("libraries"):
        specs = [spec for spec in specs if spec.partition(":")[0] in marker.args]
    if not metafunc.definition.get_closest_marker("every_device"):
        # The last named of each library's devices: not the default one, where there is another.
        specs = list({spec.partition(":")[0]: spec for spec in specs}.values())
    metafunc.parametrize("backend_spec", specs, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept = items
    if config.getoption("--only-backends"):
        kept = [item for item in items if "backend_spec" in getattr(item, "fixturenames", ())]
    if most := config.getoption("--combinations"):
        tests = defaultdict(list)
        for item in kept:
            tests[item.path, getattr(item, "originalname", item.name)].append(item)
        # Spread over all of them: the last ones differ most from the first.
        chosen = {
            id(found[len(found) * i // most]) for found in tests.values() for i in range(most)
        }
        kept = [item for item in kept if id(item) in chosen]
    # Doctests cannot ask for what they need.
    if find_spec("torch") is None:
        for item in kept:
            if isinstance(item, pytest.DoctestItem) and item.path.match("export/_torch.py"):
                item.add_marker(pytest.mark.skip(reason="torch is not installed"))
    ids = set(map(id, kept))
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in ids])
    items[:] = kept


@pytest.fixture(scope="session")
def backend_spec(request: pytest.FixtureRequest) -> str:
    """Return the name of a backend; a test of one that cannot be used here is skipped."""
    try:
        helpers.make_backend(request.param)
    except BackendError as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture
def backend(backend_spec: str, request: pytest.FixtureRequest) -> Backend:
    request.config.stash[RAN][backend_spec] += 1
    return helpers.make_backend(backend_spec)


@pytest.fixture(autouse=True, scope="module")
def release_compiled_code() -> Iterator[None]:
    """Release what JAX compiled for the tests of a file: that of all files takes gigabytes."""
    yield
    if jax := sys.modules.get("jax"):
        jax.clear_caches()


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
def pytest_xdist_make_scheduler(config, log):
    """Share files, but run tests of ranks, which take all cores, and those of time in one process.

    So no ranks run beside others, and none beside what is timed.
    """
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "all cores" if file.startswith(TAKE_ALL_CORES) else file

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error) -> None:
    """Add what one of several processes ran."""
    node.config.stash[RAN].update(getattr(node, "workeroutput", {}).get("ran", {}))


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    if config.getoption("--forbid-missing") and SKIPPED:
        terminalreporter.section("skipped for what is missing, which is forbidden", red=True)
        for nodeid in SKIPPED:
            terminalreporter.write_line(nodeid)
    counts = config.stash[RAN]
    if not counts:
        return
    terminalreporter.section("backends")
    for spec in config.specs:
        ran = f"{counts[spec]} tests" if spec in counts else "no test"
        terminalreporter.write_line(f"{spec:28} {ran}")


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Let Ctrl-C do what it usually does: a process started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def problem():
    """Return the function that makes the small problem of the tests: samples of three classes."""
    return helpers.problem


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """Return Selenium's driver of a headless Chromium, one for all tests of pages.

    It is as wide as a laptop's window; ``set_window_size`` changes that for the tests to come.
    """
    with browser.headless_chromium(tmp_path_factory.mktemp("chromium")) as driver:
        driver.set_window_size(1280, 900)
        yield driver


@pytest.fixture
def pool_of():
    """Return a context with threads for jobs, as in training; 0 for none."""
    import contextlib

    from mlp_xp.backends._numpy.thread_pool import can_compile, thread_pool

    return lambda n: thread_pool(n) if n and can_compile() else contextlib.nullcontext()


@pytest.fixture
def terminal(monkeypatch) -> Callable[[], io.StringIO]:
    """Make stdout a terminal; to be called in the test, as pytest sets stdout before each."""

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
