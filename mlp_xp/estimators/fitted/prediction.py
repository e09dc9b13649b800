"""The predictions of a fitted estimator, and their evaluation."""

from functools import partial
from typing import Any

import numpy as np

from mlp_xp._utils.array_types import Array
from mlp_xp._utils.columns.streams import is_table_stream
from mlp_xp._utils.sklearn_compat import as_sparse, check_same_namespace
from mlp_xp._utils.tree import leaves
from mlp_xp.backends import Backend, get_backend
from mlp_xp.estimators.checks.range import check_range
from mlp_xp.estimators.checks.target_column import take_scored_target, take_target
from mlp_xp.estimators.checks.unusable import refuse_path
from mlp_xp.estimators.checks.validation import check_weights, check_x, check_y
from mlp_xp.estimators.fitted.device_cache import put_leaves
from mlp_xp.estimators.fitted.scoring import (
    Metrics,
    Predictions,
    groups_of,
    named_metrics,
    scorer_of,
)
from mlp_xp.estimators.fitted.state import FittedState, fitted_state
from mlp_xp.estimators.settings.config import choose_backend, resolve_augmentation
from mlp_xp.estimators.targets import Targets
from mlp_xp.nn.losses import EachMember, mean_loss
from mlp_xp.training.divergence.finite import is_finite
from mlp_xp.training.inference.inference import predict

# The default of the argument `tta`: use the estimator's parameter.
AS_SET = "estimator"


def network_outputs(
    model: Any,
    X: Any,
    method: str,
    *,
    raw: bool = False,
    only_order: bool = False,
    depth: int | None = None,
    to: Backend | None = None,
    tta: Any = AS_SET,
) -> Array:
    """Return the outputs of an estimator's network, (samples, outputs).

    ``method`` is the name of the calling method, for errors. ``raw`` omits the output activation.
    If ``only_order``, the softmax may be skipped, since it does not change the order of a sample's
    outputs. ``depth`` selects a hidden layer, from 1, whose activations are returned instead.
    ``to`` is the backend of the result, by default the backend of X. If X is read in parts, they
    are predicted one by one, and only the outputs are kept.
    """
    state = fitted_state(model)
    if type(X) is not np.ndarray and is_table_stream(X):
        from mlp_xp.estimators.checks.streams import map_frames  # Import only for streams.

        settings: Any = {"raw": raw, "only_order": only_order, "depth": depth, "tta": tta}
        predict_part = partial(network_outputs, model, method=method, **settings)
        joined: Any = np.concatenate([*map_frames(model, X, predict_part)])
        return joined
    X, results, backend, dtype = place(model, X, state, method)
    views: tuple[Any, ...] = ()
    if depth is not None and state.network.n_members > 1:
        raise ValueError(
            f"`n_members` must be 1 for hidden_activations, got {state.network.n_members}: fit "
            "with n_members=1."
        )
    if depth is None:
        # Check the type first: comparing an array would compare each element.
        is_set = isinstance(tta, str) and tta == AS_SET
        views = resolve_augmentation("tta", model.tta if is_set else tta, state.n_features)
    to = to or results
    params, batch_stats, scaling = state.on(backend, dtype)
    # Do not skip the softmax of a single output, which is always 1. (A user can assign softmax.)
    keeps_order = state.output == "softmax" and state.network.sizes[-1] > 1
    keeps_order = keeps_order and state.network.n_members == 1
    is_raw = not views and (raw or (only_order and keeps_order))
    outputs = predict(
        backend,
        state.network,
        None if is_raw else state.activating_loss,
        params,
        X,
        scaling,
        batch_stats=batch_stats,
        depth=depth,
        to=to,
        tta=views,
        dtype=dtype,
        precision=model.precision,
    )
    # Check new weights even if the outputs are finite: tanh(inf) is 1, and XLA's max(NaN, 0) is 0.
    # If the weights are known to be finite, do not check the outputs: reading them would wait for
    # the device, and large inputs may cause overflow.
    is_known = state.is_checked and not state.copies.is_shared
    if not (is_known or (state.is_checked and is_finite(to, outputs))):
        model._state = state.checked()
    if raw and views:
        with to.scope():
            return state.activating_loss.raw_outputs(outputs, xp=to.xp)
    if raw or depth is not None or not (state.target_scaling or state.clips_predictions):
        return outputs
    with to.scope():
        return state.targets.restore(
            state.activating_loss, outputs, lambda array: to.put(array, dtype), xp=to.xp
        )


