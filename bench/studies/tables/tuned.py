"""Contenders that tune and bag within a time limit: trees with TabArena's spaces, and AutoGluon.

Trees are fitted to the folds of the training rows, one configuration after another: first with
their defaults, then with random settings from the ranges of TabArena (arXiv:2506.16791,
`models/lightgbm/hpo.py` and `models/catboost/hpo.py`). Predictions for rows outside of the folds
choose a weighted ensemble of the configurations (Caruana et al., 2004).
"""

import importlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.stats import loguniform, randint, uniform
from sklearn.metrics import log_loss, root_mean_squared_error
from sklearn.model_selection import KFold, ParameterSampler, StratifiedKFold

N_FOLDS = 5
# AutoGluon's defaults for both libraries; early stopping ends a fit long before.
MOST_TREES, RATE, PATIENCE = 10_000, 0.05, 100
_MOST_CONFIGURATIONS = 1_000
_MOST_STEPS = 40  # The longest selection of an ensemble.


class _WholeNumbers:
    """A distribution of integers that is uniform on a logarithmic scale."""

    def __init__(self, least: int, most: int) -> None:
        self._logarithm = uniform(np.log(least - 0.5), np.log((most + 0.5) / (least - 0.5)))
        self._limits = least, most

    def rvs(self, **given: Any) -> int:
        return int(np.clip(np.rint(np.exp(self._logarithm.rvs(**given))), *self._limits))


LIGHTGBM = {
    "learning_rate": loguniform(0.005, 0.1),
    "feature_fraction": uniform(0.4, 0.6),
    "bagging_fraction": uniform(0.7, 0.3),
    "bagging_freq": [1],
    "num_leaves": _WholeNumbers(2, 200),
    "min_data_in_leaf": _WholeNumbers(1, 64),
    "extra_trees": [False, True],
    "min_data_per_group": _WholeNumbers(2, 100),
    "cat_l2": loguniform(0.005, 2),
    "cat_smooth": loguniform(0.001, 100),
    "max_cat_to_onehot": _WholeNumbers(8, 100),
    "lambda_l1": uniform(1e-4, 1),
    "lambda_l2": uniform(1e-4, 2),
}
CATBOOST = {
    "learning_rate": loguniform(0.005, 0.1),
    "bootstrap_type": ["Bernoulli"],
    "subsample": uniform(0.7, 0.3),
    "grow_policy": ["SymmetricTree", "Depthwise"],
    "depth": randint(4, 9),
    "colsample_bylevel": uniform(0.85, 0.15),
    "l2_leaf_reg": loguniform(1e-4, 5),
    "leaf_estimation_iterations": _WholeNumbers(1, 20),
    "one_hot_max_size": _WholeNumbers(8, 100),
    "model_size_reg": loguniform(0.1, 1.5),
    "max_ctr_complexity": randint(2, 6),
    "boosting_type": ["Plain"],
    "max_bin": [254],
}

Fit = Callable[[Any, np.ndarray, Any, np.ndarray, float], Any]


