"""The parameters that classifier and regressor share: constraints, checks, documentation."""

import functools
import inspect
import os
import warnings
from numbers import Integral, Real
from typing import Any, Self, TypeVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import (
    Interval,
    InvalidParameterError,
    Options,
    StrOptions,
    validate_parameter_constraints,
)

from mlp_xp.augmentation import Augmentation
from mlp_xp.backends import BACKENDS, LOW_PRECISIONS
from mlp_xp.distributed import ENGINES, Distributed
from mlp_xp.estimators.checks.keywords import checking_keywords, set_params
from mlp_xp.estimators.settings.config import ADAPTIVE, LBFGS, check_params, resolve_layers
from mlp_xp.nn.hidden import Layer
from mlp_xp.nn.layers import ACTIVATIONS
from mlp_xp.optimizers import OPTIMIZERS, Optimizer
from mlp_xp.optimizers.schedules import SCHEDULES
from mlp_xp.training.data.input_scaling import SCALINGS, Whiten

__all__ = ["CONSTRAINTS", "RecipeMixin", "documented", "one_of", "param_names", "validate"]

_Class = TypeVar("_Class", bound=type)

# Types whose equal values are alike.
_PLAIN = frozenset({bool, int, float, np.float64, np.int64, str, type(None)})


def one_of(*names: str) -> StrOptions:
    """Return scikit-learn's constraint for a choice of names, listed in errors in this order."""
    return StrOptions(dict.fromkeys(names).keys())


CONSTRAINTS: dict[str, Any] = {
    "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left"), Layer],
    "activation": [one_of(*ACTIVATIONS), list, tuple, callable],
    "solver": [one_of(*OPTIMIZERS, LBFGS), Optimizer],
    "alpha": [Interval(Real, 0, None, closed="left")],
    "batch_size": [one_of("auto"), Interval(Integral, 1, None, closed="left")],
    "learning_rate": [one_of(*SCHEDULES, ADAPTIVE), *SCHEDULES.values()],
    "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
    "power_t": [Interval(Real, 0, None, closed="left")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "shuffle": ["boolean"],
    "random_state": ["random_state"],
    "tol": [Interval(Real, 0, None, closed="left")],
    "verbose": ["verbose"],
    "warm_start": ["boolean"],
    "momentum": [Interval(Real, 0, 1, closed="both")],
    "nesterovs_momentum": ["boolean"],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="left")],
    "beta_1": [Interval(Real, 0, 1, closed="left")],
    "beta_2": [Interval(Real, 0, 1, closed="left")],
    "epsilon": [Interval(Real, 0, None, closed="neither")],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
    "max_fun": [Interval(Integral, 1, None, closed="left")],
    "scoring": [str, callable, None],
    "dropout": [Interval(Real, 0, 1, closed="left"), list, tuple],
    "input_dropout": [Interval(Real, 0, 1, closed="left")],
    "normalization": [one_of("layer", "batch"), None],
    "residual": ["boolean"],
    "parametric_activation": ["boolean"],
    "max_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
    "ema_decay": [Interval(Real, 0, 1, closed="left"), None],
    "callbacks": [list, tuple, None],
    "backend": [one_of("auto", *BACKENDS), None],
    "device": "no_validation",  # get_backend checks it
    "precision": [one_of("auto", "float32", "float64", *LOW_PRECISIONS)],
    "input_scaling": [one_of(*SCALINGS), Whiten, None],
    "placement": [one_of("auto", "resident", "streamed")],
    "max_time": [Interval(Real, 0, None, closed="neither"), None],
    "augmentation": [Augmentation, list, tuple, None],
    "tta": [Augmentation, list, tuple, None],
    "distributed": [one_of(*ENGINES), Distributed, None],
}

