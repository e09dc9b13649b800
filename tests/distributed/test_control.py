"""A distributed fit has the results of one process, and rank 0 makes the decisions."""

import os
import signal
import time
import warnings

import numpy as np
import pytest
from helpers import QUIET, problem
from scipy import sparse
from trainers import assert_same_bits, assert_same_fit

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.callbacks import Callback, Checkpoint
from mlp_xp.distributed import Distributed, get_communicator
from mlp_xp.estimators.fitting.rank_zero import RankZeroReporter
from mlp_xp.training.checkpoints.checkpoints import checkpoints
from mlp_xp.training.data.input_scaling import Whiten

SHARDED = Distributed(data="sharded")
X, Y = problem(n=157)
ALL = {"X_val": X[:31], "y_val": Y[:31]}


def f1(model, X, y):
    """Return the first class's score, which no scorer of scikit-learn computes."""
    return float(np.mean((model.predict(X) == 0) == (y == 0)))


def cases() -> list:
    """Return fits: settings, samples, and other arguments of `fit`."""
    words = np.asarray(["ant", "bee", "cat"])[Y]
    weights = np.linspace(0.5, 2.0, len(Y))
    return [
        ({"verbose": True}, X, Y, {}),
        ({"early_stopping": True, "scoring": f1, "dropout": 0.2}, X, words, {}),
        ({"input_scaling": "standardize", "scoring": "neg_log_loss"}, X.astype("f4"), Y, ALL),
        ({"input_scaling": Whiten(), "normalization": "batch"}, X, Y, {"sample_weight": weights}),
        ({"early_stopping": True, "batch_size": 200, "ema_decay": 0.9}, X, Y, {}),
        ({"solver": "lbfgs", "max_iter": 5}, X, Y, ALL),
        ({"class_weight": "balanced"}, sparse.csr_array(X * (X > 0)), Y, {}),
    ]


def close(actual, expected) -> None:
    assert_same_fit(actual, expected, 1e-10 if expected.coefs_[0].dtype == np.float64 else 1e-4)


def own_rows(ranks) -> slice:
    """Return the rows of a rank, uneven shares: one, eight, none of four ranks, and the rest."""
    cuts = [*[0, 1, 9, 9][: ranks.size], len(X)]
    return slice(cuts[ranks.rank], cuts[ranks.rank + 1])


def fit_as_alone(settings, x, y, others) -> None:
    """Check that ranks fit the same model as one process, with all samples or only their own."""
    ranks = get_communicator("mpi")
    own = own_rows(ranks)
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


def fit_in_parts() -> None:
    """Check parts of a fit, and that all ranks take the same seed where it is left open."""
    ranks = get_communicator("mpi")
    own = own_rows(ranks)
    settings = {"batch_size": 32, "random_state": 0, "target_scaling": "standardize"}
    parts = [MLPRegressor(hidden_layer_sizes=(8,), **settings) for _ in range(2)]
    parts[1].set_params(distributed=SHARDED)
    for _ in range(3):
        parts[0].partial_fit(X, X[:, 0])
        parts[1].partial_fit(X[own], X[own, 0])
    close(parts[1], parts[0])
    again = []
    for distributed in (None, "mpi"):  # A second fit starts from other weights.
        own = {"random_state": np.random.RandomState(5), "solver": "lbfgs", "max_iter": 2}
        models = [MLPRegressor(hidden_layer_sizes=(4,), distributed=distributed, **own)] * 2
        again.append([model.fit(X, X[:, 0]).loss_ for model in models])
    np.testing.assert_allclose(again[1], again[0])
    assert again[0][0] != again[0][1]
    for seed in (None, np.random.RandomState(ranks.rank)):
        bits(MLPClassifier((4,), max_iter=1, distributed="mpi", random_state=seed).fit(X, Y))


def fit_all() -> None:
    warnings.simplefilter("ignore")
    for case in cases():
        fit_as_alone(*case)
    fit_in_parts()


class Stop(Callback):
    """A callback that stops a fit within an epoch, and counts its calls."""

    def __init__(self, step):
        self.step = step
        self.calls = 0

    def on_step_end(self, model, done, n_steps):
        self.calls += 1
        return self.calls == self.step


class Take(Callback):
    """A callback that takes a snapshot of the training wherever it can."""

    def on_pause(self, model, pause):
        pause.take()


def terminate(folder: str) -> None:
    """Train until SIGTERM, which rank 1 receives after an epoch."""
    ranks, end_epoch = get_communicator("mpi"), RankZeroReporter.end_epoch

    def end(self, record):
        if ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return end_epoch(self, record)

    RankZeroReporter.end_epoch = end
    MLPClassifier((8,), max_iter=50, callbacks=[Checkpoint(folder, every=100)], **LED).fit(X, Y)


