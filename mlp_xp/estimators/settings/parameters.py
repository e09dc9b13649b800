"""The parameters that classifier and regressor share: constraints and checks."""

import functools
import inspect
import os
import warnings
from numbers import Integral, Real
from typing import Any, Self, TypeVar

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
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
from mlp_xp.estimators.settings.config import (
    ADAPTIVE,
    LBFGS,
    TABLE_SCALINGS,
    check_params,
    resolve_layers,
)
from mlp_xp.estimators.settings.parameter_docs import PARTS
from mlp_xp.nn.blocks import NUMERIC_EMBEDDINGS, NumericEmbedding
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
    "dropout_schedule": [one_of(*SCHEDULES), *SCHEDULES.values(), None],
    "weight_decay_schedule": [one_of(*SCHEDULES), *SCHEDULES.values(), None],
    "normalization": [one_of("layer", "batch"), None],
    "residual": ["boolean"],
    "n_members": [Interval(Integral, 1, None, closed="left")],
    "parametric_activation": ["boolean"],
    "parametrization": [one_of("standard", "ntk")],
    "numeric_embedding": [one_of(*NUMERIC_EMBEDDINGS), NumericEmbedding, None],
    "learn_input_scale": ["boolean"],
    "max_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
    "ema_decay": [Interval(Real, 0, 1, closed="left"), None],
    "callbacks": [list, tuple, None],
    "backend": [one_of("auto", *BACKENDS), None],
    "device": "no_validation",  # get_backend checks it
    "precision": [one_of("auto", "float32", "float64", *LOW_PRECISIONS)],
    "input_scaling": [one_of(*TABLE_SCALINGS, *SCALINGS), Whiten, None],
    "placement": [one_of("auto", "resident", "streamed")],
    "max_time": [Interval(Real, 0, None, closed="neither"), None],
    "augmentation": [Augmentation, list, tuple, None],
    "tta": [Augmentation, list, tuple, None],
    "distributed": [one_of(*ENGINES), Distributed, None],
    "categorical_features": ["array-like", one_of("from_dtype"), None],
    "missing_values": [one_of("error", "impute")],
    "max_one_hot": [Interval(Integral, 0, None, closed="left"), Options(Real, {np.inf})],
    "embedding_dim": [Interval(Integral, 1, None, closed="left")],
}


def documented(cls: _Class) -> _Class:
    """Replace lines in brackets of the docstring of a class by the text that both classes share.

    Its constructor says what an unknown keyword may mean.
    """
    if cls.__doc__ is not None:  # With -OO there is none.
        text = inspect.cleandoc(cls.__doc__)
        for line, part in PARTS.items():
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
        task = "regression" if issubclass(kind, RegressorMixin) else "classification"
        read = read_recipe(recipe, recipe_parameters(kind), task)
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
