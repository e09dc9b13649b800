"""Sparse input: scikit-learn's numbers, by products that leave it sparse."""

import gc
import weakref

import numpy as np
import pytest
import sklearn.neural_network as theirs
from helpers import small, tolerance
from rules import run
from scipy import sparse
from trainers import assert_close

import mlp_xp as ours
from mlp_xp.backends import get_backend
from mlp_xp.backends.kernels import Kernels, Source, SparseMatrix
from mlp_xp.optimizers import SGD, Adam, AdamW
from mlp_xp.training.data import placement as batches

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
with_products = pytest.mark.libraries("numpy", "cupy")  # The others make rows dense.
RNG = np.random.default_rng(0)
LIBRARIES = ours, theirs
SETTINGS = {"hidden_layer_sizes": (30,), "random_state": 3, "shuffle": False, "max_iter": 3}


def sparse_problem(n=150, columns=40, dtype="float64"):
    """Return sparse rows of up to eight entries, and labels of three classes."""
    where = RNG.integers(columns, size=8 * n)
    X = sparse.csr_matrix((RNG.random(8 * n), where, np.arange(0, 8 * n + 1, 8)), (n, columns))
    X.sum_duplicates()
    return X.astype(dtype), np.arange(n) % 3


@pytest.fixture
def no_dense_rows(monkeypatch):
    """Fail where sparse rows are made dense; scikit-learn makes labels so, of few columns."""
    for kind in (sparse.csr_matrix, sparse.csr_array, sparse.csc_matrix, sparse.coo_matrix):

        def watched(self, *args, toarray=kind.toarray, **kwargs):
            assert self.shape[1] < 40, "Sparse rows were made dense."
            return toarray(self, *args, **kwargs)

        monkeypatch.setattr(kind, "toarray", watched)


@pytest.mark.usefixtures("no_dense_rows")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 32},  # The last batch is shorter.
        {"batch_size": 150},
        {"solver": "sgd", "batch_size": 32, "activation": "tanh", "hidden_layer_sizes": (9, 5)},
        {"solver": "lbfgs"},
        {"hidden_layer_sizes": (), "batch_size": 32},
    ],
    ids=str,
)
def test_sparse_fit_matches_scikit_learn(settings, dtype):
    (rows, y), weights = sparse_problem(dtype=dtype), RNG.random(150)
    # Scikit-learn minimizes in float32 what we minimize in float64.
    atol = 1e-2 if settings.get("solver") == "lbfgs" and dtype == "float32" else 1e-5
    close = {"rtol": 0, "atol": atol if dtype == "float32" else 1e-8}
    for container in (sparse.csr_array, sparse.csc_matrix, sparse.coo_matrix):
        X = container(rows)
        mine, their = (lib.MLPClassifier(**(SETTINGS | settings)) for lib in LIBRARIES)
        for model in (mine, their):
            model.fit(X, y, sample_weight=weights)
        assert {a.dtype.name for a in mine.coefs_ + mine.intercepts_} == {dtype}
        found, expected = (
            [*each.coefs_, *each.intercepts_, each.predict_proba(X), np.asarray(each.loss_)]
            for each in (mine, their)
        )
        assert_close(found, expected, **close)


@pytest.mark.usefixtures("no_dense_rows")
def test_sparse_fit_with_weights_larger_than_the_cache_matches_scikit_learn():
    X, y = sparse_problem(n=90, columns=10_000)
    pair = [lib.MLPRegressor(**SETTINGS, batch_size=40).fit(X, y) for lib in LIBRARIES]
    assert_close(*(model.coefs_ for model in pair), atol=1e-10)
    np.testing.assert_allclose(*(model.predict(X) for model in pair), rtol=1e-9)


@pytest.mark.parametrize(
    "settings",
    [
        {"input_scaling": "standardize"},
        {"input_dropout": 0.3},
        {"hidden_layer_sizes": (40, 40), "residual": True},
        {"placement": "streamed"},
    ],
    ids=str,
)
def test_settings_that_need_dense_rows_match_the_dense_fit(settings):
    X, y = sparse_problem()
    fits = [ours.MLP(**(SETTINGS | settings)).fit(data, y) for data in (X, X.toarray())]
    np.testing.assert_allclose(fits[0].coefs_[0], fits[1].coefs_[0], rtol=0, atol=1e-12)
    found, expected = fits[0].predict_proba(X), fits[1].predict_proba(X.toarray())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


