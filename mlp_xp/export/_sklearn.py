"""Conversion of fitted estimators to and from scikit-learn's MLPs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import sklearn.neural_network

from mlp_xp._utils.tree import map_leaves
from mlp_xp.estimators import MLPClassifier, MLPRegressor
from mlp_xp.estimators.fitted.state import FittedState, fitted_state
from mlp_xp.export._members import state_of
from mlp_xp.nn.losses import Poisson
from mlp_xp.nn.network import Network

# Attributes with the same name in scikit-learn, except for the weights.
_HISTORY = ["best_loss_", "best_validation_score_", "loss_", "loss_curve_", "n_iter_", "t_"]
_HISTORY += ["validation_scores_"]
_TABLE = (
    "categorical_features, missing_values, input_scaling, max_one_hot, embedding_dim, monotonic_cst"
)
_NAMES = ("feature_names_in_", "n_features_in_")
_CHOICES = {
    "solver": ("sgd", "adam", "lbfgs"),
    "learning_rate": ("constant", "invscaling", "adaptive"),
}
_ACTIVATIONS = ("identity", "logistic", "tanh", "relu")


def from_sklearn(estimator: Any) -> MLPClassifier | MLPRegressor:
    """Return scikit-learn's fitted MLP as an estimator of this package, with the same predictions.

    Settings and curves are converted, but not the optimizer state: `partial_fit` and warm starts
    continue from the weights with a new optimizer state.

    Parameters
    ----------
    estimator : sklearn.neural_network.MLPClassifier or MLPRegressor
        Fitted.

    Raises
    ------
    TypeError
        For any other estimator.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.

    Examples
    --------
    >>> import sklearn.neural_network
    >>> from mlp_xp.export import from_sklearn
    >>> X, y = [[0.0], [1.0], [2.0]], ["ant", "bee", "cat"]
    >>> theirs = sklearn.neural_network.MLPClassifier(4, solver="lbfgs", random_state=0).fit(X, y)
    >>> ours = from_sklearn(theirs)
    >>> ours.predict(X)
    array(['ant', 'bee', 'cat'], dtype='<U3')
    """
    kinds = {
        sklearn.neural_network.MLPClassifier: MLPClassifier,
        sklearn.neural_network.MLPRegressor: MLPRegressor,
    }
    theirs = next((theirs for theirs in kinds if isinstance(estimator, theirs)), None)
    if theirs is None:
        raise TypeError(
            "`estimator` must be an MLPClassifier or MLPRegressor of sklearn.neural_network, got "
            f"{estimator!r}."
        )
    fitted = vars(estimator)
    # A subclass may have other parameters.
    params = {name: getattr(estimator, name) for name in theirs().get_params()}
    model: Any = kinds[theirs](**params)
    for name in ("coefs_", "intercepts_"):
        if name in fitted:
            setattr(model, name, [np.array(array) for array in fitted[name]])
    known = ("out_activation_", "classes_", *_HISTORY, *_NAMES)
    vars(model).update({name: copy.copy(fitted[name]) for name in known if name in fitted})
    fitted_state(model)
    return model


def to_sklearn(model: Any) -> Any:
    """Return a fitted estimator as scikit-learn's own MLP, with the same predictions.

    Scikit-learn must support the network: dense layers that all have the same activation,
    "identity", "logistic", "tanh" or "relu". Settings that matter only in training, such as dropout
    and the losses and solvers of this package, are left out. Input scaling is merged into the first
    layer, and target scaling into the last layer.

    Parameters
    ----------
    model : MLPClassifier or MLPRegressor
        Fitted, on any backend.

    Returns
    -------
    sklearn.neural_network.MLPClassifier or MLPRegressor

    Raises
    ------
    ValueError
        For any other network, or with test-time augmentation; the message names the setting.
    TypeError
        If `model` is not a single estimator of this package.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.

    Examples
    --------
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.export import to_sklearn
    >>> X, y = [[0.0], [1.0], [2.0]], ["ant", "bee", "cat"]
    >>> model = MLPClassifier(4, solver="lbfgs", input_scaling="standardize", random_state=0)
    >>> to_sklearn(model.fit(X, y)).predict(X)
    array(['ant', 'bee', 'cat'], dtype='<U3')
    """
    state = state_of(model)
    activation = _check(model, state)
    is_classifier = state.targets.classes is not None
    name = "MLPClassifier" if is_classifier else "MLPRegressor"
    kind: Any = getattr(sklearn.neural_network, name)
    own, given = kind().get_params(), model.get_params(deep=False)
    theirs = kind(**{name: given[name] for name in own if _is_known(name, given[name])})
    theirs.set_params(activation=activation, hidden_layer_sizes=state.network.widths[1:-1])
    if state.output == "exp":
        theirs.set_params(loss="poisson")
    coefs, intercepts = _weights(state)
    fitted, known = vars(model), (*_HISTORY, *_NAMES)
    vars(theirs).update({name: copy.copy(fitted[name]) for name in known if name in fitted})
    vars(theirs).update(coefs_=coefs, intercepts_=intercepts, out_activation_=state.output)
    vars(theirs).update(n_layers_=len(state.network.widths), n_outputs_=state.network.sizes[-1])
    theirs._no_improvement_count = 0
    if is_classifier:
        vars(theirs).update(classes_=state.targets.classes, _label_binarizer=model._label_binarizer)
    return theirs


def _is_known(name: str, value: Any) -> bool:
    """Whether scikit-learn has a parameter for a setting and supports its value."""
    return name not in ("activation", "loss") and (name not in _CHOICES or value in _CHOICES[name])


# Defaults of `Network`, except for dropout, which does not affect predictions.
_DEFAULTS = {
    field.name: field.default
    for field in fields(Network)
    if field.name not in ("widths", "activation", "dropout", "input_dropout")
}


def _check(model: Any, state: FittedState) -> str:
    """Return the activation; raise ValueError if scikit-learn does not support the network."""
    for problem in _problems(model, state):
        has_matrix = state.columns is None and model.tta is None
        ways = "to_onnx or to_torch" if has_matrix else "to_onnx"
        raise ValueError(f"{problem}: export with {ways}.")
    if model.tta is not None:
        raise ValueError(
            f"tta is {model.tta!r}, but scikit-learn's MLP does not support test-time "
            "augmentation: set tta=None, or export with to_onnx."
        )
    activation = state.network.activation
    return str(activation[0] if isinstance(activation, tuple) else activation)


def _problems(model: Any, state: FittedState) -> Iterator[str]:
    """Yield the model's features that scikit-learn's MLP does not support."""
    network, targets, classes = state.network, state.targets, state.targets.classes
    if state.columns is not None:
        yield (
            f"The network encodes the columns of a table ({_TABLE}), but "
            "scikit-learn's MLP has no encoder"
        )
    if not network.is_flat or any(not isinstance(width, int) for width in network.widths):
        found = {name: getattr(network, name) for name in _DEFAULTS}
        found = {name: value for name, value in found.items() if value != _DEFAULTS[name]}
        if (inputs := found.pop("inputs", None)) is not None:
            found |= {"numeric_embedding": inputs.numeric, "learn_input_scale": inputs.scale}
        found["hidden_layer_sizes"] = network.widths[1:-1]
        yield (
            f"The network has {', '.join(f'{n}={v!r}' for n, v in found.items())}, but "
            "scikit-learn's MLP has only plain dense layers"
        )
    given = network.activation if isinstance(network.activation, tuple) else (network.activation,)
    if len(set(given)) > 1 or given[0] not in _ACTIVATIONS:
        yield (
            f"activation is {network.activation!r}, but scikit-learn's MLP must have one of "
            f"{list(_ACTIVATIONS)} in all layers"
        )
    if state.loss.outputs_per_target > 1:
        yield (
            f"loss is {state.loss!r}, which needs several outputs per target, but scikit-learn's "
            "MLP has one"
        )
    if state.clips_predictions:
        yield "clip_predictions is True, but scikit-learn's MLP does not clip predictions"
    if isinstance(classes, list):
        yield f"y has {len(classes)} classification targets, but scikit-learn's MLP supports one"
    wanted = "exp" if isinstance(state.loss, Poisson) else "identity"
    if classes is not None:
        wanted = "softmax" if targets.kind == "multiclass" else "logistic"
    if state.output != wanted:
        yield (
            f"output_activation is {state.output!r}, but scikit-learn's MLP uses {wanted!r} for "
            f"{targets.kind} targets"
        )


def _weights(state: FittedState) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the weights and biases, with the scalings merged into the first and last layers."""
    coefs = [np.array(layer.W) for layer in state.params]
    intercepts = [np.array(layer.b) for layer in state.params]
    if state.scaling is not None:
        shift, scale, *rotation = map_leaves(lambda a: np.asarray(a, np.float64), state.scaling)
        matrix = rotation[0] @ coefs[0] if rotation else coefs[0]
        first = scale[:, None] * matrix
        intercepts[0] = (intercepts[0] - shift @ first).astype(state.dtype)
        coefs[0] = first.astype(state.dtype)
    if state.target_scaling is not None:
        mean, deviation = state.targets.scaling
        coefs[-1] = (coefs[-1] * deviation).astype(state.dtype)
        intercepts[-1] = (intercepts[-1] * deviation + mean).astype(state.dtype)
    return coefs, intercepts
