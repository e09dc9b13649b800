"""The base class of classifier and regressor."""

import time
import warnings
from typing import Any

from sklearn.base import BaseEstimator, _fit_context

from mlp_xp._utils.array_types import Array
from mlp_xp._utils.sklearn_compat import CallbackSupportMixin, with_callbacks
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends import get_backend, to_numpy
from mlp_xp.estimators.checks.processes import validating
from mlp_xp.estimators.checks.validation import Given, asks_for_table
from mlp_xp.estimators.fitted.device_cache import FittedArrays
from mlp_xp.estimators.fitted.notebook_repr import NotebookMixin
from mlp_xp.estimators.fitted.prediction import (
    evaluate,
    gradient_of_inputs,
    member_std,
    network_outputs,
)
from mlp_xp.estimators.fitted.scoring import Metrics
from mlp_xp.estimators.fitted.sklearn_overrides import SklearnNamesMixin
from mlp_xp.estimators.fitted.state import FittedState, fitted_state, publish
from mlp_xp.estimators.fitted.summary import Summary, summary_of
from mlp_xp.estimators.settings.config import LBFGS
from mlp_xp.estimators.settings.parameters import RecipeMixin, param_names, validate
from mlp_xp.estimators.targets import ClassTargets, RealTargets
from mlp_xp.recipes.parameter_row import Parameter
from mlp_xp.training.loop.history import packed, unpacked


