"""Tuned ensembles: configurations are searched on folds, and the best networks are averaged."""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import KW_ONLY, dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from scipy import sparse
from sklearn.base import _fit_context, clone, is_classifier
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from mlp_xp.estimators.averaging import (
    AveragedLabels,
    AveragedValues,
    BaseEnsemble,
    pool_errors,
)
from mlp_xp.estimators.checks.batches import refuse_batches
from mlp_xp.estimators.checks.target_column import take_target
from mlp_xp.estimators.checks.validation import check_weights, check_y
from mlp_xp.estimators.classifier import MLPClassifier
from mlp_xp.estimators.fitting.draft import accept_draft, draft_of
from mlp_xp.estimators.many import n_threads_of, shared_samples
from mlp_xp.estimators.regressor import MLPRegressor
from mlp_xp.estimators.tuning.clock import Clock, default_seconds
from mlp_xp.estimators.tuning.configurations import configurations
from mlp_xp.estimators.tuning.folds import (
    Folds,
    default_folds,
    group_numbers,
    random_folds,
    time_folds,
    time_numbers,
)
from mlp_xp.estimators.tuning.progress import Display, Progress
from mlp_xp.estimators.tuning.results import Selected, results_of, select_networks
from mlp_xp.estimators.tuning.search import Samples, Search, time_a_fit

# With fewer rows, the losses of configurations differ by chance, so only the first one is trained.
_LEAST_ROWS = 50


