"""Predictions of regressors, and scores of precomputed predictions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, get_scorer, get_scorer_names, r2_score
from sklearn.utils.metaestimators import available_if

from mlp_xp._utils.columns.streams import is_table_stream
from mlp_xp.backends import get_backend, host
from mlp_xp.estimators.checks.target_column import take_scored_target
from mlp_xp.estimators.checks.validation import check_weights, check_x
from mlp_xp.estimators.fitted.calibration import (
    Calibration,
    calibrated_quantiles,
    pooled_errors,
)
from mlp_xp.estimators.fitted.groups import Groups, column_at, names_of_columns, take_columns
from mlp_xp.estimators.fitted.prediction_sets import ONE_CLASS, prediction_sets
from mlp_xp.estimators.fitted.state import fitted_state
from mlp_xp.estimators.targets import ClassTargets, Targets
from mlp_xp.nn.losses import Loss, of_mixture
from mlp_xp.nn.losses._errors import as_level

Metrics = str | Callable[..., float] | Sequence[str] | Mapping[str, str | Callable[..., float]]


def _has_classes(predictions: Any) -> bool:
    return predictions._targets.classes is not None


@dataclass(eq=False, repr=False)
class Predictions:
    """An estimator wrapper for scikit-learn's scorers; it returns precomputed predictions.

    The predictions do not depend on X. All other attributes are the estimator's.
    """

    _model: Any
    _loss: Loss
    _targets: Any
    _outputs: np.ndarray
    _calibration: Calibration | None = None
    _groups: Groups | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def predict(self, X: Any = None, **wanted: Any) -> Any:
        """Return class labels, or a regressor's values from `predict_values`."""
        if self._targets.classes is None:
            wanted = {"calibration": self._calibration, "groups": self._groups} | wanted
            return predict_values(self._loss, self._targets, self._outputs, **wanted)
        return self._targets.decode(self._outputs)

    @available_if(_has_classes)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any = None) -> Any:
        """Return probabilities."""
        return self._targets.probabilities(self._outputs, xp=np)

    @available_if(_has_classes)  # type: ignore[untyped-decorator]
    def predict_log_proba(self, X: Any = None) -> Any:
        """Return logarithms of probabilities."""
        return log_of(self.predict_proba())

    def score(self, X: Any, y: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
        """Return the accuracy, or a regressor's R2."""
        score: float = self._targets.score(y, self.predict(), sample_weight)
        return score

    def score_with(
        self, scorer: Callable[..., float], X: Any, y: np.ndarray, sample_weight: np.ndarray | None
    ) -> float:
        """Return the scorer's result, without weights if the scorer does not support weights."""
        takes = sample_weight is not None and _takes_weights(scorer)
        try:
            return float(scorer(self, X, y, **({"sample_weight": sample_weight} if takes else {})))
        except ValueError as error:
            if not isinstance(self._targets.classes, list) or not hasattr(scorer, "_score_func"):
                raise
            raise ValueError(
                f"{scorer!r} does not support several targets with classes: use 'loss', or a "
                "function of (model, X, y)."
            ) from error


class LabelsMixin(ClassifierMixin):  # type: ignore[misc]
    """A mixin for classifiers of one or several labels, with data of any library."""

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy on the given samples.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
            Or a table that is read in parts, such as `mlp_xp.datasets.Parquet`.
        y : array-like of shape (samples,), (samples, classes) or (samples, targets), or str
            Class labels, or the name of a column of X.
        sample_weight : array-like of shape (samples,), optional

        Returns
        -------
        float
            From 0 to 1; for multilabel or several targets, the fraction of samples with all labels
            correct.
        """
        return score_on_host(accuracy_score, self, X, y, sample_weight)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.target_tags.multi_output = True
        return tags


class ValuesMixin(RegressorMixin):  # type: ignore[misc]
    """A mixin for regressors, with data of any library."""

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the coefficient of determination, R2, on the given samples.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
            Or a table that is read in parts, such as `mlp_xp.datasets.Parquet`.
        y : array-like of shape (samples,) or (samples, outputs), or str
            Values, or the name of a column of X.
        sample_weight : array-like of shape (samples,), optional

        Returns
        -------
        float
            At most 1; averaged over the outputs.
        """
        return score_on_host(r2_score, self, X, y, sample_weight)


def log_of(probabilities: Any) -> Any:
    """Return the logarithms of an array, or of each array of a list, in any library."""
    if isinstance(probabilities, list):
        return [log_of(array) for array in probabilities]
    backend = get_backend(probabilities)
    with backend.scope(), np.errstate(divide="ignore"):
        return backend.xp.log(probabilities)


def scorer_of(scoring: Any) -> Callable[..., float]:
    """Return the scorer for a name or a callable; raise an error that says what to type."""
    if isinstance(scoring, str):
        from mlp_xp._utils.names import did_you_mean  # Import only if needed.

        try:
            return get_scorer(scoring)
        except ValueError as error:
            meant = did_you_mean(scoring, ("loss", "refinement", *get_scorer_names()))
            raise ValueError(f"{error}{meant.replace('did', ' Did', 1)}") from None
    scorer: Callable[..., float] = get_scorer(scoring)
    try:
        signature(scorer).bind("model", "X", "y")
    except TypeError:
        name = getattr(scorer, "__name__", repr(scorer))
        raise TypeError(
            f"A scorer is called with (model, X, y), which {name} does not accept: for a function "
            f"of (y_true, y_pred), pass sklearn.metrics.make_scorer({name})."
        ) from None
    except ValueError:  # A compiled function may lack a signature.
        pass
    return scorer


def _takes_weights(scorer: Any) -> bool:
    """Whether a scorer, or the metric inside scikit-learn's scorer, accepts sample weights."""
    return "sample_weight" in signature(getattr(scorer, "_score_func", scorer)).parameters


def named_metrics(metrics: Metrics) -> Mapping[str, Any]:
    """Return the metrics by name; raise ValueError if two metrics have the same name."""
    if isinstance(metrics, Mapping):
        pairs = list(metrics.items())
    else:
        if isinstance(metrics, str) or callable(metrics):
            metrics = [metrics]  # type: ignore[list-item]
        pairs = [(getattr(metric, "__name__", str(metric)), metric) for metric in metrics]
    names = ["loss", *(name for name, _ in pairs)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"metrics has {twice} more than once (the loss is always included): choose the names "
            "with a dict, e.g. metrics={'first': ..., 'second': ...}."
        )
    return dict(pairs)


def score_on_host(
    metric: Callable[..., float], model: Any, X: Any, y: Any, sample_weight: Any
) -> float:
    """Compute a scikit-learn metric of an estimator's predictions, for data of any library."""
    X, y = take_scored_target(X, y)
    predicted = host(model.predict(X))
    # For integers, this is the accuracy without scikit-learn's checks, which take longer.
    are_plain = type(y) is np.ndarray and y.ndim == 1 and y.shape == predicted.shape
    are_plain = are_plain and {y.dtype.kind, predicted.dtype.kind} <= set("biu")
    if metric is accuracy_score and sample_weight is None and are_plain:
        return float(np.count_nonzero(predicted == y) / len(y))
    weights = check_weights(sample_weight, predicted.shape[0])
    # Compute the accuracy for several targets here, since `accuracy_score` does not support them.
    if metric is accuracy_score and isinstance(model.classes_, list):
        truth = ClassTargets.check(y, type(model).__name__, len(predicted))
        return float(np.average(np.all(truth == predicted, axis=1), weights=weights))
    return float(metric(host(y), predicted, sample_weight=weights))


def predict_values(
    loss: Loss,
    targets: Targets,
    outputs: Any,
    *,
    return_std: bool = False,
    quantiles: float | Sequence[float] | None = None,
    calibration: Calibration | None = None,
    groups: Groups | None = None,
) -> Any:
    """Return real-valued predictions from activated outputs; see `MLPRegressor.predict`."""
    _check_wanted(return_std, quantiles)
    backend = get_backend(outputs)
    with backend.scope():
        if quantiles is not None:
            levels = [as_level(level) for level in np.ravel(quantiles)]
            settings: Any = {"put": backend.put, "xp": backend.xp, "groups": groups}
            found: Any = calibrated_quantiles(loss, outputs, levels, calibration, **settings)
            found = targets.decode(found)
            return found[..., 0] if np.ndim(quantiles) == 0 else found
        values: Any = loss.point(outputs, xp=backend.xp)
        if not return_std:
            return targets.decode(values)
        std: Any = loss.std(outputs, xp=backend.xp)
        return targets.decode(values), targets.decode(std)


def groups_of(model: Any, X: Any) -> Groups | None:
    """Return the groups of the rows of X, or None if the model was calibrated without groups."""
    state = fitted_state(model)
    if state.calibration is None or state.coverage_by is None:
        return None
    if is_table_stream(X):
        from mlp_xp.estimators.checks.streams import map_frames  # Import only for streams.

        parts: list[Any] = [*map_frames(model, X, partial(groups_of, model))]
        return parts[0]._replace(is_in=np.concatenate([part.is_in for part in parts]))
    name = names_of_columns(model)[state.coverage_by]
    column = column_at(state.coverage_by, name, state.columns)
    x, numpy = check_x(model, X, reset=False), get_backend("numpy").xp
    matrix: Any = take_columns(x, column.places).astype(state.dtype)
    codes = state.calibration.codes.astype(state.dtype)
    return Groups.match(column, codes, matrix, lambda row: row, xp=numpy)


def predict_sets(
    networks: Sequence[Any], X: Any, probabilities: Any, coverage: float
) -> np.ndarray:
    """Return the sets of classes that networks predict; see `MLPClassifier.predict_set`."""
    states = [fitted_state(network) for network in networks]
    check_sets(states[0].targets.kind)
    groups = groups_of(networks[0], X)
    return prediction_sets(host(probabilities), coverage, pooled_errors(states), groups)


def check_sets(kind: str) -> None:
    """Raise ValueError for a kind of targets for which no sets of classes are predicted."""
    if kind not in ONE_CLASS:
        raise ValueError(
            f"`predict_set` requires one class for each sample, got {kind} targets: fit a "
            "classifier for each target."
        )


def combined_values(
    members: Sequence[Any],
    X: Any,
    return_std: bool,
    quantiles: Any,
    weights: Sequence[float] | None = None,
) -> Any:
    """Return the combined predictions of several regressors; see `MLPEnsembleRegressor.predict`."""
    _check_wanted(return_std, quantiles)
    states = [fitted_state(member) for member in members]
    loss = states[0].activating_loss
    if all(state.activating_loss.has_std for state in states):
        outputs = [member._outputs(X, "predict") for member in members]
        backend = get_backend(outputs[0])
        with backend.scope():
            mixture = of_mixture(
                [loss.point(output, xp=backend.xp) for output in outputs],
                [loss.std(output, xp=backend.xp) for output in outputs],
                weights,
                xp=backend.xp,
            )
            joined = backend.xp.concat(list(mixture), axis=1)
        wanted: Any = {"return_std": return_std, "quantiles": quantiles}
        if quantiles is not None:
            wanted["calibration"] = pooled_errors(states)
            wanted["groups"] = groups_of(members[0], X)
        return predict_values(loss, states[0].targets, joined, **wanted)
    settings = {} if quantiles is None else {"quantiles": quantiles}
    mean, std = mean_and_spread([member.predict(X, **settings) for member in members], weights)
    return (mean, std) if return_std else mean


def mean_and_spread(
    predictions: Sequence[Any], weights: Sequence[float] | None = None
) -> tuple[Any, Any]:
    """Return the elementwise mean and standard deviation of arrays, or of lists of arrays.

    ``weights``, (arrays,), add up to 1.
    """
    if isinstance(predictions[0], list):
        by_target = zip(*predictions, strict=True)
        pairs = [mean_and_spread(of_target, weights) for of_target in by_target]
        return [mean for mean, _ in pairs], [std for _, std in pairs]
    backend = get_backend(predictions[0])
    xp = backend.xp
    with backend.scope():
        stacked = xp.stack(predictions)
        if weights is None:
            return xp.mean(stacked, axis=0), xp.std(stacked, axis=0)
        return of_mixture(predictions, [0.0] * len(predictions), weights, xp=xp)


def refuse_other_output(return_std: bool, quantiles: Any, interval: float) -> None:
    """Raise ValueError if another output is requested together with an interval."""
    if return_std or quantiles is not None:
        other = "return_std=True" if return_std else f"quantiles={quantiles!r}"
        raise ValueError(
            f"interval={interval} and {other} cannot be combined: call predict once for each."
        )


def _check_wanted(return_std: bool, quantiles: Any) -> None:
    if return_std and quantiles is not None:
        raise ValueError(
            f"return_std=True and quantiles={quantiles!r} cannot be combined: call predict once "
            "for each."
        )
    if quantiles is not None and not np.size(quantiles):
        raise ValueError(f"`quantiles` must be one or more numbers, got {quantiles!r}.")