def place(model: Any, X: Any, state: FittedState, method: str) -> tuple[Any, Backend, Backend, str]:
    """Return the checked data, the results' backend, and the computation's backend and dtype."""
    refuse_path(X)
    caller, results = get_backend(X), result_backend(state, X)
    check_same_namespace(X, model, attribute="_any_weights", method=method)
    X = check_x(model, X, reset=False)
    follows_data = model.backend is None and model.device is None
    backend = caller if follows_data else choose_backend(model._params(), X)
    dtype = state.dtype if backend.has_float64 else "float32"
    if dtype == "float32":
        check_range(X)
    return X, results, backend, dtype


def result_backend(state: FittedState, X: Any) -> Backend:
    """Return the backend of X, or NumPy if the weights are NumPy arrays.

    As in scikit-learn, a model that was fitted on NumPy arrays returns NumPy arrays.
    """
    weights = leaves(state.params)[0] if type(X) is not np.ndarray else X
    return get_backend(weights if isinstance(weights, np.ndarray) else X)


def as_labels(labels: np.ndarray, state: FittedState, X: Any) -> Any:
    """Return labels as a sparse matrix if y was sparse, else like other results if possible."""
    targets: Targets = state.targets
    if targets.is_sparse:
        return as_sparse(labels)
    if labels.dtype.kind not in "biuf":
        return labels
    to = result_backend(state, X)
    narrow = labels.dtype == np.float64 and not to.has_float64
    return to.put(labels, "float32" if narrow else None)


