"""Fixtures of the tests of the command."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from running import RECIPE, TINY

from mlp_xp.cli import lab, main
from mlp_xp.datasets import Dataset


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLP_XP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def mlp_xp(capsys):
    """Run the command; return status, stdout and stderr."""

    def run(*argv: object) -> SimpleNamespace:
        status = main([str(word) for word in argv])
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, out=out, err=err)

    return run


@pytest.fixture
def recipe(tmp_path) -> Path:
    """A recipe file for the digits."""
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def fails(mlp_xp):
    """Run the command; check that it fails with one line, and return its one line."""

    def run(*argv: object) -> str:
        done = mlp_xp(*argv)
        assert done.status == 2
        assert done.err.startswith("mlp-xp: error: ")
        assert done.err.count("\n") == 1
        return done.err

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that no test changes."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert main([*TINY, "--epochs", "8", "--validation", "0.25", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def digits_run(finished, tmp_path):
    """A copy of that run that a test may change."""
    folder = tmp_path / "run"
    folder.mkdir()
    for file in finished.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture
def small_cifar(monkeypatch):
    rng = np.random.default_rng(0)
    y = np.arange(120) % 10
    x = (25 * y[:, None] + rng.integers(0, 5, (120, 12))).astype(np.uint8)
    small = Dataset(x[:100], y[:100], x[100:], y[100:], tuple("abcdefghij"), (3, 2, 2))
    monkeypatch.setattr(lab, "load_cifar10", lambda path: small)