class BaseMLP(SklearnNamesMixin, NotebookMixin, RecipeMixin, CallbackSupportMixin, BaseEstimator):  # type: ignore[misc]
    """The base class of `MLPClassifier` and `MLPRegressor`, with scikit-learn's interface.

    A subclass calls `_store` in its constructor, and sets `_parameters` and `_targets_type`.
    """

    _parameters: dict[str, Parameter]
    _parameter_constraints: dict[str, Any]
    _get_param_names, _validate_params = param_names, validate
    _targets_type: type[ClassTargets] | type[RealTargets]

    coefs_ = FittedArrays()
    intercepts_ = FittedArrays()
    norms_ = FittedArrays()
    other_weights_ = FittedArrays()
    moments_ = FittedArrays()
    history_: list[Any]
    n_features_in_: int
    n_layers_: int
    distributed: Any
    solver: Any
    random_state: Any
    warm_start: bool
    categorical_features: Any
    missing_values: str
    max_one_hot: float
    _state: FittedState
    _training: Any = None  # The trainer of the last fit; not pickled.

    def _store(self, given: dict[str, Any]) -> None:
        """Store the constructor's arguments unchanged, as scikit-learn requires."""
        for name, value in given.items():
            if name != "self":
                setattr(self, name, value)

    def _params(self) -> dict[str, Any]:
        """Return all parameters by name, including any that a subclass's constructor lacks."""
        return {name: getattr(self, name) for name in self._parameters}

    # --- fitting -------------------------------------------------------------------------------

    @with_callbacks  # type: ignore[untyped-decorator]
    @validating
    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
        resume: Any = None,
    ) -> Any:
        """Fit the network.

        Ctrl-C stops training after the current step with a warning, and keeps the network as
        trained so far.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
            float32, float64 or integers.
        y : array-like of shape (samples,) or (samples, outputs)
            Class labels, or real values for a regressor.
        sample_weight : array-like of shape (samples,), optional
            At least 0.
        X_val, y_val, sample_weight_val : as X, y and sample_weight, optional
            Validation data, on which loss and score are measured after each epoch. If
            ``early_stopping=True``, the score decides when to stop, and no part of X is held out.
        resume : str or path-like, optional
            Folder with checkpoints of this fit, written by `mlp_xp.callbacks.Checkpoint`. The fit
            resumes from the newest checkpoint, as if it had not been interrupted. Settings and data
            must be the same as before; backend and device may differ. If the folder has no
            checkpoint, the fit starts from the beginning with a warning.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If data or settings are invalid (the estimator is then unchanged), or if the weights
            become infinite or NaN.
        """
        start = time.perf_counter()
        # Import late, since predictions do not need the trainer.
        from mlp_xp.estimators.fitting.fit import fit_requests
        from mlp_xp.training.loop.answer import answer

        given, held_out = (X, y, sample_weight), (X_val, y_val, sample_weight_val)
        requests = fit_requests(self, start, given, held_out, resume=resume)
        if answer(requests):
            warnings.warn("Training interrupted by user.", stacklevel=2)
        return self

    def _partial_fit(self, given: Given, held_out: Given, classes: Any = None) -> Any:
        from mlp_xp.estimators.fitting.fit import partial_fit_requests
        from mlp_xp.training.loop.answer import answer

        answer(partial_fit_requests(self, given, held_out, classes))
        return self

    def _can_partial_fit(self) -> bool:
        if self.solver == LBFGS:
            raise AttributeError(
                "partial_fit is only available for stochastic optimizers. "
                f"{self.solver} is not stochastic."
            )
        return True

    # --- prediction ----------------------------------------------------------------------------

    def _outputs(self, X: Any, method: str, **settings: Any) -> Array:
        return network_outputs(self, X, method, **settings)

    @property
    def _any_weights(self) -> Any:
        return next(leaves(self._state.params))

    def member_std(self, X: Any) -> Any:
        """Return the standard deviation of the predictions over the `n_members` networks.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library

        Returns
        -------
        array
            In the shape of the classifier's `predict_proba` or the regressor's `predict`.
        """
        return member_std(self, X)

    def hidden_activations(self, X: Any, layer: int = -1) -> Array:
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
            device of X.

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

    def input_gradient(self, X: Any, target: Any) -> Array:
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
            features; in the library and on the device of X. For a data frame, the derivative is
            with respect to the encoded inputs; ``columns_.by_column`` returns its norm per column.

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
        return gradient_of_inputs(self, X, target)

    def evaluate(
        self, X: Any, y: Any, sample_weight: Any = None, *, metrics: Metrics | None = None
    ) -> dict[str, float]:
        """Return loss and scores, computed in one pass over the data.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
        y : array-like of shape (samples,) or (samples, outputs)
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
        return evaluate(self, X, y, sample_weight, metrics)

    def summary(self) -> Summary:
        """Describe the fitted network: layers, parameters, memory, operations per sample.

        Returns
        -------
        Summary
            An object that prints as a table, and as HTML in a notebook.

        Examples
        --------
        >>> from mlp_xp import MLPRegressor
        >>> model = MLPRegressor(hidden_layer_sizes=3, max_iter=1, learning_rate="cosine")
        >>> model.fit([[0.0], [1.0]], [0, 1]).summary()
        layer            output  parameters  FLOPs per sample
        -----------------------------------------------------
        hidden 0: dense       3           6                 6
          relu                3
        output: dense         1           4                 6
        -----------------------------------------------------
        total                            10                12
        training: 30 FLOPs per sample, 240 B of parameters and optimizer state, 112 B per batch
        """
        return summary_of(self)

    # --- pickles and copies --------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to pickle, in NumPy arrays, so that NumPy alone can load it."""
        attributes: dict[str, Any] = dict(super().__getstate__())
        training = attributes.pop("_training", None)
        if "_state" in attributes:
            state = fitted_state(self)
            progress = state.progress if training is None else training.progress()
            attributes["_state"] = state.to_host(progress)
            for name in (*state.arrays, "columns_"):
                attributes.pop(name, None)
        elif "coefs_" in attributes:  # The user assigned weights, but has not used them yet.
            for name in ("coefs_", "intercepts_"):
                attributes[name] = [map_leaves(to_numpy, params) for params in attributes[name]]
        return packed(attributes)

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        super().__setstate__(unpacked(attributes))
        if "_state" in attributes:
            publish(self, self._state)

    def to(self, backend: str, device: Any = None) -> Any:
        """Return a copy of the estimator on another backend or device.

        Parameters
        ----------
        backend : {"numpy", "cupy", "torch", "jax", "array_api_strict"}
        device : str, optional
            E.g. ``"cuda:1"``; by default the library's default device.

        Returns
        -------
        estimator
            A copy with the given `backend` and `device` as parameters.

        Examples
        --------
        >>> from mlp_xp import MLPRegressor
        >>> model = MLPRegressor(hidden_layer_sizes=4, max_iter=1, learning_rate="cosine")
        >>> model = model.fit([[0.0], [1.0]], [0, 1])
        >>> moved = model.to("array_api_strict", "device1")
        >>> moved.coefs_[0].device, model.coefs_[0].device
        (array_api_strict.Device('device1'), 'cpu')
        """
        there = get_backend(backend, device)
        moved = type(self).__new__(type(self))
        # Copy arrays as for a pickle. Copy lists, too, since a fit appends to them.
        attributes = self.__getstate__().items()
        moved.__setstate__({k: list(v) if isinstance(v, list) else v for k, v in attributes})
        moved.backend, moved.device = backend, device  # `set_params` may not accept these names.
        if "_state" in vars(moved) or "coefs_" in vars(moved):
            publish(moved, fitted_state(moved).to(there))
        return moved

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        is_table = asks_for_table(self)
        tags.input_tags.sparse = not is_table
        tags.input_tags.allow_nan = self.missing_values != "error"
        tags.input_tags.categorical = tags.input_tags.string = self.categorical_features is not None
        tags.array_api_support = True
        return tags
