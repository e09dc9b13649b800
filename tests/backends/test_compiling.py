"""Machine code is compiled once, kept unharmed, and never needed: a fit works without it too."""

import os
import signal
import subprocess
import sys
import threading
import warnings
from unittest.mock import Mock

import numpy as np
import pytest
from helpers import PATIENCE, QUIET, small, tolerance, wait_until
from sklearn.exceptions import ConvergenceWarning

from mlp_xp import MLPClassifier
from mlp_xp._utils.optional import pip_command
from mlp_xp.backends import get_backend
from mlp_xp.backends._numpy.runtime import tasks, thread_pool
from mlp_xp.callbacks import Callback
from mlp_xp.nn.layers import Dense

pytest.importorskip("numba")
if os.name != "posix":
    pytest.skip("machine code needs POSIX threads", allow_module_level=True)

from mlp_xp.backends._numpy import machine_code as _native
from mlp_xp.cli import main

# A fit that is long enough for machine code by its settings, and ended after two epochs.
FIT = """
import hashlib, sys
from pathlib import Path
import numpy as np
from mlp_xp import MLPClassifier
from mlp_xp.backends._numpy import machine_code
from mlp_xp.callbacks import Callback
machine_code._folders = lambda: [Path(sys.argv[1])]
class Stop(Callback):
    def on_epoch_end(self, model, record):
        return record.epoch == 2
x, y = np.random.default_rng(0).random((60, 5)), np.arange(60) % 3
model = MLPClassifier((8,), batch_size=16, random_state=0, max_iter=10_000,
    n_iter_no_change=np.inf, callbacks=[Stop()])
for _ in range(2):
    model.fit(x, y)
assert "numba" not in sys.modules  # Only the compiling process imports it.
print(hashlib.sha256(b"".join(c.tobytes() for c in model.coefs_)).hexdigest())
"""
SHORT = """
import sys, numpy as np
from mlp_xp import MLPClassifier
x, y = np.random.default_rng(0).random((150, 4)), np.arange(150) % 3
MLPClassifier(random_state=0, max_iter=20, tol=0, n_iter_no_change=99).fit(x, y).predict(x)
ours = "mlp_xp.backends._numpy.machine_code"
print([name for name in ("numba", "llvmlite", ours) if name in sys.modules])
"""
COMPILES = "compiling machine code for NumPy"
UNIT = tasks.Unit(tasks.number_of(tasks.ColumnSums))


