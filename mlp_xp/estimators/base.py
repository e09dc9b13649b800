"""The base class of classifier and regressor."""

import time
import warnings
from typing import Any

from sklearn.base import BaseEstimator, _fit_context

from mlp_xp._utils.sklearn_compat import CallbackSupportMixin, with_callbacks
from mlp_xp._utils.tree import map_leaves
from mlp_xp.backends import get_backend, to_numpy
from mlp_xp.estimators.checks.processes import validating
from mlp_xp.estimators.checks.target_column import take_target
from mlp_xp.estimators.checks.validation import SampleArguments, asks_for_table
from mlp_xp.estimators.explanations.mixin import ExplanationMixin
from mlp_xp.estimators.fitted.check_mixin import CheckMixin
from mlp_xp.estimators.fitted.device_cache import FittedArrays, FittedAttribute
from mlp_xp.estimators.fitted.notebook_repr import NotebookMixin
from mlp_xp.estimators.fitted.sklearn_overrides import SklearnNamesMixin
from mlp_xp.estimators.fitted.state import FittedState, fitted_state, publish
from mlp_xp.estimators.fitted.summary import Summary, summary_of
from mlp_xp.estimators.settings.config import LBFGS
from mlp_xp.estimators.settings.parameters import RecipeMixin, validate
from mlp_xp.estimators.targets import ClassTargets, RealTargets
from mlp_xp.recipes.parameters import Parameter
from mlp_xp.training.loop.history import packed, unpacked


class BaseMLP(
    ExplanationMixin,
    CheckMixin,
    SklearnNamesMixin,
    NotebookMixin,
    RecipeMixin,
    CallbackSupportMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """The base class of `MLPClassifier` and `MLPRegressor`, with scikit-learn's interface.

    A subclass calls `_store` in its constructor, and sets `_parameters` and `_targets_type`.

    Attributes
    ----------
    coefs_ : list of (fan_in, fan_out) or (blocks, fan_in, fan_out) arrays
        Weight matrices (stacks of matrices for block-diagonal layers), in the library and on the
        device of the training data.
    intercepts_ : list of (fan_out,) arrays
        Biases, in the library and on the device of the training data.
    norms_ : list of (scale, shift)
        Parameters of each normalization layer.
    other_weights_ : list of NamedTuples of arrays
        Other learned parameters, such as embeddings.
    moments_ : list of (mean, variance)
        Running statistics of each batch normalization layer.
    loss_ : float
        Loss of the last epoch.
    best_loss_ : float or None
        Lowest loss of all epochs; None with early stopping.
    loss_curve_ : list of float
        Loss of each epoch, or iteration of "lbfgs".
    validation_scores_, validation_loss_curve_ : list of float or None
        Validation score and loss after each epoch; None without validation samples.
    best_validation_score_ : float or None
        Highest validation score; None without validation samples.
    history_ : list of Record
        One record per epoch; ``pandas.DataFrame(model.history_)`` converts them to a table.
    n_iter_ : int
        Number of epochs since the last call of `fit` started.
    t_ : int
        Number of training samples seen, including repetitions.
    n_features_in_, n_layers_, n_outputs_ : int
        Numbers of features, layers (including the input layer), and outputs.
    out_activation_ : str
        Output activation.
    feature_names_in_ : (features,) array
        Column names, if X has any.
    columns_ : TableColumns
        Encoding of a table's columns, if `categorical_features`, `missing_values` or a similar
        parameter is set. ``columns_.input_names`` are the names of the network's inputs;
        ``columns_.by_column(values)`` returns, for each column, the norm of its inputs' weights or
        gradients.
    """

    _parameters: dict[str, Parameter]
    _parameter_constraints: dict[str, Any]
    _validate_params = validate
    _targets_type: type[ClassTargets] | type[RealTargets]

    coefs_ = FittedArrays()
    intercepts_ = FittedArrays()
    norms_ = FittedArrays()
    other_weights_ = FittedArrays()
    moments_ = FittedArrays()
    out_activation_ = FittedAttribute(FittedState.with_output)
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
        y: Any = None,
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
        X : array-like, sparse matrix or data frame of shape (samples, features), of any library
            float32, float64 or integers. Or an iterable of batches ``(X, y)`` or ``(X, y,
            sample_weight)``, such as torch's DataLoader. It is read once before the first epoch and
            again in each epoch; `batch_size` and `shuffle` are not used. Or a table that is read in
            parts: `mlp_xp.datasets.Parquet`, a polars LazyFrame, or a function that returns an
            Arrow reader; y is then the name of a column.
        y : array-like of shape (samples,) or (samples, outputs), or str
            Class labels, or real values for a regressor. A text is the name of a column of X, which
            is then not used as input. None if X has batches.
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
        from mlp_xp.training.loop.run_fit import run_fit

        given = (*take_target(X, y), sample_weight)
        held_out = (*take_target(X_val, y_val, "y_val"), sample_weight_val)
        requests = fit_requests(self, start, given, held_out, resume=resume)
        if run_fit(requests):
            warnings.warn("Training interrupted by user.", stacklevel=2)
        return self

    def _partial_fit(
        self, given: SampleArguments, held_out: SampleArguments, classes: Any = None
    ) -> Any:
        from mlp_xp.estimators.fitting.fit import partial_fit_requests
        from mlp_xp.training.loop.run_fit import run_fit

        (X, y, weights), (X_val, y_val, weights_val) = given, held_out
        given = (*take_target(X, y), weights)
        held_out = (*take_target(X_val, y_val, "y_val"), weights_val)
        run_fit(partial_fit_requests(self, given, held_out, classes))
        return self

    def _can_partial_fit(self) -> bool:
        if self.solver == LBFGS:
            raise AttributeError(
                "partial_fit is only available for stochastic optimizers. "
                f"{self.solver} is not stochastic."
            )
        return True

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
