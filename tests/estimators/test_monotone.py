"""Networks whose predictions are monotone in some columns, by the signs of their weights."""

import numpy as np
import pandas
import pytest
from c_compiler import build_program, predict_csv
from helpers import case, pickled_and_saved, small

from mlp_xp import MLPClassifier, MLPEnsembleClassifier, MLPEnsembleRegressor, MLPRegressor
from mlp_xp.export import to_c, to_onnx, to_torch
from mlp_xp.nn.blocks import PLE
from mlp_xp.nn.hidden import Project

N = 400
TABLE = {"categorical_features": "from_dtype", "missing_values": "impute"}
CST = {"income": 1, "debt": -1, "since": 1}


def table(n=N, seed=0):
    """Return a frame with numbers, dates and categories, with holes, and values."""
    rng = np.random.default_rng(seed)
    numbers = {name: rng.normal(size=n) for name in ("income", "debt", "age")}
    days = rng.integers(0, 1500, n)
    frame = pandas.DataFrame(
        numbers
        | {
            "city": rng.choice(["Bern", "Oslo", "Rome"], n),
            "since": pandas.Timestamp("2020-01-01") + pandas.to_timedelta(days, "D"),
        }
    )
    income, debt, age = numbers.values()
    y = np.tanh(2 * income) - np.exp(0.5 * debt) + np.sin(2 * age) * (1 + np.tanh(income))
    y += days / 500 + (frame["city"] == "Rome") + 0.1 * rng.normal(size=n)
    frame.loc[::9, "age"] = np.nan
    return frame, y.to_numpy()


X, Y = table()
CLASSES = np.where(np.median(Y) < Y, "good", "bad")


def moved(frame, rng):
    """Return a frame whose constrained columns have moved in the direction of their constraints."""
    new, n = frame.copy(), len(frame)
    for name in CST:
        amount = rng.exponential(size=n) * rng.choice([0.0, 1e-6, 1.0, 100.0], n)
        if name == "since":
            new[name] += pandas.to_timedelta(rng.integers(0, 3000, n), "h")
        else:
            new[name] += CST[name] * amount
    return new


def outputs(model, frame):
    """Return predictions, or log-odds of the second class."""
    if hasattr(model, "decision_function"):
        return model.decision_function(frame)
    if hasattr(model, "predict_proba"):
        return model.predict_proba(frame)[:, 1]
    return model.predict(frame)


