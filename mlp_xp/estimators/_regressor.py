"""The regressor: scikit-learn's names and meanings, on any array library."""

from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin, _fit_context
from sklearn.metrics import r2_score
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if

from mlp_xp.backends import get_backend
from mlp_xp.estimators.prediction import AS_SET, Prediction
from mlp_xp.estimators.validation import check_targets, check_weights, host
from mlp_xp.nn.losses import (
    OUTPUTS,
    REGRESSION_LOSSES,
    Loss,
    Through,
)
from mlp_xp.optimizers import Optimizer
from mlp_xp.optimizers.schedules import Schedule

__all__ = ["MLPRegressor"]


class MLPRegressor(RegressorMixin, Prediction):  # type: ignore[misc]
    """Multilayer perceptron regressor, on NumPy, CuPy, PyTorch, JAX or array-api-strict.

    What it has in common with `sklearn.neural_network.MLPRegressor` has the same names, defaults
    and meanings; ``docs/migrate.md`` names the few places where it does better. Parameters from
    `output_activation` on are new.

    Parameters
    ----------
    loss : {"squared_error", "absolute_error", "huber", "quantile", "poisson"}, a loss of \
`mlp_xp.nn.losses`, or callable, default="squared_error"
        An object brings its settings, e.g. ``Quantile(0.9)`` or ``Huber(delta=2.0)``. "poisson"
        predicts the exponential of the network's output. A callable
        ``loss(outputs, targets, *, xp)`` returns the loss of each sample and a pullback, which is
        compared with a finite difference at the first fit; see `mlp_xp.nn.losses.Custom`. A loss
        of classes takes probabilities as targets, and predicts some. The loss of several outputs
        is their sum.
    hidden_layer_sizes : int, object of `mlp_xp.nn.hidden`, or a list of them, default=(100,)
        Width of each hidden layer, from first to last; or an object, e.g. ``Branch((1536, 384))``
        for a residual branch with an inverted bottleneck.
    activation : str, callable, or a list with one for each hidden layer, default="relu"
        "identity", "logistic", "tanh", "relu", "leaky_relu", "elu", "gelu", "silu", "softplus"; or
        ``f(x, *, xp)`` that gives the output and its pullback, which is compared with a finite
        difference at the first fit.
    solver : {"sgd", "adam", "adamw", "rmsprop", "lion", "muon", "beta_lasso", "lbfgs"} or a \
rule of `mlp_xp.optimizers`, default="adam"
        A string takes its settings from the parameters below, e.g. `beta_1`; an object such as
        ``AdamW(weight_decay=0.05)`` brings its own. "lbfgs" is SciPy's.
    alpha : float of at least 0, default=0.0001
        Strength of the L2 penalty on the weights, divided by the samples of a batch.
    batch_size : int or "auto", default="auto"
        "auto" is ``min(200, n_samples)``. "lbfgs" takes all samples.
    learning_rate : {"constant", "invscaling", "adaptive", "warmup", "cosine", "onecycle", \
"linear"} or a schedule of `mlp_xp.optimizers.schedules`, default="constant"
        What multiplies `learning_rate_init` at each step, for every solver but "lbfgs". As in
        scikit-learn, "invscaling" and "adaptive" act for SGD alone; "adaptive" divides the rate by
        5 whenever nothing has improved for `n_iter_no_change` epochs.
    learning_rate_init : float above 0, default=0.001
    power_t : float of at least 0, default=0.5
        Exponent of "invscaling".
    max_iter : int of at least 1, default=200
        Epochs at the most; schedules end there. For "lbfgs", iterations.
    shuffle : bool, default=True
        Whether each epoch takes the samples in another order.
    random_state : int, RandomState instance or None, default=None
        An int gives the same initial weights, batches and dropout on every backend.
    tol : float of at least 0, default=1e-4
        Training ends when the loss (with early stopping, the validation score) has not improved by
        this for `n_iter_no_change` epochs. For "lbfgs", the largest entry of the gradient.
    verbose : bool, default=False
        Print the loss of each epoch.
    warm_start : bool, default=False
        Whether `fit` goes on from where the last one ended, with its optimizer's state.
    momentum : float from 0 to 1, default=0.9
        For "sgd".
    nesterovs_momentum : bool, default=True
        For "sgd".
    early_stopping : bool, default=False
        Whether the score on held-out samples ends the training, and the weights of its best epoch
        are kept. The samples are `validation_fraction` of the training data, unless
        `fit` is given ``X_val`` and ``y_val``. Ignored with "lbfgs", as in scikit-learn.
    validation_fraction : float in [0, 1), default=0.1
    beta_1, beta_2 : float in [0, 1), default=0.9, 0.999
        For "adam" and "adamw".
    epsilon : float above 0, default=1e-8
        For "adam" and "adamw".
    n_iter_no_change : int of at least 1 or inf, default=10
        See `tol`; inf never stops before `max_iter`.
    max_fun : int of at least 1, default=15000
        For "lbfgs": how often it may compute the loss.
    output_activation : {"auto", "identity", "logistic", "tanh", "relu", "softplus", "exp"}, \
default="auto"
        What the predictions, and the loss, make of the network's raw outputs; "auto" is what a
        loss object brings, else the identity, and the exponential for "poisson".
    scoring : str, callable or None, default=None
        What early stopping goes by: a name of scikit-learn's scorers, ``scorer(model, X, y)``, or
        "loss" for the validation loss. A callable is tried once before the first epoch; what it
        is given predicts for these samples only, and answers in NumPy. None is the coefficient of
        determination, R2.
    dropout : float in [0, 1), or a list with one for each hidden layer, default=0
        Share of the outputs of hidden layers that a training step drops.
    input_dropout : float in [0, 1), default=0
        Share of the features that a training step drops.
    normalization : {"layer", "batch"} or None, default=None
        What stands between each hidden dense layer and its activation.
    residual : bool, default=False
        Whether a hidden layer as wide as the one before it adds its output to its input.
    max_grad_norm : float above 0 or None, default=None
        What the norm of all gradients of a step together is held to.
    ema_decay : float in [0, 1) or None, default=None
        Predict with an exponential moving average of the weights that keeps this share of itself
        at each step, e.g. 0.999.
    callbacks : list of callbacks or None, default=None
        See `mlp_xp.callbacks`.
    backend : {"auto", "numpy", "cupy", "torch", "jax", "array_api_strict"} or None, default=None
        None computes where the data are. A name moves the data there. "auto" takes CUDA where it
        works, else NumPy.
    device : str or None, default=None
        E.g. ``"cpu"``, ``"cuda:1"``, ``"mps"``. None is the backend's default.
    precision : {"auto", "float32", "float64", "bf16"}, default="auto"
        Of parameters and products. "auto" keeps float32 and float64 as the data have it, and takes
        float32 for uint8; other integers are computed in float64, as in scikit-learn. "bf16", for
        backends "torch" and "jax", trains with inputs, activations and gradients in bfloat16; the
        weights, the optimizer's state and the loss stay in float32, and so do predictions.
    input_scaling : {"standardize", "zca", "pca"}, Whiten, or None, default=None
        "standardize" gives each feature mean 0 and standard deviation 1 over the training data,
        on the device; uint8 data stay uint8 until a batch is made. The others remove correlations
        too, by the eigenvectors of a matrix of features x features, and multiply each batch by
        such a matrix.
    placement : {"auto", "resident", "streamed"}, default="auto"
        Whether the data lie on the device as a whole or arrive batch by batch; by default what
        fits is resident. Sparse data are streamed, and dense a batch at a time.
    max_time : float above 0 or None, default=None
        Seconds that a `fit` may take, validation and preparation included. The learning-rate
        schedule then follows the share of the time that has passed, or of `max_iter` if that is
        larger, and the last epoch ends in the middle where it must. Such a fit depends on the
        clock, so that `random_state` cannot repeat it. `partial_fit` pays no heed to it; "lbfgs"
        ends behind the last iteration that should fit.
    augmentation : object or list of objects of `mlp_xp.augmentation`, or None, default=None
        What is done to the pictures of each training batch, e.g. ``[Flip((3, 32, 32)),
        Shift((3, 32, 32), pixels=4)]``: the geometric ones in their order, then the others. Not for
        "lbfgs". Held-out samples and predictions are left as they are.
    tta : Flip, Shift, a list of them, or None, default=None
        Test-time averaging: what is predicted is the average over all combinations of their views,
        two of a `Flip` and five of a `Shift`. Not during a fit.

    Attributes
    ----------
    coefs_ : list of (fan_in, fan_out) or (blocks, fan_in, fan_out) arrays
        Weight matrices, or stacks of them, in the library and on the device of the data that were
        fitted.
    intercepts_ : list of (fan_out,) arrays
        Biases, likewise.
    norms_ : list of (scale, shift)
        One for each normalisation; likewise.
    moments_ : list of (mean, variance)
        Running statistics of batch normalisation; likewise.
    loss_ : float
        Loss of the last epoch.
    best_loss_ : float or None
        Lowest loss of all epochs; None with early stopping.
    loss_curve_ : list of float
        Loss of each epoch, or iteration of "lbfgs".
    validation_scores_, validation_loss_curve_ : list of float or None
        Behind each epoch; None without validation samples.
    best_validation_score_ : float or None
    history_ : list of Record
        One for each epoch; ``pandas.DataFrame(model.history_)`` makes a table of it.
    n_iter_ : int
        Epochs done, since the last call of `fit` began.
    t_ : int
        Samples seen, repeats included.
    n_features_in_, n_layers_, n_outputs_ : int
    out_activation_ : str
    feature_names_in_ : (features,) array
        Where X has column names.

    See Also
    --------
    sklearn.neural_network.MLPRegressor : What this replaces.

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp import MLPRegressor
    >>> X = np.linspace(-3, 3, 200)[:, None]
    >>> model = MLPRegressor(hidden_layer_sizes=(20,), solver="lbfgs", max_iter=1000)
    >>> model.set_params(random_state=0).fit(X, np.sin(X[:, 0])).score(X, np.sin(X[:, 0])) > 0.99
    True
    """

    _metric_name = "r2"

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012
        **Prediction._parameter_constraints,
        "loss": [StrOptions(set(REGRESSION_LOSSES)), callable],
        "output_activation": [StrOptions({"auto", *OUTPUTS})],
    }

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
        scoring: Any = None,
        dropout: Any = 0.0,
        input_dropout: float = 0.0,
        normalization: str | None = None,
        residual: bool = False,
        max_grad_norm: float | None = None,
        ema_decay: float | None = None,
        callbacks: Any = None,
        backend: str | None = None,
        device: Any = None,
        precision: str = "auto",
        input_scaling: Any = None,
        placement: str = "auto",
        max_time: float | None = None,
        augmentation: Any = None,
        tta: Any = None,
    ) -> None:
        self._store(locals())

    # --- fitting -------------------------------------------------------------------------------

    @available_if(Prediction._can_partial_fit)  # type: ignore[untyped-decorator]
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
        """Train for one epoch over the given samples, going on from where the last call ended.

        A learning-rate schedule goes through `max_iter` such calls. With validation samples, or
        ``early_stopping=True``, each call adds to `validation_scores_`; when to stop is for the
        caller to decide, and the newest weights are kept.

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
        return self._partial_fit(X, y, sample_weight, (X_val, y_val, sample_weight_val))

    def _check_y(self, y: Any, n_samples: int, name: str = "y") -> np.ndarray:
        y = check_targets(y, self, n_samples, name=name)
        loss = REGRESSION_LOSSES[self.loss]() if isinstance(self.loss, str) else self.loss
        if isinstance(loss, Loss):
            loss.check_targets(y, name, xp=np)
        return y

    def _learn_targets(self, y: np.ndarray, classes: Any) -> None:
        self.n_outputs_ = 1 if y.ndim == 1 else y.shape[1]

    def _learn_outputs(self) -> None:
        self.__dict__.setdefault("out_activation_", "identity")

    def _check_known(self, y: np.ndarray) -> None:
        pass  # Any values will do; `_encode` looks at the shape.

    def _encode(self, y: np.ndarray, name: str = "y") -> np.ndarray:
        columns = y.reshape((y.shape[0], -1)).astype(self._dtype)
        if columns.shape[1] != self.n_outputs_:
            raise ValueError(
                f"{name} is of shape {y.shape}, and the network was fitted on "
                f"{self.n_outputs_} outputs."
            )
        return columns

    def _resolve_loss(self) -> Loss:
        named = {name: kind() for name, kind in REGRESSION_LOSSES.items()}
        output = self.output_activation
        if output == "auto":
            loss = self._make_loss(named, "identity")
            self.out_activation_ = getattr(loss, "output", "identity")
            return loss
        self.out_activation_ = output
        loss = self._make_loss(named, output)
        return loss if getattr(loss, "output", None) == output else Through(loss, output)

    def _metric(self, y: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None) -> float:
        return float(r2_score(y, predicted, sample_weight=weights))

    # --- prediction ----------------------------------------------------------------------------

    def _decode(self, outputs: Any) -> Any:
        return outputs[:, 0] if self.n_outputs_ == 1 else outputs

    def predict(self, X: Any, *, tta: Any = AS_SET) -> Any:
        """Predict values.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
        tta : Flip, Shift, a list of them, None or "estimator", default="estimator"
            What to average over; by default the parameter `tta` of the estimator says so.

        Returns
        -------
        (samples,) array, or (samples, outputs) for several outputs
            In the library and on the device of X.
        """
        return self._decode(self._outputs(X, "predict", tta=tta))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Give the coefficient of determination, R2, on the given samples.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
        y : array-like of shape (samples,) or (samples, outputs)
        sample_weight : array-like of shape (samples,), optional

        Returns
        -------
        float
            1 at best; several outputs count the same.
        """
        predicted = self._decode(self._outputs(X, "score", to=get_backend("numpy")))
        return self._metric(host(y), predicted, check_weights(sample_weight, len(predicted)))
