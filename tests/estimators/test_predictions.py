"""Predictions of plain arrays and of batches that are filled up, and gradients by the inputs."""

import warnings
from copy import deepcopy
from itertools import pairwise, product

import numpy as np
import pandas as pd
import pytest
import sklearn
from helpers import problem, small, tolerance
from scipy import sparse

from mlp_xp import MLP, MLPRegressor
from mlp_xp.estimators.checks import validation
from mlp_xp.estimators.checks.validation import check_x
from mlp_xp.nn.hidden import Blocks, Branch, Project
from mlp_xp.nn.layers import ACTIVATIONS
from mlp_xp.nn.losses import Quantile, SoftmaxCrossEntropy
from mlp_xp.training.inference import inference

RNG = np.random.default_rng(0)
X = RNG.integers(0, 9, (120, 4)).astype(np.float64)
Y = RNG.integers(0, 3, 120)


@pytest.fixture(scope="module")
def model():
    return quick().fit(X, Y)


def outcome(model, X):
    """Return what a check returns, or how it fails, and what it warns of."""
    with warnings.catch_warnings(record=True, action="always") as heard:
        try:
            X = check_x(model, X, reset=False)
            result = type(X), X.dtype, X.shape, X.tobytes()
        except Exception as error:
            result = type(error), str(error)
    return result, [(w.category, str(w.message)) for w in heard]


def cases():
    X = np.random.default_rng(1).standard_normal((6, 4))
    bad, both = X.copy(), X.copy()
    bad[2, 1], both[0, 0], both[1, 1] = np.nan, np.inf, -np.inf
    kinds = ("f8", "f4", "f2", ">f8", "i8", "bool", "complex", "object", "str")
    return {kind: X.astype(kind) for kind in kinds} | {
        **{"uint8": np.abs(X).astype(np.uint8), "huge": np.full((2, 4), 3e38, dtype=np.float32)},
        **{"columns": np.asfortranarray(X), "NaN in columns": np.asfortranarray(bad)},
        **{"every other row": X[::2], "every other column": np.repeat(X, 2, axis=1)[:, ::2]},
        **{"read-only": np.broadcast_to(X[0], X.shape), "too many columns": np.hstack([X, X])},
        **{"one row": X[:1], "no rows": X[:0], "no columns": X[:, :0]},
        **{"one axis": X[0], "three axes": X[None], "list": X.tolist()},
        **{"NaN": bad, "NaN in float32": bad.astype("f4"), "infinity of both signs": both},
        **{"masked": np.ma.masked_array(X, X > 0), "frame": pd.DataFrame(X)},
        "frame with names": pd.DataFrame(X, columns=list("abcd")),
    }


@pytest.mark.parametrize("assume_finite", [False, True])
def test_fast_input_check_gives_the_same_outcome_as_the_full_check(
    model, assume_finite, monkeypatch
):
    with sklearn.config_context(assume_finite=assume_finite):
        short = {name: outcome(model, given) for name, given in cases().items()}
        monkeypatch.setattr(validation, "_is_plain", lambda *_: False)
        for name, given in cases().items():
            assert short[name] == outcome(model, given), name


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8"])
@pytest.mark.parametrize("order", "CF")
def test_plain_arrays_take_the_fast_input_check_without_a_copy(model, dtype, order, monkeypatch):
    monkeypatch.setattr(validation, "validate_data", None)
    plain = np.ones((3, 4), dtype=dtype, order=order)
    assert check_x(model, plain, reset=False) is plain


def test_fast_input_check_is_skipped_for_models_with_feature_names(model, monkeypatch):
    frame, named = pd.DataFrame(np.eye(4), columns=list("abcd")), sklearn.clone(model)
    named.set_params(batch_size="auto").fit(frame, [0, 1, 2, 0])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        named.predict(np.eye(4))
    monkeypatch.setattr(validation, "validate_data", None)
    check_x(named, np.eye(3), reset=True)
    assert named.n_features_in_ == 3
    assert not hasattr(named, "feature_names_in_")


def test_predictions_follow_weights_that_are_edited_or_replaced(model):
    model = deepcopy(model)
    model.predict_proba(X)
    model.intercepts_[-1][:] = [1e3, 0.0, 0.0]
    np.testing.assert_array_equal(model.predict(X), 0)
    model.intercepts_[-1] = np.asarray([0.0, 1e3, 0.0])
    np.testing.assert_array_equal(model.predict(X), 1)
    model.intercepts_ = [model.intercepts_[0], np.asarray([0.0, 0.0, 1e3], dtype=np.float32)]
    np.testing.assert_array_equal(model.predict(X), 2)
    model.coefs_ = [W.astype(np.float32) for W in model.coefs_]
    assert model.predict_proba(X).dtype == np.float64


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8"])
def test_single_rows_and_batches_give_the_same_predictions(model, dtype):
    X = np.random.default_rng(3).integers(0, 9, (2500, 4)).astype(dtype)
    whole = model.predict_proba(X)
    for row in (0, 1023, 1024, 2499):
        np.testing.assert_allclose(model.predict_proba(X[row : row + 1])[0], whole[row], rtol=1e-9)