# In the order of the constructors, which have further parameters between the two.
_FIRST = """\
hidden_layer_sizes : int, object of `mlp_xp.nn.hidden`, or a list of them, default=(100,)
    Width of each hidden layer, from first to last; or an object, e.g. ``Branch((1536, 384))``
    for a residual branch with an inverted bottleneck.
activation : str, callable, or a list with one for each hidden layer, default="relu"
    "identity", "logistic", "tanh", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "mish",
    "softplus"; or
    ``f(x, *, xp)`` that returns the output and its pullback, which is compared with a finite
    difference at the first fit.
solver : {"sgd", "adam", "adamw", "rmsprop", "lion", "muon", "beta_lasso", "lbfgs"} or a rule \
of `mlp_xp.optimizers`, default="adam"
    A string takes its settings from the parameters below, e.g. `beta_1`; an object such as
    ``AdamW(weight_decay=0.05)`` brings its own. "lbfgs" is SciPy's.
alpha : float of at least 0, default=0.0001
    Strength of the L2 penalty on the weights, divided by the samples of a batch.
batch_size : int or "auto", default="auto"
    "auto" is ``min(200, n_samples)``. "lbfgs" takes all samples.
learning_rate : {"constant", "invscaling", "adaptive", "warmup", "cosine", "onecycle", \
"linear", "flat_cos", "coslog4"} or a schedule of `mlp_xp.optimizers.schedules`, default="constant"
    Factor of `learning_rate_init` at each step, for every solver but "lbfgs". As in
    scikit-learn, "invscaling" and "adaptive" act for SGD alone; "adaptive" divides the rate by
    5 whenever nothing has improved for `n_iter_no_change` epochs.
learning_rate_init : float above 0, default=0.001
    Learning rate that the schedule multiplies.
power_t : float of at least 0, default=0.5
    Exponent of "invscaling".
max_iter : int of at least 1, default=200
    Maximum number of epochs; schedules end there. For "lbfgs", iterations.
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
    Whether `fit` continues from where the last one ended, with its optimizer's state.
momentum : float from 0 to 1, default=0.9
    For "sgd".
nesterovs_momentum : bool, default=True
    For "sgd".
early_stopping : bool, default=False
    Whether the score on held-out samples ends the training, and the weights of its best epoch
    are kept. The samples are `validation_fraction` of the training data, unless `fit` is given
    ``X_val`` and ``y_val``. Classes are stratified, except where several are right at once, and
    of more than two classes where one is too rare. Ignored with "lbfgs", as in scikit-learn.
validation_fraction : float in [0, 1), default=0.1
    Fraction of the training data that `early_stopping` holds out.
beta_1 : float in [0, 1), default=0.9
    Decay of the average of gradients, for "adam" and "adamw".
beta_2 : float in [0, 1), default=0.999
    Decay of the average of squared gradients, for "adam" and "adamw".
epsilon : float above 0, default=1e-8
    For "adam" and "adamw".
n_iter_no_change : int of at least 1 or inf, default=10
    See `tol`; inf never stops before `max_iter`.
max_fun : int of at least 1, default=15000
    For "lbfgs": maximum number of evaluations of the loss.
"""

