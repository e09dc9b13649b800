"""ONNX models predict what their estimators do, in graphs without needless nodes."""

import numpy as np
import pytest
from problems import REAL, TARGETS, X, Y, fitted, run_onnx
from sklearn.base import clone, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlp_xp import MLPClassifier, MLPEnsembleClassifier, MLPEnsembleRegressor, MLPRegressor
from mlp_xp.augmentation import Flip
from mlp_xp.export import _pipelines, register_skl2onnx, to_onnx
from mlp_xp.nn.layers import ACTIVATIONS
from mlp_xp.nn.losses import Gaussian, Quantile, Through

pytestmark = [pytest.mark.matrix, pytest.mark.filterwarnings("ignore::DeprecationWarning:skl2onnx")]


@pytest.fixture(autouse=True, scope="module")
def onnx():
    pytest.importorskip("ndonnx")
    pytest.importorskip("onnxruntime")
    return pytest.importorskip("onnx")


def check(estimator, rows, tolerance=1e-5):
    """Compare an exported estimator with itself; return the names of its operators."""
    model = to_onnx(estimator)
    found = run_onnx(model, rows)
    if is_regressor(estimator):
        assert found["prediction"].shape == estimator.predict(rows).shape
        np.testing.assert_allclose(found["prediction"], estimator.predict(rows), atol=tolerance)
    else:
        probabilities = estimator.predict_proba(rows)
        np.testing.assert_allclose(found["probabilities"], probabilities, atol=tolerance)
        np.testing.assert_array_equal(found["label"], estimator.predict(rows))
    for n_rows in (1, 0):  # Any number of rows, and none.
        part = run_onnx(model, rows[:n_rows])
        assert all(len(values) == n_rows for values in part.values())
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("what", TARGETS)
def test_onnx_graphs_support_all_targets_and_ensembles(what, dtype):
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    single, rows = fitted(what, dtype, input_scaling="standardize")
    check(single, rows, tolerance)
    kind = MLPEnsembleRegressor if what in REAL else MLPEnsembleClassifier
    settings = [{"activation": "tanh"}, {"hidden_layer_sizes": (5,)}]
    ensemble = kind(single, 3, settings=settings, random_state=0).fit(rows, TARGETS[what])
    check(ensemble, rows, tolerance)


LEVELS = (0.1, 0.5, 0.9)
INTERVALS = [Quantile(LEVELS), Gaussian(), Through(Quantile(LEVELS), "softplus")]


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("what", REAL)
@pytest.mark.parametrize("loss", INTERVALS, ids=repr)
def test_onnx_outputs_contain_quantiles_and_standard_deviations(loss, what, size):
    model, rows = fitted(what, loss=loss, tta=Flip((1, 3, 4)))
    if size > 1:
        model = MLPEnsembleRegressor(model, size, random_state=0).fit(rows, TARGETS[what])
    found = run_onnx(to_onnx(model), rows)
    if isinstance(loss, Gaussian):
        mean, std = model.predict(rows, return_std=True)
        expected = {"prediction": mean, "std": std}
    else:
        quantiles = model.predict(rows, quantiles=LEVELS)
        expected = {"prediction": model.predict(rows), "quantiles": quantiles}
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].shape == values.shape
        np.testing.assert_allclose(found[name], values, atol=1e-12)
    assert len(run_onnx(to_onnx(model), rows[:0])["prediction"]) == 0


@pytest.mark.parametrize("by", [None, 0])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("loss", ["squared_error", "gaussian", Quantile(LEVELS)], ids=repr)
def test_onnx_outputs_contain_limits_and_sets(loss, size, by):
    rng = np.random.default_rng(0)
    rows = np.stack([rng.integers(3, size=400), *rng.normal(size=(2, 400))], axis=1)
    y = rows[:, 1] + rows[:, 0] * rng.normal(size=400)
    held_out = {"early_stopping": True, "validation_fraction": 0.5, "coverage_by": by}
    settings = held_out | {"max_iter": 3, "learning_rate": "cosine", "random_state": 0}
    model = MLPRegressor(loss, 8, prediction_intervals="held_out", **settings)
    model = model if size == 1 else MLPEnsembleRegressor(model, size, random_state=0)
    limits = model.fit(rows, y).predict(rows, interval=0.8)
    found = run_onnx(to_onnx(model, interval=0.8), rows)
    np.testing.assert_allclose(found["lower"], limits[:, 0], atol=1e-12)
    np.testing.assert_allclose(found["upper"], limits[:, 1], atol=1e-12)
    other = run_onnx(to_onnx(model, interval=0.8), rows + 0.5)  # These groups were not in the fit.
    assert np.all(np.isnan(other["lower"])) == (by is not None)
    if loss == "squared_error":
        model = MLPClassifier(8, prediction_sets="held_out", **settings)
        model = model if size == 1 else MLPEnsembleClassifier(model, size, random_state=0)
        model.fit(rows, np.digitize(y, np.linspace(-1, 1, 7)))
        found = run_onnx(to_onnx(model, interval=0.8), rows)["set"]
        np.testing.assert_array_equal(found, model.predict_set(rows, 0.8))


