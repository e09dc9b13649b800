"""A rank that fails anywhere ends all ranks, which would wait for it, with its error shown."""

from __future__ import annotations

import itertools
import sys
from importlib import import_module

import helpers
import pytest

from mlp_xp import MLPClassifier
from mlp_xp.distributed import get_communicator

X, Y = helpers.problem(n=157, features=40)
SETTINGS = {
    "hidden_layer_sizes": (600, 500),
    "max_iter": 20,
    "n_iter_no_change": 20,
    "batch_size": 32,
    "random_state": 0,
    "early_stopping": True,
}
# The call, of a function of a module or a class, that fails.
CALLS = {
    "begin": ("mlp_xp.training.trainer:Trainer", "_own", 1),
    "compile in machine code": ("mlp_xp.backends._numpy.thread_pool", "_machine_code", 1),
    "compile by jax": ("mlp_xp.backends._jax_ranks:SplitFunction", "_compile", 1),
    "first step": ("mlp_xp.training.scalars:StepScalars", "unpack", 1),
    "later step": ("mlp_xp.training.scalars:StepScalars", "unpack", 13),
    "later call": ("mlp_xp.backends._numpy.compiled_step:_Compiled", "_run", 3),
    "sum": ("mlp_xp.distributed._mpi:MpiCommunicator", "sum", 20),
    "first validation": ("mlp_xp.estimators.held_out:HeldOut", "_logits", 1),
    "later validation": ("mlp_xp.estimators.held_out:HeldOut", "_logits", 4),
}


def fail(engine: str, backend: str, moment: str) -> None:
    """Fit on all ranks, of which the last fails."""
    ranks = get_communicator(engine)
    place, name, number = CALLS[moment]
    module, _, kind = place.partition(":")
    owner = getattr(import_module(module), kind) if kind else import_module(module)
    if backend == "numpy":
        from mlp_xp.backends._numpy import backend as numpy_backend

        numpy_backend._LONG = 0  # Even the shortest fit takes machine code.
    function, calls = getattr(owner, name), itertools.count(1)

    def failing(*arguments, **options):
        if next(calls) == number:
            raise MemoryError("this one")
        return function(*arguments, **options)

    if ranks.rank == ranks.size - 1:
        setattr(owner, name, failing)
    MLPClassifier(**SETTINGS, backend=backend, distributed=engine).fit(X, Y)
    print("not reached")


@pytest.mark.parametrize(
    ("engine", "backend", "moment"),
    [
        ("mpi", "numpy", "begin"),
        ("mpi", "numpy", "compile in machine code"),
        ("mpi", "numpy", "first step"),
        ("mpi", "numpy", "later call"),
        ("mpi", "numpy", "sum"),
        ("mpi", "numpy", "first validation"),
        ("mpi", "numpy", "later validation"),
        ("mpi", "jax", "compile by jax"),
        ("mpi", "torch", "later step"),
        ("torch", "torch", "later step"),
        ("torch", "numpy", "first validation"),
        ("torch", "jax", "compile by jax"),
    ],
)
def test_a_rank_that_fails_ends_all(run_ranks, engine, backend, moment):
    pytest.importorskip(backend)
    if engine == "torch":
        pytest.importorskip("torch")
    done = run_ranks(3, fail, engine, backend, moment, engine=engine, plain=engine == "mpi")
    assert done.returncode != 0
    assert "MemoryError: this one" in done.stderr
    said = "rank 2: MemoryError" if moment == "begin" else "rank 2 of 3 has failed"
    assert said in done.stderr
    assert "not reached" not in done.stdout


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
