"""Export to ONNX, by tracing the forward pass with ONNX as an array library."""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np

from mlp_xp import __version__
from mlp_xp._utils.optional import optional
from mlp_xp.estimators.fitted.scoring import check_sets
from mlp_xp.estimators.targets import MultilabelTargets, Targets
from mlp_xp.export._files import check_path, write_file
from mlp_xp.export._members import members_of, states_of, weights_of
from mlp_xp.export._outputs import (
    Library,
    groups_in_graph,
    mean_probabilities,
    named_values,
    predictions,
    set_of_classes,
)


def to_onnx(
    model: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    precision: str | None = None,
    interval: float | None = None,
) -> Any:
    """Return a fitted classifier, regressor or ensemble as an ONNX model.

    Like the estimator, the graph takes any number of unscaled rows. Input scaling, test-time
    augmentation, output activation and class labels are part of the graph.

    Parameters
    ----------
    model : MLPClassifier, MLPRegressor, MLPEnsembleClassifier or MLPEnsembleRegressor
        Fitted, on any backend. An ensemble becomes one graph that averages its networks.
    path : str or path-like, optional
        File to write, e.g. ``"digits.onnx"``; an existing file is replaced as a whole.
    precision : {"float32", "float64"}, optional
        The dtype of inputs, weights and outputs. By default, it is the dtype that the estimator
        computes in: float32 after a fit of float32 or uint8 data, or with ``precision="float32"``
        or less; otherwise float64. Runtimes for browsers and phones require float32.
    interval : float in (0, 1), optional
        Also output limits between which this fraction of new targets is, or for a classifier the
        set of classes that contains the correct class in this fraction of cases. Requires held-out
        errors, as ``predict(X, interval=0.9)`` and ``predict_set`` do.

    Returns
    -------
    onnx.ModelProto
        The input is ``X : (N, features)``. For a table with categories or dates, each column is an
        input ``(N,)`` with the column's name instead: text ("" or a word such as "NA", without
        spaces around it, if missing) or numbers (NaN if missing). A date has an input for each of
        its numbers, e.g. ``"born: year"``. A classifier has the outputs ``label : (N,)``, in the
        dtype of its classes, or ``(N, classes)`` int64 for multilabel targets, and ``probabilities
        : (N, classes)``; for several targets, the outputs are ``label_0``, ``probabilities_0``,
        ``label_1`` and so on. A regressor has ``prediction : (N,)`` or ``(N, outputs)``. With
        ``loss="gaussian"``, it also has ``std``, of the same shape, and with several quantiles,
        ``quantiles : (N, levels)`` or ``(N, outputs, levels)``, calibrated if the estimator is
        calibrated. With `interval`, there are ``lower`` and ``upper``, of the shape of the
        prediction, or ``set : (N, classes)``, boolean. With `coverage_by`, limits are NaN for a row
        whose group had no held-out samples, and its set has only the most likely class.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    ValueError
        For an unknown precision, for classes that are neither numbers nor text, or if an `interval`
        is requested without enough held-out samples.
    TypeError
        If `model` is not an estimator of this package.
    ImportError
        If the ``onnx`` extra is not installed.

    Examples
    --------
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.export import to_onnx
    >>> X, y = [[0.0], [1.0], [2.0]], ["ant", "bee", "cat"]
    >>> model = MLPClassifier(4, max_iter=2, learning_rate="cosine").fit(X, y)
    >>> graph = to_onnx(model).graph
    >>> [node.op_type for node in graph.node]
    ['Gemm', 'Relu', 'Gemm', 'Softmax', 'ArgMax', 'Gather']
    >>> [output.name for output in graph.output]
    ['label', 'probabilities']
    """
    check_path(path, "model.onnx")
    graph = trace(model, precision, interval=interval)
    write_file(path, graph.SerializeToString())
    return graph


