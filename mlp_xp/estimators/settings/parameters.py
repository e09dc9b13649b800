"""Constraints, docstrings and checks that are generated from the table of parameters."""

import functools
import inspect
import math
import os
import pkgutil
import warnings
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, TypeVar

from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils._param_validation import (
    Interval,
    InvalidParameterError,
    Options,
    StrOptions,
)

from mlp_xp.estimators.checks.keywords import checking_keywords, set_params
from mlp_xp.estimators.settings.config import check_params, resolve_layers
from mlp_xp.recipes.parameters import Number, Parameter

_Class = TypeVar("_Class", bound=type)


def constraints_of(parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return scikit-learn's constraints for the parameters in a parameter table."""
    return {
        name: row.values if isinstance(row.values, str) else list(map(_constraint, row.values))
        for name, row in parameters.items()
    }


def _constraint(value: Any) -> Any:
    if isinstance(value, Number):
        kind, above, at_least, below, at_most = value
        low, high = max(above, at_least), min(below, at_most)
        closed = "neither" if low == above else "both" if high == at_most < math.inf else "left"
        limits = (None if math.isinf(n) else n for n in (low, high))
        return Interval(Real if kind is float else Integral, *limits, closed=closed)
    if isinstance(value, tuple):  # Errors list the options in this order.
        return StrOptions(dict.fromkeys(value).keys())
    if value == math.inf:
        return Options(Real, {math.inf})
    return pkgutil.resolve_name(value) if isinstance(value, str) and ":" in value else value


def documented(cls: _Class) -> _Class:
    """Add parameters and attributes to the docstring, and hints to the constructor's errors.

    The attributes are those in the docstring of the last base class.
    """
    kind: Any = cls
    if cls.__doc__ is not None:  # With ``python -OO``, there are no docstrings.
        names = inspect.signature(kind).parameters
        rows = [kind._parameters[name].described(name) for name in names]
        text = inspect.cleandoc(cls.__doc__).replace("[parameters]\n", "".join(rows))
        attributes = inspect.cleandoc(kind.__bases__[-1].__doc__).partition("\n----------\n")[2]
        cls.__doc__ = text.replace("[attributes of every fit]", attributes)
    cls.__init__ = checking_keywords(cls.__init__)  # type: ignore[misc]
    return cls


def validate(estimator: Any) -> None:
    """Check an estimator's parameters as scikit-learn does, and add a suggestion to its error."""
    try:
        BaseEstimator._validate_params(estimator)
    except InvalidParameterError as error:
        name = str(error).split("'")[1]
        constraints = estimator._parameter_constraints[name]
        hint = _hint(name, getattr(estimator, name), constraints)
        raise InvalidParameterError(f"{error}{hint}") from None


def _hint(name: str, value: Any, constraints: list[Any]) -> str:
    """Return a suggestion for a wrong parameter, or ""."""
    if isinstance(value, str):
        from mlp_xp._utils.names import did_you_mean  # Import only for errors.

        names = [option for c in constraints if isinstance(c, StrOptions) for option in c.options]
        return did_you_mean(value, names).replace("did", " Did", 1)
    if isinstance(value, bool):
        return ""
    if name == "learning_rate" and isinstance(value, Real):
        return f" Set the rate itself by learning_rate_init={value!r}."
    if name == "activation" and isinstance(value, Integral):
        return f" Pass the widths of all layers as a tuple: hidden_layer_sizes=(.., {value!r})."
    is_layers = isinstance(value, Integral | tuple | list)
    if name == "loss" and is_layers:  # The first parameter of a regressor is `loss`.
        return f" Did you mean hidden_layer_sizes={value!r}?"
    return " Pass a list, callbacks=[...]." if name == "callbacks" else ""


# Cache the names: reading the constructor's signature each time makes a clone four times slower.
@functools.cache
def _names(cls: Any) -> tuple[str, ...]:
    return tuple(BaseEstimator._get_param_names.__func__(cls))


class RecipeMixin:
    """A mixin with the class method `from_recipe`, and `set_params` with better errors."""

    set_params = set_params

    @classmethod
    def _get_param_names(cls) -> list[str]:
        kind: Any = cls
        return list(_names(kind))

    @classmethod
    def from_recipe(cls, recipe: str | os.PathLike[str], **overrides: Any) -> Any:
        """Create an estimator with the settings of a recipe.

        Parameters
        ----------
        recipe : str or path-like
            A name from `mlp_xp.recipes.names`, or your own TOML file; see `docs/cli.md`. The
            recipe's ``max_time`` limits the fit.
        **overrides
            Parameters that replace the recipe's. ``backend="numpy"`` also replaces the recipe's
            precision and device. If the recipe's library is not installed, NumPy is used. If
            PyTorch is very slow in bfloat16 on this processor, float32 is used. Both give a
            warning.

        Returns
        -------
        MLPClassifier or MLPRegressor
            An unfitted estimator. A recipe with a section ``[ensemble]``, such as "table-best",
            returns an `MLPEnsembleClassifier` or `MLPEnsembleRegressor`, and a recipe with a
            section ``[tuned]``, such as "table-tuned", an `MLPTunedClassifier` or
            `MLPTunedRegressor`. Overrides that network and ensemble both accept, such as
            ``random_state``, are set on the ensemble.

        Raises
        ------
        ValueError
            If the recipe does not exist, or has an unknown parameter or an invalid value.

        Examples
        --------
        >>> from mlp_xp import MLP
        >>> MLP.from_recipe("default", random_state=0).hidden_layer_sizes
        (512, 512)
        """
        # Import late, since the import is slow.
        from mlp_xp.recipes import (
            ENSEMBLES,
            params_with,
            read_recipe,
            recipe_parameters,
            replacements,
        )

        kind: Any = cls
        task = "regression" if issubclass(kind, RegressorMixin) else "classification"
        read = read_recipe(recipe, recipe_parameters(kind), task)
        model = kind(**read.params)
        try:
            model._validate_params()
            check_params(model._params())
            resolve_layers(model.hidden_layer_sizes)
            ensemble = None
            for section in ENSEMBLES:
                if params := getattr(read, section):
                    ensemble = ensemble_of(model, section).set_params(**params)
                    ensemble._validate_params()
        except (ValueError, TypeError) as error:
            raise ValueError(f"{read.path}: {error}") from error
        if replaced := replacements(recipe, read.params, overrides):
            warning, others = replaced
            warnings.warn(warning, stacklevel=2)
            overrides |= others
        names = [] if ensemble is None else ensemble._get_param_names()
        shared = {name: overrides.pop(name) for name in names if name in overrides}
        model = kind(**params_with(read, overrides)).set_params(**overrides)
        return model if ensemble is None else ensemble.set_params(**{"estimator": model} | shared)


def ensemble_of(network: Any, section: str) -> Any:
    """Return an unfitted ensemble of networks, given the section of a recipe that describes it."""
    import mlp_xp  # Import late, since the modules of the ensembles import the estimators.

    task = "Regressor" if isinstance(network, RegressorMixin) else "Classifier"
    kind: Any = getattr(mlp_xp, f"MLP{section.capitalize()}{task}")
    return kind(network, random_state=network.random_state)