def run(code, *argv):
    command = [sys.executable, "-c", code, *map(str, argv)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.matrix
def test_a_short_fit_neither_compiles_nor_loads_machine_code():
    out, err = run(SHORT)
    assert out == "[]\n"
    assert COMPILES not in err


@pytest.mark.parametrize(
    ("work", "n_steps", "expected"),
    [(100_000, 200, 0), (100_000, 5_000, 1), (10_000_000_000, 1, 1)],
)
def test_choice_of_machine_code_depends_only_on_shapes_and_steps(work, n_steps, expected):
    """Results do not depend on the cache or on the compiler's speed."""
    # The first is iris, 200 epochs.
    with get_backend("numpy").training(work, n_steps):
        assert thread_pool.has_pool() == expected


@pytest.mark.filterwarnings("ignore:lbfgs failed:sklearn.exceptions.ConvergenceWarning")
def test_work_of_consecutive_short_fits_adds_up(monkeypatch):
    x, y = np.random.default_rng(0).random((32, 4)), np.arange(32) % 3
    seen, kind = [], type(get_backend("numpy"))
    training = kind.training
    noting = lambda self, work, n=1, *sizes: seen.append(n) or training(self, work, n, *sizes)  # noqa: E731
    monkeypatch.setattr(kind, "training", noting)
    model = MLPClassifier((5,), max_iter=1, warm_start=True, random_state=0, tol=0.0, **QUIET)
    for _ in range(4):
        model.fit(x, y)
    model.partial_fit(x, y)
    assert seen == [1, 2, 3, 4, 5]
    seen.clear()
    model.set_params(max_iter=3, warm_start=False, batch_size=16).fit(x, y)
    assert seen == [6]  # All epochs are one call, and none of them may be the last.
    seen.clear()
    model.set_params(n_iter_no_change=2).fit(x, y)
    assert seen == [2]
    for max_time, expected in (9.0, {"adam": 0, "lbfgs": 0}), (10.0, {"adam": 2, "lbfgs": 1}):
        for solver, n_steps in expected.items():
            seen.clear()
            model.set_params(solver=solver, max_time=max_time).fit(x, y)
            assert seen[0] == n_steps


class Watch(Callback):
    def on_epoch_end(self, model, record):
        """Keep the fit from running several epochs in one call."""


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_fit_switches_to_machine_code_after_enough_work(solver, monkeypatch):
    x, y = np.random.default_rng(0).random((32, 4)), np.arange(32) % 3
    pools, start = [], thread_pool.ThreadPool._start
    begin = lambda pool: pools.append(pool) or start(pool)  # noqa: E731
    monkeypatch.setattr(thread_pool.ThreadPool, "_start", begin)
    monkeypatch.setattr("mlp_xp.backends._numpy.backend._LONG", 14_000_000)  # Seven steps.

    def fit(max_iter, **others):
        model = MLPClassifier((5,), solver=solver, max_iter=max_iter, random_state=0, **others)
        return model.fit(x, y).coefs_

    with warnings.catch_warnings(category=ConvergenceWarning, action="ignore"):
        fit(2)
        assert not pools
        whole = fit(20)
        assert pools
        for one, other in zip(whole, fit(20, callbacks=[Watch()]), strict=True):
            np.testing.assert_array_equal(one, other)  # Both switch at the same step.


FITS = {
    "adam": {},
    "logistic": {"activation": "logistic", "alpha": 0.01},
    "tanh": {"activation": "tanh", "hidden_layer_sizes": (32, 32)},
    "nesterov": {"solver": "sgd", "learning_rate_init": 0.05},
    "momentum": {"solver": "sgd", "nesterovs_momentum": False, "learning_rate": "invscaling"},
    "no momentum": {"solver": "sgd", "momentum": 0.0},
    "lbfgs": {"solver": "lbfgs"},
    "early stopping": {"early_stopping": True},
    "layers": {"normalization": "layer", "dropout": 0.2, "hidden_layer_sizes": (32, 32)},
    "scaled": {"input_scaling": "standardize", "batch_size": 64},
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FITS)
def test_machine_code_and_numpy_train_the_same_model(name, dtype, monkeypatch, rng):
    x, y = rng.standard_normal((150, 20)).astype(dtype), rng.integers(0, 3, 150)
    options = {"hidden_layer_sizes": (32,), "max_iter": 5, "random_state": 0} | FITS[name]
    weights = rng.random(150) + 0.5

    def train():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return MLPClassifier(**options).fit(x, y, sample_weight=weights)

    plain, begun, begin = train(), [], thread_pool.ThreadPool._start
    start = lambda pool: begun.append(pool) or begin(pool)  # noqa: E731
    monkeypatch.setattr(thread_pool.ThreadPool, "_start", start)
    monkeypatch.setattr("mlp_xp.backends._numpy.backend._LONG", 0)
    compiled = train()
    assert begun
    atol = 200 * tolerance(dtype, 32)  # The same tolerance as in test_compiled_step.
    for mine, theirs in zip(compiled.coefs_, plain.coefs_, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=atol)


@pytest.mark.matrix
def test_cold_warm_and_uncached_fits_are_bitwise_identical(tmp_path):
    cold, said = run(FIT, tmp_path)
    assert said.count(COMPILES) == 1
    assert list(tmp_path.glob("*.bin"))
    warm, said = run(FIT, tmp_path)
    assert warm == cold
    assert COMPILES not in said
    # Nothing can be cached if the folder is a file.
    (tmp_path / "file").write_text("")
    assert run(FIT, tmp_path / "file")[0] == cold


@pytest.mark.matrix
def test_machine_code_does_not_depend_on_how_it_was_compiled(tmp_path, monkeypatch, capsys):
    (tmp_path / "coverage.py").write_text("")  # A script's neighbor, which numba took for its own.
    monkeypatch.syspath_prepend(tmp_path)
    others = tasks.Unit(tasks.number_of(tasks.ColumnSums), 1), UNIT
    units = [tasks.Unit(tasks.number_of(tasks.Take)), *others]
    together = _native._compile_apart(units)
    for unit in reversed(units):
        assert _native._compile_apart([unit])[unit] == together[unit]
    monkeypatch.setattr(sys, "executable", "/no/python")  # So this process compiles.
    assert _native._compile([UNIT])[UNIT] == together[UNIT]
    assert COMPILES in capsys.readouterr().err


def test_compile_command_compiles_everything(tmp_path, monkeypatch, capsys):
    kept = {}
    assert _native.addresses(_native.all_units()).keys() >= set(_native.all_units())
    monkeypatch.setattr(_native, "_writable", lambda: tmp_path)
    monkeypatch.setattr(_native, "addresses", lambda units: kept.update(dict.fromkeys(units)))
    assert main(["compile"]) == 0
    assert capsys.readouterr().out == f"machine code for NumPy is stored in {tmp_path}\n"
    assert set(_native.all_units()) == set(kept)
    monkeypatch.setattr(_native, "_writable", lambda: None)
    assert main(["compile"]) == 2
    assert "set MLP_XP_CACHE to a folder where you have write permission" in capsys.readouterr().err
    monkeypatch.setattr(thread_pool, "_has_failed", True)
    assert main(["compile"]) == 2
    assert '[fast]"' in capsys.readouterr().err


@pytest.mark.parametrize("is_early", [True, False])
def test_ctrl_c_stops_a_compilation_at_once(is_early, tmp_path, monkeypatch):
    """Ctrl-C also ends a process that started before `Popen` returned."""
    started = tmp_path / "started"
    child = f"import time; open({str(started)!r}, 'w'); time.sleep(120)"
    monkeypatch.setattr(_native, "_CHILD", child)

    def press():
        wait_until(started.exists)
        os.kill(os.getpid(), signal.SIGINT)

    children, begin = [], subprocess.Popen

    def popen(*args, **kwargs):
        children.append(begin(*args, **kwargs))
        if is_early:
            press()
        return children[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)
    thread = threading.Thread(target=press)
    if not is_early:
        thread.start()
    with pytest.raises(KeyboardInterrupt):
        _native._compile_apart([UNIT])
    if not is_early:
        thread.join()
    assert [child.wait(PATIENCE) for child in children] == [-signal.SIGKILL]


@pytest.fixture
def long(monkeypatch):
    """Make each fit long enough for machine code, and try anew whether there is any."""
    monkeypatch.setattr("mlp_xp.backends._numpy.backend._LONG", 0)
    monkeypatch.setattr(thread_pool, "_has_failed", False)
    thread_pool._is_installed.cache_clear()
    yield
    thread_pool._is_installed.cache_clear()


@pytest.mark.parametrize("what", ["numba", "llvmlite", "NUMBA_DISABLE_JIT"])
def test_fit_works_without_numba_or_llvmlite(what, long, problem, monkeypatch):
    if what.isupper():
        monkeypatch.setenv(what, "1")
    else:
        monkeypatch.setitem(sys.modules, what, None)
    monkeypatch.setattr(thread_pool, "_machine_code", lambda: pytest.fail("It is loaded."))
    assert not thread_pool.can_compile()
    assert small().fit(*problem()).n_iter_ == 5


def test_broken_numba_is_reported_once(long, problem, monkeypatch):
    fail = Mock(side_effect=subprocess.CalledProcessError(1, "numba"))
    monkeypatch.setattr(_native, "_addresses", {})
    monkeypatch.setattr(_native, "_read", lambda unit: None)
    monkeypatch.setattr(_native, "_compile_apart", fail)
    monkeypatch.setitem(sys.modules, f"{_native.__name__}._build", None)
    model = small()
    with pytest.warns(RuntimeWarning, match="cannot be compiled by this version") as said:
        model.fit(*problem())
    (line,) = (str(warning.message) for warning in said if warning.category is RuntimeWarning)
    assert "(ModuleNotFoundError: import of" in line
    assert line.endswith(f"Try another one: {pip_command('--upgrade numba')}.")
    assert not thread_pool.can_compile()
    assert model.fit(*problem()).n_iter_ == 5


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (tasks.MachineCodeError("no compiler"), "mlp_xp.backends._numpy.machine_code.addresses"),
        (OSError("no LLVM"), "mlp_xp.backends._numpy.runtime.thread_pool._machine_code"),
    ],
)
def test_kernel_falls_back_if_compilation_fails(error, name, long, monkeypatch):
    """Outside of compiled steps, which are traced again."""
    monkeypatch.setattr(name, Mock(side_effect=error))
    kernels, x = get_backend("numpy").kernels, np.asarray([-1.0, 2.0])
    with thread_pool.thread_pool(1), pytest.warns(RuntimeWarning, match=str(error)):
        y, _ = kernels.activate("relu", x, xp=np)
    assert y.tolist() == [0.0, 2.0]
    assert not thread_pool.can_compile()


