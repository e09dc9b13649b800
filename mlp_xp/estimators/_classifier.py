"""The classifier: scikit-learn's names and meanings, on any array library."""

import os
from numbers import Real
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.metrics import accuracy_score
from sklearn.utils import compute_sample_weight
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import type_of_target, unique_labels

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.sklearn_compat import as_sparse
from mlp_xp.backends import get_backend
from mlp_xp.estimators.prediction import AS_SET, Prediction
from mlp_xp.estimators.validation import check_labels, check_weights, encode, host
from mlp_xp.nn.losses import (
    CLASSIFICATION_LOSSES,
    BinaryCrossEntropy,
    Custom,
    Loss,
    SoftmaxCrossEntropy,
)
from mlp_xp.optimizers import Optimizer
from mlp_xp.optimizers.schedules import Schedule

__all__ = ["MLPClassifier"]


class MLPClassifier(ClassifierMixin, Prediction):  # type: ignore[misc]
    """Multilayer perceptron classifier, on NumPy, CuPy, PyTorch, JAX or array-api-strict.

    What it has in common with `sklearn.neural_network.MLPClassifier` has the same names, defaults
    and meanings; ``docs/migrate.md`` names the few places where it does better. Parameters from
    `loss` on are new.

    Parameters
    ----------
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
        are kept. The samples are `validation_fraction` of the training data, unless `fit` is given
        ``X_val`` and ``y_val``. They have the same shares of the classes, except where several are
        right at once, and of more than two classes where one is too rare. Ignored with "lbfgs",
        as in scikit-learn.
    validation_fraction : float in [0, 1), default=0.1
    beta_1, beta_2 : float in [0, 1), default=0.9, 0.999
        For "adam" and "adamw".
    epsilon : float above 0, default=1e-8
        For "adam" and "adamw".
    n_iter_no_change : int of at least 1 or inf, default=10
        See `tol`; inf never stops before `max_iter`.
    max_fun : int of at least 1, default=15000
        For "lbfgs": how often it may compute the loss.
    loss : {"log_loss", "focal"}, a loss of `mlp_xp.nn.losses`, or callable, default="log_loss"
        An object must be for the outputs that `output_activation` gives, e.g.
        ``SoftmaxCrossEntropy()`` for "softmax". A callable
        ``loss(outputs, targets, *, xp)`` returns the loss of each sample and a pullback, which is
        compared with a finite difference at the first fit; see `mlp_xp.nn.losses.Custom`.
    label_smoothing : float in [0, 1), default=0
        For "log_loss": mixes the targets with the uniform distribution.
    class_weight : dict, "balanced" or None, default=None
        Weight of the samples of each class; "balanced" gives all classes the same sum.
    output_activation : {"auto", "softmax", "logistic"}, default="auto"
        "auto" is softmax for several classes, logistic for two and for several at once. "logistic"
        trains each of several classes against the rest.
    scoring : str, callable or None, default=None
        What early stopping goes by: a name of scikit-learn's scorers, ``scorer(model, X, y)``, or
        "loss" for the validation loss. A callable is tried once before the first epoch; what it
        is given predicts for these samples only, and answers in NumPy. None is the accuracy.
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
    classes_ : (classes,) NumPy array
        Class labels, sorted.
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

    classes_: np.ndarray
    label_smoothing: float
    class_weight: Any
    _target_type: str
    _metric_name = "accuracy"

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012
        **Prediction._parameter_constraints,
        "loss": [StrOptions(set(CLASSIFICATION_LOSSES)), callable],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "output_activation": [StrOptions({"auto", "softmax", "logistic"})],
    }

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

    @classmethod
    def from_recipe(cls, recipe: str | os.PathLike[str], **overrides: Any) -> Self:
        """Make a classifier with the settings of a recipe.

        Parameters
        ----------
        recipe : str or path-like
            A name of `mlp_xp.recipes.names`, or a TOML file of your own; see `docs/cli.md`. Its
            ``max_time`` is that of the fit.
        **overrides
            Parameters that go before those of the recipe.

        Returns
        -------
        MLPClassifier
            Not fitted.

        Raises
        ------
        ValueError
            If there is no such recipe, or it has a key that is no parameter, or a wrong value.

        Examples
        --------
        >>> from mlp_xp import MLP
        >>> MLP.from_recipe("one-minute", random_state=0).label_smoothing
        0.1
        """
        from mlp_xp.recipes import read_recipe, recipe_parameters  # Few need what this loads.

        read = read_recipe(recipe, recipe_parameters(cls))
        model = cls(**read.params)
        try:
            model._validate_params()
            model._check_settings()
            model._hidden_sizes()
        except (ValueError, TypeError) as error:
            raise ValueError(f"{read.path}: {error}") from error
        return model.set_params(**overrides)

    # --- fitting -------------------------------------------------------------------------------

    @available_if(Prediction._can_partial_fit)  # type: ignore[untyped-decorator]
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
        """Train for one epoch over the given samples, going on from where the last call ended.

        A learning-rate schedule goes through `max_iter` such calls. With validation samples, or
        ``early_stopping=True``, each call adds to `validation_scores_`; when to stop is for the
        caller to decide, and the newest weights are kept.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
        y : array-like of shape (samples,) or (samples, classes)
        sample_weight : array-like of shape (samples,), optional
        classes : array-like of shape (classes,), optional
            All classes there will be; needed in the first call.
        X_val, y_val, sample_weight_val : optional
            As for `fit`.

        Returns
        -------
        self
        """
        known = getattr(self, "classes_", None)
        if known is None and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        # Most callers name the same classes each time, sorted.
        is_same = (
            known is not None and type(classes) is np.ndarray and np.array_equal(known, classes)
        )
        if classes is not None and not is_same:
            classes = unique_labels(host(classes))
            if known is not None and not np.array_equal(known, classes):
                raise ValueError(
                    f"`classes={classes!r}` is not the same as on last call to partial_fit, was: "
                    f"{known!r}"
                )
        return self._partial_fit(X, y, sample_weight, (X_val, y_val, sample_weight_val), classes)

    def _check_y(self, y: Any, n_samples: int, name: str = "y") -> np.ndarray:
        return check_labels(y, self, n_samples, name=name, known=getattr(self, "classes_", None))

    def _learn_targets(self, y: np.ndarray, classes: Any) -> None:
        kind = type_of_target(y)
        self._target_type = "multilabel" if kind.startswith("multilabel") else "multiclass"
        if self._target_type == "multilabel":
            if classes is not None and len(classes) != y.shape[1]:
                raise ValueError(
                    f"classes has {len(classes)} entries, {classes!r}, and y has {y.shape[1]} "
                    "columns, one for each class."
                )
            self.classes_ = np.arange(y.shape[1]) if classes is None else classes
        else:
            self.classes_ = unique_labels(y) if classes is None else classes
            if len(self.classes_) == 2:
                self._target_type = "binary"
        self.out_activation_ = self._link()
        is_column = self._target_type == "binary" and self.out_activation_ == "logistic"
        self.n_outputs_ = 1 if is_column else len(self.classes_)

    def _learn_outputs(self) -> None:
        if not hasattr(self, "classes_"):
            binarizer = getattr(self, "_label_binarizer", None)  # What scikit-learn's needs.
            if binarizer is None:
                raise AttributeError(
                    "coefs_ are assigned, and classes_ are not: assign the class labels, sorted."
                )
            self.classes_ = binarizer.classes_
        n_outputs = self.n_outputs_
        self.__dict__.setdefault("out_activation_", "logistic" if n_outputs == 1 else "softmax")
        several = self.out_activation_ == "logistic" and self.output_activation != "logistic"
        self._target_type = "multilabel" if several else "multiclass"
        if n_outputs == 1 or (len(self.classes_) == 2 and not several):
            self._target_type = "binary"

    def _link(self) -> str:
        link = self.output_activation
        if link == "auto":
            return "softmax" if self._target_type == "multiclass" else "logistic"
        if link == "softmax" and self._target_type == "multilabel":
            raise ValueError(
                "output_activation is 'softmax', and y has several classes at once, whose "
                "probabilities do not sum to 1: use 'auto' or 'logistic'."
            )
        return link

    def _check_known(self, y: np.ndarray) -> None:
        if self._link() != self.out_activation_:
            raise ValueError(
                f"The network to go on with has out_activation_={self.out_activation_!r}, and "
                f"output_activation is now {self.output_activation!r}: fit with warm_start=False "
                "to start a new one."
            )
        if not self.warm_start:
            return
        classes = self.classes_ if y.ndim == 2 else unique_labels(y)
        if not np.array_equal(classes, self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous "
                f"call to fit. Previously got {self.classes_}, `y` has {classes}"
            )

    def _encode(self, y: np.ndarray, name: str = "y") -> np.ndarray:
        n_columns = self.n_outputs_ if self._target_type == "multilabel" else None
        if (y.shape[1] if y.ndim == 2 else None) != n_columns:
            raise ValueError(
                f"{name} is of shape {y.shape}, and the network was fitted on "
                f"{self._target_type} targets with {len(self.classes_)} classes."
            )
        if n_columns is not None:
            return y.astype(self._dtype)
        codes = encode(y, self.classes_, name)
        if self.out_activation_ == "softmax":
            return codes
        # Logistic outputs are trained on 0 and 1 as numbers, in columns.
        if self.n_outputs_ == 1:
            return codes[:, None].astype(self._dtype)
        return np.eye(self.n_outputs_, dtype=self._dtype)[codes]

    def _strata(self, y: np.ndarray) -> np.ndarray | None:
        if self._target_type == "multilabel":
            return None
        codes = encode(y, self.classes_)
        if self._target_type == "binary":
            # A column of bool, so that the error about a rare class is scikit-learn's.
            return codes[:, None].astype(bool)
        # A class that is too rare to be in both parts is no reason not to fit.
        n_held = len(y) * self.validation_fraction
        counts = np.bincount(codes)
        is_possible = np.min(counts[counts > 0]) >= 2 and n_held >= len(self.classes_)
        return codes if is_possible else None

    def _balance(self, y: np.ndarray, weights: np.ndarray | None) -> np.ndarray | None:
        if self.class_weight is None:
            return weights
        if isinstance(self.class_weight, dict):
            balance = self._named_weights(self.class_weight)[encode(y, self.classes_)]
        else:
            balance = compute_sample_weight(self.class_weight, y)
        return check_weights(balance if weights is None else weights * balance, len(y))

    def _named_weights(self, named: dict[Any, float]) -> np.ndarray:
        """Give the weight of each class, 1 where none is named."""
        if self._target_type == "multilabel":
            raise ValueError(
                "class_weight is a dict, and y has several classes at once, whose weights would "
                "contradict each other: give sample_weight, or class_weight='balanced'."
            )
        classes = self.classes_.tolist()
        unknown = [label for label in named if label not in classes]
        if unknown:
            raise ValueError(
                f"class_weight names {unknown}, which are not among the classes {classes}."
            )
        return np.asarray([named.get(label, 1.0) for label in classes], dtype=np.float64)

    def _resolve_loss(self) -> Loss:
        place = 0 if self.out_activation_ == "softmax" else 1
        named: dict[str, Loss] = {n: pair[place]() for n, pair in CLASSIFICATION_LOSSES.items()}
        smoothing = float(self.label_smoothing)
        if smoothing:
            if self.loss != "log_loss":
                raise ValueError(
                    f"label_smoothing is {smoothing}, and loss is {self.loss!r}: only 'log_loss' "
                    "takes it. A loss object brings its own, e.g. "
                    "SoftmaxCrossEntropy(label_smoothing=0.1)."
                )
            named["log_loss"] = (SoftmaxCrossEntropy, BinaryCrossEntropy)[place](smoothing)
        loss = self._make_loss(named, self.out_activation_)
        output = getattr(loss, "output", self.out_activation_)
        if output != self.out_activation_:
            cure = (
                "use 'log_loss', or e.g. Through(SquaredError(), 'logistic') with "
                "output_activation='logistic'"
            )
            if output in ("softmax", "logistic") and self._target_type != "multilabel":
                cure = f"set output_activation={output!r}"
            elif isinstance(loss, Custom):
                cure = f"give the function itself, or Custom(..., {self.out_activation_!r})"
            raise ValueError(
                f"loss is {loss!r}, whose outputs are {output!r}, and those of "
                f"output_activation={self.output_activation!r} for {self._target_type} targets are "
                f"{self.out_activation_!r}: {cure}."
            )
        return loss

    def _metric(self, y: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None) -> float:
        # As `accuracy_score`, whose checks of its input take longer than a small epoch.
        correct = predicted == y
        return float(np.average(correct if y.ndim == 1 else correct.all(axis=1), weights=weights))

    # --- prediction ----------------------------------------------------------------------------

    def _decode(self, outputs: np.ndarray) -> np.ndarray:
        if self._target_type == "multilabel":
            return (outputs > 0.5).astype(np.int64)
        if self.n_outputs_ == 1 and len(self.classes_) == 2:
            return self.classes_[(outputs[:, 0] > 0.5).astype(np.int64)]
        return self.classes_[np.argmax(outputs, axis=1)]

    def _probabilities(self, outputs: Array, *, xp: Namespace) -> Array:
        if self._target_type == "multilabel":
            return outputs
        if self.n_outputs_ == 1 and len(self.classes_) == 2:
            return xp.concat([1.0 - outputs, outputs], axis=1)
        if self.output_activation == "logistic":  # One against the rest.
            return outputs / xp.sum(outputs, axis=1, keepdims=True)
        return outputs

    def predict(self, X: Any, *, tta: Any = AS_SET) -> Any:
        """Predict class labels.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
        tta : Flip, Shift, a list of them, None or "estimator", default="estimator"
            What to average over; by default the parameter `tta` of the estimator says so.

        Returns
        -------
        (samples,) array, or (samples, classes) of 0 and 1 where several are right at once
            In the library and on the device of X; labels that it cannot hold, such as strings, in
            NumPy. Sparse if y was, as in scikit-learn.
        """
        labels = self._decode(host(self._outputs(X, "predict", to=get_backend("numpy"), tta=tta)))
        if self._is_sparse_y:
            return as_sparse(labels)
        if labels.dtype.kind not in "biuf":
            return labels
        caller = get_backend(X)
        narrow = labels.dtype == np.float64 and not caller.has_float64
        return caller.put(labels, "float32" if narrow else None)

    def predict_proba(self, X: Any, *, tta: Any = AS_SET) -> Any:
        """Predict probabilities.

        Results come batch by batch, each no larger than ``sklearn.set_config(working_memory=...)``
        allows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
        tta : Flip, Shift, a list of them, None or "estimator", default="estimator"
            What to average over; by default the parameter `tta` of the estimator says so.

        Returns
        -------
        (samples, classes) array
            In the order of `classes_`, in the library and on the device of X.
        """
        return self._predict_proba(X, "predict_proba", tta)

    def _predict_proba(self, X: Any, method: str, tta: Any = AS_SET) -> Any:
        outputs = self._outputs(X, method, tta=tta)
        caller = get_backend(outputs)
        with caller.scope():
            return self._probabilities(outputs, xp=caller.xp)

    def predict_log_proba(self, X: Any) -> Any:
        """Predict logarithms of probabilities; see `predict_proba`."""
        p = self._predict_proba(X, "predict_log_proba")
        backend = get_backend(p)
        with backend.scope(), np.errstate(divide="ignore"):
            return backend.xp.log(p)

    def logits(self, X: Any) -> Any:
        """Return the raw outputs of the network, which scikit-learn's MLP does not show.

        With `tta` they are those that the averaged probabilities would come from, logarithms for a
        softmax and log-odds for logistic outputs, so that they decide as `predict` does.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library

        Returns
        -------
        (samples, classes) array, or (samples,) for two classes
            Before softmax or logistic; for two classes, above 0 for the second.
        """
        logits: Any = self._outputs(X, "logits", raw=True)
        if self._target_type != "binary":
            return logits
        return logits[:, 1] - logits[:, 0] if self.n_outputs_ == 2 else logits[:, 0]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Give the accuracy on the given samples.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
        y : array-like of shape (samples,) or (samples, classes)
        sample_weight : array-like of shape (samples,), optional

        Returns
        -------
        float
            From 0 to 1; for several classes at once the share of samples with all of them right.
        """
        predicted = host(self.predict(X))
        weights = check_weights(sample_weight, predicted.shape[0])
        return float(accuracy_score(host(y), predicted, sample_weight=weights))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
