"""Ensembles of networks that are trained together and whose predictions are averaged."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, _fit_context, clone
from sklearn.exceptions import FitFailedWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import _num_samples, check_is_fitted, validate_data

from mlp_xp._utils.sklearn_compat import check_same_namespace
from mlp_xp.backends import get_backend, host, namespace_backend
from mlp_xp.estimators.base import BaseMLP
from mlp_xp.estimators.checks.batches import refuse_batches
from mlp_xp.estimators.checks.target_column import take_target
from mlp_xp.estimators.checks.validation import asks_for_table, check_weights, check_x
from mlp_xp.estimators.classifier import MLPClassifier
from mlp_xp.estimators.fitted.notebook_repr import DescriptionMixin
from mlp_xp.estimators.fitted.prediction import as_labels
from mlp_xp.estimators.fitted.scoring import (
    LabelsMixin,
    ValuesMixin,
    combined_values,
    log_of,
    mean_and_spread,
)
from mlp_xp.estimators.fitted.state import fitted_state
from mlp_xp.estimators.fitting.draft import accept_draft, draft_of
from mlp_xp.estimators.many import FitTask, fit_all
from mlp_xp.estimators.regressor import MLPRegressor
from mlp_xp.training.data.rows import Rows
from mlp_xp.training.data.shared import SharedData


@dataclass(eq=False, repr=False)
class BaseEnsemble(DescriptionMixin, BaseEstimator):  # type: ignore[misc]
    """The base class of `MLPEnsembleClassifier` and `MLPEnsembleRegressor`."""

    estimator: Any = None
    n_estimators: int = 10
    _: KW_ONLY
    bootstrap: bool = False
    settings: Sequence[dict[str, Any]] | None = None
    random_state: Any = None
    n_jobs: int | None = None
    verbose: bool | int = False

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "bootstrap": ["boolean"],
        "settings": [list, tuple, None],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }
    _member_type: ClassVar[type[BaseMLP]]

    @_fit_context(prefer_skip_nested_validation=False)  # type: ignore[untyped-decorator]
    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Fit all networks.

        A network whose fit fails, e.g. because it diverges, is left out with a warning. Ctrl-C ends
        the fit with a warning, and keeps the finished networks.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
        y : array-like of shape (samples,) or (samples, outputs)
        sample_weight : array-like of shape (samples,), optional
        X_val, y_val, sample_weight_val : optional
            As for `MLPClassifier.fit`, for each network.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If data or settings are invalid, or all fits have failed.
        KeyboardInterrupt
            If Ctrl-C ends the fit before a network has finished.
        """
        if self.n_jobs == 0:
            raise ValueError("`n_jobs` must not be 0: use 1 or more, or -1 for all processors.")
        refuse_batches(X, y, "an ensemble")
        X, y = take_target(X, y)
        held_out = {"X_val": X_val, "y_val": y_val, "sample_weight_val": sample_weight_val}
        draft = draft_of(self)  # An error then leaves this ensemble unchanged.
        draft._fit_members(X, y, sample_weight, held_out)
        accept_draft(self, draft)
        return self

    def _fit_members(self, X: Any, y: Any, sample_weight: Any, held_out: dict[str, Any]) -> None:
        members = self._members()
        # If tables are encoded, each network checks the columns itself.
        if any(asks_for_table(member) for member, _ in members):
            validate_data(self, X, reset=True, skip_check_array=True)
            n_samples = _num_samples(X)
        else:
            try:
                n_samples = check_x(self, X, reset=True).shape[0]
            except (TypeError, ValueError) as error:
                kind = type(members[0][0]).__name__
                advised = r"(?:categorical_features|missing_values)='\w+'"
                if not (found := ", ".join(dict.fromkeys(re.findall(advised, str(error))))):
                    raise
                cure = f"In an ensemble, set this in the network: estimator={kind}({found})."
                raise type(error)(f"{error} {cure}") from None
        given = check_weights(sample_weight, n_samples)
        tasks: list[Any] = []
        for member, generator in members:
            weights = given
            if self.bootstrap:
                drawn = generator.randint(n_samples, size=n_samples)
                weights = np.bincount(drawn, minlength=n_samples).astype(np.float64)
                weights = weights if given is None else weights * given
            tasks.append(FitTask(member, X, y, weights, fit_params=held_out))
        finished, errors = fit_all(tasks, n_jobs=self.n_jobs, verbose=self.verbose)
        if not finished:
            raise errors[min(errors)] if errors else KeyboardInterrupt
        if errors:
            warnings.warn(
                f"{len(errors)} of {len(members)} networks failed and are left out. First error: "
                f"{errors[min(errors)]}",
                FitFailedWarning,
                stacklevel=3,
            )
        if len(finished) + len(errors) < len(members):
            done = f"{len(finished)} of {len(members)} networks have finished and are kept."
            warnings.warn(f"Training interrupted by user: {done}", stacklevel=3)
        self.estimators_ = [members[number][0] for number in sorted(finished)]
        if self._member_type is MLPClassifier:
            self.classes_ = self.estimators_[0].classes_

    def _members(self) -> list[tuple[Any, np.random.RandomState]]:
        """Return the unfitted networks, each with a random generator."""
        template = self._member_type() if self.estimator is None else self.estimator
        if not isinstance(template, self._member_type):
            raise ValueError(
                f"`estimator` must be an {self._member_type.__name__} or None, got {template!r}."
            )
        generator = check_random_state(self.random_state)
        settings = list(self.settings or [{}])
        members = []
        for number in range(self.n_estimators):
            # Draw one seed per network, so that the first networks do not depend on `n_estimators`.
            of_member = np.random.RandomState(generator.randint(2**31 - 1))
            params = {"random_state": of_member.randint(2**31 - 1)} | settings[
                number % len(settings)
            ]
            members.append((clone(template).set_params(**params), of_member))
        return members

    def _checked(self, X: Any, method: str) -> Any:
        """Return X for prediction; a table is encoded once if all networks have the same columns.

        Raise an error that names `method` if the networks are not fitted or X is not valid.
        """
        check_is_fitted(self)
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


