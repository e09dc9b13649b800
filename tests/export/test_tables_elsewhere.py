"""Exported tables: ONNX takes the columns by their names."""

import numpy as np
import pandas
import pytest
from sklearn.base import clone

from mlp_xp import MLPClassifier, MLPEnsembleClassifier
from mlp_xp.export import to_onnx
from mlp_xp.export._onnx import trace

pytestmark = pytest.mark.matrix

RNG = np.random.default_rng(0)
N = 120
X = pandas.DataFrame(
    {
        "age": np.where(RNG.random(N) < 0.1, np.nan, RNG.integers(18, 80, N)),
        "born": pandas.Timestamp("1990-01-01") + pandas.to_timedelta(RNG.integers(0, 9999, N), "D"),
        "city": RNG.choice(["Bern", "Oslo", None], N),
        "height": np.float32(10_000.0) + RNG.normal(size=N).astype(np.float32),
        "zip": RNG.choice([1000.0, 2000.0, np.nan], N),
        "street": RNG.choice([f"{i}. street" for i in range(12)], N),
    }
)
X.loc[::7, "height"] = np.nan  # The remaining quantiles lie between float32 numbers.
Y = (X["age"] > 40).to_numpy()
MODEL = MLPClassifier(
    (8,), max_iter=2, learning_rate="cosine", random_state=0, missing_values="impute"
).set_params(categorical_features=["city", "zip", "street"])


TYPES = {"float32": "tensor(float)", "float64": "tensor(double)"}


def named(frame, dtype):
    """Return the inputs of a graph for a frame."""
    born = frame["born"].dt
    parts = {"year": born.year, "day of year": born.day_of_year - 1, "weekday": born.day_of_week}
    numbers = {name: frame[name] for name in ("age", "height", "zip")}
    numbers |= {f"born: {name}": values for name, values in parts.items()}
    texts = {name: frame[name].fillna("").to_numpy(object) for name in ("city", "street")}
    return texts | {name: values.to_numpy(dtype) for name, values in numbers.items()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scaling", ["robust", "standardize", "quantile", None])
def test_onnx_graph_takes_columns_by_name(scaling, dtype):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("ndonnx")
    model = clone(MODEL).set_params(input_scaling=scaling, precision=dtype).fit(X, Y)
    settings = [{"max_one_hot": 2}, {"max_one_hot": 99}]
    ensemble = MLPEnsembleClassifier(model, 3, settings=settings, random_state=0).fit(X, Y)
    rows = X.assign(
        # Words that mean a missing value, and numbers whose squares overflow.
        city=["Rome", "NA", "?", "n/a", "NaN", "<na>", "None", "null", *X["city"][8:]],
        zip=[*X["zip"][1:], 3000.0],
        age=[1e30, -1e25, 3e38, -3e38, *X["age"][4:]] if scaling == "robust" else X["age"],
    )
    for each in (model, ensemble):
        session = onnxruntime.InferenceSession(to_onnx(each).SerializeToString())
        assert {one.type for one in session.get_inputs()} == {"tensor(string)", TYPES[dtype]}
        label, probabilities = session.run(None, named(rows, dtype))
        np.testing.assert_allclose(probabilities, each.predict_proba(rows), atol=2e-6)
        np.testing.assert_array_equal(label, each.predict(rows))
    with pytest.raises(ValueError, match="one matrix: export the network alone with to_onnx"):
        trace(model, dtype, in_pipeline=True)
