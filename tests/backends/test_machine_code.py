"""Machine code is kept in a cache, shared with nobody, and run by threads that end with a fit."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from helpers import PATIENCE, small
from threadpoolctl import threadpool_info, threadpool_limits

from mlp_xp._utils.threads import usable_threads
from mlp_xp.backends import get_backend
from mlp_xp.backends._numpy.runtime import busy, tasks, thread_pool, tuning
from mlp_xp.backends._numpy.tracing.operations import or_timed_product

pytest.importorskip("numba")
if os.name != "posix":
    pytest.skip("machine code needs POSIX threads", allow_module_level=True)

import fcntl

from mlp_xp.backends._numpy import machine_code as _native

UNIT = tasks.Unit(tasks.number_of(tasks.ColumnSums))


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("mlp_xp-")]


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


@pytest.fixture
def before():
    """Return how many threads each BLAS has: two, whatever other tests have left."""
    with threadpool_limits(2, user_api="blas"):
        if not (found := blas_threads()):
            pytest.skip("the BLAS has no limit on its threads, as Accelerate on macOS")
        yield found


@pytest.fixture
def task():
    """Return a linked task, and its arrays; it writes ones to the last one."""
    ones, positions, found = np.ones((3, 4)), np.arange(3, dtype=np.int32), np.zeros((3, 4))
    fields = tasks.Take(False, 3, 3, ones.nbytes // 3, ones, positions, found)
    words, _ = tasks.table([tasks.Task(fields, True)])
    thread_pool.link([words])
    return words, (ones, positions, found)


def test_threads_stop_on_request_without_running_a_task(task):
    words, (*_, found) = task
    for n_jobs in (0, 1, 5) * 10:
        with thread_pool.thread_pool(3):
            for _ in range(n_jobs):
                thread_pool.runner()(tasks.step_range(words))
            assert len(threads()) == (2 if n_jobs else 0)
            assert found.all() == bool(n_jobs)
            found[...] = 0.0
        assert not threads()
        assert not found.any()


def test_calling_thread_completes_a_task_alone(monkeypatch, task):
    """Other programs may use all other processors."""
    words, (*_, found) = task
    for name in ("start", "join"):
        monkeypatch.setattr(threading.Thread, name, lambda self, timeout=None: None)
    with thread_pool.thread_pool(3):
        for is_alone in (0, 1):
            thread_pool._of_this_thread.pool._control[tuning.IS_ALONE] = is_alone
            thread_pool.runner()(tasks.step_range(words))
            assert found.all()
            found[...] = 0.0


@pytest.mark.parametrize(("shared", "alone"), [(60, 50), (50, 60), (400_000, 1)])
def test_steps_use_several_threads_only_if_faster(shared, alone):
    from mlp_xp.backends._numpy.machine_code._threads import choose_threads

    control = np.zeros(tuning.CONTROL, np.int64)
    n_alone = 0
    for _ in range(3000):
        n_alone += control[tuning.IS_ALONE]
        choose_threads.py_func(control, 2, 1, alone if control[tuning.IS_ALONE] else shared)
    assert n_alone > 2850 if shared == 60 else n_alone < 150 * (shared == 50) + 1


def test_timings_of_different_calls_are_not_compared():
    with thread_pool.thread_pool(2):
        for _ in range(4):  # Outside of a compiled step each is a table, as in a prediction.
            get_backend("numpy").kernels.activate("relu", np.zeros((300, 100)), xp=np)
        control = thread_pool._of_this_thread.pool._control
    assert control[tuning.LAST_TABLE] > 0 == control[tuning.N_STEPS]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:os.fork:RuntimeWarning")
def test_a_forked_process_can_train_with_its_own_pool(task, problem, monkeypatch):
    words, (*_, found) = task
    monkeypatch.setattr("mlp_xp.backends._numpy.backend._LONG", 0)
    pool = thread_pool.thread_pool(2)
    with pool:
        thread_pool.runner()(tasks.step_range(words))
        found[...] = 0.0
        locks = thread_pool._lock, thread_pool._machine_code()._lock
        for lock in locks:
            lock.acquire()
        child = os.fork()
        if child:
            for lock in locks:
                lock.release()
        else:
            signal.alarm(int(PATIENCE))
            status = 1
            try:
                assert not thread_pool.has_pool()
                with thread_pool.thread_pool(2):
                    thread_pool.link([words])
                    thread_pool.runner()(tasks.step_range(words))
                assert found.all()
                assert small().fit(*problem()).n_iter_ == 5
                pool.__exit__(None, None, None)  # The child process has no threads to wait for.
                status = 0
            finally:
                os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not found.any()


def test_threads_stop_if_one_of_them_cannot_start(monkeypatch):
    start = threading.Thread.start

    def scarce(self):
        if self.name == "mlp_xp-2":
            raise RuntimeError("can't start new thread")
        start(self)

    words, _ = tasks.table([])
    thread_pool.link([words])
    monkeypatch.setattr(threading.Thread, "start", scarce)
    with pytest.raises(RuntimeError, match="can't start new thread"), thread_pool.thread_pool(4):
        thread_pool.runner()(tasks.step_range(words))
    assert not threads()
    assert not thread_pool.has_pool()


def test_each_thread_has_its_own_pool():
    """Tasks are done without the interpreter's lock."""
    found = []
    with thread_pool.thread_pool(1):
        thread = threading.Thread(target=lambda: found.append(thread_pool.has_pool()))
        thread.start()
        thread.join()
        assert thread_pool.has_pool()
    assert found == [False]


