"""Fits on an iterable of batches, such as torch's DataLoader."""

import numpy as np
import pandas
import pytest
from helpers import peak, problem
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning

from mlp_xp import MLPClassifier, MLPEnsembleClassifier, MLPRegressor, get_backend
from mlp_xp.augmentation import Flip, Mixup
from mlp_xp.callbacks import Callback, Checkpoint
from mlp_xp.model_selection import GridSearchCV, cross_val_score

X, y = problem(n=70, features=12)
SIZES = 16, 16, 16, 16, 6
UNEVEN = 5, 30, 1, 34


def split(*arrays, sizes=SIZES):
    """Return batches of the arrays' rows."""
    ends = np.cumsum(sizes)
    parts = [[array[e - n : e] for e, n in zip(ends, sizes, strict=True)] for array in arrays]
    return list(zip(*parts, strict=True))


class Again:
    """Other batches in each pass: entry i of ``passes``, then the last one again and again."""

    def __init__(self, *passes):
        self.passes, self.n_read = passes, 0

    def __iter__(self):
        self.n_read += 1
        return iter(self.passes[min(self.n_read, len(self.passes)) - 1])


def model(kind=MLPClassifier, **settings):
    fixed = {"hidden_layer_sizes": (8,), "max_iter": 4, "learning_rate": "cosine"}
    return kind(**(fixed | {"random_state": 0} | settings))


def on_arrays(kind=MLPClassifier, **settings):
    """Return a model that makes the same steps from arrays."""
    return model(kind, batch_size=16, shuffle=False, **settings)


def assert_same(found, expected, atol=1e-12):
    np.testing.assert_allclose(found.loss_curve_, expected.loss_curve_, atol=atol)
    predict = "predict_proba" if hasattr(found, "predict_proba") else "predict"
    results = (getattr(each, predict)(X) for each in (found, expected))
    np.testing.assert_allclose(*results, atol=atol)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"input_scaling": "standardize"},
        {"input_scaling": "zca"},
        {"class_weight": "balanced"},
        {"class_weight": {0: 3.0}},
        {"normalization": "batch", "dropout": 0.2},
        {"n_members": 3},
        {"numeric_embedding": "ple"},
        {"augmentation": Mixup()},
        {"augmentation": Flip((3, 2, 2), alternate=True), "input_scaling": "standardize"},
        {"precision": "float32"},
        {"max_time": 60.0},
    ],
    ids=str,
)
def test_batches_train_the_same_network_as_unshuffled_arrays(settings):
    atol = 1e-6 if "precision" in settings else 1e-12
    expected = on_arrays(**settings).fit(X, y)
    assert_same(model(**settings).fit(split(X, y)), expected, atol)


