"""A rank that fails anywhere ends all ranks, which would wait for it, with its error shown."""

import itertools
import os
import signal
import sys
import threading
from importlib import import_module
from unittest.mock import Mock

import helpers
import pytest

from mlp_xp import MLPClassifier
from mlp_xp.distributed import Distributed, get_communicator
from mlp_xp.distributed._ranks import Ranks, _failure
from mlp_xp.training.divergence.finite import NonFiniteError
from mlp_xp.training.trainer import Trainer

SETTINGS = {"hidden_layer_sizes": (600, 500), "max_iter": 20, "n_iter_no_change": 20}
SETTINGS |= {"batch_size": 32, "random_state": 0, "early_stopping": True}
EPOCH = "mlp_xp.training.trainer:Trainer", "run_epoch", 5
# The call, of a function of a module or a class, at which the last rank ends, and how.
MOMENTS = {
    "begin": ("mlp_xp.training.trainer:Trainer", "_put_copy", 1),
    "compile in machine code": ("mlp_xp.backends._numpy.runtime.thread_pool", "_machine_code", 1),
    "compile by jax": ("mlp_xp.distributed.backends._jax:SplitFunction", "_compile", 1),
    "first step": ("mlp_xp.training.step.step:StepScalars", "unpack", 1),
    "later step": ("mlp_xp.training.step.step:StepScalars", "unpack", 13),
    "later call": ("mlp_xp.backends._numpy.tracing.compiled_step:Compiled", "_run", 3),
    "sum": ("mlp_xp.distributed._mpi:MpiCommunicator", "sum", 20),
    "first validation": ("mlp_xp.estimators.fitting.validation_set:HeldOut", "_logits", 1),
    "later validation": ("mlp_xp.estimators.fitting.validation_set:HeldOut", "_logits", 4),
    "exit": EPOCH,
    "killed": EPOCH,
    "before": None,
    "after": None,
    "left": None,
}


def end(moment: str) -> None:
    if moment == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if moment in ("exit", "left"):
        sys.exit(3)
    raise MemoryError("this one")


def fail(engine: str, backend: str, moment: str) -> None:
    """Fit on all ranks, of which the last fails in the fit, before or after it."""
    ranks, X, y = get_communicator(engine), *helpers.problem(n=157, features=40)
    is_last = ranks.rank == ranks.size - 1
    if backend == "numpy":
        from mlp_xp.backends._numpy import backend as numpy_backend

        numpy_backend._LONG = 0  # Even the shortest fit uses machine code.
    if is_last and moment == "before":
        end(moment)
    if is_last and MOMENTS[moment]:
        place, name, number = MOMENTS[moment]
        module, _, kind = place.partition(":")
        owner = getattr(import_module(module), kind) if kind else import_module(module)
        function, calls = getattr(owner, name), itertools.count(1)

        def failing(*arguments, **options):
            if next(calls) == number:
                end(moment)
            return function(*arguments, **options)

        setattr(owner, name, failing)
    settings = SETTINGS if MOMENTS[moment] else SETTINGS | {"max_iter": 2}
    MLPClassifier(**settings, backend=backend, distributed=engine).fit(X, y)
    if is_last:
        end(moment)
    ranks.barrier()
    print("not reached")


OTHERS = "later step", "compile by jax", "left"


@pytest.mark.parametrize(
    ("engine", "backend", "moment"),
    [
        *(("mpi", "numpy", moment) for moment in MOMENTS if moment not in OTHERS),
        ("mpi", "jax", "compile by jax"),
        ("mpi", "torch", "later step"),
        ("torch", "torch", "later step"),
        ("torch", "numpy", "first validation"),
        ("torch", "jax", "compile by jax"),
    ],
)
def test_a_failing_rank_ends_all_ranks(run_ranks, engine, backend, moment):
    for library in (backend, *(["torch"] if engine == "torch" else [])):
        pytest.importorskip(library)
    done = run_ranks(3, fail, engine, backend, moment, engine=engine, plain=True, fails=True)
    assert done.returncode != 0
    assert "not reached" not in done.stdout
    error = "SystemExit: 3" if moment == "exit" else "MemoryError: this one"
    by = "rank 2: MemoryError" if moment == "begin" else "rank 2 of 3 failed"
    words = ["signal 9"] if moment == "killed" else [error, by]
    assert all(text in done.stderr + done.stdout for text in words), done.stderr


def test_a_rank_that_exits_between_fits_ends_all_ranks_under_mpi4py(run_ranks):
    done = run_ranks(3, fail, "mpi", "numpy", "left", fails=True)
    assert done.returncode == 3
    assert "not reached" not in done.stdout


def test_ctrl_c_on_several_ranks_does_not_wait_for_them():
    def gather(value):
        signal.raise_signal(signal.SIGINT)
        return [_failure(KeyboardInterrupt(), 0), value]

    others = Mock(rank=1, size=2, gather=Mock(side_effect=gather))
    with pytest.raises(KeyboardInterrupt), (ranks := Ranks(others)).sharing_errors():
        ranks.first(None)
    assert others.gather.call_count == 1


def diverge() -> None:
    """Check the cause of an error whose samples are all on rank 0."""
    X, y = helpers.problem()
    own = slice(0) if get_communicator("mpi").rank else slice(None)
    settings = {"learning_rate_init": 1e30, "precision": "float32", "random_state": 0}
    model = MLPClassifier((4,), "identity", distributed=Distributed(data="sharded"), **settings)
    with pytest.raises(NonFiniteError, match="learning rate was") as error:
        model.fit(X[own], y[own])
    assert error.value.cause == "rate"


def test_divergence_errors_do_not_blame_a_rank_without_samples(on_threads):
    on_threads(2, diverge)


def test_an_error_in_one_thread_ends_all_threads(on_threads, capsys, monkeypatch):
    def fail(trainer, *arguments, **options):
        if get_communicator("mpi").rank == 2:
            raise MemoryError("this one")
        return run_epoch(trainer, *arguments, **options)

    run_epoch = Trainer.run_epoch
    monkeypatch.setattr(Trainer, "run_epoch", fail)
    with pytest.raises((threading.BrokenBarrierError, SystemExit)):
        on_threads(3, lambda: helpers.small(distributed="mpi").fit(*helpers.problem()))
    said = capsys.readouterr().err
    assert "rank 2 of 3 failed, so all ranks end:" in said
    assert "MemoryError: this one" in said