def test_thread_pool_respects_cpu_limits(monkeypatch):
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert usable_threads() == 1
    # Joblib knows affinity and containers.
    monkeypatch.setattr("joblib.cpu_count", lambda: 5)
    assert usable_threads() == 5
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert usable_threads() == 2


def test_blas_threads_are_restored_by_the_last_user(before):
    with thread_pool.thread_pool(2):
        with thread_pool.thread_pool(2):
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


def test_blas_uses_one_thread_for_small_steps(before, monkeypatch):
    small = (125_000, 0), (13_000_000, 0), (40_000_000, 39_000_000), (78_400, 0, 78_400)
    for work, *others in small:
        with get_backend("numpy").training(work, 1, *others):
            assert set(blas_threads()) == {1}
        assert blas_threads() == before
    monkeypatch.setattr("mlp_xp.backends._numpy.backend.usable_threads", lambda: 2)
    for work, sparse_work in (20_000_000, 0), (40_000_000, 20_000_000), (500_000, 450_000):
        with get_backend("numpy").training(work, sparse_work=sparse_work, largest=9_999):
            assert blas_threads() == before
    # One processor, as a container may allow.
    monkeypatch.setattr("mlp_xp.backends._numpy.backend.usable_threads", lambda: 1)
    with get_backend("numpy").training(20_000_000):
        assert set(blas_threads()) == {1}


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


@pytest.fixture
def nothing_loaded(folder, monkeypatch):
    """Begin without code, and let a unit's address be the length of its code."""
    monkeypatch.setattr(_native, "_addresses", {})
    monkeypatch.setattr(_native, "_load", lambda unit, code: len(code))


def test_cached_code_is_readable_by_all_users(folder, monkeypatch):
    """Every user of a container finds what the superuser compiled when it was built."""
    monkeypatch.setattr(_native, "_folders", lambda: [folder / "new"])
    before = os.umask(0o022)
    try:
        _native._write(UNIT.name, b"code")
    finally:
        os.umask(before)
    assert _native._read(UNIT.name) == b"code"
    (file,) = (folder / "new").iterdir()
    assert file.suffix == ".bin"
    assert file.stat().st_mode & 0o777 == 0o644
    assert (folder / "new").stat().st_mode & 0o777 == 0o755


@pytest.mark.usefixtures("nothing_loaded")
def test_compilation_message_names_the_cache_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_native, "_compile_apart", lambda units: dict.fromkeys(units, b"code"))
    assert _native.addresses([UNIT, UNIT]) == {UNIT: 4}
    said = capsys.readouterr().err
    assert "code for NumPy (once for this installation) ...\nmlp_xp: compiled in 0.0 s." in said
    _native._addresses.clear()
    assert _native.addresses([UNIT]) == {UNIT: 4}  # The file is read.
    assert capsys.readouterr().err == ""
    _native._addresses.clear()
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(_native, "_folders", lambda: [tmp_path / "file"])
    _native._writable.cache_clear()
    assert _native.addresses([UNIT]) == {UNIT: 4}
    assert "(for this process, as no cache can be written)" in capsys.readouterr().err