def trace(
    model: Any,
    precision: str | None,
    *,
    in_pipeline: bool = False,
    interval: float | None = None,
) -> Any:
    """Return an estimator as an ONNX model.

    In a pipeline, a single output has shape (N, 1), and a regressor returns only the prediction.
    """
    onnx = optional("onnx", "onnx")
    ndonnx = optional("ndonnx", "onnx")
    from mlp_xp.export._tidy import tidy

    members = members_of(model)
    states = states_of(members)
    first = states[0]
    precision = first.dtype if precision is None else precision
    if precision not in ("float32", "float64"):
        raise ValueError(f"`precision` must be 'float32' or 'float64', got {precision!r}.")
    x: Any = None
    if first.columns is not None:
        from mlp_xp.export._tables import encode_columns, graph_inputs  # Only needed for tables.

        inputs = graph_inputs(first.columns, precision)
        encode = functools.cache(lambda columns: encode_columns(columns, inputs, precision))
        if in_pipeline and len(inputs) > 1:
            raise ValueError(
                "The network needs the columns of a table, but skl2onnx passes one matrix: "
                "export the network alone with to_onnx, or encode categories in the pipeline."
            )
    else:
        x = ndonnx.argument(shape=("N", first.n_features), dtype=getattr(ndonnx, precision))
        inputs = {"X": x}
    library = _library(precision)
    found, groups = [], []
    for member, state in zip(members, states, strict=True):
        x = x if state.columns is None else encode(state.columns)
        found.append(predictions(member, state, x, library))
        groups.append(groups_in_graph(state, x, library))
    if first.targets.classes is None:
        values = named_values(states, found, weights_of(model), library, groups, interval)
        outputs = {name: first.targets.decode(array) for name, array in values.items()}
        if in_pipeline:
            outputs = {"prediction": values["prediction"]}
    else:
        outputs = _named_classes(model, first.targets, found, library)
        if interval is not None:
            check_sets(first.targets.kind)
            array = outputs["probabilities"]
            outputs["set"] = set_of_classes(array, states, interval, groups[0], library)
        if in_pipeline and isinstance(model.classes_, list):
            raise ValueError(
                f"y has {len(model.classes_)} classification targets, but a converted pipeline "
                "returns one label: export the estimator alone with mlp_xp.export.to_onnx."
            )
    for name in inputs.keys() & outputs.keys():
        raise ValueError(
            f"X has a column {name!r}, which is also the name of an output: rename the column, fit "
            "again, and export again."
        )
    graph = ndonnx.build(inputs, outputs)
    tidy(graph)
    graph.producer_name, graph.producer_version = "mlp-xp", __version__
    del graph.metadata_props[:]
    onnx.checker.check_model(graph, full_check=True)
    return graph


def _library(precision: str) -> Library:
    """Return ONNX as an array library."""
    import ndonnx

    from mlp_xp.export._operators import KERNELS, OnnxNamespace, activate_outputs, mean

    def put(array: np.ndarray) -> Any:
        is_float = np.asarray(array).dtype.kind == "f"
        return ndonnx.asarray(np.asarray(array, dtype=precision if is_float else None))

    xp: Any = OnnxNamespace()
    return Library(xp, put, KERNELS, activate_outputs, mean)


def _named_classes(
    model: Any, targets: Targets, given: list[Any], library: Library
) -> dict[str, Any]:
    """Return the outputs of a classifier by name."""
    import ndonnx

    classes = model.classes_
    several = isinstance(classes, list)
    named: dict[str, Any] = {}
    found = mean_probabilities(given, weights_of(model), library)
    for i, (labels, array) in enumerate(zip(classes if several else [classes], found, strict=True)):
        if isinstance(targets, MultilabelTargets):
            label = ndonnx.astype(array > 0.5, ndonnx.int64)
        else:
            positions = library.xp.argmax(array, axis=1)
            label = library.xp.take(ndonnx.asarray(_labels(labels)), positions)
        end = f"_{i}" if several else ""
        named |= {f"label{end}": label, f"probabilities{end}": array}
    return named


def _labels(classes: np.ndarray) -> np.ndarray:
    """Return class labels in a dtype that ONNX supports."""
    if classes.dtype.kind in "iub":
        return classes.astype(np.int64)
    if classes.dtype.kind == "f":
        return classes.astype(np.float64)
    if classes.dtype.kind == "U" or all(isinstance(label, str) for label in classes):
        return classes.astype(str)
    raise ValueError(
        f"ONNX labels must be numbers or text, but classes_ is {classes!r}: fit on such labels, or "
        "set model.classes_ to the names of the classes before the export."
    )