class BaggedTrees:
    """Trees that are tuned and bagged within a time limit, as a scikit-learn estimator.

    ``fit_one(**settings)`` returns a function that fits a model to the rows of a fold, stops early
    by the other rows, and ends at a value of `time.perf_counter`. ``prepare`` changes X first.
    """

    def __init__(
        self,
        fit_one: Callable[..., Fit],
        space: Any,
        *,
        is_regression: bool,
        seed: int,
        budget: float,
        prepare: Callable[[Any], Any] = lambda X: X,
    ) -> None:
        self._fit_one, self._space, self._is_regression = fit_one, space, is_regression
        self._seed, self._budget, self._prepare = seed, budget, prepare

    def fit(self, X: Any, y: np.ndarray) -> "BaggedTrees":
        end = time.perf_counter() + self._budget
        X = self._prepare(X)
        if not self._is_regression:
            self.classes_, y = np.unique(y, return_inverse=True)
        kind = KFold if self._is_regression else StratifiedKFold
        folds = [*kind(N_FOLDS, shuffle=True, random_state=self._seed).split(X, y)]
        tried, outside = [], []
        shortest = 0.0
        for settings in self._configurations():
            start = time.perf_counter()
            if tried and start + shortest > end:
                break
            fit, models, found = self._fit_one(**settings), [], None
            for number, (rows, others) in enumerate(folds):
                now = time.perf_counter()
                stop = now + (end - now) / (N_FOLDS - number)
                models.append(fit(X.iloc[rows], y[rows], X.iloc[others], y[others], stop))
                values = self._values(models[-1], X.iloc[others])
                found = np.zeros((len(y), *values.shape[1:])) if found is None else found
                found[others] = values
            tried.append(models)
            outside.append(found)
            seconds = time.perf_counter() - start
            shortest = min(shortest or seconds, seconds)
        weights = select(np.asarray(outside), lambda values: self._loss(y, values))
        self._chosen = [(w, models) for w, models in zip(weights, tried, strict=True) if w]
        return self

    def _configurations(self) -> Iterator[dict[str, Any]]:
        yield {"learning_rate": RATE}
        yield from ParameterSampler(self._space, _MOST_CONFIGURATIONS, random_state=self._seed)

    def _values(self, model: Any, X: Any) -> np.ndarray:
        """Return a model's predictions; classes that are not in its rows get probability 0."""
        if self._is_regression:
            return np.asarray(model.predict(X))
        values = np.zeros((len(X), len(self.classes_)))
        values[:, np.asarray(model.classes_, dtype=int)] = model.predict_proba(X)
        return values

    def _loss(self, y: np.ndarray, values: np.ndarray) -> float:
        if self._is_regression:
            return float(root_mean_squared_error(y, values))
        return float(log_loss(y, values, labels=range(len(self.classes_))))

    def _averaged(self, X: Any) -> np.ndarray:
        X = self._prepare(X)
        means = [w * np.mean([self._values(m, X) for m in each], 0) for w, each in self._chosen]
        return np.sum(means, axis=0)

    def predict(self, X: Any) -> np.ndarray:
        values = self._averaged(X)
        return values if self._is_regression else self.classes_[values.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        return self._averaged(X)


def select(values: np.ndarray, loss: Callable[[np.ndarray], float]) -> np.ndarray:
    """Return the weights of models whose mean has a low loss, by greedy selection.

    Models may be selected again. The weights count the selections up to the lowest loss.
    """
    total, picked, losses = np.zeros_like(values[0]), [], []
    for n in range(1, _MOST_STEPS + 1):
        reached = [loss((total + each) / n) for each in values]
        picked.append(int(np.argmin(reached)))
        losses.append(min(reached))
        total = total + values[picked[-1]]
    n_best = int(np.argmin(losses)) + 1
    return np.bincount(picked[:n_best], minlength=len(values)) / n_best


def lightgbm(X: Any, is_regression: bool, seed: int, threads: int, budget: float) -> BaggedTrees:
    """Return tuned and bagged LightGBM."""
    import lightgbm

    kind = lightgbm.LGBMRegressor if is_regression else lightgbm.LGBMClassifier
    own = {"n_jobs": threads, "random_state": seed, "verbose": -1, "n_estimators": MOST_TREES}

    def fit_one(**settings: Any) -> Fit:
        def fit(X: Any, y: Any, X_val: Any, y_val: Any, stop: float) -> Any:
            def end(progress: Any) -> None:
                if time.perf_counter() > stop:
                    best = progress.evaluation_result_list
                    raise lightgbm.callback.EarlyStopException(progress.iteration, best)

            model = kind(**own, **settings)
            early = lightgbm.early_stopping(PATIENCE, verbose=False)
            return model.fit(X, y, eval_set=[(X_val, y_val)], callbacks=[early, end])

        return fit

    given = {"is_regression": is_regression, "seed": seed, "budget": budget}
    return BaggedTrees(fit_one, LIGHTGBM, **given)


def fill_text(frame: Any) -> Any:
    """Return text without missing values, which CatBoost does not accept."""
    texts = frame.select_dtypes("category").columns
    return frame.assign(**{n: frame[n].astype(object).fillna("").astype(str) for n in texts})


class _Deadline:
    """A callback that ends a fit of CatBoost."""

    def __init__(self, stop: float) -> None:
        self._stop = stop

    def after_iteration(self, info: Any) -> bool:
        return time.perf_counter() < self._stop


def catboost(X: Any, is_regression: bool, seed: int, threads: int, budget: float) -> BaggedTrees:
    """Return tuned and bagged CatBoost."""
    from catboost import CatBoostClassifier, CatBoostRegressor

    kind = CatBoostRegressor if is_regression else CatBoostClassifier
    texts = [*X.select_dtypes("category").columns]
    own = {"verbose": False, "allow_writing_files": False, "thread_count": threads}
    own |= {"random_seed": seed, "cat_features": texts, "iterations": MOST_TREES}

    def fit_one(**settings: Any) -> Fit:
        def fit(X: Any, y: Any, X_val: Any, y_val: Any, stop: float) -> Any:
            model = kind(**own, **settings)
            early = {"early_stopping_rounds": PATIENCE, "callbacks": [_Deadline(stop)]}
            return model.fit(X, y, eval_set=(X_val, y_val), **early)

        return fit

    given = {"is_regression": is_regression, "seed": seed, "budget": budget}
    return BaggedTrees(fit_one, CATBOOST, **given, prepare=fill_text)


class AutoGluon:
    """AutoGluon with the presets "best_quality", as a scikit-learn estimator."""

    def __init__(self, is_regression: bool, threads: int, budget: float) -> None:
        self._kind: Any = importlib.import_module("autogluon.tabular").TabularPredictor
        self._is_regression, self._threads, self._budget = is_regression, threads, budget

    def fit(self, X: Any, y: np.ndarray) -> "AutoGluon":
        metric = "root_mean_squared_error" if self._is_regression else "log_loss"
        folder = tempfile.mkdtemp(prefix="autogluon")
        task = "regression" if self._is_regression else None  # Binary or multi-class, by y.
        model = self._kind("the target", task, metric, path=folder, verbosity=0)
        limits = {"time_limit": self._budget, "num_cpus": self._threads, "num_gpus": 0}
        self._model = model.fit(X.assign(**{"the target": y}), presets="best_quality", **limits)
        self.classes_ = self._model.class_labels
        return self

    def predict(self, X: Any) -> np.ndarray:
        return np.asarray(self._model.predict(X))

    def predict_proba(self, X: Any) -> np.ndarray:
        return np.asarray(self._model.predict_proba(X)[self.classes_])
