"""Small data sets, and a cache and a working folder for each test."""

import dataclasses
import time
from types import SimpleNamespace

import pytest
from formats import BATCHES, cifar10_files, folder_of, images, pickle2

from mlp_xp.datasets import _download, cache_dir, cifar


@pytest.fixture(autouse=True)
def _separate_folders(tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("work"))
    monkeypatch.setenv("MLP_XP_CACHE", str(tmp_path_factory.mktemp("home") / "cache"))


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """Return the pauses between attempts to download, none of which is waited for."""
    found = []
    clock = SimpleNamespace(sleep=found.append, monotonic=time.monotonic)
    monkeypatch.setattr(_download, "time", clock)
    return found


@pytest.fixture(scope="session")
def batches():
    """Images by name of the batch; sizes differ, so that a wrong order shows."""
    return {name: images(3 + i, seed=i) for i, name in enumerate(BATCHES)}


@pytest.fixture
def python2_folder(tmp_path, batches):
    return folder_of(tmp_path / "cifar-10-batches-py", cifar10_files(batches, pickle2))


@pytest.fixture
def spec(python2_folder):
    """CIFAR-10 with the small batches as the published data, and an unreachable site."""
    content = cifar.CIFAR10.read(python2_folder)
    return dataclasses.replace(
        cifar.CIFAR10,
        official=frozenset({content.fingerprint}),
        layout={key: (array.shape, array.dtype) for key, array in content.arrays.items()},
        remotes=(cifar.Remote("http://127.0.0.1:9/cifar-10-python.tar.gz", "0" * 64),),
        fallback=None,
    )


@pytest.fixture
def in_cache():
    """Return a function that returns the names in the cache."""
    return lambda: sorted(path.name for path in cache_dir().glob("*"))