def test_predict_returns_the_most_likely_class_without_softmax(model, monkeypatch):
    X, others = np.random.default_rng(2).standard_normal((500, 4)), deepcopy(model)
    others.out_activation_ = "logistic"
    likely = [m.classes_[np.argmax(m.predict_proba(X), axis=1)] for m in (model, others)]
    # A softmax is a tenth of the time of sparse rows.
    monkeypatch.setattr(SoftmaxCrossEntropy, "activate", None)
    for each, labels in zip((model, others), likely, strict=True):
        np.testing.assert_array_equal(each.predict(X), labels)


def quick(estimator=MLP, **settings):
    return small(estimator, max_iter=2, learning_rate="cosine", **settings)


@pytest.mark.libraries("jax")
def test_different_row_counts_share_compiled_code(on, compiled):
    model = quick(**on).fit(X, Y)
    compiled()
    for n in (7, 2, 100, 33, 101):
        assert model.predict_proba(X[:n]).shape == (n, 3)
    assert compiled() == ["jit(predict)"]
    one = model.predict_proba(X[:1])
    assert compiled() == ["jit(predict)"]  # A single row is not padded.
    for n in (7, 2, 100, 33, 101):
        model.predict(X[:n])
        model.score(X[:n], Y[:n])
    assert compiled() == ["jit(predict)"]
    assert one.flags.writeable


@pytest.mark.libraries("jax")
def test_different_validation_sizes_do_not_recompile(on, compiled):
    for n in (30, 41):
        model = quick(**on).fit(X[:50], Y[:50], X_val=X[-n:], y_val=Y[-n:])
        expected = model.evaluate(X[-n:], Y[-n:])["loss"]
        assert model.validation_loss_curve_[-1] == pytest.approx(expected, rel=1e-12)
        names = compiled()
        assert ("jit(predict)" in names) == (n == 30)
    assert names == []


@pytest.mark.libraries("jax")
def test_a_jax_loss_scores_held_out_samples_with_jax(on):
    import jax.numpy as jnp

    def squares(outputs, targets, *, xp):
        given.add(type(outputs))
        errors = outputs - targets
        return jnp.sum(errors**2, axis=-1), lambda dlosses: 2 * dlosses[:, None] * errors

    given = set()
    model = quick(MLPRegressor, loss=squares, **on).fit(X, Y, X_val=X[:30], y_val=Y[:30])
    assert np.ndarray not in given
    expected = np.mean((model.predict(X[:30]) - Y[:30]) ** 2)
    assert model.validation_loss_curve_[-1] == pytest.approx(expected, rel=1e-12)


@pytest.mark.libraries("jax")
@pytest.mark.parametrize("normalization", [None, "batch", "layer"])
def test_padding_rows_do_not_change_predictions(on, backend, normalization, monkeypatch):
    model = quick(normalization=normalization, input_scaling="standardize", **on).fit(X, Y)
    kinds = {name: X[:37].astype(name) for name in ("float64", "float32", "uint8")}
    kinds |= {"bool": X[:37] > 4, "sparse": sparse.csr_array(X[:37]), "jax": backend.put(X[:37])}
    filled = {k: [model.predict_proba(x), model.hidden_activations(x)] for k, x in kinds.items()}
    monkeypatch.setattr(inference, "_compiled_rows", lambda n_samples, *_: n_samples)
    for kind, x in kinds.items():
        plain = [model.predict_proba(x), model.hidden_activations(x)]
        for found, expected in zip(filled[kind], plain, strict=True):
            assert type(found) is type(expected) is type(plain[0]), kind
            found, expected = np.asarray(found), np.asarray(expected)
            assert (len(found), found.dtype) == (37, expected.dtype), kind
            atol = np.abs(expected).max() * tolerance(str(expected.dtype), 5)
            np.testing.assert_allclose(found, expected, rtol=0, atol=atol, err_msg=kind)


