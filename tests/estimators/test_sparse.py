"""Sparse input: scikit-learn's numbers, by products that leave it sparse."""

import gc
import weakref

import numpy as np
import pytest
import sklearn.neural_network as theirs
from helpers import small, tolerance
from scipy import sparse

import mlp_xp as ours
from mlp_xp import optimizers
from mlp_xp._utils.tree import leaves
from mlp_xp.backends import get_backend
from mlp_xp.backends.kernels import Kernels, SparseMatrix
from mlp_xp.optimizers import SGD, Adam, AdamW
from mlp_xp.training import batches

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
with_products = pytest.mark.libraries("numpy", "cupy")  # The others make rows dense.
RNG = np.random.default_rng(0)
LIBRARIES = ours, theirs
SETTINGS = {"hidden_layer_sizes": (30,), "random_state": 3, "shuffle": False, "max_iter": 3}


def sparse_problem(n=150, columns=40, per_row=8, dtype="float64"):
    """Return sparse rows and labels of three classes."""
    where = RNG.integers(columns, size=(n, per_row))
    starts = np.arange(0, where.size + 1, per_row)
    X = sparse.csr_matrix((RNG.random(where.size), where.ravel(), starts), (n, columns))
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
def test_a_fit_gives_scikit_learns_numbers(settings, dtype):
    rows, y = sparse_problem(dtype=dtype)
    # Scikit-learn minimizes in float32 what we minimize in float64.
    atol = 1e-2 if settings.get("solver") == "lbfgs" and dtype == "float32" else 1e-5
    atol = atol if dtype == "float32" else 1e-8
    for container in (sparse.csr_array, sparse.csc_matrix, sparse.coo_matrix):
        X = container(rows)
        mine, their = (lib.MLPClassifier(**(SETTINGS | settings)).fit(X, y) for lib in LIBRARIES)
        pairs = zip(mine.coefs_ + mine.intercepts_, their.coefs_ + their.intercepts_, strict=True)
        for a, b in pairs:
            assert a.dtype == dtype
            np.testing.assert_allclose(a, b, rtol=0, atol=atol)
        np.testing.assert_allclose(mine.loss_, their.loss_, rtol=atol)
        np.testing.assert_allclose(mine.predict_proba(X), their.predict_proba(X), rtol=0, atol=atol)


@pytest.mark.usefixtures("no_dense_rows")
def test_weights_that_fit_no_cache_give_scikit_learns_numbers():
    X, y = sparse_problem(n=90, columns=10_000)
    pair = [lib.MLPRegressor(**SETTINGS, batch_size=40).fit(X, y) for lib in LIBRARIES]
    for a, b in zip(*(model.coefs_ for model in pair), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)
    np.testing.assert_allclose(*(model.predict(X) for model in pair), rtol=1e-9)


