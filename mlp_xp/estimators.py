"""The estimator: scikit-learn's names and meanings, on any array library."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import check_is_fitted

from mlp_xp.backends import BACKENDS, get_backend, to_numpy
from mlp_xp.fitting import Training
from mlp_xp.inference import predict
from mlp_xp.layers import ACTIVATIONS
from mlp_xp.optimizers import OPTIMIZERS, SGD, Adam, Optimizer
from mlp_xp.schedules import SCHEDULES, Schedule
from mlp_xp.training import interrupts
from mlp_xp.validation import check_labels, check_weights, check_x, encode

__all__ = ["MLP", "MLPClassifier"]


class MLPClassifier(ClassifierMixin, Training):  # type: ignore[misc]
    """Multilayer perceptron classifier, on NumPy, CuPy, PyTorch, JAX or array-api-strict.

    What it has in common with `sklearn.neural_network.MLPClassifier` has the same names, defaults
    and meanings. Unlike there, a learning-rate schedule counts for every solver. The last five
    parameters are new.

    Parameters
    ----------
    hidden_layer_sizes : array-like of int, default=(100,)
        Width of each hidden layer, from first to last.
    activation : {"identity", "logistic", "tanh", "relu", "gelu", "silu"}, default="relu"
        Activation of the hidden layers.
    solver : {"sgd", "adam", "adamw"} or a rule of `mlp_xp.optimizers`, default="adam"
        A string takes its settings from the parameters below, e.g. `beta_1`; an object such as
        ``AdamW(weight_decay=0.05)`` brings its own.
    alpha : float of at least 0, default=0.0001
        Strength of the L2 penalty on the weights, divided by the samples of a batch.
    batch_size : int or "auto", default="auto"
        "auto" is ``min(200, n_samples)``.
    learning_rate : {"constant", "invscaling", "warmup", "cosine", "onecycle"} or a schedule of \