@pytest.mark.parametrize("sizes", [(4, 3), (1, 100, 1), (64, 100, 10), (3072, 512, 512, 10)])
def test_few_padding_rows_are_added(sizes):
    weights = sum(a * b for a, b in pairwise(sizes))
    for most, n_views in product((2048, 1000), (1, 10)):
        shapes = set()
        for n in range(1, most + 1):
            n_rows = inference._compiled_rows(n, most, sizes, n_views)
            assert n <= n_rows <= most
            assert (n_rows - n) * n_views * weights < 1 << 20 or n_rows < 1.07 * n
            # An activation takes 1 to 2 ns: tanh of XLA.
            assert (n_rows - n) * n_views * sum(sizes[1:]) < 1 << 15 or n_rows < 1.07 * n
            if n * sizes[0] > 1 << 18:  # Large arrays are not copied.
                assert n_rows == n
            else:
                shapes.add(n_rows)
        assert inference._compiled_rows(1, most, sizes, n_views) == 1
        assert len(shapes) <= 80


@pytest.mark.libraries("jax")
def test_predictions_wait_for_no_other_thread(on, backend, monkeypatch):
    import jax

    model = quick(**on).fit(X, Y)
    with monkeypatch.context() as patched:
        patched.setattr(jax, "live_arrays", lambda platform: pytest.fail("waits for all arrays"))
        model.predict(X)
    taken = backend.put(X)
    taken.delete()  # Another thread's step may donate it while this one waits.
    monkeypatch.setattr(jax, "live_arrays", lambda platform: [taken])
    backend.synchronize()


STEP = 1e-6


def difference(model, X, target, direction):
    """Return the derivative of each sample's loss along a direction, by central differences."""
    plus, minus = (
        [model.evaluate(x[None], t[None])["loss"] for x, t in zip(moved, target, strict=True)]
        for moved in (X + STEP * direction, X - STEP * direction)
    )
    return np.subtract(plus, minus) / (2 * STEP)


def check_gradient(model, targets):
    X, rng = problem()[0], np.random.default_rng(1)
    some, target = X[:5], targets[:5]
    gradient = model.fit(X, targets).input_gradient(some, target)
    assert gradient.shape == some.shape
    for _ in range(3):
        direction = rng.standard_normal(some.shape)
        expected = difference(model, some, target, direction)
        along = np.sum(gradient * direction, axis=1)
        np.testing.assert_allclose(along, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "settings",
    [
        {"normalization": "batch", "dropout": 0.3, "residual": True},
        {"normalization": "layer", "input_scaling": "standardize"},
        {"hidden_layer_sizes": (Project(6), Branch((9, 6)), Blocks((2, 3), (0,), 2))},
        *({"input_scaling": "zca"}, {"hidden_layer_sizes": ()}, {"loss": "focal"}),
        *({"label_smoothing": 0.1}, {"output_activation": "logistic"}),
        *({"activation": name} for name in ACTIVATIONS),
    ],
    ids=str,
)
def test_input_gradient_matches_finite_differences(settings):
    check_gradient(small(**settings), problem()[1])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_input_gradient_supports_all_losses_and_targets():
    X, y = problem()
    for loss in ("squared_error", "absolute_error", "huber", "quantile", "gaussian"):
        for targets in (X[:, :2], X[:, 0]):
            check_gradient(small(MLPRegressor, loss=loss), targets)
    check_gradient(small(MLPRegressor, loss=Quantile((0.2, 0.6))), X[:, :2])
    for targets in (y > 0, np.eye(3, dtype=int)[y]):
        check_gradient(small(), targets)


@pytest.mark.every_device
def test_every_backend_returns_the_same_input_gradient(backend):
    X, y = problem()
    model = small(normalization="batch", input_scaling="zca", precision="float32").fit(X, y)
    with backend.scope():
        moved = model.to(backend.name, backend.device)
        found = moved.input_gradient(backend.put(X, "float32"), y)
        assert backend.holds(found)
        expected = model.input_gradient(X, y)
        np.testing.assert_allclose(backend.get(found), expected, rtol=1e-3, atol=1e-6)


def test_input_gradient_supports_batches_sparse_rows_and_integers(monkeypatch):
    X, y = problem()
    gradient = small().fit(X, y).input_gradient
    whole, pixels = gradient(X, y), (50 * np.abs(X)).astype(np.uint8)
    np.testing.assert_allclose(gradient(sparse.csr_matrix(X), y), whole, rtol=1e-12)
    monkeypatch.setattr("mlp_xp.training.inference.input_gradient._BATCH", 7)
    np.testing.assert_allclose(gradient(X, y), whole, rtol=1e-12)
    np.testing.assert_array_equal(gradient(pixels, y), gradient(pixels.astype(float), y))
    for target, message in (
        (y + 7, "`target` has classes not in"),
        (y[:3], "inconsistent numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            gradient(X, target)
