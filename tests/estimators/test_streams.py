"""Fits on tables that are read in parts: Parquet files, a LazyFrame, and Arrow readers."""

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from mlp_xp import MLPClassifier, MLPEnsembleClassifier, MLPRegressor
from mlp_xp.datasets import Parquet, write_predictions
from mlp_xp.training.data.epoch_plan import plan_epoch

polars = pytest.importorskip("polars")
pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")

N = 1000
INPUTS = ["size", "weight", "town", "code"]
SETTINGS = {"hidden_layer_sizes": 8, "batch_size": 32, "random_state": 0, "max_iter": 3}
SETTINGS |= {"learning_rate": "cosine"}
TABLE = {"categorical_features": "from_dtype", "missing_values": "impute"}
TABLE |= {"input_scaling": "robust"}


def make_table() -> "polars.DataFrame":
    rng = np.random.default_rng(0)
    size, weight = rng.normal(size=(2, N))
    table = polars.DataFrame(
        {
            "size": size,
            "weight": polars.Series(np.where(rng.random(N) < 0.1, np.nan, weight)).fill_nan(None),
            "town": rng.choice(["Rome", "Oslo", "Lima", None], N),
            "code": rng.integers(0, 40, N).astype(str),
        }
    )
    kind = polars.Series(np.where(size + rng.normal(size=N) > 0, "good", "bad"))
    return table.with_columns(kind=kind, price=2 * size + 1)