`mlp_xp.schedules`, default="constant"
        What multiplies `learning_rate_init` at each step, for every solver.
    learning_rate_init : float above 0, default=0.001
    power_t : float of at least 0, default=0.5
        Exponent of "invscaling".
    max_iter : int of at least 1, default=200
        Epochs at the most; schedules end there.
    shuffle : bool, default=True
        Whether each epoch takes the samples in another order.
    random_state : int, RandomState instance or None, default=None
        An int gives the same initial weights and the same batches on every backend.
    tol : float of at least 0, default=1e-4
        Training ends when the loss has not fallen by this for `n_iter_no_change` epochs.
    verbose : bool, default=False
        Print the loss of each epoch.
    momentum : float in [0, 1), default=0.9
        For "sgd".
    nesterovs_momentum : bool, default=True
        For "sgd".
    beta_1, beta_2 : float in [0, 1), default=0.9, 0.999
        For "adam" and "adamw".
    epsilon : float above 0, default=1e-8
        For "adam" and "adamw".
    n_iter_no_change : int of at least 1 or inf, default=10
        See `tol`; inf never stops before `max_iter`.
    backend : {"auto", "numpy", "cupy", "torch", "jax", "array_api_strict"} or None, default=None
        None computes where the data are. A name moves the data there. "auto" takes CUDA where it
        works, else NumPy.
    device : str or None, default=None
        E.g. ``"cpu"``, ``"cuda:1"``, ``"mps"``. None is the backend's default.
    precision : {"auto", "float32", "float64"}, default="auto"
        Of parameters and products. "auto" keeps float32 and float64 as the data have it, and takes
        float32 for uint8; other integers are computed in float64, as in scikit-learn.
    input_scaling : {"standardize"} or None, default=None
        "standardize" gives each feature mean 0 and standard deviation 1 over the training data,
        on the device; uint8 data stay uint8 until a batch is made.
    placement : {"auto", "resident", "streamed"}, default="auto"
        Whether the data lie on the device as a whole or arrive batch by batch; by default what
        fits is resident.

    Attributes
    ----------
    classes_ : (classes,) NumPy array
        Class labels, sorted.
    coefs_ : list of (fan_in, fan_out) arrays
        Weight matrices, in the library and on the device of the data that were fitted.
    intercepts_ : list of (fan_out,) arrays
        Biases, likewise.
    loss_ : float
        Loss of the last epoch.
    best_loss_ : float
        Lowest loss of all epochs.
    loss_curve_ : list of float
        Loss of each epoch.
    n_iter_ : int
        Epochs done.
    t_ : int
        Samples seen, repeats included.
    n_features_in_, n_layers_, n_outputs_ : int
    out_activation_ : str
    feature_names_in_ : (features,) array
        Where X has column names.

    See Also
    --------
    sklearn.neural_network.MLPClassifier : What this replaces.

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

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "solver": [StrOptions(set(OPTIMIZERS)), SGD, Adam],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions(set(SCHEDULES)), *SCHEDULES.values()],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "nesterovs_momentum": ["boolean"],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [
            Interval(Integral, 1, None, closed="left"),
            Options(Real, {np.inf}),
        ],
        "backend": [StrOptions({"auto", *BACKENDS}), None],
        "device": "no_validation",  # get_backend checks it
        "precision": [StrOptions({"auto", "float32", "float64"})],
        "input_scaling": [StrOptions({"standardize"}), None],
        "placement": [StrOptions({"auto", "resident", "streamed"})],
    }

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
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
        verbose: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        backend: Any = None,
        device: Any = None,
        precision: str = "auto",
        input_scaling: str | None = None,
        placement: str = "auto",
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.backend = backend
        self.device = device
        self.precision = precision
        self.input_scaling = input_scaling
        self.placement = placement

    # --- fitting -------------------------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPClassifier:
        """Fit the network.

        Ctrl-C ends the fit after the step in progress, with a warning, and keeps the network.

        Parameters
        ----------
        X : array-like of shape (samples, features), of any library
            float32, float64 or integers.
        y : array-like of shape (samples,)
            Class labels.
        sample_weight : array-like of shape (samples,), optional
            At least 0.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X, y or the weights are not as above, and nothing is changed; or if the loss has
            become infinite or NaN.
        """
        with interrupts() as pressed:
            for record in self._epochs(X, y, sample_weight, after_step=lambda *_: pressed()):
                if self.verbose:
                    print(f"Iteration {record.epoch}, loss = {record.loss:.8f}")
            self._check_finite()
            if pressed():
                warnings.warn("Training interrupted by user.", stacklevel=2)
            elif self.n_iter_ == self.max_iter and np.isfinite(self.n_iter_no_change):
                warnings.warn(
                    f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the "
                    "optimization hasn't converged yet.",
                    ConvergenceWarning,
                    stacklevel=2,
                )
        return self

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> MLPClassifier:
        """Train for one epoch over the given samples, going on from where the last call ended.

        A learning-rate schedule goes through `max_iter` such calls.

        Parameters
        ----------
        X : array-like of shape (samples, features), of any library
        y : array-like of shape (samples,)
        classes : array-like of shape (classes,), optional
            All classes there will be; needed in the first call.
        sample_weight : array-like of shape (samples,), optional

        Returns
        -------
        self
        """
        is_first = not hasattr(self, "classes_")
        if is_first and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        known = self.classes_ if classes is None else np.unique(to_numpy(classes))
        if not is_first and not np.array_equal(self.classes_, known):
            raise ValueError(
                f"`classes={classes!r}` is not the same as on last call to partial_fit, was: "
                f"{self.classes_!r}"
            )
        with self._unchanged_by_errors():
            X = check_x(self, X, reset=is_first)
            labels = check_labels(y, X.shape[0])
            weights = check_weights(sample_weight, X.shape[0])
            codes = encode(labels, known)
            if is_first:
                self._begin(X, known)
            trainer = self._trainer_for(X)
            data = self._place(trainer, X, codes)
        self._train_epoch(trainer, data, weights, n_epochs=self.max_iter)
        self._export(X)
        self._check_finite()
        return self

    # --- prediction ----------------------------------------------------------------------------

    def predict(self, X: Any) -> Any:
        """Predict class labels.

        Parameters
        ----------
        X : array-like of shape (samples, features), of any library

        Returns
        -------
        (samples,) array
            In the library and on the device of X; labels that it cannot hold, such as strings, in
            NumPy.
        """
        p = to_numpy(self.predict_proba(X))
        labels = self.classes_[np.argmax(p, axis=1)]
        if labels.dtype.kind not in "biuf":
            return labels
        caller = get_backend(X)
        narrow = labels.dtype == np.float64 and not caller.has_float64
        return caller.put(labels, "float32" if narrow else None)

    def predict_proba(self, X: Any) -> Any:
        """Predict probabilities.

        Parameters
        ----------
        X : array-like of shape (samples, features), of any library

        Returns
        -------
        (samples, classes) array
            In the order of `classes_`, in the library and on the device of X.
        """
        check_is_fitted(self)
        caller = get_backend(X)
        X = check_x(self, X, reset=False)
        backend = self._backend_for(X)
        dtype = self._dtype if backend.has_float64 else "float32"
        p = predict(backend, self._network, self._loss, self._params, X, self._scaling, dtype=dtype)
        if self.out_activation_ == "logistic":
            with backend.scope():
                p = backend.xp.concat([1.0 - p, p], axis=1)
        return caller.put(p)

    def predict_log_proba(self, X: Any) -> Any:
        """Predict logarithms of probabilities; see `predict_proba`."""
        p = self.predict_proba(X)
        backend = get_backend(p)
        with backend.scope(), np.errstate(divide="ignore"):
            return backend.xp.log(p)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Give the accuracy on the given samples.

        Parameters
        ----------
        X : array-like of shape (samples, features), of any library
        y : array-like of shape (samples,)
        sample_weight : array-like of shape (samples,), optional

        Returns
        -------
        float
            From 0 to 1.
        """
        truth, predicted = (to_numpy(labels) for labels in (y, self.predict(X)))
        sample_weight = check_weights(sample_weight, len(predicted))
        return float(accuracy_score(truth, predicted, sample_weight=sample_weight))


MLP = MLPClassifier