class PredictionMixin:
    """A mixin with the predictions of classifiers and regressors."""

    _outputs = network_outputs

    @property
    def _any_weights(self: Any) -> Any:
        return leaves(self._state.params)[0]

    def member_std(self: Any, X: Any) -> Any:
        """Return the standard deviation of the predictions over the `n_members` networks.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library

        Returns
        -------
        array
            In the shape of the classifier's `predict_proba` or the regressor's `predict`.
        """
        state = fitted_state(self)
        loss = state.activating_loss
        if not isinstance(loss, EachMember):
            raise ValueError(
                "`n_members` must be above 1 for member_std, got 1: fit with e.g. n_members=32."
            )
        logits = network_outputs(self, X, "member_std", raw=True, tta=None)
        backend, targets = get_backend(logits), state.targets
        with backend.scope():
            spread: Any = loss.spread(logits, xp=backend.xp)
            if targets.classes is None:
                if state.target_scaling is not None:
                    dtype = str(spread.dtype).rpartition(".")[2]
                    spread = spread * backend.put(targets.scaling[1], dtype)
                return targets.decode(spread)
            # The probabilities of the two classes have the same standard deviation.
            if targets.kind == "binary" and spread.shape[-1] == 1:
                return backend.xp.concat([spread, spread], axis=1)
            return targets.margins(spread) if isinstance(targets.classes, list) else spread

    def hidden_activations(self: Any, X: Any, layer: int = -1) -> Array:
        """Return the activations of a hidden layer.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
        layer : int, default=-1
            Index of the hidden layer, from 0; negative numbers count from the last.

        Returns
        -------
        (samples, width) array
            The activations, after normalization and residual connection, in the library and on the
            device of X; in NumPy if `coefs_` are NumPy arrays.

        Raises
        ------
        IndexError
            If the network has no such layer.

        Examples
        --------
        >>> from mlp_xp import MLPRegressor
        >>> model = MLPRegressor(hidden_layer_sizes=(5, 3), max_iter=2, learning_rate="cosine")
        >>> model = model.fit([[0.0], [1.0]], [0, 1])
        >>> model.hidden_activations([[0.5]]).shape, model.hidden_activations([[0.5]], 0).shape
        ((1, 3), (1, 5))
        """
        n_hidden = len(fitted_state(self).network.widths) - 2
        if not -n_hidden <= layer < n_hidden:
            raise IndexError(
                f"`layer` must be 0 to {n_hidden - 1} for a network with {n_hidden} hidden layers, "
                f"got {layer}."
            )
        return self._outputs(X, "hidden_activations", depth=layer % n_hidden + 1)

    def input_gradient(self: Any, X: Any, target: Any) -> Array:
        """Return the gradient of the loss with respect to the inputs.

        The magnitude of the gradient shows which features a prediction depends on (a saliency map);
        its sign shows which change of the features increases the loss (an adversarial example).
        Dropout and `tta` are not used; batch normalization uses its running statistics.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
        target : array-like of shape (samples,) or (samples, outputs)
            Class labels or values to compute the loss for, like y in `fit`.

        Returns
        -------
        (samples, features) array
            Derivative of each sample's loss, as reported by `evaluate`, with respect to its
            features; in the library and on the device of X, or in NumPy if `coefs_` are NumPy
            arrays. For a data frame, the derivative is with respect to the encoded inputs;
            ``columns_.by_column`` returns its norm per column.

        References
        ----------
        Simonyan, Vedaldi, Zisserman, "Deep inside convolutional networks" (2014), arXiv:1312.6034;
        Goodfellow, Shlens, Szegedy, "Explaining and harnessing adversarial examples" (2015),
        arXiv:1412.6572.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from mlp_xp import MLPClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> model = MLPClassifier(max_iter=200, random_state=0).fit(X, y)
        >>> gradient = model.input_gradient(X, y)
        >>> worse = X + 0.3 * (gradient > 0) - 0.3 * (gradient < 0)
        >>> model.score(worse, y) < model.score(X, y)
        True
        """
        # Import only if needed.
        from mlp_xp.training.inference.input_gradient import input_gradient

        X, target = take_target(X, target, "target")
        state = fitted_state(self).checked()
        X, results, backend, dtype = place(self, X, state, "input_gradient")
        truth = check_y(self, target, X.shape[0], "target")
        state.targets.check_loss(truth, state.loss, "target")
        with backend.scope():
            weights: Any = put_leaves(backend, state.on(backend, dtype), dtype)
        targets = state.targets.encode(truth, dtype, "target")
        return input_gradient(
            backend, state.network, state.loss, weights, X, targets, to=results, dtype=dtype
        )

    def evaluate(
        self: Any, X: Any, y: Any, sample_weight: Any = None, *, metrics: Metrics | None = None
    ) -> dict[str, float]:
        """Return loss and scores, computed in one pass over the data.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
            Or a table that is read in parts, such as `mlp_xp.datasets.Parquet`.
        y : array-like of shape (samples,) or (samples, outputs), or str
            Targets, or the name of a column of X.
        sample_weight : array-like of shape (samples,), optional
        metrics : str, callable, list of str, or dict of them, optional
            Names of scikit-learn's scorers, e.g. ``"roc_auc_ovr"``, or callables
            ``scorer(estimator, X, y)``; by default the metric of `score`.

        Returns
        -------
        dict
            The values by name: ``"loss"`` and the metrics. The loss does not include the penalty;
            with `tta` it is the loss of the averaged predictions.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from mlp_xp import MLPClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> model = MLPClassifier(max_iter=5, learning_rate="cosine").fit(X, y)
        >>> list(model.evaluate(X, y, metrics=["accuracy", "neg_log_loss"]))
        ['loss', 'accuracy', 'neg_log_loss']
        """
        X, y = take_scored_target(X, y)
        named = named_metrics(() if metrics is None else metrics)
        here = get_backend("numpy")
        logits: Any = network_outputs(self, X, "evaluate", raw=True, to=here)
        state, n_samples = fitted_state(self), logits.shape[0]
        loss, targets = state.loss, state.targets
        truth = check_y(self, y, n_samples)
        targets.check_loss(truth, loss)
        weights = check_weights(sample_weight, n_samples)
        encoded: Any = targets.encode(truth, state.dtype)
        shares: Any = None if weights is None else weights.astype(logits.dtype)
        value: Any = mean_loss(loss, logits, encoded, shares, xp=here.xp)[0]
        activating: Any = state.activating_loss
        outputs = activating.activate(logits, xp=here.xp)
        outputs = targets.restore(
            activating, outputs, lambda array: array.astype(logits.dtype), xp=here.xp
        )
        groups = groups_of(self, X) if metrics is not None else None
        known = state.calibration, groups
        predictions = Predictions(self, activating, targets, outputs, *known)
        scores = {"loss": loss.reported(float(value), logits.shape[1])}
        if metrics is None:
            return scores | {targets.metric: predictions.score(X, truth, weights)}
        for name, metric in named.items():
            scores[name] = predictions.score_with(scorer_of(metric), X, truth, weights)
        return scores