@pytest.mark.usefixtures("no_dense_rows")
def test_sample_weights_early_stopping_and_dropout_leave_rows_sparse():
    X, y = sparse_problem()
    settings = SETTINGS | {"early_stopping": True, "dropout": 0.2, "class_weight": "balanced"}
    weights = RNG.random(len(y))
    fits = [ours.MLP(**settings).fit(X, y, sample_weight=weights).coefs_[0] for _ in range(2)]
    np.testing.assert_array_equal(*fits)


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
def test_what_needs_dense_rows_gives_the_same_as_before(settings):
    X, y = sparse_problem()
    fits = [ours.MLP(**(SETTINGS | settings)).fit(data, y) for data in (X, X.toarray())]
    np.testing.assert_allclose(fits[0].coefs_[0], fits[1].coefs_[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        fits[0].predict_proba(X), fits[1].predict_proba(X.toarray()), rtol=0, atol=1e-12
    )


@with_products
@pytest.mark.parametrize("columns", [40, 30_000])
@pytest.mark.parametrize("rows", [None, [8, 0, 3, 3]])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_taken_rows_multiply_like_dense_ones(backend, columns, rows, dtype):
    X, _ = sparse_problem(12, columns, dtype=dtype)
    x = SparseMatrix(*map(backend.put, (X.data, X.indices, X.indptr)))
    dense = X.toarray() if rows is None else X.toarray()[rows]
    W, dy = (RNG.random((n, 20)).astype(dtype) for n in (columns, len(dense)))
    with backend.scope():
        positions = None if rows is None else backend.put(np.asarray(rows, dtype=np.int32))
        target = getattr(backend.xp, dtype)
        taken = backend.kernels.gather(x, positions, None, dtype=target, xp=backend.xp)
        y, dW = backend.get(taken @ backend.put(W)), backend.get(taken.T @ backend.put(dy))
    np.testing.assert_allclose(y, dense @ W, rtol=tolerance(dtype, 8))
    np.testing.assert_allclose(dW, dense.T @ dy, rtol=tolerance(dtype, 8))


# Sizes around those of the blocks of CuPy's kernels: 256 rows, 32 to 4096 features, 128 columns.
@with_products
@pytest.mark.parametrize("size", [(3, 1, 1), (257, 40, 129), (600, 5000, 3)])
@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_entries_of_rows_need_no_order_and_may_repeat(backend, size, kind):
    n, features, columns = size
    indptr = np.concatenate([[0], np.cumsum(RNG.integers(9, size=n))]).astype(kind)
    indices = RNG.integers(features, size=indptr[-1]).astype(kind)
    X = sparse.csr_matrix((RNG.random(indptr[-1]), indices, indptr), (n, features))
    rows = RNG.permutation(np.tile(np.arange(n, dtype=kind), 2))
    dense = X.toarray()[rows]
    W, dy = RNG.random((features, columns)), RNG.random((2 * n, columns))
    with backend.scope():
        x = SparseMatrix(*map(backend.put, (X.data, indices, indptr)))
        # As a product of another matrix leaves it, column by column.
        right = backend.xp.matrix_transpose(backend.put(dy.T.copy()))
        products = []
        for _ in range(2):
            taken = backend.kernels.gather(
                x, backend.put(rows), None, dtype=backend.xp.float64, xp=backend.xp
            )
            y, dW = taken @ backend.put(W), taken.T @ right
            products.append((backend.get(y), backend.get(dW)))
    (y, dW), again = products
    np.testing.assert_allclose(y, dense @ W, rtol=1e-13)
    np.testing.assert_allclose(dW, dense.T @ dy, rtol=1e-13)
    np.testing.assert_array_equal(y, again[0])
    np.testing.assert_array_equal(dW, again[1])


def test_weights_may_lie_column_by_column_and_positions_be_of_two_dtypes():
    X, y = sparse_problem()
    model = ours.MLPClassifier(**SETTINGS, batch_size=32).fit(X, y)
    expected = model.predict_proba(X)
    # As a transposed matrix does that somebody assigns.
    model.coefs_ = [np.asfortranarray(W) for W in model.coefs_]
    np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-12)
    # SciPy makes no such matrix, but takes one.
    X.indptr = X.indptr.astype(np.int64)
    np.testing.assert_array_equal(model.fit(X, y).predict_proba(X), expected)


def test_predictions_of_many_rows_do_not_depend_on_the_threads(monkeypatch):
    X, y = sparse_problem(3000)
    model = ours.MLP(**SETTINGS).fit(X, y)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    one = model.predict_proba(X)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    np.testing.assert_array_equal(model.predict_proba(X), one)
    np.testing.assert_allclose(one, model.predict_proba(X.toarray()), rtol=1e-12)


