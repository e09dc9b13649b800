"""Converters for skl2onnx, so it can export pipelines that contain our estimators."""

from __future__ import annotations

from typing import Any

from sklearn.base import is_classifier

from mlp_xp._utils.optional import optional
from mlp_xp.estimators import MLPClassifier, MLPRegressor
from mlp_xp.estimators.ensembles import MLPEnsembleClassifier, MLPEnsembleRegressor
from mlp_xp.export._onnx import trace


def register_skl2onnx() -> None:
    """Register converters for this package's estimators, also inside pipelines and searches.

    Call this once before ``skl2onnx.to_onnx`` or ``convert_sklearn``. The exported network uses
    float32 if the pipeline's inputs are float32, otherwise float64. ``target_opset`` must be at
    least 21. For a regressor, only the prediction is exported; to export the standard deviation or
    quantiles, use `to_onnx`.

    Raises
    ------
    ImportError
        If the ``onnx`` extra is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skl2onnx import to_onnx
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.export import register_skl2onnx
    >>> register_skl2onnx()
    >>> X, y = np.asarray([[0.0], [1.0], [2.0]], dtype="float32"), ["ant", "bee", "cat"]
    >>> model = make_pipeline(StandardScaler(), MLPClassifier(4, learning_rate="cosine"))
    >>> graph = to_onnx(model.fit(X, y), X, options={"zipmap": False}).graph
    >>> [output.name for output in graph.output]
    ['label', 'probabilities']
    """
    skl2onnx = optional("skl2onnx", "onnx")
    # These options set the format of probabilities; skl2onnx itself implements them.
    options = {"zipmap": [True, False, "columns"], "nocl": [True, False]}
    for kind in (MLPClassifier, MLPEnsembleClassifier, MLPRegressor, MLPEnsembleRegressor):
        name = f"MlpXp{kind.__name__}"
        given = options if is_classifier(kind()) else None
        skl2onnx.update_registered_converter(kind, name, _set_types, _convert, options=given)


def _types() -> Any:
    return optional("skl2onnx.common.data_types", "onnx")


def _graph(operator: Any) -> Any:
    # The operator caches the graph, because `_set_types` and `_convert` both need it.
    if not hasattr(operator, "mlp_xp_graph"):
        floats = _types().FloatTensorType, _types().DoubleTensorType
        if len(operator.inputs) != 1 or not isinstance(operator.inputs[0].type, floats):
            raise ValueError(
                "A network must get one matrix of floats in skl2onnx: pass e.g. "
                "X[:1].to_numpy('float32') for a data frame, or use mlp_xp.export.to_onnx."
            )
        is_single = isinstance(operator.inputs[0].type, _types().FloatTensorType)
        precision = "float32" if is_single else "float64"
        operator.mlp_xp_graph = trace(operator.raw_operator, precision, in_pipeline=True)
    return operator.mlp_xp_graph


def _set_types(operator: Any) -> None:
    """Set the dtypes and shapes of the network's outputs."""
    TensorProto, types = optional("onnx", "onnx").TensorProto, _types()
    kinds = {
        TensorProto.FLOAT: types.FloatTensorType,
        TensorProto.DOUBLE: types.DoubleTensorType,
        TensorProto.INT64: types.Int64TensorType,
        TensorProto.STRING: types.StringTensorType,
    }
    for variable, output in zip(operator.outputs, _graph(operator).graph.output, strict=True):
        tensor = output.type.tensor_type
        lengths = [length.dim_value or None for length in tensor.shape.dim]
        variable.type = kinds[tensor.elem_type](lengths)


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """Add the network of an estimator to a graph."""
    helpers = optional("skl2onnx.helpers", "onnx")
    helpers.add_onnx_graph(scope, operator, container, _graph(operator))