def test_onnx_limits_require_held_out_samples():
    with pytest.raises(ValueError, match=r"`interval` requires errors on held-out samples: fit"):
        to_onnx(fitted("value")[0], interval=0.9)
    with pytest.raises(ValueError, match=r"`predict_set` requires held-out samples: fit with"):
        to_onnx(fitted("three classes")[0], interval=0.9)
    with pytest.raises(ValueError, match=r"one class for each sample, got multilabel targets"):
        to_onnx(fitted("several")[0], interval=0.9)


def test_onnx_graph_has_no_redundant_nodes():
    plain = ["Gemm", "Relu", "Gemm", "Relu", "Gemm", "Softmax", "ArgMax", "Gather"]
    assert check(*fitted()) == plain
    scaled = check(*fitted(input_scaling="standardize", normalization="layer"))
    assert scaled[:4] == ["Sub", "Mul", "Gemm", "LayerNormalization"]
    # Batch statistics are in the weights of the product before.
    assert check(*fitted(normalization="batch")) == plain
    assert check(*fitted("value")) == ["Gemm", "Relu", "Gemm", "Relu", "Gemm", "Squeeze"]
    assert check(*fitted("values")) == ["Gemm", "Relu", "Gemm", "Relu", "Gemm"]
    for activation in ACTIVATIONS:  # Products, at most two each, and the output.
        assert len(check(*fitted(activation=activation, dtype="float32"))) <= 3 + 2 * 2 + 3
    single, rows = fitted(hidden_layer_sizes=())
    ensemble = MLPEnsembleClassifier(single, 3, random_state=0).fit(rows, Y)
    assert check(ensemble, rows) == ["Gemm", "Softmax"] * 3 + ["Sum", "Div", "ArgMax", "Gather"]
    part = ["Slice", "Squeeze"]
    gaussian = ["Slice", "Slice", "Max", "Min", "Mul", "Exp", "Concat", *part, *part]
    for loss, outputs in ("gaussian", gaussian), ("poisson", ["Min", "Exp", "Squeeze"]):
        model = MLPRegressor(loss, (), max_iter=1, learning_rate="cosine", random_state=0)
        assert check(model.fit(X, np.abs(X[:, 0])), X, tolerance=1e-12) == ["Gemm", *outputs]


@pytest.mark.parametrize("what", ["text", "several", *REAL])
@pytest.mark.parametrize("normalization", [None, "batch", "layer"])
def test_graphs_have_neither_copies_nor_unused_constants(what, normalization):
    settings = {"normalization": normalization, "input_scaling": "zca", "tta": Flip((1, 3, 4))}
    graph = to_onnx(fitted(what, residual=True, **settings)[0]).graph
    operators = {node.op_type for node in graph.node}
    assert not operators & {"Identity", "Constant", "Sqrt", "If", "Reshape", "Shape"}
    assert ("Cast" in operators) == (what == "several")
    used = [name for node in graph.node for name in node.input]
    assert {tensor.name for tensor in graph.initializer} <= set(used)
    contents = [(str(t.dims), t.data_type, t.raw_data) for t in graph.initializer]
    assert len(set(contents)) == len(contents)


def test_onnx_file_and_its_metadata_are_correct(tmp_path, onnx):
    model, rows = fitted()
    path = tmp_path / "model.onnx"
    path.write_text("old")
    to_onnx(model, path)
    loaded = onnx.load(path)
    assert loaded.producer_name == "mlp-xp"
    np.testing.assert_array_equal(run_onnx(loaded, rows)["label"], model.predict(rows))
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    found = run_onnx(to_onnx(model, precision="float32"), rows.astype("float32"))
    assert found["probabilities"].dtype == np.float32
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(rows), atol=1e-5)
    model.classes_ = np.asarray(["x", "y", "z"])  # Replaced after the fit.
    model.coefs_[0] = model.coefs_[0] * 2.0
    check(model, rows, tolerance=1e-12)


@pytest.mark.parametrize(
    ("dtype", "trained_in", "expected"),
    [
        ("float32", "auto", "float32"),
        ("uint8", "auto", "float32"),
        ("float64", "auto", "float64"),
        ("int64", "auto", "float64"),
        ("float64", "float32", "float32"),
        ("float32", "float64", "float64"),
    ],
)
def test_onnx_graph_has_the_precision_of_the_fit(dtype, trained_in, expected):
    rows = (20 * X).astype(dtype)
    model = MLPClassifier(4, max_iter=2, precision=trained_in, random_state=0).fit(rows, Y)
    probabilities = run_onnx(to_onnx(model), rows.astype(expected))["probabilities"]
    assert probabilities.dtype == expected


