"""The control of a distributed fit: its numbers are those of one process, and rank 0 leads."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings

import numpy as np
import pytest
from helpers import problem
from scipy import sparse

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.callbacks import Callback
from mlp_xp.distributed import Distributed, get_communicator
from mlp_xp.training.input_scaling import Whiten
from mlp_xp.training.trainer import Trainer

SHARDED = Distributed(data="sharded")
X, Y = problem(n=157)
ALL = {"X_val": X[:31], "y_val": Y[:31]}


def f1(model, X, y):
    """Return a score that no scorer of scikit-learn has: that of the first class."""
    return float(np.mean((model.predict(X) == 0) == (y == 0)))


def cases():
    """Return fits: settings, samples, and other arguments of `fit`."""
    words = np.asarray(["ant", "bee", "cat"])[Y]
    weights = np.linspace(0.5, 2.0, len(Y))
    yield {}, X, Y, {}
    yield {"early_stopping": True, "scoring": f1, "dropout": 0.2}, X, words, {}
    yield {"input_scaling": "standardize", "scoring": "neg_log_loss"}, X.astype("f4"), Y, ALL
    yield {"input_scaling": Whiten(), "normalization": "batch"}, X, Y, {"sample_weight": weights}
    yield {"early_stopping": True, "batch_size": 200, "ema_decay": 0.9}, X, Y, {}
    yield {"solver": "lbfgs", "max_iter": 5}, X, Y, ALL
    yield {"class_weight": "balanced"}, sparse.csr_array(X * (X > 0)), Y, {}


def close(actual, expected) -> None:
    exact = expected.coefs_[0].dtype == np.float64
    for name in ("coefs_", "intercepts_"):
        for a, b in zip(getattr(actual, name), getattr(expected, name), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-10 if exact else 1e-4, err_msg=name)
    for name in ("loss_curve_", "validation_scores_", "validation_loss_curve_"):
        a, b = getattr(actual, name), getattr(expected, name)
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=1e-10 if exact else 1e-4, err_msg=name)
    assert actual.n_iter_ == expected.n_iter_


def fit_as_alone() -> None:
    """Check that fits on ranks are those of one process, with all samples or those of a rank."""
    ranks = get_communicator("mpi")
    # Uneven shares: one row, eight rows, none of four ranks, and the rest.
    cuts = [*[0, 1, 9, 9][: ranks.size], len(X)]
    own = slice(cuts[ranks.rank], cuts[ranks.rank + 1])
    warnings.simplefilter("ignore")
    for settings, x, y, others in cases():
        settings = {"max_iter": 3, "random_state": 0, "batch_size": 32} | settings
        alone = MLPClassifier((8,), **settings).fit(x, y, **others)
        close(MLPClassifier((8,), **settings, distributed="mpi").fit(x, y, **others), alone)
        mine = {
            name: v[own] if name == "sample_weight" else v[ranks.rank :: ranks.size]
            for name, v in others.items()
        }
        if "X_val" in others:  # The same samples in the order of the ranks.
            order = np.concatenate([np.arange(31)[r :: ranks.size] for r in range(ranks.size)])
            held_out = {name: v[order] for name, v in others.items()}
            alone = MLPClassifier((8,), **settings).fit(x, y, **held_out)
        model = MLPClassifier((8,), **settings, distributed=SHARDED).fit(x[own], y[own], **mine)
        close(model, alone)
        assert model.score(x, y) == alone.score(x, y)
    parts = [MLPRegressor(hidden_layer_sizes=(8,), batch_size=32, random_state=0) for _ in range(2)]
    parts[1].set_params(distributed=SHARDED)
    for _ in range(3):
        parts[0].partial_fit(X, X[:, 0])
        parts[1].partial_fit(X[own], X[own, 0])
    close(parts[1], parts[0])
    seeded = [
        MLPClassifier((4,), max_iter=1, distributed="mpi", random_state=seed).fit(X, Y)
        for seed in (None, np.random.RandomState(ranks.rank))
    ]
    for model in seeded:
        assert len(set(ranks.gather(model.coefs_[0].tobytes()))) == 1


class Stop(Callback):
    """A callback that stops a fit within an epoch, and counts its calls."""

    def __init__(self, step):
        self.step = step
        self.calls = 0

    def on_step_end(self, model, done, n_steps):
        self.calls += 1
        return self.calls == self.step


def lead() -> None:
    """Check that rank 0 alone prints, warns and calls back, and that all do what it decides."""
    ranks = get_communicator("mpi")
    settings = {"distributed": "mpi", "random_state": 0, "batch_size": 16, "verbose": True}

    def bits(model):
        arrays = [W.tobytes() for W in model.coefs_], model.n_iter_, model.t_
        assert len({repr(found) for found in ranks.gather(arrays)}) == 1
        return model

    watch = Stop(13)
    model = bits(MLPClassifier((8,), max_iter=9, callbacks=[watch], **settings).fit(X, Y))
    assert model.n_iter_ == 2
    assert model.t_ == 157 + 3 * 16
    assert watch.calls == (0 if ranks.rank else 13)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bits(MLPClassifier((8,), max_iter=2, **settings).fit(X, Y))
    assert len(caught) == (0 if ranks.rank else 1)
    settings["verbose"] = False
    model = MLPClassifier((8,), max_iter=10**6, n_iter_no_change=10**6, max_time=0.5, **settings)
    start = time.process_time()
    bits(model.set_params(learning_rate="cosine", early_stopping=True).fit(X, Y))
    # Nothing but the time ends it so early. On a busy machine the clock may show far more than 0.5,
    # but the processor has not worked for longer.
    assert model.n_iter_ < 10**6
    assert time.process_time() - start < 5
    settings |= {"callbacks": [Interrupt()], "max_iter": 100, "n_iter_no_change": 100}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert bits(MLPClassifier((8,), **settings).fit(X, Y)).n_iter_ == 1
    said = [str(warning.message) for warning in caught]
    assert said == ([] if ranks.rank else ["Training interrupted by user."])
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="non-finite") as error:
        MLPRegressor(
            hidden_layer_sizes=(8,), solver="sgd", learning_rate_init=1e200, **settings
        ).fit(X, 1e9 * Y)
    assert len(set(ranks.gather((error.value.epoch, error.value.step, str(error.value))))) == 1


class Interrupt(Callback):
    """A callback after whose first epoch Ctrl-C is pressed on rank 0."""

    def on_epoch_end(self, model, record):
        os.kill(os.getpid(), signal.SIGINT)


def fail(how: str) -> None:
    """End one rank in an epoch of a long fit, or before or after it."""
    ranks = get_communicator("mpi")
    if how == "before" and ranks.rank == 1:
        raise ZeroDivisionError("this one")
    run_epoch = Trainer.run_epoch

    def failing(trainer, *arguments, **settings):
        if trainer.n_epochs == 5 and ranks.rank == ranks.size - 1:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "memory":
                raise MemoryError
            if how == "exit":
                raise SystemExit(3)
            raise ZeroDivisionError("this one")
        return run_epoch(trainer, *arguments, **settings)

    if how not in ("before", "after", "left"):
        Trainer.run_epoch = failing
    settings = {"max_iter": 50, "n_iter_no_change": 50, "distributed": "mpi"}
    MLPClassifier((8,), random_state=0, **settings).fit(X, Y)
    if ranks.rank == 1 and how == "left":
        sys.exit(3)
    if ranks.rank == 1:
        raise ZeroDivisionError("this one")
    ranks.barrier()
    print("not reached")


@pytest.mark.parametrize("n", [1, 3, 4])
def test_a_fit_on_ranks_is_that_of_one_process(run_ranks, n):
    done = run_ranks(n, fit_as_alone)
    assert done.returncode == 0, done.stderr


def test_rank_0_leads(run_ranks):
    done = run_ranks(3, lead)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Iteration 1, loss") == 2


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("raised", "rank 2 of 3 has failed"),
        ("memory", "MemoryError"),
        ("exit", "SystemExit: 3"),
        ("killed", "signal 9"),
        ("before", "rank 1 of 3 has failed"),
        ("after", "rank 1 of 3 has failed"),
    ],
)
def test_a_rank_that_fails_ends_all(run_ranks, how, words):
    done = run_ranks(3, fail, how, plain=True)
    assert done.returncode != 0
    assert words in done.stderr + done.stdout
    assert ("ZeroDivisionError: this one" in done.stderr) == (how in ("raised", "before", "after"))
    assert "not reached" not in done.stdout


def test_a_rank_that_exits_between_fits_ends_all_under_mpi4py(run_ranks):
    done = run_ranks(3, fail, "left")
    assert done.returncode == 3
    assert "not reached" not in done.stdout


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