@pytest.mark.parametrize("rule", [Adam(), AdamW(), SGD(), SGD(momentum=0.0)], ids=str)
@pytest.mark.parametrize("l2", [None, 0.1])
def test_an_update_without_machine_code_is_that_of_the_default(rule, l2):
    backend = get_backend("numpy")
    shapes = (300, 100), (100,), (70_000,)
    results = []
    for update in (backend.kernels.update, Kernels().update):
        generator = np.random.default_rng(0)
        params, grads = (tuple(generator.random(s) for s in shapes) for _ in range(2))
        opt_state = optimizers.init_opt_state(rule, params, xp=backend.xp)
        for t in range(1, 3):
            coefs = tuple(np.float64(c) for c in rule.coefficients(0.1, t))
            given = tuple(grad.copy() for grad in grads)
            factor = None if l2 is None else np.float64(l2)
            done = update(rule, params, given, opt_state, coefs, factor, xp=backend.xp)
            params, opt_state = done.params, done.opt_state
        results.append((*leaves((params, opt_state)), float(done.penalty)))
    for ours_, default in zip(*results, strict=True):
        np.testing.assert_allclose(ours_, default, rtol=1e-13)


@pytest.mark.parametrize("settings", [{"solver": "lbfgs"}, {"batch_size": 50}], ids=str)
@pytest.mark.parametrize("is_sparse", [True, False])
def test_the_backend_knows_the_work_that_no_blas_does(monkeypatch, settings, is_sparse):
    X, y = sparse_problem(columns=300)
    kind, seen = type(get_backend("numpy")), []
    training = kind.training

    def noting(self, work, n_steps=1, sparse_work=0):
        seen.append((work, sparse_work))
        return training(self, work, n_steps, sparse_work)

    monkeypatch.setattr(kind, "training", noting)
    ours.MLPClassifier(**(SETTINGS | settings)).fit(X if is_sparse else X.toarray(), y)
    rows = settings.get("batch_size", 150)
    first, others = rows * 300 * 30, rows * (30 + 30 * 3 + 3)
    assert set(seen) == {(first + others, first if is_sparse else 0)}


@pytest.mark.parametrize("settings", [{"solver": "lbfgs"}, {"batch_size": 50}, {}], ids=str)
def test_a_fit_does_not_keep_the_rows(monkeypatch, settings):
    X, y = sparse_problem(3000)
    put, places = batches.put_sparse, []

    def watched(*args):
        matrix = put(*args)
        places.extend(map(weakref.ref, matrix[:2]))
        return matrix

    monkeypatch.setattr(batches, "put_sparse", watched)
    model = ours.MLP(**(SETTINGS | settings)).fit(X, y)
    if model.solver != "lbfgs":
        model.partial_fit(X, y)
    del X
    gc.collect()
    assert places
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


def test_at_most_a_batch_of_sparse_rows_is_dense(problem, on, backend, made_dense):
    X, y = problem(300)
    X = np.where(X > 0.5, X, 0.0)
    dense = small().fit(X, y)
    X = sparse.csr_matrix(X)
    model = small(**on).fit(X, y)
    assert max(made_dense, default=0) == (0 if backend.has_sparse_products else 16)
    np.testing.assert_allclose(model.loss_curve_, dense.loss_curve_, rtol=1e-8)
    assert isinstance(model.predict(X), np.ndarray)


def test_held_out_rows_stay_sparse_and_scorers_see_them_so(problem, on, backend, made_dense):
    X, y = problem(600)
    X = np.where(X > 0.5, X, 0.0)
    seen = []

    def scorer(model, X, y):
        seen.append((sparse.issparse(X), X.shape[0]))
        return float(np.mean(model.predict(X) == y))

    settings = {"early_stopping": True, "scoring": scorer}
    dense = small(**settings).fit(X, y)
    assert set(seen) == {(False, 60)}
    seen.clear()
    model = small(**settings, **on).fit(sparse.csr_matrix(X), y)
    assert max(made_dense, default=0) <= (0 if backend.has_sparse_products else 60)
    assert set(seen) == {(True, 60)}
    np.testing.assert_allclose(model.validation_scores_, dense.validation_scores_, rtol=1e-12)