_LAST = """\
scoring : str, callable or None, default=None
    Score for early stopping: a name of scikit-learn's scorers, ``scorer(model, X, y)``, or
    "loss" for the validation loss; for a classifier also "refinement", the log loss after the best
    temperature (arXiv:2501.19195), which suits `calibration`. A callable is tried once before the
    first epoch; the model it receives predicts for these samples only, and in NumPy. None is the
    accuracy of a classifier, and R2, the coefficient of determination, of a regressor, but "loss"
    where a regressor learns quantiles or a standard deviation.
dropout : float in [0, 1), or a list with one for each hidden layer, default=0
    Fraction of the outputs of hidden layers that a training step drops.
input_dropout : float in [0, 1), default=0
    Fraction of the features that a training step drops.
normalization : {"layer", "batch"} or None, default=None
    Normalization between each hidden dense layer and its activation.
residual : bool, default=False
    Whether a hidden layer as wide as the one before it adds its output to its input.
parametric_activation : bool, default=False
    Whether each output of a hidden layer learns how far its activation f bends:
    ``x + slope * (f(x) - x)``, from a slope of 1 on.
max_grad_norm : float above 0 or None, default=None
    Maximum norm of all gradients of a step together; larger ones are scaled down to it.
ema_decay : float in [0, 1) or None, default=None
    Predict with the exponential moving average of the weights, with this decay at each step,
    e.g. 0.999.
callbacks : list of callbacks or None, default=None
    See `mlp_xp.callbacks`.
backend : {"auto", "numpy", "cupy", "torch", "jax", "array_api_strict"} or None, default=None
    None computes where the data are. A name moves the data there. "auto" takes CUDA where it
    works, else NumPy.
device : str or None, default=None
    E.g. ``"cpu"``, ``"cuda:1"``, ``"xpu"``, ``"mps"``. None is the backend's default.
precision : {"auto", "float32", "float64", "tf32", "bf16", "float16"}, default="auto"
    For parameters and products. "auto" keeps float32 and float64 as the data have it, and takes
    float32 for uint8; other integers are computed in float64, as in scikit-learn. The last three
    train with faster products, on backends "cupy", "torch" and "jax"; the weights, the optimizer's
    state and the loss stay in float32, and so do predictions. "tf32", on GPUs, rounds the operands
    of products. "bf16" and "float16" also keep inputs, activations and gradients in 16 bits,
    except on "cupy". "float16" scales the loss, and skips the steps whose gradients overflow.
input_scaling : {"standardize", "zca", "pca"}, Whiten, or None, default=None
    "standardize" gives each feature mean 0 and standard deviation 1 over the training data,
    on the device; uint8 data stay uint8 until a batch is made. The others remove correlations
    too, by the eigenvectors of a matrix of features x features, and multiply each batch by
    such a matrix.
placement : {"auto", "resident", "streamed"}, default="auto"
    Whether the data are on the device as a whole or arrive batch by batch; by default what
    fits is resident. Sparse data are streamed, and dense a batch at a time.
max_time : float above 0 or None, default=None
    Seconds that a `fit` may take, validation and preparation included. The learning-rate
    schedule then follows the share of the time that has passed, or of `max_iter` if that is
    larger, and the last epoch ends in the middle where it must. Such a fit depends on the
    clock, so that `random_state` cannot repeat it. `partial_fit` ignores it; "lbfgs" ends after
    the last iteration that should fit.
augmentation : object or list of objects of `mlp_xp.augmentation`, or None, default=None
    Random changes of the images of each training batch, e.g. ``[Flip((3, 32, 32)),
    Shift((3, 32, 32), pixels=4)]``: the geometric ones in their order, then the others. Not for
    "lbfgs". Held-out samples and predictions are left as they are.
tta : Flip, Shift, a list of them, or None, default=None
    Test-time augmentation: predictions are averaged over all combinations of their views, two
    of a `Flip` and five of a `Shift`. Not during a fit.
distributed : {"mpi", "torch"}, object of `mlp_xp.distributed.Distributed`, or None, default=None
    One fit on many processes, which all call `fit`: ``mpiexec -n 4 python -m mpi4py script.py``,
    or ``torchrun``. Each takes a part of each batch, and all get the network that one process
    would, up to rounding. Rank 0 alone prints, warns, calls callbacks and writes files.
    Predictions are computed by each process for itself.
"""

_ATTRIBUTES = """\
coefs_ : list of (fan_in, fan_out) or (blocks, fan_in, fan_out) arrays
    Weight matrices, or stacks of them, in the library and on the device of the data that were
    fitted.
intercepts_ : list of (fan_out,) arrays
    Biases, likewise.
norms_ : list of (scale, shift)
    One for each normalization; likewise.
other_weights_ : list of NamedTuples of arrays
    What else is learned, such as embeddings; likewise.
moments_ : list of (mean, variance)
    Running statistics of batch normalization; likewise.
loss_ : float
    Loss of the last epoch.
best_loss_ : float or None
    Lowest loss of all epochs; None with early stopping.
loss_curve_ : list of float
    Loss of each epoch, or iteration of "lbfgs".
validation_scores_, validation_loss_curve_ : list of float or None
    After each epoch; None without validation samples.
best_validation_score_ : float or None
    Highest of them.
history_ : list of Record
    One for each epoch; ``pandas.DataFrame(model.history_)`` makes a table of it.
n_iter_ : int
    Epochs done, since the last call of `fit` began.
t_ : int
    Samples seen, repeats included.
n_features_in_, n_layers_, n_outputs_ : int
    Numbers of features, of layers with the input, and of outputs.
out_activation_ : str
    Output activation.
feature_names_in_ : (features,) array
    Where X has column names.
"""

_PARTS = {
    "[hidden_layer_sizes to max_fun]": _FIRST,
    "[scoring to distributed]": _LAST,
    "[attributes of every fit]": _ATTRIBUTES,
}


