"""The predictions of ensembles: averages over fitted networks, with their spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from mlp_xp._utils.columns.streams import is_table_stream
from mlp_xp._utils.sklearn_compat import check_same_namespace
from mlp_xp.backends import get_backend, host, namespace_backend
from mlp_xp.estimators.base import BaseMLP
from mlp_xp.estimators.checks.validation import check_x
from mlp_xp.estimators.explanations.mixin import ExplanationMixin
from mlp_xp.estimators.fitted.calibration import interval_levels, pooled_errors
from mlp_xp.estimators.fitted.check_mixin import CheckMixin
from mlp_xp.estimators.fitted.notebook_repr import DescriptionMixin
from mlp_xp.estimators.fitted.prediction import as_labels
from mlp_xp.estimators.fitted.scoring import (
    LabelsMixin,
    ValuesMixin,
    combined_values,
    log_of,
    mean_and_spread,
    predict_sets,
    refuse_other_output,
)
from mlp_xp.estimators.fitted.state import fitted_state
from mlp_xp.training.data.rows import Rows
from mlp_xp.training.data.shared import SharedData


class BaseEnsemble(ExplanationMixin, CheckMixin, DescriptionMixin, BaseEstimator):  # type: ignore[misc]
    """The base class of all ensembles: fitted networks in `estimators_`, weighted by `weights_`.

    Without `weights_`, all networks have the same weight.
    """

    _member_type: ClassVar[type[BaseMLP]]
    estimators_: list[Any]

    @property
    def _weights(self) -> Sequence[float] | None:
        return vars(self).get("weights_")

    def _checked(self, X: Any, method: str) -> Any:
        """Return X for prediction; a table is encoded once if all networks have the same columns.

        Raise an error that names `method` if the networks are not fitted or X is not valid.
        """
        check_is_fitted(self)
        if is_table_stream(X):
            return X  # Let each network read and encode X in parts.
        check_same_namespace(X, self, attribute="_any_weights", method=method)
        first, *others = (getattr(network, "columns_", None) for network in self.estimators_)
        if first is None and not any(others):
            check_x(self, X, reset=False)
            return X
        is_array = namespace_backend(X) not in (None, "numpy")
        if is_array or any(columns is not first for columns in others):
            return X  # Let each network encode X.
        matrix = check_x(self.estimators_[0], X, reset=False)
        rows = np.arange(matrix.shape[0])
        return Rows(matrix, rows, SharedData(matrix, {"columns_": first}))

    @property
    def _any_weights(self) -> Any:
        return self.estimators_[0]._any_weights

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.array_api_support = True
        return tags


def networks_of(model: Any) -> list[Any]:
    """Return the networks of an ensemble, or a list that contains the given network."""
    return list(model.estimators_) if isinstance(model, BaseEnsemble) else [model]


def pool_errors(networks: Sequence[Any]) -> None:
    """Give each network of an ensemble the held-out errors of all networks, if there are any."""
    states = [fitted_state(network) for network in networks]
    if (errors := pooled_errors(states)) is not None:
        for network, state in zip(networks, states, strict=True):
            network._state = replace(state, calibration=errors)


class AveragedLabels(LabelsMixin, BaseEnsemble):
    """An ensemble of classifiers, whose probabilities are averaged."""

    classes_: Any

    def predict(self, X: Any, *, return_std: bool = False) -> Any:
        """Predict class labels.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
            Or a table that is read in parts, such as `mlp_xp.datasets.Parquet`.
        return_std : bool, default=False
            Whether to also return the standard deviation over the networks.

        Returns
        -------
        labels : (samples,) or (samples, targets) array, or (samples, classes) of 0 and 1
            As returned by `MLPClassifier.predict`, but for the averaged probabilities.
        std : (samples,), (samples, targets) or (samples, classes) array
            If `return_std`: standard deviation over the networks of the predicted label's
            probability (for multilabel targets, of each class's probability).
        """
        mean, std = self._averaged(X, "predict")
        state = fitted_state(self.estimators_[0])
        targets = state.targets
        if targets.kind == "multilabel":
            labels = as_labels(targets.decode(host(mean)), state, X)
            return (labels, std) if return_std else labels
        is_several = isinstance(self.classes_, list)
        means, stds = (mean, std) if is_several else ([mean], [std])
        on_host = list(map(host, means))
        chosen = [np.argmax(p, axis=1, keepdims=True) for p in on_host]
        both = np.concatenate(on_host, axis=1)
        found = targets.decode(both) if is_several else self.classes_[chosen[0][:, 0]]
        labels = as_labels(found, state, X)
        if not return_std:
            return labels
        pairs = zip(map(host, stds), chosen, strict=True)
        of_label = np.concatenate([np.take_along_axis(*pair, axis=1) for pair in pairs], axis=1)
        return labels, get_backend(stds[0]).put(of_label if is_several else of_label[:, 0])

    def predict_proba(self, X: Any, *, return_std: bool = False) -> Any:
        """Predict probabilities, averaged over the networks.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
            Or a table that is read in parts, such as `mlp_xp.datasets.Parquet`.
        return_std : bool, default=False

        Returns
        -------
        mean : (samples, classes) array, or a list with one per target
            In the library and on the device of X; in NumPy if the ensemble was fitted on NumPy.
        std : in the same form
            If `return_std`: standard deviation over the networks.
        """
        mean, std = self._averaged(X, "predict_proba")
        return (mean, std) if return_std else mean

    def _averaged(self, X: Any, method: str) -> tuple[Any, Any]:
        """Return the mean and standard deviation of the networks' probabilities."""
        X = self._checked(X, method)
        return mean_and_spread(
            [member.predict_proba(X) for member in self.estimators_], self._weights
        )

    def predict_set(self, X: Any, coverage: float = 0.9) -> np.ndarray:
        """Predict a set of classes for each sample; see `MLPClassifier.predict_set`."""
        return predict_sets(self.estimators_, X, self.predict_proba(X), coverage)

    def predict_log_proba(self, X: Any) -> Any:
        """Predict logarithms of probabilities; see `predict_proba`."""
        return log_of(self._averaged(X, "predict_log_proba")[0])


class AveragedValues(ValuesMixin, BaseEnsemble):
    """An ensemble of regressors, whose predictions are averaged."""

    def predict(
        self,
        X: Any,
        *,
        return_std: bool = False,
        quantiles: float | Sequence[float] | None = None,
        interval: float | None = None,
    ) -> Any:
        """Predict the mean over the networks, optionally with a standard deviation, or quantiles.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
            Or a table that is read in parts, such as `mlp_xp.datasets.Parquet`.
        return_std : bool, default=False
        quantiles : float or sequence of float, optional
            Return these quantiles instead, as `MLPRegressor.predict` does.
        interval : float in (0, 1), optional
            Return lower and upper limits instead, as `MLPRegressor.predict` does, if the networks
            were fitted with ``prediction_intervals="held_out"``.

        Returns
        -------
        mean : (samples,) or (samples, outputs) array
            In the library and on the device of X; in NumPy if the ensemble was fitted on NumPy.
        std : (samples,) or (samples, outputs) array
            If `return_std`: standard deviation over the networks. For ``loss="gaussian"``, it also
            includes the noise, i.e. the mean of the predicted variances.

        If `quantiles` is given, the result is the mean of the networks' quantiles; for
        ``loss="gaussian"``, the quantiles of a normal distribution with this mean and deviation.
        """
        X = self._checked(X, "predict")
        if interval is not None:
            refuse_other_output(return_std, quantiles, interval)
            for network in self.estimators_:
                quantiles = interval_levels(interval, fitted_state(network).calibration)
        return combined_values(self.estimators_, X, return_std, quantiles, self._weights)