FRAME = make_table()


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """Write the table as three files with several row groups."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for i, start in enumerate(range(0, N, 400)):
        FRAME[start : start + 400].write_parquet(f"data/{i}.parquet", row_group_size=150)


def assert_same(first, second):
    for a, b in zip(first.coefs_, second.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.loss_curve_ == second.loss_curve_


@pytest.mark.parametrize("buffer_rows", [1, 100, 5000])
@pytest.mark.parametrize("path", ["data", "data/*.parquet", Path("data")])
def test_rows_in_the_same_order_give_the_same_weights_as_in_memory(path, buffer_rows):
    data = Parquet(path, columns=INPUTS, buffer_rows=buffer_rows)
    model = MLPClassifier(shuffle=False, **SETTINGS, **TABLE)
    lazy, whole = model.fit(data, "kind"), MLPClassifier(shuffle=False, **SETTINGS, **TABLE)
    assert_same(lazy, whole.fit(FRAME[INPUTS], FRAME["kind"]))
    assert lazy.columns_.to_json() == whole.columns_.to_json()
    assert lazy.classes_.tolist() == ["bad", "good"]
    np.testing.assert_array_equal(
        lazy.predict_proba(FRAME[INPUTS]), whole.predict_proba(FRAME[INPUTS])
    )


def test_numbers_are_standardized_and_predicted_as_in_memory():
    scaled = {"input_scaling": "standardize", "target_scaling": "standardize"}
    model = MLPRegressor(shuffle=False, **SETTINGS, **scaled)
    lazy = model.fit(Parquet("data", columns=["size"], buffer_rows=70), "price")
    whole = MLPRegressor(shuffle=False, **SETTINGS, **scaled).fit(FRAME[["size"]], FRAME["price"])
    assert_same(lazy, whole)
    assert lazy.feature_names_in_.tolist() == ["size"]


def test_a_table_in_one_buffer_is_shuffled_as_in_memory():
    FRAME.write_parquet("all.parquet", row_group_size=N)
    lazy = MLPClassifier(**SETTINGS, **TABLE).fit(Parquet("all.parquet", columns=INPUTS), "kind")
    assert_same(lazy, MLPClassifier(**SETTINGS, **TABLE).fit(FRAME[INPUTS], FRAME["kind"]))
    frame = FRAME[[*INPUTS, "kind"]]
    for source in (
        frame.lazy(),
        lambda: pyarrow.RecordBatchReader.from_stream(frame.to_arrow()),
    ):
        assert_same(lazy, MLPClassifier(**SETTINGS, **TABLE).fit(source, "kind"))


class Epochs:
    """Batches in the order in which a fit on the files visits the rows."""

    def __init__(self, x, y, buffer_rows):
        self.x, self.y, self.n_read = x, y, -1
        self.buffer = max(1, buffer_rows // 32) * 32

    def order(self, generator):
        edges = [0, 150, 300, 400, 550, 700, 800, 950, 1000]
        groups = [np.arange(*pair) for pair in pairwise(edges)]
        rows = np.concatenate([groups[i] for i in generator.permutation(len(groups))])
        for start in range(0, N, self.buffer):
            generator.shuffle(rows[start : start + self.buffer])
        return rows

    def __iter__(self):
        epoch = max(self.n_read, 0)  # The batches are read once before the first epoch.
        self.n_read += 1
        rows = plan_epoch(N, 32, seed=0, epoch=epoch, order=self.order).rows
        assert sorted(rows.tolist()) == list(range(N))
        for start in range(0, N, 32):
            yield self.x[rows[start : start + 32]], self.y[rows[start : start + 32]]


@pytest.mark.parametrize("buffer_rows", [32, 256, 333])
def test_each_epoch_reads_the_row_groups_in_another_order(buffer_rows):
    x, y = FRAME[["size", "price"]].to_numpy(), FRAME["kind"].to_numpy()
    data = Parquet("data", columns=["size", "price"], buffer_rows=buffer_rows)
    lazy = MLPClassifier(**SETTINGS).fit(data, "kind")
    whole = MLPClassifier(**SETTINGS).fit(Epochs(x, y, buffer_rows))
    assert_same(lazy, whole)


def test_held_out_rows_do_not_depend_on_the_buffer_and_are_not_trained_on():
    scores = []
    for buffer_rows in (N, 300):
        data = Parquet("data", columns=INPUTS, buffer_rows=buffer_rows)
        held = {"early_stopping": True, "validation_fraction": 0.2}
        model = MLPClassifier(shuffle=False, **held, **SETTINGS, **TABLE).fit(data, "kind")
        scores.append((model.validation_scores_, model.loss_curve_))
        assert 0.75 * N < model.history_[0].n_samples < 0.85 * N
    assert scores[0] == scores[1]
    few = Parquet("data", columns=INPUTS, buffer_rows=50)  # All rows are kept in memory.
    model = MLPClassifier(**held, **SETTINGS, **TABLE).fit(few, "kind")
    assert 0.9 * N < model.history_[0].n_samples < N
    given = {"X_val": FRAME[INPUTS], "y_val": FRAME["kind"]}
    model = MLPClassifier(early_stopping=True, **SETTINGS, **TABLE).fit(data, "kind", **given)
    assert model.history_[0].n_samples == N


def test_a_fit_resumes_within_an_epoch():
    from mlp_xp.callbacks import Checkpoint

    data = Parquet("data", columns=INPUTS, buffer_rows=200)
    whole = MLPClassifier(**SETTINGS, **TABLE).fit(data, "kind")

    class Interrupt:
        n_steps = 0

        def on_step_end(self, model, step, n_steps):
            self.n_steps += 1
            if self.n_steps == 45:
                raise RuntimeError

    saves = Checkpoint("checkpoints", every="10 steps")
    broken = MLPClassifier(callbacks=[saves, Interrupt()], **SETTINGS, **TABLE)
    with pytest.raises(RuntimeError):
        broken.fit(data, "kind")
    assert [*Path("checkpoints").glob("epoch-*-step-*")]
    again = MLPClassifier(**SETTINGS, **TABLE).fit(data, "kind", resume="checkpoints")
    assert_same(again, whole)


def test_folders_and_filters_choose_columns_and_rows():
    for year in (2025, 2026):
        Path(f"years/year={year}").mkdir(parents=True)
        part = FRAME[:500] if year == 2025 else FRAME[500:]
        part.write_parquet(f"years/year={year}/part.parquet")
    Path("years/.hidden").mkdir()
    Path("years/.hidden/part.parquet").write_text("not a table")
    names = ["size", "year"]
    model = MLPRegressor(**SETTINGS).fit(Parquet("years", columns=names), "price")
    assert model.feature_names_in_.tolist() == names
    few = Parquet("years", columns=names, filters=[("year", "==", 2025), ("size", ">", 0)])
    model = MLPRegressor(**SETTINGS).fit(few, "price")
    assert model.history_[0].n_samples == int(np.sum(FRAME["size"][:500].to_numpy() > 0))


def test_a_column_without_values_in_some_files_has_no_type_there():
    empty = pyarrow.table({"size": [1.0, 2.0], "town": pyarrow.nulls(2), "kind": ["bad", "good"]})
    pyarrow.parquet.write_table(empty, "data/0.parquet")
    pyarrow.parquet.write_table(empty[:0], "data/9.parquet")
    for name in ("1", "2"):
        FRAME[:50, ["size", "town", "kind"]].write_parquet(f"data/{name}.parquet")
    model = MLPClassifier(**SETTINGS, **TABLE).fit(Parquet("data"), "kind")
    assert model.history_[0].n_samples == 102
    assert "town=Rome" in model.columns_.input_names


def fit(path="data", target="kind", **settings):
    given = {"columns": INPUTS, "buffer_rows": 100} | settings
    model = MLPClassifier(**SETTINGS, **TABLE)
    try:
        return model.fit(Parquet(path, **given), target)
    finally:
        assert not hasattr(model, "coefs_")


def test_bad_files_are_named():
    def rejects(text, path="data", **settings):
        with pytest.raises(ValueError, match=text):
            fit(path, **settings)

    rejects("There is no Parquet file at none: pass a file, a folder, or a pattern", "none")
    rejects("data has no column 'kid': did you mean 'kind'", target="kid")
    rejects("data has no column 'wait'", columns=["wait"])
    rejects("X has no rows: choose files that have rows", filters=[("size", ">", 1e9)])
    FRAME.drop("town").write_parquet("data/3.parquet")
    rejects(r"data/3.parquet lacks the columns \S*town\S*, unlike data/0.parquet: choose files")
    FRAME.with_columns(more=1).write_parquet("data/3.parquet")
    rejects(r"data/3.parquet has the further columns \S*more\S*, unlike data/0.parquet")
    FRAME.with_columns(size=polars.lit("L")).write_parquet("data/3.parquet")
    rejects("data/3.parquet has .*string.* in column 'size', but data/0.parquet has double: conv")
    Path("data/3.parquet").write_bytes(b"")
    rejects("data/3.parquet cannot be read: .*0 bytes")
    gap = FRAME[:30].with_columns(kind=polars.Series(["bad"] * 20 + [None] * 10))
    gap.write_parquet("data/3.parquet")
    rejects("data/3.parquet, row group 0: 'kind', the target, is missing in row 20: leave out")
    whole = FRAME.write_parquet("data/3.parquet", row_group_size=250, compression="snappy")
    whole = bytearray(Path("data/3.parquet").read_bytes())
    group = pyarrow.parquet.ParquetFile("data/3.parquet").metadata.row_group(2)
    start = group.column(0).dictionary_page_offset or group.column(0).data_page_offset
    whole[start : start + 200] = b"\xff" * 200
    Path("data/3.parquet").write_bytes(whole)
    rejects("data/3.parquet, row group 2 cannot be read: ")


def test_a_file_that_changes_is_an_error():
    class Change:
        def on_epoch_end(self, model, record):
            FRAME[:300].write_parquet("data/1.parquet", row_group_size=150)

    model = MLPClassifier(callbacks=[Change()], **SETTINGS, **TABLE)
    with pytest.raises(ValueError, match=r"data/1.parquet has changed while it was read: fit"):
        model.fit(Parquet("data", columns=INPUTS, buffer_rows=100), "kind")

    class Remove:
        def on_epoch_end(self, model, record):
            Path("data/2.parquet").unlink(missing_ok=True)

    model = MLPClassifier(callbacks=[Remove()], **SETTINGS, **TABLE)
    with pytest.raises(ValueError, match=r"data/2.parquet was removed while it was read: fit"):
        model.fit(Parquet("data", columns=INPUTS, buffer_rows=100), "kind")
    tables = iter([FRAME, FRAME[:500]])
    read = lambda: pyarrow.RecordBatchReader.from_stream(next(tables).to_arrow())  # noqa: E731
    with pytest.raises(ValueError, match="fewer rows than the 1,000 that were first read"):
        MLPClassifier(**SETTINGS, **TABLE).fit(read, "kind")


def test_what_a_stream_does_not_support_is_an_error():
    data = Parquet("data", columns=INPUTS)

    def rejects(error, text, *given, **settings):
        with pytest.raises(error, match=text):
            MLPClassifier(**(SETTINGS | TABLE | settings)).fit(*(given or (data, "kind")))

    rejects(TypeError, "`y` must be the name of a column if X is a Parquet", data, FRAME["kind"])
    rejects(ValueError, "`sample_weight` must be None if X", data, "kind", np.ones(N))
    rejects(ValueError, "`solver` must be e.g. 'adam' if X is a Parquet", solver="lbfgs")
    rejects(ValueError, "`placement` must be 'auto' if X is a Parquet", placement="resident")
    with pytest.raises(TypeError, match=r"must return an Arrow reader .*, got int"):
        MLPClassifier(**SETTINGS).fit(lambda: 3, "kind")
    with pytest.raises(ValueError, match="`buffer_rows` must be an integer of at least 1, got 0"):
        Parquet("data", buffer_rows=0)
    with pytest.raises(TypeError, match="`columns` must be a list of names, got the text 'size'"):
        Parquet("data", columns="size")
    with pytest.raises(TypeError, match=re.escape("got Parquet('data'): read the files, or fit")):
        MLPEnsembleClassifier(MLPClassifier(**SETTINGS)).fit(data, "kind")
    with pytest.raises(TypeError, match=r"only `fit`, predictions and scores of .* in parts"):
        MLPClassifier(**SETTINGS, **TABLE).fit(FRAME[INPUTS], FRAME["kind"], X_val=data, y_val=1)


def test_few_of_many_rows_decide_about_columns(monkeypatch):
    monkeypatch.setattr("mlp_xp.estimators.checks.streams._MOST_ROWS", 100)
    table = FRAME.with_columns(weight=polars.col("size"))
    table[N - 1, "weight"] = None  # Not among the rows that are kept.
    table.write_parquet("all.parquet", row_group_size=N)
    model = MLPClassifier(**SETTINGS, **TABLE)
    model.fit(Parquet("all.parquet", columns=["size", "weight"]), "kind")
    assert model.columns_.input_names == ("size", "weight", "weight is missing")
    assert model.history_[0].n_samples == N


@pytest.fixture
def model():
    return MLPClassifier(**SETTINGS, **TABLE).fit(FRAME[INPUTS], FRAME["kind"])


SOURCES = {
    "files": lambda: Parquet("data"),
    "lazy": lambda: FRAME.lazy(),
    "reader": lambda: lambda: pyarrow.RecordBatchReader.from_stream(FRAME.to_arrow()),
}


@pytest.mark.parametrize("source", SOURCES)
def test_predictions_and_scores_of_parts_equal_those_of_the_whole_table(source, model):
    data, whole = SOURCES[source](), FRAME[INPUTS]
    np.testing.assert_allclose(model.predict_proba(data), model.predict_proba(whole), rtol=1e-5)
    assert model.predict(data).tolist() == model.predict(whole).tolist()
    assert model.hidden_activations(data).shape == (N, 8)
    assert model.score(data, "kind") == model.score(whole, FRAME["kind"])
    assert model.evaluate(data, "kind") == pytest.approx(model.evaluate(whole, FRAME["kind"]))


def test_regressors_and_ensembles_predict_parts():
    columns = ["size", "code"]
    settings = SETTINGS | {"categorical_features": "from_dtype"}
    regressor = MLPRegressor(**settings).fit(FRAME[columns], FRAME["price"])
    whole = regressor.predict(FRAME[columns])
    np.testing.assert_allclose(regressor.predict(Parquet("data")), whole, rtol=1e-5)
    assert regressor.score(Parquet("data"), "price") == pytest.approx(
        regressor.score(FRAME[columns], FRAME["price"])
    )
    ensemble = MLPEnsembleClassifier(MLPClassifier(**SETTINGS, **TABLE), n_estimators=2)
    ensemble.fit(FRAME[INPUTS], FRAME["kind"])
    whole = ensemble.predict_proba(FRAME[INPUTS])
    np.testing.assert_allclose(ensemble.predict_proba(Parquet("data")), whole, rtol=1e-5)


@pytest.mark.parametrize("source", SOURCES)
def test_predictions_are_written_with_copied_columns(source, model):
    data = "data/*.parquet" if source == "files" else SOURCES[source]()
    assert write_predictions(model, data, "out/p.parquet", columns=["price", "town"]) == N
    assert [path.name for path in Path("out").iterdir()] == ["p.parquet"]
    found = polars.read_parquet("out/p.parquet")
    names = ["price", "town", "label", "probability_bad", "probability_good"]
    assert found.columns == names
    assert found[["price", "town"]].equals(FRAME[["price", "town"]])
    assert found["label"].to_list() == model.predict(FRAME[INPUTS]).tolist()
    p = model.predict_proba(FRAME[INPUTS])
    np.testing.assert_allclose(found[names[3:]].to_numpy(), p, rtol=1e-5)


def test_predictions_for_several_targets_have_numbered_columns():
    x, y = FRAME[["size", "price"]], FRAME[["price", "size"]].to_numpy()
    write_predictions(MLPRegressor(**SETTINGS).fit(x, y), "data", "p.parquet")
    assert polars.read_parquet("p.parquet").columns == ["prediction_0", "prediction_1"]
    labels = (y > 0).astype(int)
    several = MLPClassifier(**SETTINGS).fit(x, labels)
    write_predictions(several, "data", "p.parquet")
    found = polars.read_parquet("p.parquet")
    assert found[["label_0", "label_1"]].to_numpy().tolist() == several.predict(x).tolist()
    assert found.columns[2:] == ["probability_0", "probability_1"]
    towns = np.stack([FRAME["kind"].to_numpy(), np.where(y[:, 0] > 0, "up", "down")], axis=1)
    several = MLPClassifier(**SETTINGS).fit(x, towns)
    write_predictions(several, "data", "p.parquet")
    found = polars.read_parquet("p.parquet")
    assert found[["label_0", "label_1"]].to_numpy().tolist() == several.predict(x).tolist()
    assert found.columns[2:4] == ["probability_0_bad", "probability_0_good"]


def test_nothing_is_written_if_a_prediction_fails(model):
    def rejects(error, text, X="data", out="out/p.parquet", given=model, **settings):
        with pytest.raises(error, match=text):
            write_predictions(given, X, out, **settings)
        assert [path.read_text() for path in Path("out").iterdir()] == ["earlier predictions"]

    Path("out").mkdir()
    Path("out/p.parquet").write_text("earlier predictions")
    rejects(TypeError, "got a DataFrame: call predict for data in memory", FRAME)
    rejects(TypeError, "`columns` must be a list of names, got the text 'size'", columns="size")
    rejects(ValueError, "`out` must end in .parquet, got 'p.csv'", out="p.csv")
    rejects(ValueError, "data/1.parquet is one of the files to predict", out="data/1.parquet")
    rejects(ValueError, "row group 0 has no column 'towm' to copy: did you mean", columns=["towm"])
    rejects(ValueError, "X has no rows", Parquet("data", filters=[("size", ">", 1e9)]))
    FRAME.with_columns(label=1).write_parquet("labels.parquet")
    rejects(ValueError, "`columns` has 'label', which is also", "labels.parquet", columns=["label"])
    FRAME.drop("town").write_parquet("few.parquet")
    rejects(
        ValueError, "few.parquet, row group 0: X lacks columns of the fit, 'town'", "few.parquet"
    )
    wrong = [FRAME.cast({"size": str}), FRAME.with_columns(size=polars.lit("L"))]
    polars.concat(wrong).write_parquet("text.parquet", row_group_size=N)
    rejects(ValueError, "text.parquet, row group 1: X.'size'. has categories", "text.parquet")
    with pytest.raises(ValueError, match="X has no rows"):
        model.predict(Parquet("data", filters=[("size", ">", 1e9)]))
    with pytest.raises(NotFittedError):
        MLPClassifier().predict(Parquet("data"))
    rejects(NotFittedError, "is not fitted", given=MLPClassifier())


def test_new_data_are_compared_part_by_part():
    model = MLPClassifier(**SETTINGS, **TABLE).fit(Parquet("data/*.parquet"), "kind")
    known = model.columns_.distributions
    assert [found.n_rows for found in known] == [N] * len(known)
    frame = FRAME.with_columns(polars.col("size") * 3)
    Path("new").mkdir()
    frame.write_parquet("new/all.parquet", row_group_size=70)
    stream = Parquet("new", columns=model.feature_names_in_.tolist())
    whole = frame.select(model.feature_names_in_.tolist())
    assert model.check(stream).to_dict() == model.check(whole).to_dict()
    assert model.check(stream).exceeded == {"size": ("drift", "range")}