@pytest.mark.parametrize("sizes", [SIZES, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_backend_fits_the_same_network_from_batches(backend, on, sizes, weighted):
    weights = [np.linspace(0.0, 2.0, 70)] * weighted
    settings = {"input_scaling": "standardize", "normalization": "batch", "alpha": 0.1}
    expected = model(**settings).fit(split(X, y, *weights, sizes=sizes))
    parts = split(X, y, *weights, sizes=sizes)
    found = model(**settings).fit([tuple(map(backend.put, part)) for part in parts])
    assert get_backend(found.coefs_[0]) == backend
    assert_same(found, expected, 1e-10)
    assert_same(model(**settings, **on).fit(split(X, y, *weights, sizes=sizes)), expected, 1e-10)
    if sizes == SIZES:
        assert_same(expected, on_arrays(**settings).fit(X, y, *weights))


def test_uneven_batches_match_steps_of_partial_fit():
    """A step of batches has the same weights as a step on the same rows."""
    settings = {"solver": "sgd", "momentum": 0.0, "learning_rate": "constant", "tol": 0.0}
    with pytest.warns(ConvergenceWarning):
        found = model(max_iter=1, **settings).fit(split(X, y, sizes=UNEVEN))
    each = model(**settings)
    for x_part, y_part in split(X, y, sizes=UNEVEN):
        each.partial_fit(x_part, y_part, classes=[0, 1, 2])
    np.testing.assert_allclose(found.coefs_[0], each.coefs_[0], atol=1e-12)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_batches_accept_column_targets_and_multiply_sample_and_class_weights(kind):
    with pytest.warns(DataConversionWarning, match="A column-vector y was passed"):
        found = model(kind).fit(split(X, y[:, None]))
    assert_same(found, on_arrays(kind).fit(X, y))
    settings = {"class_weight": "balanced"} if kind is MLPClassifier else {}
    weights = np.linspace(0.5, 2.0, 70)
    expected = on_arrays(kind, **settings).fit(X, y, weights)
    assert_same(model(kind, **settings).fit(split(X, y, weights)), expected)


@pytest.mark.parametrize("target_scaling", [None, "standardize"])
@pytest.mark.parametrize("columns", [1, 2])
def test_regressors_fit_on_batches_like_on_arrays(columns, target_scaling):
    targets, settings = X[:, :columns] * 10, {"target_scaling": target_scaling}
    targets = targets[:, 0] if columns == 1 else targets
    expected = on_arrays(MLPRegressor, **settings).fit(X, targets)
    assert_same(model(MLPRegressor, **settings).fit(split(X, targets)), expected)


def test_batches_can_hold_text_multilabel_sparse_frame_and_list_data():
    text, several = np.asarray(["no", "maybe", "yes"])[y], (X[:, :3] > 0).astype(int)
    for labels in (text, several, several * 2 - (X[:, :3] > 1)):
        expected = on_arrays().fit(X, labels)
        found = model().fit(split(X, labels))
        np.testing.assert_array_equal(found.predict(X), expected.predict(X))
    batches = [(sparse.csr_array(rows), labels.tolist()) for rows, labels in split(X, text)]
    assert_same(model().fit(batches), on_arrays().fit(X, text))
    frame = pandas.DataFrame(X, columns=[*"abcdefghijkl"])
    found = model().fit(split(frame, pandas.Series(text)))
    assert found.feature_names_in_.tolist() == [*"abcdefghijkl"]
    found.predict(frame)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_validation_data_can_be_arrays_or_batches(kind):
    settings = {"early_stopping": True, "max_iter": 30, "n_iter_no_change": 3}
    expected = on_arrays(kind, **settings).fit(X, y, X_val=X[::2], y_val=y[::2])
    for held_out in (
        {"X_val": X[::2], "y_val": y[::2]},
        {"X_val": split(X[::2], y[::2], sizes=(20, 15))},
    ):
        found = model(kind, **settings).fit(split(X, y), **held_out)
        assert found.validation_scores_ == expected.validation_scores_
        assert_same(found, expected)
    with pytest.raises(ValueError, match="cannot hold out samples if X has batches: pass X_val"):
        model(kind, early_stopping=True).fit(split(X, y))


def test_a_shuffled_torch_data_loader_can_be_used(torch):
    data = torch.utils.data.TensorDataset(torch.asarray(X).float(), torch.asarray(y))
    loader = torch.utils.data.DataLoader(data, batch_size=16, shuffle=True)
    settings = {"max_iter": 30, "learning_rate_init": 0.03, "input_scaling": "standardize"}
    found = model(**settings).fit(loader, X_val=loader)
    assert isinstance(found.predict(torch.asarray(X).float()), torch.Tensor)
    assert found.score(torch.asarray(X).float(), torch.asarray(y)) > 0.9
    assert len(found.validation_scores_) == 30
    with pytest.raises(TypeError, match="X must be an array, got a DataLoader: to fit on batches"):
        found.predict(loader)


def test_an_iterable_can_reuse_its_memory_and_is_read_once_per_epoch_plus_once():
    memory, targets = np.empty((16, 12)), np.empty(16, np.int64)

    class Reused(Again):
        def __iter__(self):
            for rows, labels in super().__iter__():
                memory[: len(rows)], targets[: len(rows)] = rows, labels
                yield memory[: len(rows)], targets[: len(rows)]
                memory[:], targets[:] = np.inf, -1

    batches = Reused(split(X, y))
    assert_same(model().fit(batches), on_arrays().fit(X, y))
    assert batches.n_read == 1 + 4


def test_only_one_batch_is_held_in_memory():
    class Many:
        def __iter__(self):
            for seed in range(40):
                yield np.random.default_rng(seed).random((500, 500)), np.arange(500) % 2

    small = model(hidden_layer_sizes=2, max_iter=2, input_scaling="standardize")
    assert peak(lambda: small.fit(Many())) < 20e6  # All batches have 80 MB, one has 2.


class Fails(Callback):
    """Raise an error after 8 steps of 5 in an epoch."""

    def __init__(self):
        self.n_steps = 0

    def on_step_end(self, model, done, n_steps):
        self.n_steps += 1
        if self.n_steps == 9:
            raise OSError("the disk is full")


def test_a_fit_resumes_from_a_checkpoint_with_batches_in_any_order(tmp_path):
    batches, straight = split(X, y), model().fit(split(X, y))
    with pytest.raises(OSError, match="disk"):
        model(callbacks=[Checkpoint(tmp_path, every="4 steps"), Fails()]).fit(batches)
    other = split(X, y[::-1])
    with pytest.raises(ValueError, match="y and sample_weight"):
        model().fit(other[:-1], resume=tmp_path)
    assert_same(model().fit(batches, resume=tmp_path), straight)
    shuffled = [batches[i] for i in (3, 1, 0, 2, 4)]
    assert model().fit(shuffled, resume=tmp_path).n_iter_ == 4


B = split(X, y)
FIRST, SECOND = B[0], B[1]
AFTER_FIRST = {
    "width": ((SECOND[0][:, :5], SECOND[1]), "X has 5 features, but .* expecting 12"),
    "dtype": ((SECOND[0].astype("f"), SECOND[1]), "dtype float32 .*, but dtype float64 .* batch 0"),
    "targets": ((SECOND[0], SECOND[1][:-1]), "X has 16 samples, but y has 15"),
    "text": ((SECOND[0], SECOND[1].astype(str)), "y has text, but numbers in batch 0"),
    "columns": ((SECOND[0], X[:16, :2]), "y has numbers and 2 columns, but numbers in batch 0"),
    "weights": ((*SECOND, np.ones(16)), "sample_weight has numbers, but no values in batch 0"),
    "nan": ((SECOND[0] * np.nan, SECOND[1]), "Input X contains NaN"),
    "images": ((X[:16].reshape(16, 3, 2, 2), y[:16]), r"X = X.reshape\(len\(X\), -1\)"),
    "dict": ({"X": 1, "y": 2}, r"it must be \(X, y\) or \(X, y, sample_weight\), got a dict"),
    "four": ((1, 2, 3, 4), r"it must be \(X, y\) or .*, got a tuple of 4"),
}


@pytest.mark.parametrize("wrong", AFTER_FIRST)
def test_an_invalid_batch_is_named_and_leaves_the_model_unchanged(wrong):
    batch, message = AFTER_FIRST[wrong]
    fitted = model().fit(B)
    before = fitted.predict_proba(X)
    for each in (model(), fitted):
        with pytest.raises((TypeError, ValueError), match=rf"^Batch 1 of X .*: .*{message}"):
            each.fit([FIRST, batch])
    np.testing.assert_array_equal(fitted.predict_proba(X), before)


@pytest.mark.parametrize(
    ("later", "message"),
    [
        (B[:-1], "^X has 4 of the 5 batches that were first read: each epoch reads all batches"),
        ([*B, B[0]], "^X has more than the 5 batches that were first read"),
        (B[::-1], r"^Batch 0 of X .*: it has 6 samples, but had 16 when all batches were first"),
        ([(B[0][0], B[0][1] + 7), *B[1:]], r"^Batch 0 of X .*: `y` has classes not in .*\[7 8 9\]"),
        (
            [B[0], (np.where(B[1][0] > 2, np.inf, 0.0), B[1][1]), *B[2:]],
            "^Batch 1 of X .*: Input X contains inf",
        ),
    ],
    ids=["fewer", "more", "sizes", "classes", "infinity"],
)
def test_an_epoch_with_different_batches_than_the_first_is_an_error(later, message):
    with pytest.raises(ValueError, match=message):
        model().fit(Again(B, later))


def generated():
    yield from B


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (generated(), "^X is a generator, which can be read only once, .*: pass a list of batches"),
        (iter(B), "^X is a list_iterator, which can be read only once"),
        (generated, "^X must be an array, got a function: to fit on batches"),
        (Again([]), "^X has no batches: pass a list of batches"),
        (X, "requires y to be passed, but the target y is None"),
        (X.tolist(), "requires y to be passed, but the target y is None"),
    ],
    ids=["generator", "iterator", "function", "empty", "array", "rows"],
)
def test_invalid_batches_error_says_what_to_pass(given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        model().fit(given)


@pytest.mark.parametrize("given", [B, Again(B)], ids=["list", "iterable"])
def test_ensembles_and_searches_reject_batches(given):
    for what, fit in (
        ("an ensemble", MLPEnsembleClassifier(model(), n_estimators=2).fit),
        ("a search", GridSearchCV(model(), {"alpha": [0.1, 1.0]}).fit),
        ("a cross-validation", lambda X: cross_val_score(model(), X)),
    ):
        told = f"^X must be an array or a data frame for {what}, .* got batches .*: join them, or"
        with pytest.raises(TypeError, match=told):
            fit(given)


@pytest.mark.parametrize(
    ("settings", "more", "message"),
    [
        ({"solver": "lbfgs"}, {}, "^`solver` must be e.g. 'adam' if X has batches, got 'lbfgs'"),
        ({"missing_values": "impute"}, {}, "^Categories, missing values .* but X has batches"),
        ({"input_scaling": "quantile"}, {}, "^Categories, missing values and input_scaling="),
        ({}, {"sample_weight": y}, "^sample_weight must be None .*: yield the weights of each"),
        ({"class_weight": "balanced"}, {}, "^`class_weight` must be None .* y has several columns"),
    ],
)
def test_settings_that_need_whole_arrays_reject_batches(settings, more, message):
    labels = (X[:, :2] > 0).astype(int) if "class_weight" in settings else y
    with pytest.raises(ValueError, match=message):
        model(**settings).fit(split(X, labels), **more)


def test_errors_raised_by_the_iterable_are_propagated():
    class Broken:
        def __iter__(self):
            yield B[0]
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        model().fit(Broken())