def check_monotone(model, n, seed=0):
    """Compare n random pairs, strictly.

    Each pair has the same position in arrays of the same shape, so that all sums are added in the
    same order. Rounding keeps the order of such sums.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, n, 50_000):
        low, _ = table(min(50_000, n - start), seed=seed + 1 + start)
        low["income"] *= rng.choice([1.0, 30.0])
        before, after = (outputs(model, frame) for frame in (low, moved(low, rng)))
        assert np.sum(after < before) == 0
        assert np.mean(after > before) > 0.1


def check_each_column(model, n=200):
    """Move along one constrained column; the other columns stay."""
    for name, direction in CST.items():
        rows = X.iloc[np.arange(n) % 5].reset_index(drop=True)
        path = np.sort(np.repeat(np.linspace(-4, 4, n // 5), 5))
        if name == "since":
            rows[name] = pandas.Timestamp("2019-01-01") + pandas.to_timedelta(100 * path, "D")
        else:
            rows[name] = path
        found = outputs(model, rows).astype(np.float64).reshape(-1, 5)
        # Rows of one array may be added in another order, so allow for rounding.
        rounding = 8 * np.finfo(np.float32).eps * np.max(np.abs(found))
        assert np.min(direction * np.diff(found, axis=0)) >= -rounding
        assert np.ptp(found) > 0.0


def fitted(kind=MLPRegressor, y=Y, **settings):
    usual = TABLE | {"input_scaling": "standardize", "monotonic_cst": CST, "max_iter": 12}
    return small(kind, **usual | settings).fit(X, y)


# Norms, sums with inputs, embeddings, scalings, losses and kinds of networks that stay monotone.
SETTINGS = {
    "plain": {"input_scaling": "robust"},
    "batch": {"normalization": "batch", "residual": True, "hidden_layer_sizes": (12, 12, 12)},
    "embedded": {"numeric_embedding": PLE(8, 3), "learn_input_scale": True, "dropout": 0.2},
    "members": {"n_members": 3, "numeric_embedding": "ple", "input_scaling": "quantile"},
    "lbfgs": {"solver": "lbfgs", "activation": "leaky_relu", "tol": 1.0, "max_iter": 99},
    "quantiles": {"loss": "quantile", "ema_decay": 0.9, "target_scaling": "standardize"},
}


@pytest.mark.parametrize("kind", [MLPRegressor, MLPClassifier])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_predictions_never_move_against_a_constraint(kind, dtype):
    settings = {"random_state": 0, "monotonic_cst": CST, "max_iter": 4, "precision": dtype}
    model = kind.from_recipe("table", **settings, hidden_layer_sizes=(32, 32))
    model.fit(X, Y if kind is MLPRegressor else CLASSES)
    check_monotone(model, 3000)
    check_each_column(model)


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_keep_predictions_monotone(name):
    model = fitted(**SETTINGS[name])
    check_monotone(model, 2000)
    check_each_column(model)


def test_numbers_whose_squares_overflow_are_in_order():
    powers = 10.0 ** np.arange(0, 308, 30)
    values = np.concatenate([-powers[::-1], powers])
    rows = X.iloc[[0] * len(values)].assign(income=values)
    found = fitted(input_scaling="robust", precision="float64").predict(rows)
    assert np.all(np.diff(found) >= 0.0)
    assert found[0] < found[-1]


@pytest.mark.matrix
def test_a_million_pairs_are_in_order():
    settings = {"random_state": 0, "monotonic_cst": CST, "max_iter": 4, "precision": "float32"}
    small = {"hidden_layer_sizes": (32, 32), "numeric_embedding": PLE(8, 4)}
    model = MLPRegressor.from_recipe("table", **settings | small).fit(X, Y)
    check_monotone(model, 10**6)


def test_an_ensemble_is_monotone():
    for kind, y in ((MLPEnsembleRegressor, Y), (MLPEnsembleClassifier, CLASSES)):
        single = MLPRegressor if kind is MLPEnsembleRegressor else MLPClassifier
        settings = {"random_state": 0, "monotonic_cst": CST, "max_iter": 2, "n_estimators": 2}
        model = single.from_recipe("table-best", **settings, hidden_layer_sizes=(32, 32))
        assert isinstance(model, kind)
        check_monotone(model.fit(X, y), 500)


def test_a_tuned_ensemble_tries_only_configurations_that_stay_monotone():
    settings = {"random_state": 1, "monotonic_cst": CST, "max_iter": 1}
    model = MLPRegressor.from_recipe("table-tuned", **settings, n_configurations=8, n_folds=2)
    network = {"hidden_layer_sizes": (8,), "numeric_embedding": PLE(4, 2), "batch_size": 200}
    results = model.set_params(estimator=model.estimator.set_params(**network)).fit(X, Y)
    assert {*results.search_results_["status"]} == {"complete"}
    check_monotone(model, 500)


def test_a_constraint_that_is_wrong_flattens_the_function():
    x = np.linspace(-2, 2, 200)[:, None]
    settings = {"max_iter": 300, "learning_rate_init": 0.02, "hidden_layer_sizes": (16, 16)}
    for y, direction, least in ((np.tanh(3 * x[:, 0]), 1, 0.98), (np.tanh(3 * x[:, 0]), -1, None)):
        model = small(MLPRegressor, **settings, monotonic_cst=[direction]).fit(x, y)
        if least is None:
            assert np.ptp(model.predict(x)) < 0.05
        else:
            assert model.score(x, y) > least


def test_a_constrained_date_is_one_number_and_yes_and_no_are_numbers():
    frame = X[["since"]].assign(member=X["income"] > 0)
    model = small(MLPRegressor, **TABLE, monotonic_cst={"since": -1, "member": 1}).fit(frame, Y)
    assert model.columns_.input_names == ("since: days since 1970", "member")
    rows = pandas.DataFrame({"since": pandas.to_datetime(["1970-01-02T06:00"]), "member": [True]})
    np.testing.assert_array_equal(model.columns_.transform(rows), [[1.25, 1.0]])


def test_saved_models_keep_the_constraints(tmp_path):
    model = fitted(warm_start=True, numeric_embedding="ple", n_members=2)
    expected = model.predict(X)
    for copy in pickled_and_saved(model, tmp_path):
        np.testing.assert_array_equal(copy.predict(X), expected)
        assert copy.monotonic_cst == CST
        check_monotone(copy, 100)
    check_monotone(model.partial_fit(X, Y), 100)
    with pytest.raises(ValueError, match=r"has monotonic_cst=.*'debt': -1.*settings now say"):
        model.set_params(monotonic_cst={"income": 1}).fit(X, Y)


WRONG = [
    ({"incme": 1}, r"X has no column 'incme', which `monotonic_cst` .*: did you mean 'income'\?"),
    ({"zip": 1}, "X has no column 'zip', .* It has 'income', 'debt', 'age', 'city', 'since'"),
    ({"city": 1}, r"X\['city'\] has categories, which have no order, .*: leave the column out"),
    ({"income": 2}, r"`monotonic_cst\['income'\]` must be 1 if .*, or 0, got 2"),
    ({"income": "up"}, r"`monotonic_cst\['income'\]` must be .* got 'up'"),
    ({"income": [1, -1]}, r"`monotonic_cst\['income'\]` must be .* got \[1, -1\]"),
    ([1, -1], "must have -1, 0 or 1 for each of the 5 columns of X, got 2 values: pass a dict"),
    ([1, 0, 0, 0, 0.5], r"`monotonic_cst\[4\]` must be .* got 0\.5"),
    ([[1, 0, 0, 0, 0]], r"5 columns of X, got an array of shape \(1, 5\)"),
]
REFUSED = [
    ({"normalization": "layer"}, "`normalization` must be 'batch' or None with monotonic_cst"),
    (
        {"activation": "gelu"},
        "`activation` must be one of .*'relu'.* with monotonic_cst, got 'gelu'",
    ),
    ({"numeric_embedding": "pbld"}, "`numeric_embedding` must be 'ple', PLE.* or None with mono"),
    ({"parametric_activation": True}, "`parametric_activation` must be False with monotonic_cst"),
    ({"parametrization": "ntk"}, "`parametrization` must be 'standard' with monotonic_cst"),
    ({"hidden_layer_sizes": [Project(4)]}, "`hidden_layer_sizes` must be integers with monotonic"),
    (
        {"input_scaling": "pca"},
        "`input_scaling` must not mix columns .* input_scaling='standardize'",
    ),
    ({"loss": "gaussian"}, "`loss` must not be 'gaussian' .*: type loss='quantile'"),
]


def test_errors_say_what_to_type():
    for given, message in WRONG:
        with case(given), pytest.raises(ValueError, match=message):
            fitted(monotonic_cst=given)
    with pytest.raises(ValueError, match="is a dict of column names, but X has none: pass a list"):
        small(MLPRegressor, monotonic_cst={"income": 1}).fit(X[["income"]].to_numpy(), Y)
    for settings, message in REFUSED:
        with case(settings), pytest.raises(ValueError, match=message):
            fitted(**settings)
    with pytest.raises(ValueError, match="must be None for more than two classes, since their"):
        fitted(MLPClassifier, np.arange(N) % 3)
    with pytest.raises(ValueError, match=r"`output_activation` must not be 'softmax' .*='auto'"):
        fitted(MLPClassifier, CLASSES, output_activation="softmax")


@pytest.mark.matrix
def test_onnx_and_c_encode_the_same_dates_and_keep_the_order(tmp_path):
    pytest.importorskip("ndonnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    for dtype in ("float32", "float64"):
        model = fitted(numeric_embedding="ple", precision=dtype)
        rows, _ = table(50, seed=5)
        rows["since"] += pandas.to_timedelta(np.arange(50), "h")
        later = moved(rows, np.random.default_rng(0))
        tolerance = 1e-3 if dtype == "float32" else 1e-9
        session = onnxruntime.InferenceSession(to_onnx(model).SerializeToString())
        to_c(model, path := tmp_path / f"{dtype}.h", name="net", dtype=dtype)
        program = build_program(path, "NET_MAIN")

        def by_onnx(frame, session=session, dtype=dtype):
            days = (frame["since"] - pandas.Timestamp(0)) / pandas.Timedelta(1, "D")
            given = {name: frame[name].to_numpy(dtype) for name in ("income", "debt", "age")}
            given |= {"since: days since 1970": days.to_numpy(dtype)}
            return session.run(None, given | {"city": frame["city"].to_numpy(object)})[0]

        def by_c(frame, program=program):
            text = frame.to_csv(index=False, header=False, date_format="%Y-%m-%dT%H:%M:%S")
            return predict_csv(program, text)[:, 0]

        for predict in (by_onnx, by_c):
            found = predict(rows)
            np.testing.assert_allclose(found, model.predict(rows), atol=tolerance)
            assert np.all(predict(later) >= found)


@pytest.mark.matrix
def test_a_module_keeps_the_signs_in_further_training():
    torch = pytest.importorskip("torch")
    model = fitted(normalization="batch", hidden_layer_sizes=(12, 12))
    module = to_torch(model)
    low, _ = table(500, seed=3)
    given = [low, moved(low, np.random.default_rng(0))]
    before, after = (torch.tensor(model.columns_.transform(frame)) for frame in given)
    assert torch.all(module(after) >= module(before))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(20):  # Away from the constraints.
        optimizer.zero_grad()
        torch.mean(torch.tanh(module(after) - module(before))).backward()
        optimizer.step()
    assert torch.all(module(after) >= module(before))
