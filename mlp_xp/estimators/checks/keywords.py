"""Errors for unknown keyword arguments of an estimator, with a suggestion."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from sklearn.base import BaseEstimator

_Method = TypeVar("_Method", bound=Callable[..., Any])
# Other libraries' names for an argument that holds validation data.
_VALIDATION = {"eval_set", "validation_data", "validation_set"}
# What to type for names whose parameter needs another value.
_VALUES = {
    name: value
    for value, names in {
        "backend='auto', which uses a GPU if one works": "gpu use_gpu cuda use_cuda",
        "normalization='batch'": "batch_norm batchnorm use_batch_norm batch_normalization use_bn",
        "normalization='layer'": "layer_norm layernorm use_layer_norm layer_normalization",
        "'alpha', or solver=mlp_xp.optimizers.AdamW(weight_decay=...)": "weight_decay",
    }.items()
    for name in names.split()
}


def checking_keywords(constructor: _Method) -> _Method:
    """Wrap a constructor so that its error for an unknown keyword names the nearest parameter."""
    known = inspect.signature(constructor).parameters.keys()

    @functools.wraps(constructor)
    def __init__(self: Any, *arguments: Any, **given: Any) -> None:  # noqa: N807
        if not given.keys() <= known:
            name = next(name for name in given if name not in known)
            raise TypeError(_unexpected(type(self), "__init__", name, _meant(name, known)))
        constructor(self, *arguments, **given)

    return __init__  # type: ignore[return-value]


def check_fit_keywords(fit: Any, estimator: Any, given: Iterable[str]) -> None:
    """Raise TypeError for an unknown keyword of `fit` or `partial_fit`."""
    from mlp_xp._utils.names import nearest  # Import only for errors.

    known, kind = inspect.signature(fit).parameters, type(estimator)
    for name in given:
        if name not in known:
            meant = nearest(name, estimator.get_params(deep=False))
            end = f": pass it to the constructor, {kind.__name__}({meant}=...)." if meant else ""
            end = end if name not in _VALIDATION else ": pass X_val=..., y_val=..."
            if near := nearest(name, known):
                end = f": did you mean {near!r}?"
            raise TypeError(_unexpected(kind, fit.__name__, name, end))


def set_params(self: Any, **params: Any) -> Any:
    """Set parameters of the estimator.

    Parameters
    ----------
    **params
        Names and values of parameters.

    Returns
    -------
    self

    Raises
    ------
    ValueError
        If a name is not a parameter; the message suggests the nearest one.
    """
    known = self._get_param_names()
    for name in params:
        first = name.partition("__")[0]
        if first not in known:
            kind = type(self).__name__
            end = _meant(first, known) or f": list(model.get_params()) has the {len(known)} names."
            raise ValueError(f"Invalid parameter {first!r} for estimator {kind}{end}")
    return BaseEstimator.set_params(self, **params)


def _meant(name: str, known: Iterable[str]) -> str:
    """Return a suggestion for an unknown parameter, to append to the error, or ""."""
    from mlp_xp._utils.names import did_you_mean  # Import only for errors.

    if name in _VALIDATION:
        return ": pass X_val=..., y_val=... to fit."
    meant = f"did you mean {_VALUES[name]}?" if name in _VALUES else did_you_mean(name, known)
    return f": {meant}" if meant else ""


def _unexpected(kind: type, function: str, name: str, end: str) -> str:
    return f"{kind.__name__}.{function}() got an unexpected keyword argument {name!r}{end}"