# Sizes around the block sizes of CuPy's kernels: 256 rows, 32 to 4096 features, 128 columns.
@with_products
@pytest.mark.parametrize("size", [(3, 1, 1), (257, 40, 129), (600, 5000, 3), (12, 30_000, 20)])
@pytest.mark.parametrize("kind", [np.int32, np.int64])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("has_rows", [False, True])
def test_products_of_selected_sparse_rows_match_dense_ones(backend, size, kind, dtype, has_rows):
    """Entries of a row need no order, and may repeat."""
    n, features, columns = size
    indptr = np.concatenate([[0], np.cumsum(RNG.integers(9, size=n))]).astype(kind)
    indices = RNG.integers(features, size=indptr[-1]).astype(kind)
    data = RNG.random(indptr[-1]).astype(dtype)
    rows = RNG.permutation(np.tile(np.arange(n, dtype=kind), 2)) if has_rows else None
    dense = sparse.csr_matrix((data, indices, indptr), (n, features)).toarray()
    dense = dense[rows] if has_rows else dense
    W, dy = (RNG.random((m, columns)).astype(dtype) for m in (features, len(dense)))
    products, xp = [], backend.xp
    with backend.scope():
        x = SparseMatrix(*map(backend.put, (data, indices, indptr)))
        given = Source(x, backend.put(rows) if has_rows else None)
        # In column-major order, like the transpose of a product.
        right = xp.matrix_transpose(backend.put(dy.T.copy()))
        for _ in range(2):
            taken = backend.kernels.gather(given, dtype=getattr(xp, dtype), xp=xp)
            products.append([backend.get(taken @ backend.put(W)), backend.get(taken.T @ right)])
    for found, again, expected in zip(*products, (dense @ W, dense.T @ dy), strict=True):
        np.testing.assert_allclose(found, expected, rtol=tolerance(dtype, 2 * n))
        np.testing.assert_array_equal(found, again)


def test_column_major_weights_and_both_index_dtypes_are_supported():
    X, y = sparse_problem()
    model = ours.MLPClassifier(**SETTINGS, batch_size=32).fit(X, y)
    expected = model.predict_proba(X)
    # In column-major order, like a transposed matrix that a user assigns.
    model.coefs_ = [np.asfortranarray(W) for W in model.coefs_]
    np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-12)
    # SciPy makes no such matrix, but takes one.
    X.indptr = X.indptr.astype(np.int64)
    np.testing.assert_array_equal(model.fit(X, y).predict_proba(X), expected)


def test_predictions_of_many_rows_do_not_depend_on_the_number_of_threads(monkeypatch):
    X, y = sparse_problem(3000)
    model, found = ours.MLP(**SETTINGS).fit(X, y), []
    for n_threads in ("1", "3"):
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", n_threads)
        found.append(model.predict_proba(X))
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[0], model.predict_proba(X.toarray()), rtol=1e-12)


@pytest.mark.parametrize("rule", [Adam(), AdamW(), SGD(), SGD(momentum=0.0)], ids=str)
@pytest.mark.parametrize("l2", [None, 0.1])
def test_update_without_machine_code_matches_the_default(rule, l2, rng):
    shapes, backend = ((300, 100), (100,), (70_000,)), get_backend("numpy")
    params, *steps = (tuple(rng.random(shape) for shape in shapes) for _ in range(3))
    updates = backend.kernels.update, Kernels().update
    (mine, penalty), (default, other) = (
        run(backend, update, rule, params, steps, l2) for update in updates
    )
    assert_close(mine, default, rtol=1e-13)
    np.testing.assert_allclose(penalty, other, rtol=1e-13)


@pytest.mark.parametrize("settings", [{"solver": "lbfgs"}, {"batch_size": 50}], ids=str)
@pytest.mark.parametrize("is_sparse", [True, False])
def test_sparse_work_is_estimated_apart_from_blas_work(monkeypatch, settings, is_sparse):
    (X, y), kind, seen = sparse_problem(columns=300), type(get_backend("numpy")), set()

    def noting(self, work, n_steps=1, sparse_work=0, largest=0, training=kind.training):
        seen.add((work, sparse_work))
        return training(self, work, n_steps, sparse_work, largest)

    monkeypatch.setattr(kind, "training", noting)
    ours.MLPClassifier(**(SETTINGS | settings)).fit(X if is_sparse else X.toarray(), y)
    rows = settings.get("batch_size", 150)
    first, others = rows * 300 * 30, rows * (30 + 30 * 3 + 3)
    assert seen == {(first + others, first if is_sparse else 0)}


