"""Fixtures of the tests of the command."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from running import RECIPE, TINY, in_progress

from mlp_xp.cli import main
from mlp_xp.cli.commands import lab
from mlp_xp.cli.training import results
from mlp_xp.datasets import Dataset
from mlp_xp.plotting import new_figure, save_figure


@pytest.fixture(autouse=True, scope="session")
def matplotlib_is_loaded(tmp_path_factory):
    """Draw once before any test, as that loads matplotlib and its fonts."""
    figure = new_figure(1, 1)
    figure.subplots().set_title("a")
    save_figure(figure, tmp_path_factory.mktemp("figure") / "a.png")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLP_XP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def mlp_xp(capsys):
    """Run the command; return status, stdout and stderr."""

    def run(*argv):
        status = main([str(word) for word in argv])
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, out=out, err=err)

    return run


@pytest.fixture
def train_digits(mlp_xp):
    """Train a small network on the digits into a folder, by default `run`."""

    def run(*options, out="run"):
        done = mlp_xp(*TINY, *options, "--out", out)
        assert done.status == 0
        return done

    return run


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def fails(mlp_xp):
    """Run the command; check that it fails with one line, and return its one line."""

    def run(*argv):
        done = mlp_xp(*argv)
        assert done.status == 2, argv
        assert done.err.startswith("mlp-xp: error: "), argv
        assert done.err.count("\n") == 1, argv
        return done.err

    return run


@pytest.fixture
def undrawn(monkeypatch):
    """Leave out the pictures and the report of a training, which take longer than the rest."""
    for name in ("draw_results", "write_report"):
        monkeypatch.setattr(results, name, lambda *_: None)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A run that no test changes."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert main([*TINY, "--epochs", "8", "--validation", "0.25", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def digits_run(finished, tmp_path):
    """A copy of that run that a test may change."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def partial_run(digits_run):
    """A run in progress, without a checkpoint: `run.partial`."""
    return in_progress(digits_run)


@pytest.fixture
def small_cifar(monkeypatch):
    rng = np.random.default_rng(0)
    y = np.arange(120) % 10
    x = (25 * y[:, None] + rng.integers(0, 5, (120, 12))).astype(np.uint8)
    small = Dataset(x[:100], y[:100], x[100:], y[100:], tuple("abcdefghij"), (3, 2, 2))
    monkeypatch.setattr(lab, "load_cifar10", lambda path: small)
    # On a busy machine an epoch may take a second, and is printed then.
    monkeypatch.setattr(lab, "time", SimpleNamespace(perf_counter=lambda: 0.0))
