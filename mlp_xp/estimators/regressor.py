"""The regressor, with scikit-learn's interface, on any array library."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

from sklearn.base import _fit_context
from sklearn.utils.metaestimators import available_if

from mlp_xp.backends import get_backend
from mlp_xp.estimators.base import BaseMLP
from mlp_xp.estimators.checks.processes import validating
from mlp_xp.estimators.checks.target_column import take_scored_target
from mlp_xp.estimators.checks.validation import check_y
from mlp_xp.estimators.fitted.calibration import calibrate, check_levels, interval_levels
from mlp_xp.estimators.fitted.groups import coverage_column
from mlp_xp.estimators.fitted.prediction import AS_SET, place
from mlp_xp.estimators.fitted.scoring import (
    ValuesMixin,
    groups_of,
    predict_values,
    refuse_other_output,
)
from mlp_xp.estimators.fitted.state import set_weights
from mlp_xp.estimators.settings.parameters import constraints_of, documented
from mlp_xp.estimators.targets import RealTargets
from mlp_xp.optimizers import Optimizer
from mlp_xp.optimizers.schedules import Schedule
from mlp_xp.recipes.parameters import REGRESSOR


@documented
class MLPRegressor(ValuesMixin, BaseMLP):
    """Multilayer perceptron regressor, on NumPy, CuPy, PyTorch, JAX or array-api-strict.

    Parameters of `sklearn.neural_network.MLPRegressor` keep their names, defaults and meanings;
    ``docs/migrate.md`` lists the few differences. `output_activation` and the parameters after it
    are new.

    Parameters
    ----------
    [parameters]

    Attributes
    ----------
    [attributes of every fit]

    See Also
    --------
    sklearn.neural_network.MLPRegressor : The estimator that this class replaces.

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp import MLPRegressor
    >>> X = np.linspace(-3, 3, 200)[:, None]
    >>> model = MLPRegressor(hidden_layer_sizes=(20,), solver="lbfgs", max_iter=1000)
    >>> model.set_params(random_state=0).fit(X, np.sin(X[:, 0])).score(X, np.sin(X[:, 0])) > 0.99
    True
    """

    _targets_type = RealTargets
    _parameters = REGRESSOR
    _parameter_constraints = constraints_of(REGRESSOR)

    def __init__(
        self,
        loss: Any = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str | Optimizer = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str | Schedule = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        output_activation: str = "auto",
        target_scaling: str | None = None,
        clip_predictions: bool = False,
        prediction_intervals: str | None = None,
        coverage_by: Any = None,
        scoring: Any = None,
        dropout: Any = 0.0,
        input_dropout: float = 0.0,
        dropout_schedule: Any = None,
        weight_decay_schedule: Any = None,
        normalization: str | None = None,
        residual: bool = False,
        n_members: int = 1,
        parametric_activation: bool = False,
        parametrization: str = "standard",
        numeric_embedding: Any = None,
        learn_input_scale: bool = False,
        max_grad_norm: float | None = None,
        ema_decay: float | None = None,
        callbacks: Any = None,
        backend: str | None = None,
        device: Any = None,
        precision: str = "auto",
        input_scaling: Any = None,
        placement: str = "auto",
        max_time: float | None = None,
        restart_factor: float | None = None,
        augmentation: Any = None,
        tta: Any = None,
        distributed: Any = None,
        categorical_features: Any = None,
        missing_values: str = "error",
        max_one_hot: float = 8,
        embedding_dim: int = 8,
        monotonic_cst: Any = None,
    ) -> None:
        self._store(locals())

    # --- fitting -------------------------------------------------------------------------------

    @available_if(BaseMLP._can_partial_fit)  # type: ignore[untyped-decorator]
    @validating
    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def partial_fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Train for one epoch on the given samples, continuing from where the last call ended.

        A learning-rate schedule spans `max_iter` calls. If validation samples are passed or
        ``early_stopping=True``, each call appends to `validation_scores_`. The caller decides when
        to stop; the newest weights are kept, not the best.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
        y : array-like of shape (samples,) or (samples, outputs)
        sample_weight : array-like of shape (samples,), optional
        X_val, y_val, sample_weight_val : optional
            As for `fit`.

        Returns
        -------
        self
        """
        return self._partial_fit((X, y, sample_weight), (X_val, y_val, sample_weight_val))

    # --- prediction ----------------------------------------------------------------------------

    @classmethod
    def from_weights(cls, coefs: Sequence[Any], intercepts: Sequence[Any], **params: Any) -> Self:
        """Return a fitted regressor with given weights.

        Parameters
        ----------
        coefs, intercepts : sequences of arrays, of any library
            Arrays ``(fan_in, fan_out)`` and ``(fan_out,)`` for each layer, the output layer last.
        **params
            Parameters of the regressor, e.g. ``activation``; `hidden_layer_sizes` comes from the
            weights.

        Raises
        ------
        ValueError
            If shapes do not match.

        Examples
        --------
        >>> import numpy as np
        >>> from mlp_xp import MLPRegressor
        >>> W, b = [np.asarray([[2.0]])], [np.asarray([1.0])]
        >>> MLPRegressor.from_weights(W, b).predict([[3.0]])
        array([7.])
        """
        return set_weights(cls(**params), coefs, intercepts)

    def predict(
        self,
        X: Any,
        *,
        return_std: bool = False,
        quantiles: float | Sequence[float] | None = None,
        tta: Any = AS_SET,
        interval: float | None = None,
    ) -> Any:
        """Predict values, optionally with their standard deviation, or quantiles or an interval.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
            Or a table that is read in parts, such as `mlp_xp.datasets.Parquet`.
        return_std : bool, default=False
            Whether to also return the standard deviation of the targets, after a fit with
            ``loss="gaussian"``.
        quantiles : float or sequence of float, optional
            Return these quantiles instead. For ``loss=Quantile(...)``, they must be among the
            loss's quantiles. For ``loss="gaussian"``, or after `calibrate_intervals`, they can be
            any numbers in (0, 1).
        tta : Flip, Shift, a list of them, None or "estimator", default="estimator"
            Test-time augmentation; by default the parameter `tta` of the estimator.
        interval : float in (0, 1), optional
            Return lower and upper limits between which this fraction of new targets is, as
            ``quantiles=(0.05, 0.95)`` does for 0.9. Requires errors on held-out samples, from
            `prediction_intervals` or `calibrate_intervals`.

        Returns
        -------
        values : (samples,) array, or (samples, outputs) for several outputs
            In the library and on the device of X; in NumPy if `coefs_` are NumPy arrays. The loss
            `Quantile` predicts the median, interpolated between two quantiles if necessary;
            `Gaussian` predicts the mean.
        std : array of the same shape
            Standard deviation of the targets, if `return_std`.

        If `quantiles` is given, the result is a single array, in the shape of `values` for one
        quantile, otherwise (samples, quantiles) or (samples, outputs, quantiles).

        Raises
        ------
        ValueError
            If the loss does not provide a standard deviation or these quantiles, or an `interval`
            is requested without held-out errors, or with too few in the group of a row.

        Examples
        --------
        >>> import numpy as np
        >>> from mlp_xp import MLPRegressor
        >>> from mlp_xp.nn.losses import Quantile
        >>> X = np.linspace(0, 1, 200)[:, None]
        >>> model = MLPRegressor(loss=Quantile((0.1, 0.5, 0.9)), learning_rate_init=0.01,
        ...                      random_state=0)
        >>> model = model.fit(X, np.random.default_rng(0).normal(size=200))
        >>> low, high = model.predict([[0.5]], quantiles=(0.1, 0.9))[0]
        >>> bool(low < model.predict([[0.5]])[0] < high)
        True
        """
        outputs = self._outputs(X, "predict", tta=tta)
        state = self._state
        if interval is not None:
            refuse_other_output(return_std, quantiles, interval)
            quantiles = interval_levels(interval, state.calibration)
        return predict_values(
            state.activating_loss,
            state.targets,
            outputs,
            return_std=return_std,
            quantiles=quantiles,
            calibration=state.calibration,
            groups=None if quantiles is None else groups_of(self, X),
        )

    def calibrate_intervals(self, X: Any, y: Any) -> Self:
        """Calibrate quantiles with the prediction errors on samples not used in the fit.

        Afterwards, ``predict(X, quantiles=(0.05, 0.95))`` encloses 90 % of new targets, for any
        loss and any noise, if new samples have the same distribution as X (split conformal
        prediction). For the loss `Quantile`, errors are measured from each quantile; for
        `Gaussian`, in standard deviations. For other losses, errors are measured from the
        prediction, so all intervals have the same width. Predictions and standard deviations do not
        change. The next fit discards the calibration.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
            Samples used neither for the fit nor for early stopping. The quantiles 0.05 and 0.95
            need at least 19 samples. With 100 samples, the interval encloses 84 to 96 % of new
            targets in 19 of 20 cases. With `coverage_by`, each group needs as many.
        y : array-like of shape (samples,) or (samples, outputs)

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there are too few samples for a quantile of the loss.

        References
        ----------
        Romano, Patterson, Candès, "Conformalized quantile regression" (2019), arXiv:1905.03222.

        Examples
        --------
        >>> import numpy as np
        >>> from mlp_xp import MLPRegressor
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(900, 1))
        >>> y = X[:, 0] + rng.normal(size=900)
        >>> model = MLPRegressor(learning_rate="cosine", random_state=0).fit(X[:300], y[:300])
        >>> model = model.calibrate_intervals(X[300:600], y[300:600])
        >>> low, high = model.predict(X[600:], quantiles=(0.05, 0.95)).T
        >>> print(f"{np.mean((low < y[600:]) & (y[600:] < high)):.2f}")
        0.90
        """
        X, y = take_scored_target(X, y)
        outputs: Any = self._outputs(X, "calibrate_intervals", to=get_backend("numpy"))
        state = self._state
        columns = state.targets.plain.encode(check_y(self, y, len(outputs)), "float64")
        check_levels(state.loss.levels, len(columns))
        found: dict[str, Any] = {"coverage_by": None}
        codes, column = None, coverage_column(self)
        if column is not None:
            matrix = place(self, X, state, "calibrate_intervals")[0]
            codes, found["coverage_by"] = column.codes_of(matrix), column.position
        found["calibration"] = calibrate(state.activating_loss, outputs, columns, codes)
        self._state = replace(state, **found)
        return self