def test_sigterm_to_any_rank_writes_a_checkpoint(run_ranks, tmp_path):
    assert run_ranks(2, terminate, str(tmp_path), fails=True).returncode
    assert [*checkpoints(tmp_path)] == [(1, 0)]


LED = {"distributed": "mpi", "random_state": 0, "batch_size": 16}


def bits(model):
    assert_same_bits(get_communicator("mpi"), model)
    return model


def stop() -> None:
    """Check that rank 0 alone prints and calls back; all stop where it does, or with one error."""
    watch = Stop(13)
    model = bits(MLPClassifier((8,), max_iter=9, callbacks=[watch], verbose=True, **LED).fit(X, Y))
    assert model.n_iter_ == 2
    assert model.t_ == 157 + 3 * 16
    assert watch.calls == (0 if get_communicator("mpi").rank else 13)
    wild = {"hidden_layer_sizes": (8,), "solver": "sgd", "learning_rate_init": 1e305} | LED
    for callbacks in [], [Take(), Stop(-1)]:
        with np.errstate(all="ignore"), pytest.raises(ValueError, match="non-finite") as error:
            MLPRegressor(**wild, callbacks=callbacks).fit(X, 1e9 * Y)
        error = error.value
        assert len(set(get_communicator("mpi").gather((error.epoch, error.step, str(error))))) == 1


def lead() -> None:
    """Check that rank 0 alone warns too, and that all do what it decides."""
    ranks, settings = get_communicator("mpi"), dict(LED)
    stop()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bits(MLPClassifier((8,), max_iter=2, **settings).fit(X, Y))
    assert len(caught) == (0 if ranks.rank else 1)
    model = MLPClassifier((8,), max_iter=10**6, n_iter_no_change=10**6, max_time=0.5, **settings)
    start = time.process_time()
    bits(model.set_params(learning_rate="cosine", early_stopping=True).fit(X, Y))
    # Only the time limit ends it so early. On a busy machine, the clock may show far more than 0.5,
    # but the processor has not worked for longer.
    assert model.n_iter_ < 10**6
    assert time.process_time() - start < 5
    settings |= {"callbacks": [Interrupt()], "max_iter": 100, "n_iter_no_change": 100}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert bits(MLPClassifier((8,), **settings).fit(X, Y)).n_iter_ == 1
    said = [str(warning.message) for warning in caught]
    assert said == ([] if ranks.rank else ["Training interrupted by user."])


class Interrupt(Callback):
    def on_epoch_end(self, model, record):
        os.kill(os.getpid(), signal.SIGINT)


ROUNDING = {"bf16": 2.0**-8, "float16": 2.0**-11}


def compare_low_precision(backend: str) -> None:
    X, y = problem(n=400, features=20)
    X = X.astype("float32")
    settings = {"max_iter": 3, "random_state": 0, "batch_size": 50, "solver": "sgd"} | QUIET
    chosen = ROUNDING if backend == "torch" else ["bf16"]  # Compiled in seconds.
    for precision in chosen:
        own = settings | {"precision": precision, "backend": backend, "learning_rate_init": 0.1}
        alone = MLPClassifier((32, 32), **own).fit(X, y)
        curve = bits(MLPClassifier((32, 32), **own, distributed="mpi").fit(X, y)).loss_curve_
        np.testing.assert_allclose(curve, alone.loss_curve_, rtol=4 * ROUNDING[precision])


@pytest.mark.parametrize("n", [1, 4])
def test_fit_on_mpi_ranks_matches_a_single_process_fit(run_ranks, n):
    run_ranks(n, fit_all)


@pytest.mark.parametrize("number", range(7))
def test_fit_on_ranks_in_threads_matches_a_single_process_fit(on_threads, number):
    on_threads(3, fit_as_alone, *cases()[number])


def test_multi_threaded_ranks_match_a_single_process_fit(on_threads):
    on_threads(4, fit_in_parts)


def test_only_rank_0_prints(run_ranks):
    assert run_ranks(3, lead).stdout.count("Iteration 1, loss") == 1


def test_only_the_first_thread_prints(on_threads, capsys):
    on_threads(3, stop)
    assert capsys.readouterr().out.count("Iteration 1, loss") == 1


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_low_precision_ranks_match_up_to_rounding(run_ranks, backend):
    pytest.importorskip(backend)
    run_ranks(2, compare_low_precision, backend)
