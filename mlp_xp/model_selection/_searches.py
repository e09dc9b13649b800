"""Scikit-learn's searches, with many networks trained at once."""

from __future__ import annotations

import contextlib
import functools
import warnings
from typing import Any

from joblib.parallel import get_active_backend
from sklearn import model_selection
from sklearn.model_selection import _search_successive_halving as halving

from mlp_xp.estimators.checks.batches import refuse_batches
from mlp_xp.estimators.checks.target_column import take_target
from mlp_xp.model_selection._execution import ManyModels, Unfinished, many_models


class _EndOfSearch(Exception):  # noqa: N818
    """Raised to end a search after Ctrl-C."""


def _is_interrupted() -> bool:
    backend = get_active_backend()[0]
    return isinstance(backend, ManyModels) and backend.is_interrupted


def _ending(run_search: Any) -> Any:
    """Wrap a method that runs a search, so that no candidate is evaluated after Ctrl-C."""

    @functools.wraps(run_search)  # Keep the signature, which scikit-learn reads.
    def ended(self: Any, evaluate_candidates: Any, **context: Any) -> None:
        def evaluate(*args: Any, **kwargs: Any) -> Any:
            results = evaluate_candidates(*args, **kwargs)
            if _is_interrupted():
                raise _EndOfSearch
            return results

        with contextlib.suppress(_EndOfSearch):
            run_search(self, evaluate, **context)

    return ended


class _ManyModels:
    """A mixin for searches that train many networks at once."""

    def fit(self, X: Any, y: Any = None, **params: Any) -> Any:
        """Run the search, as in scikit-learn.

        Ctrl-C ends the search with a warning: `cv_results_` contains the finished candidates, and
        the best one is refitted as `best_estimator_`. A second Ctrl-C ends the refit. If the search
        is part of a cross-validation or another search, Ctrl-C raises `KeyboardInterrupt` and ends
        all of them.

        Parameters
        ----------
        X : array-like, sparse matrix or data frame of shape (samples, features)
        y : array-like of shape (samples,) or (samples, outputs), or the name of a column of X
        **params
            Arguments for the splitter, the scorer and the estimator's `fit`, e.g.
            ``sample_weight``.

        Returns
        -------
        self
        """
        refuse_batches(X, y, "a search")
        X, y = take_target(X, y)
        search: Any = self
        estimator = search if getattr(search, "_skl_callbacks", None) else search.estimator
        with many_models(
            estimator,
            n_jobs=search.n_jobs,
            verbose=search.verbose,
            keeps_finished=True,
            metric=search.refit,
        ):
            return super().fit(X, y, **params)  # type: ignore[misc]

    def _format_results(
        self, candidate_params: Any, n_splits: int, out: Any, more_results: Any = None
    ) -> Any:
        """Return the results of the finished candidates."""
        n_candidates = len(candidate_params)
        finished = [
            i
            for i in range(n_candidates)
            if not any(isinstance(fit, Unfinished) for fit in out[i * n_splits :][:n_splits])
        ]
        if _is_interrupted():
            if not finished:
                raise KeyboardInterrupt
            warnings.warn(
                f"Search interrupted by user: cv_results_ has the {len(finished)} of "
                f"{n_candidates} candidates that were finished.",
                stacklevel=2,
            )
            out = [fit for i in finished for fit in out[i * n_splits :][:n_splits]]
            candidate_params = [candidate_params[i] for i in finished]
            more_results = {
                name: [values[i] for i in finished] for name, values in (more_results or {}).items()
            }
        return super()._format_results(  # type: ignore[misc]
            candidate_params, n_splits, out, more_results
        )


