"""All checks, as nox sessions. `nox` runs the checks of a pull request; `nox --list` lists all.

Each session has a separate environment with the versions in ``.ci/constraints.txt``.
``--force-python`` selects another Python. ``.ci/run`` runs the sessions in a single environment,
which ``develop`` creates.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "tests"]
nox.options.reuse_venv = "yes"

CONSTRAINTS = Path(".ci", "constraints.txt")

# The backends of the matrix, which need no GPU.
BACKENDS = (
    "numpy,torch:cpu,jax:cpu,jax:cpu:1,"
    "array_api_strict,array_api_strict:device1,array_api_strict:device2"
)


def install(session: nox.Session, extras: str) -> None:
    """Install this package and its extras at the pinned versions.

    Hashes are removed, because pip rejects editable packages if any package has a hash.
    """
    pins = Path(session.create_tmp(), "pins.txt")
    pins.write_text(re.sub(r" \\\n +--hash=\S+", "", CONSTRAINTS.read_text()))
    session.install("-c", str(pins), "-e", f".[{extras}]")


@nox.session(venv_backend="none")
def develop(session: nox.Session) -> None:
    """Install the pinned dependencies of all sessions into the active environment."""
    pinned = ["--require-hashes", "--no-deps", "-r", str(CONSTRAINTS)]
    session.run("python", "-m", "pip", "install", "--quiet", *pinned, external=True)
    # Install this package, and torch, whose builds have different hashes.
    extras = ".[dev,fast,torch,jax,peers]"
    session.run("python", "-m", "pip", "install", "--quiet", "-e", extras, external=True)
    # Browser tests need Chromium.
    session.run(".ci/get_chromium", external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, types and files with the hooks of ``.pre-commit-config.yaml``."""
    install(session, "dev")
    session.run("pre-commit", "run", "--all-files", "--show-diff-on-failure")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests that the README's command runs, with pinned versions."""
    install(session, "test,fast")
    session.run("pytest", *session.posargs)


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """Run the README's tests with the lowest versions that ``pyproject.toml`` allows."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [project["optional-dependencies"][name] for name in ("cli", "fast", "test")]
    needed = [line for lines in (project["dependencies"], *extras) for line in lines]
    lowest = [line.replace(">=", "==") for line in needed if not line.startswith("mlp-xp")]
    # The oldest Matplotlib uses names that newer versions of pyparsing deprecate.
    session.install(*lowest, "pyparsing<3.3", "-e", ".[test,fast]")
    session.run("pytest", *session.posargs)


@nox.session
def nightly(session: nox.Session) -> None:
    """Run the README's tests with the newest wheels, including pre-releases, and without numba.

    ``PIP_EXTRA_INDEX_URL`` must be the URL of Scientific Python's nightly wheels.
    """
    packages = ["numpy", "scipy", "scikit-learn", "pandas"]
    session.install("-e", ".[test]")
    session.install("--pre", "--upgrade", *packages)
    session.run("pytest", *session.posargs)


@nox.session
def matrix(session: nox.Session) -> None:
    """Run all tests on every backend that needs no GPU; a missing dependency is an error."""
    install(session, "dev,fast,peers")
    chosen = session.posargs
    everything = ["pytest", "--forbid-missing", "-n", "2", "-m", "", *(chosen or ["tests"])]
    if any(argument.startswith("mlp_xp") for argument in chosen):
        everything += ["tests/conftest.py"]  # It defines the options.
    doctests = [] if chosen else ["mlp_xp"]
    session.run(*everything, *doctests, "--grid=pairs", f"--backends={BACKENDS}")
    # Test CuPy without a GPU; see tests/stand_in/README.md. Outside of tests/backends, each value
    # of a parameter runs once on CuPy, as on the other backends above.
    on_cupy = [*everything, "--grid=kernels", "--only-backends"]
    on_cupy += ["--backends=cupy:cuda:0,cupy:cuda:1"]
    stand_in = {"PYTHONPATH": "tests/stand_in/packages"}
    # pytest exits with 5 if no chosen test is for a backend.
    session.run(*on_cupy, env=stand_in, success_codes=[0, 5] if chosen else [0])
    if not chosen:
        checks = [
            "tests/estimators/test_sklearn_checks.py",
            "tests/backends/test_probing.py",
            "tests/backends/test_precision.py",
            "tests/training/test_loss_scaling.py",
        ]
        options = ["--backends=numpy", "--grid=all", "-n", "2", "-m", "", "-k", "cupy or probing"]
        more = {"SCIPY_ARRAY_API": "1", "MLP_XP_CHECKS_APART": "1"}
        session.run("pytest", *options, *checks, env=stand_in | more)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the README's tests with the minimum coverage set in ``pyproject.toml``."""
    install(session, "dev,fast")
    session.run("pytest", "--cov", "-n", "2", *session.posargs)


@nox.session
def audit(session: nox.Session) -> None:
    """Search the pinned dependencies for known vulnerabilities."""
    install(session, "dev")
    session.run(".ci/audit", external=True)


@nox.session
def build(session: nox.Session) -> None:
    """Build the sdist and the wheel in ``dist``; ``-- v1.2.3`` checks the version against a tag."""
    install(session, "dev")
    found = re.search(r'__version__ = "(.+)"', Path("mlp_xp", "__init__.py").read_text())
    tag = f"v{found[1]}"
    if session.posargs not in ([], [tag]):
        session.error(f"the tag is {' '.join(session.posargs)}, but the version needs {tag}")
    session.run("python", "-m", "build")


@nox.session(venv_backend="none")
def readme(session: nox.Session) -> None:
    """Run the README's two commands unchanged: train on CIFAR-10, and run the tests."""
    text = Path("README.md").read_text(encoding="utf-8")
    for command in re.findall(r"^```bash\n(.+)\n```$", text, flags=re.MULTILINE)[:2]:
        session.run("bash", "-c", command, external=True)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site in ``docs/_build``, without network; a warning is an error."""
    install(session, "docs,fast,onnx,torch,jax")  # One example uses every library.
    session.run("mlp-xp", "compile")  # Otherwise, an example would print that it compiles.
    options = ["-W", "-n", "--keep-going", *session.posargs]
    session.run("sphinx-build", *options, "-b", "html", "docs", "docs/_build")


@nox.session
def links(session: nox.Session) -> None:
    """Check all external links of the documentation; needs a network."""
    install(session, "docs,fast,onnx")
    options = ["-D", "plot_gallery=0", *session.posargs]
    session.run("sphinx-build", *options, "-b", "linkcheck", "docs", "docs/_build/links")


@nox.session
def bench(session: nox.Session) -> None:
    """Run the quick benchmark, and fail if it is slower than ``bench/floors.json`` allows."""
    install(session, "cli,fast,peers")
    out = Path(session.create_tmp(), "bench")
    session.run("mlp-xp", "bench", "--quick", "--check", "--out", str(out))