def test_onnx_export_errors_say_what_to_do():
    with pytest.raises(NotFittedError):
        to_onnx(MLPClassifier())
    (model, rows), (broken, _), (mixed, _) = (fitted() for _ in range(3))
    settings = [{"input_scaling": "robust"}, {"input_scaling": "standardize"}]
    tables = MLPEnsembleClassifier(model, 2, settings=settings, random_state=0).fit(rows, Y)
    dates = np.asarray([20240114.0, 20240115.0, 20240116.0])[Y][:, None]
    days = clone(model).set_params(categorical_features=[0]).fit(dates, Y)
    broken.coefs_[0][0, 0] = np.nan
    mixed.classes_ = np.asarray([1, "b", None], dtype=object)
    for each, precision, message in (
        (model, "bf16", r"`precision` must be 'float32' or 'float64', got 'bf16'\."),
        (broken, None, r"coefs_\[0\] has infinity or NaN"),
        (mixed, None, "ONNX labels must be numbers or text"),
        (tables, None, "have different inputs: .* Export each of its estimators_ alone"),
        (days, "float32", "'x0' has categories that are equal in float32: export with precision="),
    ):
        with pytest.raises(ValueError, match=message):
            to_onnx(each, precision=precision)


@pytest.fixture
def skl2onnx():
    skl2onnx = pytest.importorskip("skl2onnx")
    register_skl2onnx()
    return skl2onnx


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("what", ["three classes", "two classes", "text", "several", *REAL])
def test_onnx_pipelines_match_scikit_learn_pipelines(what, dtype, size, skl2onnx):
    is_real, tolerance = what in REAL, 1e-5 if dtype == "float32" else 1e-12
    losses = ["squared_error", Quantile((0.1, 0.4, 0.9)), Gaussian()] if is_real else ["log_loss"]
    for loss in losses:
        last, rows = fitted(what, dtype, loss=loss)
        if size > 1:
            kind = MLPEnsembleRegressor if is_real else MLPEnsembleClassifier
            last = kind(last, size, random_state=0)
        model = make_pipeline(StandardScaler(), last).fit(rows, TARGETS[what])
        options = None if is_real else {"zipmap": False}
        found = run_onnx(skl2onnx.to_onnx(model, rows[:1], options=options), rows)
        if is_real:
            expected = {"variable": model.predict(rows).reshape(len(rows), -1)}
        else:
            expected = {"probabilities": model.predict_proba(rows)}
            np.testing.assert_array_equal(found.pop("label"), model.predict(rows))
        assert list(found) == list(expected)
        for name, values in found.items():
            np.testing.assert_allclose(values, expected[name], atol=tolerance)


def test_onnx_pipelines_require_a_float_matrix(skl2onnx):
    model, rows = fitted()
    with pytest.raises(ValueError, match=r"one matrix of floats in skl2onnx: pass e\.g\. X\[:1\]"):
        skl2onnx.to_onnx(model, rows[:1].astype(np.int64))


def test_a_search_over_a_pipeline_is_traced_once(monkeypatch, skl2onnx):
    """With skl2onnx's dictionaries of probabilities."""
    traced, trace = [], _pipelines.trace
    monkeypatch.setattr(_pipelines, "trace", lambda *a, **k: traced.append(a) or trace(*a, **k))
    rows = X.astype("float32")  # ONNX has no such dictionaries of float64.
    last = MLPClassifier(5, max_iter=1, learning_rate="cosine", random_state=0)
    search = GridSearchCV(make_pipeline(StandardScaler(), last), {}, cv=2).fit(rows, Y)
    found = run_onnx(skl2onnx.to_onnx(search, rows[:1]), rows)
    assert [precision for _, precision in traced] == ["float32"]
    assert list(found) == ["output_label", "output_probability"]
    np.testing.assert_array_equal(found["output_label"], search.predict(rows))
    assert sorted(found["output_probability"][0]) == [0, 1, 2]


@pytest.mark.parametrize("what", ["text", "several", *REAL])
def test_ensemble_weights_are_in_the_onnx_graph(what):
    single, rows = fitted(what)
    kind = MLPEnsembleRegressor if what in REAL else MLPEnsembleClassifier
    model = kind(single, 2, random_state=0).fit(rows, TARGETS[what])
    predict = model.predict if what in REAL else model.predict_proba
    unweighted = predict(rows)
    model.weights_ = np.asarray([0.9, 0.1])  # Tuned ensembles have weights.
    assert np.max(np.abs(predict(rows) - unweighted)) > 1e-3
    check(model, rows)
