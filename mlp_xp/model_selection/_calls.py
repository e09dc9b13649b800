"""The calls through which scikit-learn fits and scores estimators with joblib.

Each call is a tuple ``(function, args, kwargs)``. The network is trained first. Then the function
is called with an estimator whose `fit` returns at once, so scores, messages and errors are
scikit-learn's.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re
from typing import Any

import joblib
import numpy as np
from joblib.logger import short_format_time
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import _num_samples

from mlp_xp._utils.signals.forks import cached_property
from mlp_xp.estimators.base import BaseMLP

_FUNCTIONS = ("_fit_and_score", "_fit_and_predict")
_WEIGHTS = "sample_weight"


def is_network(estimator: Any) -> bool:
    """Whether an estimator is a network from this package, or a pipeline that ends in one."""
    if isinstance(estimator, Pipeline):
        return bool(estimator.steps) and isinstance(estimator.steps[-1][1], BaseMLP)
    return isinstance(estimator, BaseMLP)


class Call:
    """A call that scikit-learn passes to joblib, with its estimator and samples."""

    def __init__(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._function = function
        self._bound = inspect.signature(inspect.unwrap(function)).bind(*args, **kwargs)
        self._named = self._bound.arguments
        self.estimator = self._named["estimator"]
        self.X, self.y = self._named["X"], self._named["y"]

    @classmethod
    def read(cls, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        """Return the call with its parameters set; None if its estimator must be fitted alone."""
        if getattr(function, "__name__", "") not in _FUNCTIONS:
            return None
        call = cls(function, args, kwargs)
        if not call._is_plain:  # Let scikit-learn set the parameters and fit.
            return None
        try:
            parameters = call._named.get("parameters")
            if parameters:
                call.estimator.set_params(**clone(parameters, safe=False))
        except Exception:  # Let scikit-learn raise the error about invalid parameters.
            return None
        return call if call._is_plain and call._can_share() else None

    @property
    def _is_plain(self) -> bool:
        """Whether `fit` and `set_params` are not overridden; overridden methods must be called."""
        return (not self.is_pipeline or type(self.estimator) is Pipeline) and all(
            getattr(type(self.network), name) is getattr(BaseMLP, name)
            for name in ("fit", "set_params")
        )

    def _can_share(self) -> bool:
        """Whether the fit has no side effects, such as callbacks."""
        estimator, last = self.estimator, self.network
        given = {name for name, value in self._fit_params.items() if value is not None}
        if self.y is None or given - {self._weights_name}:
            return False
        if self.weights is not None and _num_samples(self.weights) != _num_samples(self.X):
            return False
        if self.is_pipeline and (
            estimator.verbose or getattr(estimator, "transform_input", None) is not None
        ):
            return False
        steps = [step for _, step in estimator.steps] if self.is_pipeline else []
        has_callbacks = last.callbacks or any(
            getattr(part, "_skl_callbacks", None) for part in (estimator, *steps)
        )
        return not (has_callbacks or last.verbose or last.solver == "lbfgs")

    @property
    def is_pipeline(self) -> bool:
        """Whether the estimator is a pipeline."""
        return isinstance(self.estimator, Pipeline)

    @property
    def network(self) -> Any:
        """The network to train: the estimator, or the last step of a pipeline."""
        return self.estimator.steps[-1][1] if self.is_pipeline else self.estimator

    @cached_property
    def rows(self) -> np.ndarray:
        """The positions of the training samples."""
        train = np.asarray(self._named["train"])
        return np.flatnonzero(train) if train.dtype == bool else train

    @property
    def _fit_params(self) -> dict[str, Any]:
        return self._named["fit_params"] or {}

    @property
    def _weights_name(self) -> str:
        return f"{self.estimator.steps[-1][0]}__{_WEIGHTS}" if self.is_pipeline else _WEIGHTS

    @property
    def weights(self) -> Any:
        """The weights of all samples, or None."""
        return self._fit_params.get(self._weights_name)

    @cached_property
    def preprocessing(self) -> tuple[int, str] | None:
        """A key for the samples and the steps before the network; None if it is the only step."""
        if not self.is_pipeline or len(self.estimator.steps) == 1:
            return None
        try:
            settings = joblib.hash(self.estimator.steps[:-1])
        except Exception:  # Do not compare settings that cannot be pickled.
            settings = str(id(self))
        return id(self._named["train"]), settings

    def make(self, error: Exception | None, seconds: float) -> Any:
        """Call scikit-learn's function for a finished fit, given the fit's error and duration."""
        estimator, verbose = self.estimator, self._named.get("verbose", 0)
        traceback = None if error is None else error.__traceback__

        def fit(*args: Any, **kwargs: Any) -> Any:
            # Deleting these attributes restores the class's methods.
            del estimator.fit, estimator.set_params
            # Avoid a growing traceback, since the same error may be raised several times.
            if error is not None:
                raise error.with_traceback(traceback)
            return estimator

        estimator.fit, estimator.set_params = fit, lambda **parameters: estimator
        if not self._named.get("return_train_score"):
            # Do not copy the training samples, since they are not scored.
            self._bound.arguments["train"] = np.empty(0, dtype=np.intp)
        printed = io.StringIO()
        # Scikit-learn prints the time of this call: replace it by the time of fit and scoring.
        with contextlib.redirect_stdout(printed) if verbose > 1 else contextlib.nullcontext():
            result = self._function(*self._bound.args, **self._bound.kwargs)
        if isinstance(result, dict) and "fit_time" in result:
            result["fit_time"] = seconds
            seconds += result["score_time"]
        if verbose > 1:
            taken = f"total time={short_format_time(seconds)}"
            print(re.sub(r"total time=.*", taken, printed.getvalue()), end="")
        return result