def documented(cls: _Class) -> _Class:
    """Replace lines in brackets of the docstring of a class by the text that both classes share.

    Its constructor says what an unknown keyword may mean.
    """
    if cls.__doc__ is not None:  # With -OO there is none.
        text = inspect.cleandoc(cls.__doc__)
        for line, part in _PARTS.items():
            text = text.replace(f"{line}\n", part)
        cls.__doc__ = text
    cls.__init__ = checking_keywords(cls.__init__)  # type: ignore[misc]
    return cls


# Scikit-learn reads the signature of the constructor at each call.
@functools.cache
def _names(cls: Any) -> tuple[str, ...]:
    return tuple(BaseEstimator._get_param_names.__func__(cls))


def _list_names(cls: Any) -> list[str]:
    return list(_names(cls))  # One for each caller: a subclass may add names to it.


param_names: Any = classmethod(_list_names)


def validate(estimator: Any) -> None:
    """Check the parameters of an estimator as scikit-learn does, the same ones once."""
    kind: Any = type(estimator)
    params = estimator.get_params(deep=False)
    if all(map(_is_plain, params.values())):
        # With their types: True is equal to 1.
        _validate_plain(kind, *((name, type(value), value) for name, value in params.items()))
    else:
        _validate(kind, params)


def _is_plain(value: Any) -> bool:
    """Whether a parameter is a number, a text, None, or integers: equal ones are alike."""
    kind = type(value)
    return kind in _PLAIN or (kind is tuple and all(type(entry) is int for entry in value))


@functools.lru_cache(maxsize=256)
def _validate_plain(kind: Any, *params: tuple[str, type, Any]) -> None:
    _validate(kind, {name: value for name, _, value in params})


def _validate(kind: Any, params: dict[str, Any]) -> None:
    """Check parameters as scikit-learn does, and add to its error what may be meant."""
    constraints = kind._parameter_constraints
    for name, value in params.items():
        try:
            validate_parameter_constraints(constraints, {name: value}, caller_name=kind.__name__)
        except InvalidParameterError as error:
            raise InvalidParameterError(f"{error}{_hint(name, value, constraints[name])}") from None


def _hint(name: str, value: Any, constraints: list[Any]) -> str:
    """Return a sentence that says what may be meant by a wrong parameter, or ""."""
    if isinstance(value, str):
        from mlp_xp._utils.names import did_you_mean  # Most names are right.

        names = [option for c in constraints if isinstance(c, StrOptions) for option in c.options]
        return did_you_mean(value, names).replace("did", " Did", 1)
    if isinstance(value, bool):
        return ""
    if name == "learning_rate" and isinstance(value, Real):
        return f" The rate itself is learning_rate_init={value!r}."
    if name == "activation" and isinstance(value, Integral):
        return f" Widths of several layers are one tuple: hidden_layer_sizes=(.., {value!r})."
    return " Give a list, callbacks=[...]." if name == "callbacks" else ""


class RecipeMixin:
    """The class method `from_recipe`, and `set_params` with errors that name the nearest."""

    set_params = set_params

    @classmethod
    def from_recipe(cls, recipe: str | os.PathLike[str], **overrides: Any) -> Self:
        """Create an estimator with the settings of a recipe.

        Parameters
        ----------
        recipe : str or path-like
            A name of `mlp_xp.recipes.names`, or a TOML file of your own; see `docs/cli.md`. Its
            ``max_time`` limits the fit.
        **overrides
            Parameters that replace the recipe's. ``backend="numpy"`` replaces its precision
            and device too, and is what is taken, with a warning, where its library is missing.

        Returns
        -------
        MLPClassifier or MLPRegressor
            Not fitted.

        Raises
        ------
        ValueError
            If there is no such recipe, or it has a key that is no parameter, or a wrong value.

        Examples
        --------
        >>> from mlp_xp import MLP
        >>> MLP.from_recipe("default", random_state=0).hidden_layer_sizes
        (512, 512)
        """
        # Slow to import, and rarely needed.
        from mlp_xp.recipes import params_with, read_recipe, recipe_parameters, without_library

        kind: Any = cls
        read = read_recipe(recipe, recipe_parameters(kind))
        model = kind(**read.params)
        try:
            model._validate_params()
            check_params(model._params())
            resolve_layers(model.hidden_layer_sizes)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{read.path}: {error}") from error
        if "backend" not in overrides and (note := without_library(recipe, read.params)):
            warnings.warn(note, stacklevel=2)
            overrides["backend"] = "numpy"
        created: Self = kind(**params_with(read, overrides)).set_params(**overrides)
        return created
