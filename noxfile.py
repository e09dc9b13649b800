"""The checks, one session each: `nox` runs those of a pull request, `nox --list` shows them all.

Each session has an environment of its own, at the versions of ``constraints.txt``; ``--force-python
3.14`` chooses another Python. ``.ci/run`` runs the same sessions in one environment.
"""

from __future__ import annotations

import re
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "tests"]
nox.options.reuse_venv = "yes"

# By name, so one that cannot run is an error.
BACKENDS = (
    "numpy,torch:cpu,jax:cpu,jax:cpu:1,"
    "array_api_strict,array_api_strict:device1,array_api_strict:device2"
)


def install(session: nox.Session, extras: str) -> None:
    """Install this package and its extras at the pinned versions.

    Without hashes: pip refuses an editable package where there are any.
    """
    pins = Path(session.create_tmp(), "pins.txt")
    pins.write_text(re.sub(r" \\\n +--hash=\S+", "", Path("constraints.txt").read_text()))
    session.install("-c", str(pins), "-e", f".[{extras}]")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, types and files with the hooks of ``.pre-commit-config.yaml``."""
    install(session, "dev")
    session.run("pre-commit", "run", "--all-files", "--show-diff-on-failure")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the fast tests on NumPy."""
    install(session, "test,fast")
    session.run("pytest", "--backends=numpy", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the fast tests on NumPy, and fail if they cover less than ``pyproject.toml`` asks for."""
    install(session, "dev,fast,peers")
    # Its limit of time does not allow for tracing.
    timed = "tests/datasets/test_hostile_files.py::test_a_bomb_is_found_before_it_goes_off"
    session.run("pytest", "--backends=numpy", "--cov", "--deselect", timed, *session.posargs)


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
    """Run the README's two commands: one epoch on CIFAR-10, and all tests on every CPU backend."""
    text = Path("README.md").read_text(encoding="utf-8")
    train, check, *_ = re.findall(r"^```bash\n(.+)\n```$", text, flags=re.MULTILINE)
    session.run("bash", "-c", f"{train} --epochs 1", external=True)
    options = f"--backends={BACKENDS} --forbid-missing -m 'not long'"
    session.run("bash", "-c", check, env={"PYTEST_ADDOPTS": options}, external=True)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site in ``docs/_build``, without network; a warning is an error."""
    install(session, "docs,fast,onnx")
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
