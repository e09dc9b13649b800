"""Jobs are compiled, or done without: a fit works with any numba, and wherever that writes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

FIT = """
import numpy as np
from mlp_xp import MLPClassifier
from mlp_xp.backends._jobs import can_work
x, y = np.random.default_rng(0).random((60, 5)), np.arange(60) % 3
for _ in range(2):
    model = MLPClassifier((8,), batch_size=16, random_state=0)
    model.partial_fit(x, y, classes=[0, 1, 2])
print(can_work(), model.predict(x).shape)
"""


def fit(before="", **variables):
    """Fit in a fresh process; give what it prints and what it warns of."""
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", f"{before}\n{FIT}"],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


# --- numba ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "before",
    ["import sys; sys.modules['numba'] = None", "import numba.extending as e; del e.intrinsic"],
)
def test_without_what_compiles_jobs_a_fit_does_without(before):
    assert fit(before) == ("False (60,)\n", "")


def test_a_fit_does_without_where_numba_is_told_not_to_compile():
    assert fit(NUMBA_DISABLE_JIT="1") == ("False (60,)\n", "")


@pytest.mark.parametrize(
    "change",
    [
        "import numba.extending as e; e.get_cython_function_address = None",
        "import numba.core.cgutils as c; del c.voidptr_t",
    ],
)
def test_a_numba_that_is_other_inside_is_told_of_once(change):
    out, err = fit(change)
    assert out == "False (60,)\n"
    assert err.count("RuntimeWarning: What makes training on NumPy fast cannot be compiled") == 1
    assert "Try another one: pip install --upgrade numba." in err


# --- the cache ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Give where numba keeps machine code."""
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path))
    return tmp_path


def double(x):
    return 2 * x


def compile_anew():
    """Give how often code was found in the cache."""
    from mlp_xp.backends._native._words import jit

    compiled = jit(double)
    assert compiled(2) == 4
    return sum(compiled.stats.cache_hits.values())


def test_code_is_kept(folder):
    assert [compile_anew() for _ in range(3)] == [0, 1, 1]


@pytest.mark.parametrize("harm", ["no folder", "unreadable", "broken"])
@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_code_is_compiled_where_the_cache_is_of_no_use(harm, kind, folder, monkeypatch):
    compile_anew()
    (file,) = folder.rglob(f"*.{kind}")
    if harm == "no folder":
        monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])
    elif harm == "broken":
        file.write_bytes(b"")
    else:
        # For the superuser nothing is unreadable, except what is no file.
        file.unlink()
        file.mkdir()
    assert compile_anew() == 0


@pytest.mark.parametrize("name", ["_jobs.py", "_native/__init__.py", "_native/_tile.py"])
def test_the_cache_knows_all_files_that_code_is_made_of(name, tmp_path, monkeypatch):
    from mlp_xp.backends._native import _words

    backends = Path(_words.__file__).parents[1]
    shutil.copytree(backends, tmp_path, dirs_exist_ok=True)
    assert _words._stamp.__wrapped__() == _words._stamp()
    monkeypatch.setattr(_words, "__file__", str(tmp_path / "_native/_words.py"))
    assert _words._stamp.__wrapped__() == _words._stamp()
    # As an installer may do it: neither the size tells, nor the time.
    file, times = tmp_path / name, (tmp_path / name).stat()
    file.write_text(file.read_text().replace("import", "Import", 1))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert _words._stamp.__wrapped__() != _words._stamp()
