"""Fitted estimators for the tests of exports, and what ONNX models predict."""

import numpy as np

from mlp_xp import MLPClassifier, MLPRegressor

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 12))
Y = RNG.integers(0, 3, 40)
TARGETS = {
    "three classes": Y,
    "two classes": Y > 0,
    "text": np.asarray(["ant", "bee", "cat"])[Y],
    "objects": np.asarray(["ant", "bee", "cat"], dtype=object)[Y],
    "whole numbers as float": Y.astype(float),
    "int8": Y.astype(np.int8),
    "several": np.eye(3, dtype=int)[Y],
    "value": X[:, 0],
    "values": X[:, :2],
}
REAL = ("value", "values")


def fitted(what="three classes", dtype="float64", **settings):
    """Return an estimator that has trained for one epoch, and its rows."""
    kind = MLPRegressor if what in REAL else MLPClassifier
    settings = {"hidden_layer_sizes": (8, 8), "random_state": 0, "batch_size": 20} | settings
    model = kind(max_iter=1, learning_rate="cosine", learning_rate_init=0.05, **settings)
    rows = X.astype(dtype)
    return model.fit(rows, TARGETS[what]), rows


def run_onnx(model, rows):
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    columns = [one.name for one in session.get_inputs() if one.name != "X"]  # A table's columns.
    inputs = {name: rows[:, int(name[1:])] for name in columns} or {"X": rows}
    return dict(zip(names, session.run(None, inputs), strict=True))