class MLPEnsembleClassifier(LabelsMixin, BaseEnsemble):
    """An ensemble of classifiers that are trained together and whose probabilities are averaged.

    Parameters
    ----------
    estimator : MLPClassifier or None, default=None
        The settings, backend and device of the networks; None means ``MLPClassifier()``.
    n_estimators : int of at least 1, default=10
        Number of networks.
    bootstrap : bool, default=False
        Whether to fit each network to a bootstrap sample, by weighting each sample by how often it
        was drawn. Otherwise the networks differ only in their seeds.
    settings : list of dict or None, default=None
        Parameter sets that the networks use in turn, e.g. ``[{"alpha": 1e-4}, {"alpha": 1e-2}]``.
    random_state : int, RandomState instance or None, default=None
        Seed for the networks' seeds and for bootstrapping.
    n_jobs : int or None, default=None
        Number of threads; None and -1 use all available processors.
    verbose : bool, default=False
        Whether to show a progress bar.

    Attributes
    ----------
    estimators_ : list of MLPClassifier
        The fitted networks.
    classes_ : (classes,) NumPy array, or a list of them
        Class labels, sorted.
    n_features_in_ : int
    feature_names_in_ : (features,) array
        Column names, if X has any.

    See Also
    --------
    mlp_xp.model_selection : Searches that train their networks together, as an ensemble does.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from mlp_xp import MLPClassifier, MLPEnsembleClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MLPClassifier(
    ...     (10,), max_iter=40, learning_rate="cosine", learning_rate_init=0.03,
    ...     n_iter_no_change=float("inf"), input_scaling="standardize",
    ... )
    >>> ensemble = MLPEnsembleClassifier(model, n_estimators=3, random_state=0).fit(X, y)
    >>> probabilities, spread = ensemble.predict_proba(X[:2], return_std=True)
    >>> probabilities.shape, spread.shape, ensemble.score(X, y) > 0.9
    ((2, 3), (2, 3), True)
    """

    _member_type = MLPClassifier

    def predict(self, X: Any, *, return_std: bool = False) -> Any:
        """Predict class labels.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
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
        return mean_and_spread([member.predict_proba(X) for member in self.estimators_])

    def predict_log_proba(self, X: Any) -> Any:
        """Predict logarithms of probabilities; see `predict_proba`."""
        return log_of(self._averaged(X, "predict_log_proba")[0])


class MLPEnsembleRegressor(ValuesMixin, BaseEnsemble):
    """An ensemble of regressors that are trained together and whose predictions are averaged.

    Parameters
    ----------
    estimator : MLPRegressor or None, default=None
        The settings, backend and device of the networks; None means ``MLPRegressor()``.
    n_estimators, bootstrap, settings, random_state, n_jobs, verbose
        As in `MLPEnsembleClassifier`.

    Attributes
    ----------
    estimators_ : list of MLPRegressor
        The fitted networks.
    n_features_in_ : int
    feature_names_in_ : (features,) array
        Column names, if X has any.

    See Also
    --------
    MLPEnsembleClassifier : The ensemble for classification.

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp import MLPEnsembleRegressor, MLPRegressor
    >>> X = np.linspace(-3, 3, 100)[:, None]
    >>> model = MLPRegressor(hidden_layer_sizes=(20,), solver="lbfgs", max_iter=300)
    >>> ensemble = MLPEnsembleRegressor(model, n_estimators=4, random_state=0)
    >>> ensemble = ensemble.fit(X, np.sin(X[:, 0]))
    >>> mean, std = ensemble.predict([[0.5], [9.0]], return_std=True)
    >>> bool(abs(mean[0] - np.sin(0.5)) < 0.1), bool(std[1] > std[0])
    (True, True)
    """

    _member_type = MLPRegressor

    def predict(
        self, X: Any, *, return_std: bool = False, quantiles: float | Sequence[float] | None = None
    ) -> Any:
        """Predict the mean over the networks, optionally with a standard deviation, or quantiles.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
        return_std : bool, default=False
        quantiles : float or sequence of float, optional
            Return these quantiles instead, as `MLPRegressor.predict` does.

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
        return combined_values(self.estimators_, X, return_std, quantiles)
