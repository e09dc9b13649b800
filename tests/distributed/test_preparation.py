"""The preparation of a distributed fit: errors that all ranks raise, and what they must share."""

import pickle
from functools import partial

import numpy as np
import pandas
import pytest
from helpers import case as named
from helpers import problem
from sklearn.base import clone

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.backends._numpy import backend as numpy_backend
from mlp_xp.distributed import Distributed, RankError, get_communicator
from mlp_xp.estimators.checks.validation import check_x
from mlp_xp.estimators.many import FitTask, fit_many

SHARDED = Distributed(data="sharded")


def fail_in_all_ways(*left_out: str) -> None:
    """Check that fits that cannot be prepared raise on all ranks, which stay in step after each."""
    ranks = get_communicator("mpi")
    rank, last = ranks.rank, ranks.size - 1
    X, y = problem()
    own = slice(rank, None, ranks.size)

    def fit(X=X, y=y, /, weights=None, *, distributed="mpi", validation=None, **settings):
        settings = {"max_iter": 1, "random_state": 0} | settings
        model = MLPClassifier((4,), distributed=distributed, **settings)
        held_out = {} if validation is None else {"X_val": validation[0], "y_val": validation[1]}
        return model.fit(X, y, weights, **held_out)

    def score(model, X, y):
        raise ValueError("no score")

    def fit_as_if(**names):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in names.items():
                patch.setattr(numpy_backend, name, value)
            fit()

    is_last = rank == last
    nan = np.where(np.arange(len(X))[:, None] == 7 * is_last - 1, np.nan, X)
    # The fit, the last rank's error if only it has one, and the expected words.
    cases = {
        "parameter": (partial(fit, alpha=-1 if is_last else 1), "InvalidParameterError", "alpha"),
        "data": (partial(fit, nan), "ValueError", "Input X contains NaN"),
        "setting": (partial(fit, alpha=0.1 * rank), None, r"rank 1 of 3 has alpha=0.1 where"),
        "seed": (partial(fit, random_state=rank or None), None, "random_state=1 where rank 0"),
        "labels": (partial(fit, X, y if rank else 2 - y), None, "the values of y="),
        "rows": (partial(fit, X + is_last), None, "rank 2 of 3 has some rows of X="),
        "shape": (partial(fit, X[rank:], y[rank:]), None, r"rank 1 of 3 has X=.*\(59, 6\)"),
        "weights": (partial(fit, X, y, y + 1.0 if is_last else None), None, "sample_weight=given"),
        "validation": (partial(fit, validation=(X, y) if rank else None), None, "X_val=given"),
        "features": (
            partial(fit, X[own, : 6 - is_last], y[own], distributed=SHARDED),
            *(None, "rank 2 of 3 has the features of X=5 where rank 0 has 6"),
        ),
        "kinds": (
            partial(fit, X[own], y[own].astype(str if is_last else int), distributed=SHARDED),
            *(None, "rank 2 has y of dtype <U21"),
        ),
        "lengths": (
            partial(fit, X[own], y[own][is_last:], distributed=SHARDED),
            *("ValueError", "inconsistent numbers of samples"),
        ),
        "numba": (
            partial(fit_as_if, can_compile=lambda: not is_last),
            *(None, "rank 2 of 3 has machine code=False where rank 0 has True.*numba on each"),
        ),
        "nobody": (partial(fit, X[:0], y[:0], distributed=SHARDED), None, "is empty on all ranks"),
    }
    for case, (function, only, words) in cases.items():
        if case in left_out:
            continue
        kind, words = (ValueError, words) if only is None or is_last else (RankError, f"{only}: .*")
        with named(case), pytest.raises(kind, match=words) as error:
            function()
        if kind is RankError:
            assert str(error.value).startswith(f"rank {last}: ")
        ranks.barrier()


def test_an_error_on_one_rank_is_raised_on_all_ranks(run_ranks):
    run_ranks(3, fail_in_all_ways)


def test_an_error_in_one_thread_is_raised_in_all_threads(on_threads):
    on_threads(3, fail_in_all_ways, "numba")  # Threads share the modules.


def fit_parts_of_a_table() -> None:
    """Check that a fit of the parts of a table is the fit of all; rank 1 has no rows."""
    n, rank = 60, get_communicator("mpi").rank
    columns = {
        "age": np.where(np.arange(n) == 50, np.nan, np.sqrt(np.arange(n))),
        "city": ["Bern", "Oslo"] * 20 + ["Rome"] * 20,
        "street": [f"{i % 15}. street" for i in range(n)],
        "day": pandas.Timestamp("2020-01-01") + pandas.to_timedelta(np.arange(n), "D"),
    }
    X, y = pandas.DataFrame(columns), np.arange(n) / n
    rows = {0: slice(0, 30), 1: slice(0, 0), 2: slice(30, n)}[rank]
    settings = {"categorical_features": "from_dtype", "missing_values": "impute"}
    settings |= {"input_scaling": "robust", "learning_rate": "cosine", "random_state": 0}
    model = MLPRegressor(hidden_layer_sizes=(4,), max_iter=3, **settings)
    whole = model.fit(X, y).predict(X)
    for data, part in (("sharded", rows), ("replicated", slice(None))):
        model.set_params(distributed=Distributed(data=data))
        task = FitTask(clone(model), X[part], y[part])
        assert [result.error for result in fit_many([task])] == [None]
        for fitted in (model.fit(X[part], y[part]), task.model):
            assert "city=Rome" in fitted.columns_.input_names
            np.testing.assert_allclose(fitted.predict(X), whole, atol=1e-12)


def test_ranks_encode_columns_from_the_rows_of_all_ranks(on_threads):
    on_threads(3, fit_parts_of_a_table)


def test_a_rank_without_rows_can_hold_an_array_of_any_library(backend):
    empty = backend.put(np.ones((1, 3), np.float32))[:0, :]
    row = check_x(MLPRegressor(), empty, reset=True, exchange=lambda value: [value])
    assert (row.shape, row.dtype, type(row)) == ((1, 3), empty.dtype, type(empty))


def test_distributed_setting_survives_clone_and_pickle():
    model = MLPRegressor(distributed=SHARDED)
    assert clone(model).get_params()["distributed"] is not None
    assert pickle.loads(pickle.dumps(model)).distributed == SHARDED  # noqa: S301
    assert "distributed" in repr(model)


def test_invalid_distributed_settings_list_the_valid_ones():
    for setting in ("mpo", 3, True):
        with pytest.raises(ValueError, match=r"distributed.*mpi"):
            MLPClassifier(distributed=setting).fit([[0.0], [1.0]], [0, 1])
    with pytest.raises(ValueError, match=r"`data` must be .* 'sharded', got 'shared'"):
        Distributed(data="shared")
    with pytest.raises(ValueError, match="`deterministic` must be a bool, got 1"):
        Distributed(deterministic=1)
