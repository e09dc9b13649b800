"""The checks, one session each: `nox` runs those of a pull request, `nox --list` shows them all.

Each session has its environment, at the versions of ``.ci/constraints.txt``; ``--force-python``
chooses another Python. ``.ci/run`` runs the same sessions in the one that ``develop`` fills.
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

# What the matrix runs on, without a GPU.
BACKENDS = (
    "numpy,torch:cpu,jax:cpu,jax:cpu:1,"
    "array_api_strict,array_api_strict:device1,array_api_strict:device2"
)


def install(session: nox.Session, extras: str) -> None:
    """Install this package and its extras at the pinned versions.

    Without hashes: pip refuses an editable package where there are any.
    """
    pins = Path(session.create_tmp(), "pins.txt")
    pins.write_text(re.sub(r" \\\n +--hash=\S+", "", CONSTRAINTS.read_text()))
    session.install("-c", str(pins), "-e", f".[{extras}]")


@nox.session(venv_backend="none")
def develop(session: nox.Session) -> None:
    """Install what all sessions need into the active environment, by version and hash."""
    pinned = ["--require-hashes", "--no-deps", "-r", str(CONSTRAINTS)]
    session.run("python", "-m", "pip", "install", "--quiet", *pinned, external=True)
    # This package, and torch, whose builds have hashes of their own.
    extras = ".[dev,fast,torch,jax,peers]"
    session.run("python", "-m", "pip", "install", "--quiet", "-e", extras, external=True)
    # For the tests of pages in a browser.
    session.run(".ci/get_chromium", external=True)
    session.run("tests/export/get_onnxruntime_web.sh", external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, types and files with the hooks of ``.pre-commit-config.yaml``."""
    install(session, "dev")
    session.run("pre-commit", "run", "--all-files", "--show-diff-on-failure")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests of the README's command, at pinned versions."""
    install(session, "test,fast")
    session.run("pytest", *session.posargs)


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """Run the README's tests with the lowest versions that ``pyproject.toml`` allows."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [project["optional-dependencies"][name] for name in ("cli", "fast", "test")]
    needed = [line for lines in (project["dependencies"], *extras) for line in lines]
    lowest = [line.replace(">=", "==") for line in needed if not line.startswith("mlp-xp")]
    # Matplotlib's oldest uses names that newer versions of pyparsing deprecate.
    session.install(*lowest, "pyparsing<3.3", "-e", ".[test,fast]")
    session.run("pytest", *session.posargs)


@nox.session
def nightly(session: nox.Session) -> None:
    """Run the README's tests, without numba, on the newest wheels, pre-releases included.

    ``PIP_EXTRA_INDEX_URL`` names the index of nightly wheels that Scientific Python keeps.
    """
    packages = ["numpy", "scipy", "scikit-learn", "pandas"]
    session.install("-e", ".[test]")
    session.install("--pre", "--upgrade", *packages)
    session.run("pytest", *session.posargs)


@nox.session
def matrix(session: nox.Session) -> None:
    """Run all tests on every backend that needs no GPU; what is missing is an error."""
    install(session, "dev,fast,peers")
    chosen = session.posargs
    everything = ["pytest", "--forbid-missing", "--grid=pairs", *(chosen or ["tests", "mlp_xp"])]
    # None of the chosen tests may be of one of these kinds.
    codes = [0, 5] if chosen else [0]
    backends = f"--backends={BACKENDS}"
    session.run(*everything, backends, "-n", "2", "-m", "not all_cores", success_codes=codes)
    session.run(*everything, backends, "-n", "0", "-m", "all_cores", success_codes=codes)
    # CuPy without a GPU, see tests/stand_in/README.md.
    on_cupy = [*everything, "--only-backends", "--backends=cupy:cuda:0,cupy:cuda:1"]
    stand_in = {"PYTHONPATH": "tests/stand_in/packages"}
    session.run(*on_cupy, "-n", "2", "-m", "", env=stand_in, success_codes=codes)
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
    """Run the README's tests, and fail if they cover less than ``pyproject.toml`` asks for."""
    install(session, "dev,fast")
    session.run("pytest", "--no-limits", "--cov", "-n", "2", *session.posargs)


@nox.session
def audit(session: nox.Session) -> None:
    """Look for known vulnerabilities in what is pinned."""
    install(session, "dev")
    session.run(".ci/audit", external=True)


@nox.session
def build(session: nox.Session) -> None:
    """Build the sdist and the wheel in ``dist``; ``-- v1.2.3`` checks that this is their tag."""
    install(session, "dev")
    found = re.search(r'__version__ = "(.+)"', Path("mlp_xp", "__init__.py").read_text())
    tag = f"v{found[1]}"
    if session.posargs not in ([], [tag]):
        session.error(f"the tag is {' '.join(session.posargs)}, but the version needs {tag}")
    session.run("python", "-m", "build")


@nox.session(venv_backend="none")
def readme(session: nox.Session) -> None:
    """Run the README's two commands as they stand: train on CIFAR-10, and run the tests."""
    text = Path("README.md").read_text(encoding="utf-8")
    for command in re.findall(r"^```bash\n(.+)\n```$", text, flags=re.MULTILINE)[:2]:
        session.run("bash", "-c", command, external=True)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site in ``docs/_build``, without network; a warning is an error."""
    install(session, "docs,fast,onnx,torch,jax")  # One example runs on each library.
    session.run("mlp-xp", "compile")  # No example prints that it compiles.
    options = ["-W", "-n", "--keep-going", *session.posargs]
    session.run("sphinx-build", *options, "-b", "html", "docs", "docs/_build")


@nox.session
def links(session: nox.Session) -> None:
    """Look up every link of the documentation to another site, which needs a network."""
    install(session, "docs,fast,onnx")
    options = ["-D", "plot_gallery=0", *session.posargs]
    session.run("sphinx-build", *options, "-b", "linkcheck", "docs", "docs/_build/links")


@nox.session
def bench(session: nox.Session) -> None:
    """Run the quick benchmark, and fail if it is slower than ``bench/floors.json`` allows."""
    install(session, "cli,fast,peers")
    out = Path(session.create_tmp(), "bench")
    session.run("mlp-xp", "bench", "--quick", "--check", "--out", str(out))
