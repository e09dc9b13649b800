"""Scikit-learn's cross-validation and curves, with all networks trained at once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from sklearn import model_selection

from mlp_xp.estimators.checks.batches import refuse_batches
from mlp_xp.estimators.checks.target_column import take_target
from mlp_xp.model_selection._execution import many_models


def _at_once(theirs: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that calls scikit-learn's function and trains all networks at once."""

    def decorate(documented: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(documented)
        def function(*args: Any, **settings: Any) -> Any:
            estimator = args[0] if args else settings.get("estimator")
            n_jobs, verbose = settings.get("n_jobs"), settings.get("verbose", 0)
            given = inspect.signature(theirs).bind_partial(*args, **settings).arguments
            X, y = given.get("X"), given.get("y")
            refuse_batches(X, y, "a cross-validation")
            if isinstance(y, str):
                X, y = take_target(X, y)
                args, settings = (), {**given, "X": X, "y": y}
            with many_models(estimator, n_jobs=n_jobs, verbose=verbose):
                return theirs(*args, **settings)

        function.__signature__ = inspect.signature(theirs)  # type: ignore[attr-defined]
        return function

    return decorate


@_at_once(model_selection.cross_validate)
def cross_validate(estimator: Any, X: Any, y: Any = None, **settings: Any) -> Any:
    """Evaluate an estimator by cross-validation, with the networks of all folds trained at once.

    Parameters
    ----------
    estimator : estimator
    X : array-like, sparse matrix or data frame of shape (samples, features)
    y : array-like of shape (samples,) or (samples, outputs), or the name of a column of X
    **settings
        As in `sklearn.model_selection.cross_validate`. ``n_jobs`` is the number of threads, chosen
        automatically by default; ``verbose=1`` shows a progress bar.

    Returns
    -------
    dict
        Scores and times, as in scikit-learn: ``test_score``, ``fit_time``, ...

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.model_selection import cross_validate
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MLPClassifier((10,), max_iter=20, learning_rate="cosine", random_state=0)
    >>> cross_validate(model, X, y, cv=3)["test_score"].shape
    (3,)
    """


@_at_once(model_selection.cross_val_score)
def cross_val_score(estimator: Any, X: Any, y: Any = None, **settings: Any) -> Any:
    """Return the score of each fold, with the networks of all folds trained at once.

    Parameters
    ----------
    estimator, X, y, **settings
        As in `cross_validate` and `sklearn.model_selection.cross_val_score`.

    Returns
    -------
    (folds,) array
    """


@_at_once(model_selection.cross_val_predict)
def cross_val_predict(estimator: Any, X: Any, y: Any = None, **settings: Any) -> Any:
    """Return a prediction for each sample from a network that was not trained on it.

    Parameters
    ----------
    estimator, X, y, **settings
        As in `cross_validate` and `sklearn.model_selection.cross_val_predict`.

    Returns
    -------
    (samples,) or (samples, outputs) array
    """


@_at_once(model_selection.learning_curve)
def learning_curve(estimator: Any, X: Any, y: Any, **settings: Any) -> Any:
    """Return scores for training sets of several sizes, with all networks trained at once.

    Parameters
    ----------
    estimator, X, y, **settings
        As in `cross_validate` and `sklearn.model_selection.learning_curve`.

    Returns
    -------
    train_sizes_abs : (sizes,) array
    train_scores, test_scores : (sizes, folds) array
    """


@_at_once(model_selection.validation_curve)
def validation_curve(estimator: Any, X: Any, y: Any, **settings: Any) -> Any:
    """Return scores for several values of a parameter, with all networks trained at once.

    Parameters
    ----------
    estimator, X, y, **settings
        As in `cross_validate` and `sklearn.model_selection.validation_curve`.

    Returns
    -------
    train_scores, test_scores : (values, folds) array
    """