def test_broken_llvm_is_reported_by_the_first_matrix_product(long, monkeypatch):
    monkeypatch.delattr(sys.modules["mlp_xp.backends._numpy"], "machine_code")
    monkeypatch.setitem(sys.modules, _native.__name__, None)
    monkeypatch.setattr(thread_pool, "_machine_code", thread_pool._machine_code.__wrapped__)
    kernels, x = get_backend("numpy").kernels, np.ones((2000, 2000))
    with thread_pool.thread_pool(1), pytest.warns(RuntimeWarning, match="halted"):
        y, _ = kernels.dense(Dense(x, x[0]), x, xp=np)
    assert (y == 2001.0).all()
    assert not thread_pool.can_compile()


def test_a_killed_compiler_process_does_not_end_the_main_process(monkeypatch):
    monkeypatch.setattr(_native, "_CHILD", "import os; os.kill(os.getpid(), 9)")
    monkeypatch.setattr(_native, "_compile_here", lambda units: pytest.fail("Compiled here."))
    with pytest.raises(tasks.MachineCodeError, match="was ended by signal 9"):
        _native._compile([UNIT])


def test_a_frozen_application_compiles_in_its_own_process(monkeypatch):
    """Its executable would train, and so compile, again."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("A process was started."))
    monkeypatch.setattr(_native, "_compile_here", lambda units: dict.fromkeys(units, b"here"))
    assert _native._compile([UNIT]) == {UNIT: b"here"}
