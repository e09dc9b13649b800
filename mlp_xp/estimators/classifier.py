"""The classifier, with scikit-learn's interface, on any array library."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import unique_labels

from mlp_xp.backends import get_backend, host
from mlp_xp.estimators.base import BaseMLP
from mlp_xp.estimators.checks.processes import validating
from mlp_xp.estimators.fitted.device_cache import FittedAttribute
from mlp_xp.estimators.fitted.prediction import AS_SET, as_labels
from mlp_xp.estimators.fitted.scoring import LabelsMixin, log_of, predict_sets
from mlp_xp.estimators.fitted.state import FittedState, fitted_state, set_weights
from mlp_xp.estimators.settings.parameters import constraints_of, documented
from mlp_xp.estimators.targets import ClassTargets
from mlp_xp.optimizers import Optimizer
from mlp_xp.optimizers.schedules import Schedule
from mlp_xp.recipes.parameters import CLASSIFIER


@documented
class MLPClassifier(LabelsMixin, BaseMLP):
    """Multilayer perceptron classifier, on NumPy, CuPy, PyTorch, JAX or array-api-strict.

    Parameters of `sklearn.neural_network.MLPClassifier` keep their names, defaults and meanings;
    ``docs/migrate.md`` lists the few differences. `loss` and the parameters after it are new.

    Parameters
    ----------
    [parameters]

    Attributes
    ----------
    classes_ : (classes,) NumPy array, or a list of them
        Sorted class labels, or a list with one array per target if y is (samples, targets) with
        labels other than 0 and 1.
    n_classes_ : int or list of int
        Number of classes, per target if there are several.
    temperature_ : float
        Temperature by which raw outputs are divided if `calibration` is set; above 1 if the network
        was overconfident. Probabilities, `logits`, losses and exported models are calibrated;
        `coefs_` is unchanged.
    [attributes of every fit]

    See Also
    --------
    sklearn.neural_network.MLPClassifier : The estimator that this class replaces.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from mlp_xp import MLPClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = MLPClassifier(
    ...     random_state=1, learning_rate="cosine", learning_rate_init=0.01, max_iter=20,
    ...     n_iter_no_change=float("inf"), input_scaling="standardize",
    ... )
    >>> model.fit(X[:1000], y[:1000]).score(X[1000:], y[1000:]) > 0.9
    True
    """

    classes_ = FittedAttribute(FittedState.with_classes)
    _targets_type = ClassTargets
    _parameters = CLASSIFIER
    _parameter_constraints = constraints_of(CLASSIFIER)

    def __init__(
        self,
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
        loss: Any = "log_loss",
        label_smoothing: float = 0.0,
        class_weight: Any = None,
        output_activation: str = "auto",
        calibration: str | None = None,
        prediction_sets: str | None = None,
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
        classes: Any = None,
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
        y : array-like of shape (samples,), (samples, classes) or (samples, targets)
        sample_weight : array-like of shape (samples,), optional
        classes : array-like of shape (classes,), or a list of them, optional
            All classes that can occur, or a list with one array of classes per target; required in
            the first call.
        X_val, y_val, sample_weight_val : optional
            As for `fit`.

        Returns
        -------
        self
        """
        known: Any = getattr(self, "classes_", None)
        if known is None and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        # Skip scikit-learn's check if the sorted classes are the same as in the first call.
        is_plain = type(classes) in (np.ndarray, list, tuple, range)
        is_same = isinstance(known, np.ndarray) and is_plain and np.array_equal(known, classes)
        if classes is not None and not is_same:
            classes = _sorted_labels(classes)
            if known is not None and not _are_equal(known, classes):
                raise ValueError(
                    f"`classes={classes!r}` is not the same as on last call to partial_fit, was: "
                    f"{known!r}"
                )
        held_out = X_val, y_val, sample_weight_val
        return self._partial_fit((X, y, sample_weight), held_out, classes)

    # --- prediction ----------------------------------------------------------------------------

    @property
    def n_classes_(self) -> Any:
        """The number of classes, or a list with one number per target."""
        classes: Any = self.classes_
        return list(map(len, classes)) if isinstance(classes, list) else len(classes)

    @property
    def temperature_(self) -> float:
        """The temperature by which raw outputs are divided."""
        temperature = fitted_state(self).temperature
        if temperature is None:
            raise AttributeError(
                "temperature_ is available after a fit with calibration='temperature'."
            )
        return temperature

    def predict(self, X: Any, *, tta: Any = AS_SET) -> Any:
        """Predict class labels.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
            Or a table that is read in parts, such as `mlp_xp.datasets.Parquet`.
        tta : Flip, Shift, a list of them, None or "estimator", default="estimator"
            Test-time augmentation; by default the parameter `tta` of the estimator.

        Returns
        -------
        (samples,) or (samples, targets) array, or (samples, classes) of 0 and 1 if multilabel
            In the library and on the device of X; in NumPy if `coefs_` are NumPy arrays or if the
            library of X cannot store the labels, e.g. strings. As in scikit-learn, a sparse matrix
            if y was sparse.
        """
        here = get_backend("numpy")
        outputs = self._outputs(X, "predict", to=here, tta=tta, only_order=True)
        return as_labels(self._state.targets.decode(host(outputs)), self._state, X)

    def predict_proba(self, X: Any, *, tta: Any = AS_SET) -> Any:
        """Predict probabilities.

        Results are computed in batches no larger than ``sklearn.set_config(working_memory=...)``
        allows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
            Or a table that is read in parts, such as `mlp_xp.datasets.Parquet`.
        tta : Flip, Shift, a list of them, None or "estimator", default="estimator"
            Test-time augmentation; by default the parameter `tta` of the estimator.

        Returns
        -------
        (samples, classes) array, or a list with one per target
            In the order of `classes_`, in the library and on the device of X; in NumPy if `coefs_`
            are NumPy arrays.
        """
        return self._predict_proba(X, "predict_proba", tta)

    def _predict_proba(self, X: Any, method: str, tta: Any = AS_SET) -> Any:
        outputs = self._outputs(X, method, tta=tta)
        caller = get_backend(outputs)
        with caller.scope():
            return self._state.targets.probabilities(outputs, xp=caller.xp)

    def predict_log_proba(self, X: Any) -> Any:
        """Predict log-probabilities; see `predict_proba`."""
        p = self._predict_proba(X, "predict_log_proba")
        return log_of(p)

    def predict_set(self, X: Any, coverage: float = 0.9) -> np.ndarray:
        """Predict a set of classes for each sample, which usually contains the correct class.

        The sets are small for samples that are easy to classify, and larger for others. Each
        contains at least the most likely class. See `prediction_sets` for the required fit.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
        coverage : float in (0, 1), default=0.9
            The fraction of new samples whose set contains the correct class, if they have the same
            distribution as the held-out samples.

        Returns
        -------
        (samples, classes) array of bool
            Whether each class is in the set, in the order of `classes_`.

        Raises
        ------
        ValueError
            If no held-out samples were stored, or too few for this coverage, in all or, with
            `coverage_by`, in the group of a row.

        References
        ----------
        Angelopoulos, Bates, Malik, Jordan, "Uncertainty sets for image classifiers using conformal
        prediction" (2021), arXiv:2009.14193.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from mlp_xp import MLPClassifier
        >>> X, y = load_digits(return_X_y=True)
        >>> model = MLPClassifier(
        ...     early_stopping=True, prediction_sets="held_out", max_iter=20, random_state=0,
        ...     learning_rate="cosine", n_iter_no_change=float("inf"),
        ... ).fit(X[:1000], y[:1000])
        >>> sets = model.predict_set(X[1000:], coverage=0.99)
        >>> correct = sets[range(797), y[1000:]]
        >>> sets.shape, bool(correct.mean() > 0.95)
        ((797, 10), True)
        """
        return predict_sets([self], X, self.predict_proba(X), coverage)

    @classmethod
    def from_weights(
        cls, coefs: Sequence[Any], intercepts: Sequence[Any], *, classes: Any, **params: Any
    ) -> Self:
        """Return a fitted classifier with given weights.

        Parameters
        ----------
        coefs, intercepts : sequences of arrays, of any library
            Arrays ``(fan_in, fan_out)`` and ``(fan_out,)`` for each layer, the output layer last.
            For two classes, the network has one output.
        classes : (classes,) array-like
            Sorted labels; a list of arrays for several targets.
        **params
            Parameters of the classifier, e.g. ``activation``; `hidden_layer_sizes` comes from the
            weights.

        Raises
        ------
        ValueError
            If shapes or the number of classes do not match.

        Examples
        --------
        >>> import numpy as np
        >>> from mlp_xp import MLPClassifier
        >>> W = np.asarray([[1.0, -1.0]]), np.asarray([[1.0], [-1.0]])
        >>> b = np.zeros(2), np.zeros(1)
        >>> model = MLPClassifier.from_weights(W, b, classes=["negative", "positive"])
        >>> model.predict([[3.0], [-2.0]])
        array(['positive', 'negative'], dtype='<U8')
        """
        return set_weights(cls(**params), coefs, intercepts, classes)

    def logits(self, X: Any) -> Any:
        """Return the raw outputs of the network, which scikit-learn's MLP does not expose.

        If `tta` is set or `n_members` is above 1, they are computed from the averaged probabilities
        to be consistent with `predict`: logarithms for softmax outputs, log-odds for logistic ones.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library

        Returns
        -------
        (samples, classes) array, (samples,) for two classes, or a list with one array per target
            The values before the softmax or logistic function; for two classes, positive values
            mean the second class.
        """
        if fitted_state(self).network.n_members == 1:
            return self._state.targets.margins(self._outputs(X, "logits", raw=True))
        outputs = self._outputs(X, "logits")
        backend = get_backend(outputs)
        with backend.scope():
            logits = self._state.loss.raw_outputs(outputs, xp=backend.xp)
            return self._state.targets.margins(logits)


def _sorted_labels(classes: Any) -> Any:
    """Return the sorted labels passed to `partial_fit`; a list of arrays for several targets."""
    is_sequence = isinstance(classes, list | tuple | np.ndarray) and len(classes) > 0
    if is_sequence and np.ndim(host(classes[0])):
        return [unique_labels(host(labels)) for labels in classes]
    return unique_labels(host(classes))


def _are_equal(known: Any, classes: Any) -> bool:
    if not isinstance(known, list):
        return not isinstance(classes, list) and np.array_equal(known, classes)
    return len(known) == len(classes) and all(map(np.array_equal, known, classes))
