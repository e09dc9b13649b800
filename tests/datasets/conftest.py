"""Small data sets, and a cache and a working folder for each test."""

import pytest
from official_formats import BATCHES, cifar10_files, images, python2_pickle, write_folder

from mlp_xp.datasets import cache_dir


@pytest.fixture(autouse=True)
def _separate_folders(request, tmp_path_factory, monkeypatch):
    if not request.node.get_closest_marker("real_data"):
        monkeypatch.chdir(tmp_path_factory.mktemp("work"))
        monkeypatch.setenv("MLP_XP_CACHE", str(tmp_path_factory.mktemp("home") / "cache"))


@pytest.fixture(scope="session")
def batches():
    """Images by name of the batch; sizes differ, so that a wrong order shows."""
    return {name: images(3 + i, seed=i) for i, name in enumerate(BATCHES)}


@pytest.fixture
def python2_folder(tmp_path, batches):
    return write_folder(tmp_path / "cifar-10-batches-py", cifar10_files(batches, python2_pickle))


@pytest.fixture
def in_cache():
    """A function that returns the names in the cache, without locks."""

    def names():
        found = cache_dir().glob("*") if cache_dir().exists() else ()
        return sorted(path.name for path in found if not path.name.endswith(".store.lock"))

    return names
