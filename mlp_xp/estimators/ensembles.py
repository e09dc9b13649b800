"""Ensembles of networks that are trained together and whose predictions are averaged."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import _fit_context, clone
from sklearn.exceptions import FitFailedWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import _num_samples, validate_data

from mlp_xp.estimators.averaging import (
    AveragedLabels,
    AveragedValues,
    BaseEnsemble,
    pool_errors,
)
from mlp_xp.estimators.checks.batches import refuse_batches
from mlp_xp.estimators.checks.target_column import take_target
from mlp_xp.estimators.checks.validation import asks_for_table, check_weights, check_x
from mlp_xp.estimators.classifier import MLPClassifier
from mlp_xp.estimators.fitting.draft import accept_draft, draft_of
from mlp_xp.estimators.many import FitTask, fit_all
from mlp_xp.estimators.regressor import MLPRegressor


@dataclass(eq=False, repr=False)
class _Ensemble(BaseEnsemble):
    """The fit of `MLPEnsembleClassifier` and `MLPEnsembleRegressor`."""

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
        pool_errors(self.estimators_)
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


class MLPEnsembleClassifier(AveragedLabels, _Ensemble):
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


class MLPEnsembleRegressor(AveragedValues, _Ensemble):
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