@dataclass(eq=False, repr=False)
class _Tuned(BaseEnsemble):
    """The fit of `MLPTunedClassifier` and `MLPTunedRegressor`."""

    estimator: Any = None
    _: KW_ONLY
    max_time: float | None = None
    n_configurations: int | None = None
    n_folds: int | None = None
    split: str = "random"
    time_column: Any = None
    max_predict_cost: float = 10.0
    random_state: Any = None
    n_jobs: int | None = None
    verbose: bool | int = False

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "max_time": [Interval(Real, 0, None, closed="neither"), None],
        "n_configurations": [Interval(Integral, 1, None, closed="left"), None],
        "n_folds": [Interval(Integral, 2, None, closed="left"), None],
        "split": [StrOptions({"random", "time"})],
        "max_predict_cost": [Interval(Real, 1, None, closed="left")],
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
        groups: Any = None,
        checkpoint: Any = None,
    ) -> Self:
        """Try configurations on folds, and average the best networks.

        Ctrl-C ends the search with a warning, and keeps the best networks so far.

        Parameters
        ----------
        X : array-like, sparse matrix or data frame of shape (samples, features), of any library
        y : array-like of shape (samples,) or (samples, outputs), or str
            Targets, or the name of a column of X.
        sample_weight : array-like of shape (samples,), optional
        groups : array-like of shape (samples,), optional
            The group of each sample, e.g. a customer. Each group is held out as a whole.
        checkpoint : SearchCheckpoint, optional
            A `mlp_xp.callbacks.SearchCheckpoint`, which stores each configuration when it is
            finished, so that an interrupted search can continue.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If data or settings are invalid.
        KeyboardInterrupt
            If Ctrl-C ends the fit before a network is trained.
        """
        start = time.perf_counter()
        if self.n_jobs == 0:
            raise ValueError("`n_jobs` must not be 0: use 1 or more, or -1 for all processors.")
        refuse_batches(X, y, "a tuned ensemble")
        draft = draft_of(self)  # An error then leaves this ensemble unchanged.
        draft._tune(X, y, sample_weight, groups, checkpoint, start)
        accept_draft(self, draft)
        return self

    def _tune(
        self, X: Any, y: Any, sample_weight: Any, groups: Any, checkpoint: Any, start: float
    ) -> None:
        X, y = take_target(X, y)
        estimator = self._base()
        times = None
        if self.split == "time":
            times = time_numbers(X, self.time_column)
        elif self.time_column is not None:
            raise ValueError("`time_column` is only used with split='time': set it, too.")
        shared = shared_samples(estimator, X)
        n_rows = shared.x.shape[0]
        for name in ("n_features_in_", "feature_names_in_", "columns_"):
            if name in shared.names:
                setattr(self, name, shared.names[name])
            elif hasattr(self, name):
                delattr(self, name)
        weights = check_weights(sample_weight, n_rows)
        checked = check_y(estimator, y, n_rows)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        samples = Samples(shared, y if sparse.issparse(y) else checked, weights)
        clock = self._clock(n_rows, start)
        known = None if checkpoint is None else checkpoint.n_folds
        if known is None and not math.isinf(clock.seconds):
            clock.first_fit = time_a_fit(estimator, samples, seed)
        # The default depends on the time, but an interrupted search continues with its folds.
        n_folds = self.n_folds or known or default_folds(n_rows, clock)
        folds = self._folds(estimator, checked, groups, times, n_folds, seed)
        search = Search(
            estimator,
            samples._replace(folds=folds.folds),
            configurations(estimator, seed),
            clock,
            seed,
            math.inf if self.n_configurations is None else self.n_configurations,
            n_threads_of(self.n_jobs),
        )
        notes = [*folds.notes, *self._prepare(search, checked)]
        for note in notes:
            warnings.warn(note, stacklevel=5)
        if checkpoint is not None:
            checkpoint.begin(search, n_folds)
        search.progress = Display(search.n_configurations) if self.verbose else Progress()
        try:
            search.run()
        finally:
            search.progress.stop()
        if not search.finished:
            raise KeyboardInterrupt
        if search.is_interrupted:
            done = sum(trial.status == "complete" for trial in search.trials)
            warnings.warn(
                f"Training interrupted by user: {done} complete configurations; the best networks "
                "so far are kept.",
                stacklevel=5,
            )
        found = select_networks(search, self.max_predict_cost, only_first=self.split == "time")
        self._publish(search, found, n_rows)

    def _base(self) -> Any:
        """Return an unfitted copy of the estimator to tune, with parameters that are valid."""
        kind = self._member_type
        template = kind.from_recipe("table") if self.estimator is None else self.estimator
        if not isinstance(template, kind):
            raise ValueError(f"`estimator` must be an {kind.__name__} or None, got {template!r}.")
        if template.distributed is not None:
            raise ValueError(
                f"`distributed` must be None in the estimator of an {type(self).__name__}, got "
                f"{template.distributed!r}: the search runs in one process."
            )
        # Other configurations are tried instead of a second training.
        template = clone(template).set_params(restart_factor=None)
        template._validate_params()
        return template

    def _folds(
        self, estimator: Any, y: np.ndarray, groups: Any, times: Any, n_folds: int, seed: int
    ) -> Folds:
        n_rows, labels = len(y), []
        if is_classifier(estimator):
            columns = [y] if y.ndim == 1 else [] if _is_multilabel(estimator, y) else [*y.T]
            labels = [np.unique(column, return_inverse=True)[1] for column in columns]
        if times is None:
            numbers = None if groups is None else group_numbers(groups, n_rows)
            return random_folds(labels, n_rows, n_folds, numbers, seed)
        if groups is not None:
            raise ValueError("groups and split='time' cannot be combined: leave out one of them.")
        return time_folds(labels, times, n_folds)

    def _clock(self, n_rows: int, start: float) -> Clock:
        seconds = math.inf if self.max_time is None else self.max_time
        if self.max_time is None and self.n_configurations is None:
            seconds = default_seconds(n_rows)
            warnings.warn(
                f"`max_time` is not set: the search takes up to {seconds:g} s. Set `max_time` in "
                "seconds, or `n_configurations` for a reproducible search.",
                stacklevel=6,
            )
        return Clock(seconds, start)

    def _prepare(self, search: Search, y: np.ndarray) -> list[str]:
        """Limit the search where the data or the time are short; return what to tell the user."""
        clock, n_rows = search.clock, len(y)
        notes = []
        if np.all(y == y[:1]):
            notes.append("All targets are equal, so only the first configuration is trained.")
            search.n_configurations = 1
        elif n_rows < _LEAST_ROWS:
            notes.append(
                f"{n_rows} rows are too few to compare configurations (at least {_LEAST_ROWS}), so "
                "only the first configuration is trained."
            )
            search.n_configurations = 1
        if clock.first_fit > max(clock.left, 0.0):
            notes.append(
                f"{clock.seconds:g} s are too short for a search, since one fit takes about "
                f"{clock.first_fit:.2g} s: a single network is trained within this time."
            )
            search.n_configurations = 1
        return notes

    def _publish(self, search: Search, found: Selected, n_rows: int) -> None:
        self.estimators_, self.weights_ = found.networks, found.weights
        pool_errors(self.estimators_)
        for network in self.estimators_:
            network.set_params(max_time=None)
        self.search_results_ = results_of(search.trials, found.by_trial)
        self.loss_ = found.loss
        outputs = np.full((n_rows, found.outputs.shape[1]), np.nan)
        outputs[found.rows] = found.outputs
        self.out_of_fold_ = outputs
        if self._member_type is MLPClassifier:
            self.classes_ = self.estimators_[0].classes_


def _is_multilabel(estimator: Any, y: np.ndarray) -> bool:
    settings: Any = {"output_activation": estimator.output_activation, "is_sparse": False}
    kind: str = estimator._targets_type.learn(y, classes=None, **settings).kind
    return kind == "multilabel"