class GridSearchCV(_ManyModels, model_selection.GridSearchCV):  # type: ignore[misc]
    """Exhaustive search over parameter values, with many networks trained at once.

    Parameters, attributes and results are as in `sklearn.model_selection.GridSearchCV`. Estimators
    from other packages also work.

    Parameters
    ----------
    estimator : estimator
        An estimator of this package, alone or as the last step of a `sklearn.pipeline.Pipeline`.
        The other steps of a pipeline are fitted once per combination of fold and settings.
    param_grid : dict or list of dict
        The values to try, by parameter name.
    n_jobs : int or None, default=None
        Number of threads; None chooses the number automatically.
    verbose : int, default=0
        1 shows a progress bar; more than 1 prints a line per fit, as in scikit-learn.
    scoring, refit, cv, pre_dispatch, error_score, return_train_score
        As in scikit-learn.

    See Also
    --------
    sklearn.model_selection.GridSearchCV : The search that this class replaces.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.model_selection import GridSearchCV
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MLPClassifier(
    ...     (10,), batch_size=20, max_iter=30, learning_rate="cosine",
    ...     n_iter_no_change=float("inf"), input_scaling="standardize", random_state=0,
    ... )
    >>> search = GridSearchCV(model, {"learning_rate_init": [0.0001, 0.03]}, cv=3).fit(X, y)
    >>> search.best_params_, bool(search.best_score_ > 0.9)
    ({'learning_rate_init': 0.03}, True)
    """

    _run_search = _ending(model_selection.GridSearchCV._run_search)


class RandomizedSearchCV(_ManyModels, model_selection.RandomizedSearchCV):  # type: ignore[misc]
    """Search over random parameter values, with many networks trained at once.

    See `GridSearchCV`. Parameters, attributes and results are as in
    `sklearn.model_selection.RandomizedSearchCV`.

    Parameters
    ----------
    estimator : estimator
    param_distributions : dict or list of dict
        Lists of values, or distributions with a method ``rvs``, by parameter name.
    n_iter : int, default=10
        Number of candidates.
    random_state : int, RandomState instance or None, default=None
        Seed for drawing the candidates.
    n_jobs, verbose
        As in `GridSearchCV`.
    scoring, refit, cv, pre_dispatch, error_score, return_train_score
        As in scikit-learn.

    See Also
    --------
    sklearn.model_selection.RandomizedSearchCV : The search that this class replaces.
    """

    _run_search = _ending(model_selection.RandomizedSearchCV._run_search)


class HalvingGridSearchCV(_ManyModels, halving.HalvingGridSearchCV):  # type: ignore[misc]
    """Search over parameter values with successive halving, and many networks trained at once.

    See `GridSearchCV`. Parameters, attributes and results are as in
    `sklearn.model_selection.HalvingGridSearchCV`; ``sklearn.experimental`` need not be imported.
    Networks of eliminated candidates are deleted.

    Parameters
    ----------
    estimator : estimator
    param_grid : dict or list of dict
        The values to try, by parameter name.
    factor : float, default=3
        Each iteration divides the number of candidates by this factor, and multiplies the resource
        by it.
    resource : str, default="n_samples"
        The resource to increase: "n_samples", or an integer parameter such as "max_iter", for which
        `max_resources` must be set.
    n_jobs, verbose
        As in `GridSearchCV`.
    max_resources, min_resources, aggressive_elimination, cv, scoring, refit, error_score, \
return_train_score, random_state
        As in scikit-learn.

    See Also
    --------
    sklearn.model_selection.HalvingGridSearchCV : The search that this class replaces.
    """

    _run_search = _ending(halving.HalvingGridSearchCV._run_search)


class HalvingRandomSearchCV(_ManyModels, halving.HalvingRandomSearchCV):  # type: ignore[misc]
    """Search over random values with successive halving, and many networks trained at once.

    See `HalvingGridSearchCV`. Parameters, attributes and results are as in
    `sklearn.model_selection.HalvingRandomSearchCV`.

    Parameters
    ----------
    estimator : estimator
    param_distributions : dict or list of dict
        Lists of values, or distributions with a method ``rvs``, by parameter name.
    n_candidates : "exhaust" or int, default="exhaust"
        Number of candidates in the first iteration.
    n_jobs, verbose
        As in `GridSearchCV`.
    factor, resource, max_resources, min_resources, aggressive_elimination, cv, scoring, refit, \
error_score, return_train_score, random_state
        As in scikit-learn.

    See Also
    --------
    sklearn.model_selection.HalvingRandomSearchCV : The search that this class replaces.
    """

    _run_search = _ending(halving.HalvingRandomSearchCV._run_search)
