"""The cache of machine code: written whole, checked when read, shared with nobody."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mlp_xp.backends._numpy import jobs

pytest.importorskip("numba")
if os.name != "posix":
    pytest.skip("machine code needs POSIX threads", allow_module_level=True)

import fcntl

from mlp_xp.backends._numpy import machine_code as _native

UNIT = jobs.Unit(jobs.number_of(jobs.ColumnSums))


@pytest.fixture
def folders():
    """Look for a folder that can be written, and after the test again."""
    _native._writable.cache_clear()
    yield
    _native._writable.cache_clear()


@pytest.fixture
def folder(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(_native, "_folders", lambda: [tmp_path])
    return tmp_path


def test_code_is_kept_for_all_users(folder, monkeypatch):
    """What the superuser compiles while a container is built is there for all of them."""
    monkeypatch.setattr(_native, "_folders", lambda: [folder / "new"])
    before = os.umask(0o022)
    try:
        _native._write(UNIT, b"code")
    finally:
        os.umask(before)
    assert _native._read(UNIT) == b"code"
    (file,) = (folder / "new").iterdir()
    assert file.suffix == ".bin"
    assert file.stat().st_mode & 0o777 == 0o644
    assert (folder / "new").stat().st_mode & 0o777 == 0o755


@pytest.fixture
def nothing_loaded(folder, monkeypatch):
    """Begin without code, and let a unit's address be the length of its code."""
    monkeypatch.setattr(_native, "_addresses", {})
    monkeypatch.setattr(_native, "_load", lambda unit, code: len(code))


@pytest.mark.usefixtures("nothing_loaded")
def test_compiling_is_announced_with_where_the_code_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_native, "_compile_apart", lambda units: dict.fromkeys(units, b"code"))
    assert _native.addresses([UNIT, UNIT]) == {UNIT: 4}
    said = capsys.readouterr().err
    assert said.startswith(
        "mlp_xp: compiling machine code for NumPy (once for this installation) ...\n"
        "mlp_xp: compiled in 0.0 s."
    )
    _native._addresses.clear()
    assert _native.addresses([UNIT]) == {UNIT: 4}  # It is read.
    assert capsys.readouterr().err == ""
    _native._addresses.clear()
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(_native, "_folders", lambda: [tmp_path / "file"])
    _native._writable.cache_clear()
    assert _native.addresses([UNIT]) == {UNIT: 4}
    assert "(for this process, as no cache can be written)" in capsys.readouterr().err


@pytest.mark.usefixtures("nothing_loaded")
def test_what_another_process_compiles_is_waited_for(folder, monkeypatch):
    monkeypatch.setattr(_native, "_compile", lambda units: pytest.fail("it is compiled twice"))

    def write():
        _native._write(UNIT, b"code")
        other.close()

    with open(folder / ".lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        timer = threading.Timer(0.1, write)
        timer.start()
        assert _native.addresses([UNIT]) == {UNIT: 4}
        timer.join()


def test_ctrl_c_leaves_no_part_of_a_file(folder, monkeypatch):
    def press(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", press)
    with pytest.raises(KeyboardInterrupt):
        _native._write(UNIT, b"code")
    assert list(folder.iterdir()) == []


def test_without_a_home_there_are_other_folders(monkeypatch):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    expected = len(list(_native._folders()))
    monkeypatch.setattr(_native, "cache_dir", fail)
    assert len(list(_native._folders())) == expected - 1


def test_a_flipped_bit_in_any_byte_and_any_cut_are_found(folder):
    """Loaded, such a file would end the process."""
    _native._write(UNIT, b"code")
    (file,) = folder.iterdir()
    content = file.read_bytes()
    for i in range(len(content)):
        harmed = bytearray(content)
        harmed[i] ^= 1 << i % 8
        file.write_bytes(harmed)
        assert _native._read(UNIT) is None
    for cut in range(len(content)):
        file.write_bytes(content[:cut])
        assert _native._read(UNIT) is None


def test_a_file_that_cannot_be_read_is_compiled_anew(folder):
    _native._write(UNIT, b"code")
    (file,) = folder.iterdir()
    file.unlink()
    file.mkdir()
    assert _native._read(UNIT) is None
    _native._write(UNIT, b"code")  # Nor can it be replaced.
    assert list(folder.iterdir()) == [file]


def test_code_that_others_may_have_written_is_not_run(folder):
    """The temporary folder is everybody's."""
    _native._write(UNIT, b"code")
    for mode in (0o777, 0o775, 0o757):
        folder.chmod(mode)
        assert _native._read(UNIT) is None
        _native._writable.cache_clear()
        assert _native._writable() is None
    folder.chmod(0o755)
    assert _native._read(UNIT) == b"code"


def test_where_the_usual_folder_cannot_be_written_the_temporary_one_is_used(
    folders, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(_native, "__file__", str(tmp_path / "file" / "x.py"))
    monkeypatch.setenv("MLP_XP_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    assert _native._writable() == tmp_path / "temporary" / f"mlp-xp-{os.getuid()}"
    assert _native._writable().stat().st_mode & 0o022 == 0  # Nobody else writes there.


def test_the_cache_knows_all_files_that_code_is_made_of(tmp_path, monkeypatch):
    key = _native._key.__wrapped__
    shutil.copytree(Path(_native.__file__).parents[1], tmp_path, dirs_exist_ok=True)
    expected = key()
    monkeypatch.setattr(_native, "__file__", str(tmp_path / "machine_code/__init__.py"))
    assert key() == expected
    for name in ("jobs.py", "sizes.py", "machine_code/__init__.py", "machine_code/_tile.py"):
        # As an installer may do it: neither the size tells, nor the time.
        file, times = tmp_path / name, (tmp_path / name).stat()
        text = file.read_text()
        file.write_text(text.replace("import", "Import", 1))
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert key() != expected, name
        file.write_text(text)


@pytest.mark.matrix
def test_code_for_a_processor_without_avx_512_compiles():
    """What is compiled there must not name our own products, which do not exist."""
    script = """
import mlp_xp.backends._numpy.machine_code._cpu as cpu
cpu.has_tile = lambda: False
from mlp_xp.backends._numpy import jobs
from mlp_xp.backends._numpy.machine_code._build import build
for kind in (jobs.Product, jobs.Update):
    for is_double in (0, 1):
        assert build(jobs.Unit(jobs.number_of(kind), is_double))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
