"""Fits on dask's workers, which are processes: equal to one process, and errors that end them."""

import contextlib
import os
import re
import signal
import threading
import time
import warnings

import helpers
import numpy as np
import pandas as pd
import pytest
from test_clusters_page import run_program
from trainers import assert_same_fit

import mlp_xp
from mlp_xp.callbacks import Callback, Checkpoint
from mlp_xp.distributed import RankError
from mlp_xp.training.checkpoints.checkpoints import checkpoints
from mlp_xp.training.divergence.finite import NonFiniteError

dd = pytest.importorskip("dask.dataframe")
da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")
on_dask = pytest.importorskip("mlp_xp.dask")

pytestmark = pytest.mark.matrix
SETTINGS = {"hidden_layer_sizes": (16,), "max_iter": 6, "learning_rate": "cosine"}
SETTINGS |= {"random_state": 0, "batch_size": 64}
TABLE = {"categorical_features": "from_dtype", "missing_values": "impute"}


def table(n: int = 600) -> pd.DataFrame:
    """Return a table with text, missing numbers and a target of three classes."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"x": rng.standard_normal(n), "kind": rng.choice(["a", "b", "c"], n)})
    frame["z"] = rng.standard_normal(n)
    frame.loc[::7, "x"] = np.nan
    frame["target"] = np.where(frame.kind == "a", "low", np.where(frame.z > 0, "high", "mid"))
    return frame


FRAME = table()


@pytest.fixture(scope="module")
def clients():
    """Return the function that returns a client of n workers, each with one thread."""
    quiet = {"dashboard_address": ":0", "silence_logs": 50, "threads_per_worker": 1}
    with warnings.catch_warnings(action="ignore"):
        cluster = distributed.LocalCluster(n_workers=2, **quiet)
        client = distributed.Client(cluster)

        def clients(n: int):
            cluster.scale(n)
            client.wait_for_workers(n, timeout=helpers.PATIENCE)
            helpers.wait_until(lambda: len(workers_of(client)) == n)
            return client

        yield clients
        client.close()
        with contextlib.suppress(KeyError):  # The cluster may note a worker's end twice.
            cluster.close()


def workers_of(client) -> list[str]:
    return sorted(client.scheduler_info(n_workers=-1)["workers"])


def held(client, frame: pd.DataFrame, n_parts: int, workers=None):
    """Return a frame whose partitions the workers have in turn."""
    workers = workers or workers_of(client)
    rows = np.array_split(np.arange(len(frame)), n_parts)
    futures = [
        client.scatter(frame.iloc[part], workers=[workers[i % len(workers)]], hash=False)
        for i, part in enumerate(rows)
    ]
    return dd.from_delayed(futures, meta=frame.iloc[:0], verify_meta=False)


def test_two_and_four_workers_train_the_same_model_as_one_process(clients):
    y, X = FRAME.target, FRAME.drop(columns="target")
    settings = SETTINGS | TABLE | {"early_stopping": True, "class_weight": "balanced"}
    whole = mlp_xp.MLPClassifier(**settings).fit(X, y)
    weights = np.linspace(0.5, 2, len(X))
    weighted = mlp_xp.MLPRegressor(**SETTINGS).fit(X[["z"]], X.z.to_numpy() ** 2, weights)
    for n in (2, 4):
        client = clients(n)
        with helpers.case(n):
            lazy = held(client, FRAME, 6)  # Workers have unequal numbers of partitions, in turn.
            model = on_dask.MLPClassifier(**settings).fit(lazy, "target")
            assert_same_fit(model, whole)
            assert list(model.classes_) == ["high", "low", "mid"]
            x, w = da.from_array(X[["z"]].to_numpy(), 150), da.from_array(weights, 150)
            assert_same_fit(on_dask.MLPRegressor(**SETTINGS).fit(x, x[:, 0] ** 2, w), weighted)


def test_data_frame_predictions_are_lazy(clients):
    client, X = clients(2), FRAME.drop(columns="target")
    lazy = held(client, FRAME, 3)
    model = on_dask.MLPClassifier(**SETTINGS, **TABLE).fit(
        lazy.drop(columns="target"), lazy["target"], X_val=X, y_val=FRAME.target
    )
    local = model.to_local()
    assert type(local) is mlp_xp.MLPClassifier
    labels, p = model.predict(lazy), model.predict_proba(lazy)
    assert isinstance(labels, dd.Series)
    assert list(p.columns) == ["high", "low", "mid"]
    np.testing.assert_array_equal(labels.compute(), local.predict(X))
    pd.testing.assert_index_equal(p.compute().index, X.index)
    np.testing.assert_allclose(p.compute(), local.predict_proba(X))
    np.testing.assert_allclose(model.predict_log_proba(lazy).compute(), np.log(p.compute()))
    assert (
        model.score(lazy, "target") == local.score(X, FRAME.target) == model.score(FRAME, "target")
    )
    with pytest.raises(ValueError, match="X lacks columns of the fit, 'z': add what"):
        model.predict(lazy.drop(columns="z"))


def test_array_predictions_are_lazy(clients):
    clients(2)
    x = np.random.default_rng(0).standard_normal((90, 4))
    lazy = da.from_array(x, (30, 2))  # Chunks of columns are joined.
    model = on_dask.MLPRegressor(**SETTINGS, loss="gaussian").fit(lazy, lazy[:, :2].sum(axis=1))
    mean, std = model.predict(lazy, return_std=True)
    assert (mean.shape, std.dtype) == ((90,), np.float64)
    for found, expected in zip(
        (mean, std), model.to_local().predict(x, return_std=True), strict=True
    ):
        np.testing.assert_allclose(found.compute(), expected)
    np.testing.assert_allclose(model.predict(x), mean.compute())
    two = on_dask.MLPRegressor(**SETTINGS).fit(lazy, lazy[:, :2])
    assert two.predict(lazy).compute().shape == two.predict(lazy).shape == (90, 2)


def test_a_worker_without_rows_can_take_part(clients):
    client = clients(2)
    first, second = workers_of(client)
    places = [(FRAME, first), (FRAME[:0], second), (FRAME[:0], second)]
    futures = [client.scatter(part, workers=[at], hash=False) for part, at in places]
    lazy = dd.from_delayed(futures, meta=FRAME[:0], verify_meta=False)
    whole = mlp_xp.MLPClassifier(**SETTINGS, **TABLE).fit(FRAME, "target")
    model = on_dask.MLPClassifier(**SETTINGS, **TABLE).fit(lazy, "target")
    assert_same_fit(model, whole)
    assert len(model.predict(lazy).compute()) == len(FRAME)


def received(dask_worker=None) -> int:
    return dask_worker.state.transfer_incoming_count_total


def slowly(frame: pd.DataFrame) -> pd.DataFrame:
    time.sleep(0.2)
    return frame


def test_partitions_stay_on_their_workers(clients):
    client = clients(2)
    first, second = workers_of(client)
    for here, other in ((first, second), (second, first)):
        with helpers.case(here):
            # The other worker is idle, and would take over some of the slow tasks.
            lazy = held(client, FRAME, 12, [here]).map_partitions(slowly, meta=FRAME[:0])
            before = client.run(received)[other]
            on_dask.MLPClassifier(**SETTINGS, **TABLE).fit(lazy, "target")
            assert client.run(received)[other] == before


def test_fewer_partitions_than_workers_are_a_warning(clients):
    lazy = held(clients(2), FRAME, 1)
    message = r"Only 1 of 2 workers train, since X has 1 partition\(s\): call X = X.repart"
    with pytest.warns(UserWarning, match=message):
        on_dask.MLPClassifier(**SETTINGS, **TABLE).fit(lazy, "target")


def test_errors_name_the_partition_and_leave_the_workers_free(clients):
    client = clients(2)
    model = on_dask.MLPClassifier(**SETTINGS, **TABLE)
    broken = {
        r"partition 1 of X has the columns 'x', 'kind', 'z' where dask expects 'x', 'kind', 'z', "
        "'target': correct the meta": FRAME[:300].drop(columns="target"),
        r"partition 1 of X: X\['target'\], the target, is missing in row 2": FRAME[:300].assign(
            target=FRAME.target.where(FRAME.index != 2, None)
        ),
        "infinity": FRAME[:300].assign(x=np.inf),
    }
    for message, part in broken.items():
        futures = client.scatter([FRAME, part], hash=False)
        lazy = dd.from_delayed(futures, meta=FRAME[:0], verify_meta=False)
        with helpers.case(message), pytest.raises(ValueError, match=message):
            model.fit(lazy, "target")
        assert not hasattr(model, "coefs_")
    on_dask.MLPClassifier(**SETTINGS | {"max_iter": 1}, **TABLE).fit(
        held(client, FRAME, 2), "target"
    )


def test_an_error_in_training_ends_all_workers(clients):
    lazy = held(clients(2), FRAME, 2)
    settings = SETTINGS | {"activation": "identity", "learning_rate_init": 1e30}
    settings |= {"precision": "float32"}
    with pytest.raises(NonFiniteError) as error:
        on_dask.MLPClassifier(**settings, **TABLE).fit(lazy, "target")
    assert "This is the error of the worker tcp://" in error.value.__notes__[-1]


class Kill(Callback):
    """End a process after some epochs."""

    def __init__(self, epoch: int, pid: int) -> None:
        self.epoch, self.pid = epoch, pid

    def on_epoch_end(self, model, record) -> None:
        if len(model.history_) == self.epoch:
            time.sleep(0.1)
            os.kill(self.pid, signal.SIGKILL)


class Mark(Callback):
    """Create a file at the end of the first epoch."""

    def __init__(self, path) -> None:
        self.path = path

    def on_epoch_end(self, model, record) -> None:
        self.path.touch()


def test_a_lost_worker_ends_the_fit_which_resumes_with_others(clients, tmp_path):
    client = clients(2)
    first, second = workers_of(client)
    pids = client.run(os.getpid)
    lazy = held(client, FRAME, 4, [first, second])
    settings = SETTINGS | TABLE | {"max_iter": 12}
    watch = [Checkpoint(tmp_path / "kept"), Kill(5, pids[second])]
    with pytest.raises(RankError) as error:
        on_dask.MLPClassifier(**settings, callbacks=watch).fit(lazy, "target")
    last = list(checkpoints(tmp_path / "kept").values())[-1]
    assert last.name in ("epoch-0004", "epoch-0005")
    for text in (
        f"lost the worker '{second}' during the fit, so it ended.",
        f"Its last checkpoint is {last}.",
        f"call fit(..., resume={str(tmp_path / 'kept')!r})",
    ):
        assert text in str(error.value)
    resumed = on_dask.MLPClassifier(**settings)
    resumed.fit(held(client, FRAME, 4, [first]), "target", resume=tmp_path / "kept")
    assert_same_fit(resumed, mlp_xp.MLPClassifier(**settings).fit(FRAME, "target"))


@pytest.mark.parametrize("n_parts", [1, 2])
def test_ctrl_c_ends_the_fit_on_all_workers(clients, n_parts, tmp_path):
    lazy = held(clients(2), FRAME, n_parts)
    endless = SETTINGS | TABLE | {"max_iter": 10**6, "n_iter_no_change": 10**6}
    begun = tmp_path / "begun"

    def press():
        helpers.wait_until(begun.exists)
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with warnings.catch_warnings(action="ignore"):  # Dask warns about a single partition.
        with pytest.raises(KeyboardInterrupt):
            on_dask.MLPClassifier(**endless, callbacks=[Mark(begun)]).fit(lazy, "target")
        thread.join()
        on_dask.MLPClassifier(**SETTINGS | {"max_iter": 1}, **TABLE).fit(lazy, "target")


def test_inputs_that_are_not_dask_collections_are_an_error(clients):
    client = clients(2)
    lazy, model = held(client, FRAME, 2), on_dask.MLPClassifier()
    cases = {
        r"X must be a DataFrame or Array of dask, got pandas.DataFrame: convert it with "
        "dask.dataframe.from_pandas": (TypeError, FRAME, "target"),
        r"y must be the name of a column of X or a collection, got None": (ValueError, lazy, None),
        "y must be a DataFrame or Array of dask, got numpy.ndarray": (
            TypeError,
            lazy,
            np.ones(600),
        ),
        "X has no column 'targe' to use as y: did you mean 'target'": (ValueError, lazy, "targe"),
        "X has 2 partitions, but y has 3": (ValueError, lazy, held(client, FRAME, 3)["target"]),
    }
    for message, (kind, X, y) in cases.items():
        with helpers.case(message), pytest.raises(kind, match=message):
            model.fit(X, y)
    with pytest.raises(ValueError, match="`distributed` must be None, got 'mpi'"):
        on_dask.MLPClassifier(distributed="mpi").fit(lazy, "target")


def test_the_documented_dask_example_trains_and_predicts(clients, tmp_path):
    address = clients(2).scheduler.address
    printed = run_program("dask.dataframe", tmp_path, SCHEDULER=address)
    assert list(checkpoints(tmp_path / "checkpoints"))
    assert re.fullmatch(r"accuracy 0\.[89]\d\n", printed)
    assert len(pd.read_parquet(tmp_path / "probabilities")) == 1309


def test_without_a_cluster_the_error_says_how_to_create_one():
    lazy = dd.from_pandas(FRAME, npartitions=2)
    if not distributed.client._get_global_client():
        with pytest.raises(ValueError, match="MLPClassifier needs a cluster: create one first"):
            on_dask.MLPClassifier().fit(lazy, "target")