@pytest.mark.usefixtures("nothing_loaded")
def test_compilation_in_another_process_is_awaited(folder, monkeypatch):
    monkeypatch.setattr(_native, "_compile", lambda units: pytest.fail("it is compiled twice"))

    def write():
        _native._write(UNIT.name, b"code")
        os.close(other)

    other = os.open(folder, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    timer = threading.Timer(0.1, write)
    timer.start()
    assert _native.addresses([UNIT]) == {UNIT: 4}
    timer.join()


def test_ctrl_c_leaves_no_partial_file(folder, monkeypatch):
    monkeypatch.setattr(os, "replace", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        _native._write(UNIT.name, b"code")
    assert list(folder.iterdir()) == []


def test_writing_to_the_cache_does_not_wait_for_the_disk(folder, monkeypatch):
    monkeypatch.setattr(os, "fsync", Mock(side_effect=AssertionError))
    _native._write(UNIT.name, b"code")
    assert _native._read(UNIT.name) == b"code"


def test_corrupted_or_truncated_cache_files_are_detected(folder):
    """Loaded, such a file would end the process."""
    _native._write(UNIT.name, b"code")
    (file,) = folder.iterdir()
    content = file.read_bytes()
    for i in range(len(content)):
        harmed = bytearray(content)
        harmed[i] ^= 1 << i % 8
        for bad in (harmed, content[:i]):
            file.write_bytes(bad)
            assert _native._read(UNIT.name) is None
    file.unlink()  # A folder cannot be read.
    file.mkdir()
    assert _native._read(UNIT.name) is None
    _native._write(UNIT.name, b"code")  # A folder cannot be replaced.
    assert list(folder.iterdir()) == [file]


def test_code_in_folders_writable_by_others_is_not_run(folder):
    """The temporary folder is everybody's."""
    _native._write(UNIT.name, b"code")
    for mode in (0o777, 0o775, 0o757):
        folder.chmod(mode)
        assert _native._read(UNIT.name) is None
        _native._writable.cache_clear()
        assert _native._writable() is None
    folder.chmod(0o755)
    assert _native._read(UNIT.name) == b"code"


def test_the_temporary_folder_is_used_if_no_other_is_writable(folders, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(_native, "__file__", str(tmp_path / "file" / "x.py"))
    monkeypatch.setenv("MLP_XP_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    assert _native._writable() == tmp_path / "temporary" / f"mlp-xp-{os.getuid()}"
    assert _native._writable().stat().st_mode & 0o022 == 0  # Other users cannot write there.
    n_folders = len(list(_native._folders()))
    monkeypatch.setattr(_native, "cache_dir", Mock(side_effect=RuntimeError("no home")))
    assert len(list(_native._folders())) == n_folders - 1


def test_cache_key_covers_all_source_files(tmp_path, monkeypatch):
    key = _native._key.__wrapped__
    skipped = shutil.ignore_patterns("__pycache__")  # Other tests write to it meanwhile.
    source = Path(_native.__file__).parents[1]
    shutil.copytree(source, tmp_path, ignore=skipped, dirs_exist_ok=True)
    expected = key()
    monkeypatch.setattr(_native, "__file__", str(tmp_path / "machine_code/__init__.py"))
    assert key() == expected
    for name in "runtime/tasks.py", "runtime/tuning.py", "machine_code/_tile.py":
        # An installer may keep both size and time.
        file, times = tmp_path / name, (tmp_path / name).stat()
        text = file.read_text()
        file.write_text(text.replace("import", "Import", 1))
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert key() != expected, name
        file.write_text(text)


@pytest.mark.matrix
@pytest.mark.parametrize("left_out", ["avx512", "avx"])
def test_machine_code_is_correct_without_avx_512_or_avx2(left_out):
    """With AVX2 products have smaller tiles; without, they are the BLAS's."""
    names = ("packed_products", "tasks", "lowering")
    tests = [str(Path(__file__).with_name(f"test_{name}.py")) for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", *tests]
    environment = {**os.environ, "MLP_XP_WITHOUT": left_out}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout


def test_subnormal_numbers_are_flushed_only_during_training():
    tiny, found = np.finfo(np.float32).tiny, []

    def halve():
        found.append(float(np.float32(tiny) * np.float32(0.5)))

    with get_backend("numpy").training(1):
        halve()
        thread = threading.Thread(target=halve)  # Started like the pool's threads.
        thread.start()
        thread.join()
    halve()
    assert found == [0.0, 0.0, tiny / 2]


def test_product_on_one_thread_matches_all_threads_bitwise(monkeypatch):
    a, b = (np.random.default_rng(n).standard_normal((3072, n), np.float32) for n in (128, 64))
    product, seconds = or_timed_product(np.matmul, a.T, b), iter(range(99))  # Each takes longer.
    monkeypatch.setattr(busy, "time", SimpleNamespace(perf_counter=lambda: next(seconds) ** 2))
    for n_threads in (1, 2):
        with threadpool_limits(n_threads, "blas"):
            wanted, out = a.T @ b, np.empty((128, 64), np.float32)
            for _ in range(30):
                product(a.T, b, out)
                np.testing.assert_array_equal(out, wanted)
        assert (product.stretch >= busy._SHORTEST) == (n_threads > 1)
