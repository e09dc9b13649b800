"""Fitted estimators as PyTorch modules, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlp_xp._utils.optional import optional
from mlp_xp.estimators import MLPClassifier, MLPRegressor
from mlp_xp.estimators.fitted.state import FittedState, fitted_state, publish
from mlp_xp.estimators.settings.config import resolve_config
from mlp_xp.export._members import state_of
from mlp_xp.nn.losses import OUTPUTS
from mlp_xp.nn.network import with_layers
from mlp_xp.training.loop.history import History


def to_torch(model: Any, *, activate: bool = False) -> Any:
    """Return a fitted estimator as a PyTorch module, ready for prediction or further training.

    Parameters
    ----------
    model : MLPClassifier or MLPRegressor
        Fitted, on any backend.
    activate : bool, default=False
        Whether the module ends with the output activation, e.g. a softmax. PyTorch's losses expect
        the outputs without it. With ``output_activation="logistic"`` and several classes,
        `predict_proba` also divides the outputs by their sum.

    Returns
    -------
    torch.nn.Sequential
        On the CPU and in evaluation mode, with ``Linear``, ``LayerNorm``, ``ReLU`` and so on, and
        small custom modules for blocks that PyTorch lacks. Like the estimator, the module takes
        rows, in the dtype of the fit. Outputs have shape (rows, outputs); for two classes, the
        single output is the log-odds of the second class. With ``loss="gaussian"``, the outputs are
        means, then logarithms of variances, or standard deviations if activated. With several
        quantiles, they are the lowest quantile, then raw steps, or the quantiles if activated. With
        `n_members`, raw outputs have shape (rows, members x outputs), and activated outputs are
        averages. With `target_scaling`, raw outputs are in standardized units if a target has
        several of them. For a table, the module takes ``model.columns_.transform(X)``.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    ValueError
        With test-time augmentation.
    TypeError
        If `model` is not a single estimator of this package.
    ImportError
        If torch is not installed.

    Examples
    --------
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.export import to_torch
    >>> X, y = [[0.0], [1.0], [2.0]], ["ant", "bee", "cat"]
    >>> model = MLPClassifier(4, max_iter=2, learning_rate="cosine").fit(X, y)
    >>> to_torch(model)
    Sequential(
      (0): Linear(in_features=1, out_features=4, bias=True)
      (1): ReLU()
      (2): Linear(in_features=4, out_features=3, bias=True)
    )
    """
    optional("torch", "torch")
    from mlp_xp.export._torch_modules import build

    state = state_of(model)
    if model.tta is not None:
        raise ValueError(
            f"tta is {model.tta!r}, but a module does not support test-time augmentation: set "
            "tta=None, or export with to_onnx."
        )
    return build(state, activate=activate)


def from_torch(module: Any, classes: Any = None) -> MLPClassifier | MLPRegressor:
    """Return a PyTorch module as a fitted estimator, with the same predictions.

    Parameters
    ----------
    module : torch.nn.Sequential
        ``Linear`` layers; each but the last may be followed, in this order, by a normalization
        (``LayerNorm`` or ``BatchNorm1d``, the same kind everywhere), an activation, and
        ``Dropout``. There may be a ``Flatten`` at the start and a ``Softmax``, ``LogSoftmax`` or
        ``Sigmoid`` at the end. A classifier normalizes the outputs of several sigmoids to a sum
        of 1.
    classes : (classes,) array-like, optional
        Sorted labels of the outputs of a classifier; a single output has two labels. Without
        classes, the module becomes a regressor.

    Returns
    -------
    MLPClassifier or MLPRegressor

    Raises
    ------
    ValueError
        For other modules, or if the number of classes does not match the number of outputs.
    ImportError
        If torch is not installed.

    Examples
    --------
    >>> import torch
    >>> from mlp_xp.export import from_torch
    >>> module = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> from_torch(module, classes=["ant", "bee", "cat"]).predict([[0.0, 1.0]]).shape
    (1,)
    """
    optional("torch", "torch")
    from mlp_xp.export._torch_modules import parse

    parsed = parse(module)
    layers, norms = parsed.denses, parsed.norms
    sizes = tuple(layer.b.shape[0] for layer in layers[:-1])
    settings = parsed.settings | {"hidden_layer_sizes": sizes}
    n_outputs = layers[-1].b.shape[0]
    model: Any
    attributes: dict[str, Any] = {}
    if classes is None:
        output = parsed.output or "auto"
        if output not in ("auto", *OUTPUTS):
            raise ValueError(
                f"`module` ends in {[*module][-1]!r}, which no regressor has: pass classes=..., or "
                "leave out the last layer."
            )
        model = MLPRegressor(**settings, output_activation=output)
    else:
        labels = np.asarray(classes)
        if len(labels) != max(n_outputs, 2):
            raise ValueError(
                f"classes has {len(labels)} entries, {labels!r}, but the module has {n_outputs} "
                f"outputs: give {max(n_outputs, 2)} labels."
            )
        if parsed.output == "logistic" and n_outputs == 2:
            raise ValueError(
                "`module` ends in a Sigmoid with two outputs, but a classifier has one output for "
                "two classes: use one output, or leave out the Sigmoid."
            )
        if parsed.output == "logistic":  # One-versus-rest: one output per class.
            settings["output_activation"] = attributes["out_activation_"] = "logistic"
        model, attributes["classes_"] = MLPClassifier(**settings), labels
    params = model._params()
    targets = model._targets_type.of_weights(attributes, n_outputs, params)
    n_features = layers[0].W.shape[0]
    config = resolve_config(params, n_features, targets, sizes)
    network = config.rules.network
    arrays = with_layers(network, [*layers, *norms]), tuple(parsed.batch_stats)
    loss, dtype = config.rules.loss, str(layers[0].W.dtype)
    state = FittedState(network, loss, config.output, targets, n_features, None, dtype, 0, *arrays)
    publish(model, state, History())
    fitted_state(model).checked()
    return model