class MLPTunedClassifier(AveragedLabels, _Tuned):
    """An ensemble of the best of many configurations, which are tried on folds in a given time.

    The configurations are known good ones first, then random ones. Each is trained on more and more
    folds, as long as its loss on the rows held out is among the best. A greedy selection chooses
    the configurations whose average has the lowest loss, and their weights. The networks of the
    folds are the ensemble. In all folds, the columns of a table are encoded alike: medians, scales
    and categories are learned from all rows, without the targets.

    Parameters
    ----------
    estimator : MLPClassifier or None, default=None
        The first configuration, whose parameters the others change; its backend and device are used
        for all. None means the recipe "table".
    max_time : float above 0, optional
        Maximum duration of `fit` in seconds. By default a minute per 1,000 rows, from one minute to
        one hour, unless `n_configurations` is set; a warning says so.
    n_configurations : int of at least 1, optional
        Number of configurations to try. Without `max_time`, `random_state` then makes the search
        reproducible.
    n_folds : int of at least 2, optional
        Number of folds; by default 8 below 1,500 rows, otherwise 5, and 3 if time is short.
    split : {"random", "time"}, default="random"
        How rows are held out. "random" is stratified by class. "time" trains on the rows before
        those that are held out, in the order of `time_column`; only the networks of the newest
        fold predict.
    time_column : str or int, optional
        The name or position of the column of X by which ``split="time"`` sorts. It also remains an
        input.
    max_predict_cost : float of at least 1, default=10
        Maximum number of networks that predict. A network that is larger than the first
        configuration's, and has more than 100,000 weights, counts more in proportion. In a TabM,
        each member counts.
    random_state : int, RandomState instance or None, default=None
        Seed for the folds, the configurations and the networks.
    n_jobs : int or None, default=None
        Number of threads; None and -1 use all available processors.
    verbose : bool, default=False
        Whether to show what is tried, the best loss so far, and the time left.

    Attributes
    ----------
    estimators_ : list of MLPClassifier
        The selected networks.
    weights_ : (networks,) array
        The weights of the networks, which add up to 1.
    search_results_ : dict of str to list
        A table with a row for each configuration: ``number``, ``name``, ``loss`` (the mean over the
        folds), ``folds`` (on which it was trained), ``seconds``, ``status``, ``weight`` and
        ``params``. ``pandas.DataFrame(model.search_results_)`` shows it.
    loss_ : float
        The loss of the ensemble's average on the rows that were held out.
    out_of_fold_ : (samples, outputs) array
        The average's outputs for each sample, by networks that did not learn from the sample; NaN
        if no fold holds it out. It is not saved by `mlp_xp.saving`.
    classes_ : (classes,) NumPy array, or a list of them
        Class labels, sorted.
    n_features_in_ : int
    feature_names_in_ : (features,) array
        Column names, if X has any.
    columns_ : TableColumns
        Encoding of a table's columns, as in `MLPClassifier`.

    See Also
    --------
    MLPEnsembleClassifier : An ensemble of networks with given settings.

    References
    ----------
    Caruana, Niculescu-Mizil, Crew, Ksikes, "Ensemble selection from libraries of models" (2004);
    Li, Jamieson, Rostamizadeh et al., "A system for massively parallel hyperparameter tuning"
    (2020), arXiv:1810.05934, for the comparison on more and more folds.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from mlp_xp import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> settings = {"n_configurations": 2, "n_folds": 2, "random_state": 0, "max_iter": 20}
    >>> model = MLPClassifier.from_recipe("table-tuned", **settings).fit(X, y)
    >>> model.search_results_["name"], model.score(X, y) > 0.9
    (['base', 'wide'], True)
    """

    _member_type = MLPClassifier


class MLPTunedRegressor(AveragedValues, _Tuned):
    """An ensemble of the best of many configurations, which are tried on folds in a given time.

    See `MLPTunedClassifier`.

    Parameters
    ----------
    estimator : MLPRegressor or None, default=None
        The first configuration; None means the recipe "table". It may have any loss.
    max_time, n_configurations, n_folds, split, time_column, max_predict_cost, random_state, \
n_jobs, verbose
        As in `MLPTunedClassifier`.

    Attributes
    ----------
    estimators_ : list of MLPRegressor
        The selected networks.
    weights_, search_results_, loss_, out_of_fold_, n_features_in_, feature_names_in_, columns_
        As in `MLPTunedClassifier`; losses are in the unit of the targets.

    See Also
    --------
    MLPTunedClassifier : The ensemble for classification.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from mlp_xp import MLPRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> settings = {"n_configurations": 1, "n_folds": 2, "random_state": 0, "max_iter": 20}
    >>> model = MLPRegressor.from_recipe("table-tuned", **settings).fit(X, y)
    >>> mean, std = model.predict(X[:2], return_std=True)
    >>> len(model.estimators_), model.score(X, y) > 0.4
    (2, True)
    """

    _member_type = MLPRegressor