@pytest.mark.parametrize("settings", [{"solver": "lbfgs"}, {"batch_size": 50}, {}], ids=str)
def test_a_fit_does_not_keep_the_sparse_rows_alive(monkeypatch, settings):
    (X, y), places = sparse_problem(3000), []

    def watched(*args, put=batches.put_sparse):
        matrix = put(*args)
        places.extend(map(weakref.ref, matrix[:2]))
        return matrix

    monkeypatch.setattr(batches, "put_sparse", watched)
    dense = X.toarray()
    places += map(weakref.ref, (dense, y))
    for data in (X, dense):
        model = ours.MLP(**(SETTINGS | settings)).fit(data, y)
        if model.solver != "lbfgs":
            model.partial_fit(data, y)
    del X, y, dense, data
    gc.collect()
    assert {place() for place in places} == {None}


@pytest.fixture
def made_dense(monkeypatch):
    """Return a list of how many sparse rows are made dense at once."""
    numbers, toarray = [], sparse.csr_matrix.toarray

    def watched(self, *args, **kwargs):
        numbers.append(self.shape[0])
        return toarray(self, *args, **kwargs)

    monkeypatch.setattr(sparse.csr_matrix, "toarray", watched)
    return numbers


def test_at_most_one_batch_of_sparse_rows_is_made_dense(problem, on, backend, made_dense):
    X, y = problem(300)
    X = np.where(X > 0.5, X, 0.0)
    rows, dense = sparse.csr_matrix(X), small().fit(X, y)
    model = small(**on).fit(rows, y)
    assert max(made_dense, default=0) == (0 if backend.has_sparse_products else 16)
    np.testing.assert_allclose(model.loss_curve_, dense.loss_curve_, rtol=1e-8)
    assert isinstance(model.predict(rows), np.ndarray)


def test_held_out_rows_stay_sparse_for_scorers(problem, on, backend, made_dense):
    (X, y), seen = problem(600), set()
    X = np.where(X > 0.5, X, 0.0)

    def scorer(model, X, y):
        seen.add((sparse.issparse(X), X.shape[0]))
        return float(np.mean(model.predict(X) == y))

    settings = {"early_stopping": True, "scoring": scorer, "dropout": 0.2}
    settings |= {"class_weight": "balanced"}
    dense = small(**settings).fit(X, y)
    model = small(**settings, **on).fit(sparse.csr_matrix(X), y)
    assert max(made_dense, default=0) <= (0 if backend.has_sparse_products else 60)
    assert seen == {(False, 60), (True, 60)}
    np.testing.assert_allclose(model.validation_scores_, dense.validation_scores_, rtol=1e-12)


DAMAGES = [
    ("csr", "indices", 3, 50, "indices must be < 50"),
    ("csr", "indices", 3, -1, "indices must be >= 0"),
    ("csr", "indptr", 5, 10**6, "non-decreasing"),
    ("csr", "indptr", -1, 10**6, "Last value of index pointer"),
    ("csr", "indptr", 0, 7, "should start with 0"),
    ("csc", "indices", 3, 60, "indices must be < 60"),
    ("csc", "indptr", 5, -(10**6), "non-decreasing"),
    ("bsr", "indices", 3, 10**6, "indices"),
    ("coo", "row", 3, 60, "axis 0 index 60 exceeds"),
]


@pytest.mark.parametrize("call", ["fit", "partial_fit", "predict", "score"])
@pytest.mark.parametrize(("kind", "array", "place", "value", "message"), DAMAGES)
def test_sparse_indices_out_of_range_are_an_error(kind, array, place, value, message, call):
    X = sparse.random(60, 50, 0.2, kind, dtype=np.float64, random_state=0)
    y = np.arange(60) % 2
    model = small().fit(sparse.csr_array(X), y)
    getattr(X, array)[place] = value
    before = getattr(X, array).copy()
    with pytest.raises(ValueError, match=rf"X is a damaged sparse matrix: .*{message}.* build it"):
        getattr(model, call)(X, *[y] * (call != "predict"))
    np.testing.assert_array_equal(getattr(X, array), before)


def test_damaged_sparse_targets_and_empty_matrices_are_an_error():
    X, y = np.eye(6), sparse.csr_array(np.eye(6))
    y.indices[2] = 10**6
    with pytest.raises(ValueError, match="y is a damaged sparse matrix: indices must be < 6"):
        small().fit(X, y)
    empty = sparse.csr_array((6, 4))
    empty.indptr[3] = 10**6
    with pytest.raises(ValueError, match="X is a damaged sparse matrix: indptr must be a non-dec"):
        small().fit(empty, [0, 1] * 3)
