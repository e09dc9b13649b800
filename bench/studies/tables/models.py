"""The contenders of `bench.studies.real_tables` with default settings: one fit and its scores."""

import importlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.compose import make_column_selector as columns
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from bench.studies.tables import tuned
from bench.studies.tables.sets import ALL, MOST_ROWS
from bench.suite.records import Result

TEST_SHARE = 0.2
# Smaller probabilities are replaced with this value, so a single row cannot dominate the loss.
_SMALLEST = 1e-7


def _estimator(library: str, prefix: str, is_regression: bool) -> Any:
    """Import a library, and return its class for the task."""
    kind = "Regressor" if is_regression else "Classifier"
    return getattr(importlib.import_module(library), prefix + kind)


def _fill_numbers() -> tuple[SimpleImputer, Any]:
    """Return an imputer with indicators of missing numbers, and the columns that it fills."""
    imputer = SimpleImputer(strategy="median", add_indicator=True)
    return imputer, columns(dtype_include=np.number)


def _recipe(name: str, X: Any, is_regression: bool, seed: int, threads: int) -> Any:
    return _estimator("mlp_xp", "MLP", is_regression).from_recipe(name, random_state=seed)


def _pipeline(library: str, X: Any, is_regression: bool, seed: int, threads: int) -> Any:
    """Return the usual pipeline: imputation, scaled numbers, one-hot encoded text."""
    imputer, numbers = _fill_numbers()
    texts = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    encoder = make_column_transformer(
        (make_pipeline(imputer, StandardScaler()), numbers),
        (texts, columns(dtype_include="category")),
    )
    model = make_pipeline(encoder, _estimator(library, "MLP", is_regression)(random_state=seed))
    if is_regression:
        model = TransformedTargetRegressor(model, transformer=StandardScaler())
    return model


def _realmlp(X: Any, is_regression: bool, seed: int, threads: int) -> Any:
    # RealMLP does not accept missing numbers.
    filled = make_column_transformer(
        _fill_numbers(), remainder="passthrough", verbose_feature_names_out=False
    ).set_output(transform="pandas")
    network = _estimator("pytabkit", "RealMLP_TD_", is_regression)
    return make_pipeline(filled, network(random_state=seed, device="cpu", n_threads=threads))


def _trees(library: str, prefix: str, X: Any, is_regression: bool, seed: int, threads: int) -> Any:
    own = {"n_jobs": threads, "verbose": -1} if library == "lightgbm" else {}
    return _estimator(library, prefix, is_regression)(random_state=seed, **own)


def _catboost(X: Any, is_regression: bool, seed: int, threads: int) -> Any:
    texts = [*X.select_dtypes("category").columns]
    settings = {"verbose": False, "allow_writing_files": False, "thread_count": threads}
    kind = _estimator("catboost", "CatBoost", is_regression)
    model = kind(random_seed=seed, cat_features=texts, **settings)
    return make_pipeline(FunctionTransformer(tuned.fill_text), model)


def _table_tuned(X: Any, is_regression: bool, seed: int, threads: int, budget: float) -> Any:
    kind = _estimator("mlp_xp", "MLP", is_regression)
    return kind.from_recipe("table-tuned", max_time=budget, random_state=seed)


def _autogluon(X: Any, is_regression: bool, seed: int, threads: int, budget: float) -> Any:
    return tuned.AutoGluon(is_regression, threads, budget)


# Functions of the features, whether to fit a regressor, the seed and the number of threads.
CONTENDERS: dict[str, Callable[[Any, bool, int, int], Any]] = {
    "mlp_xp, recipe table": partial(_recipe, "table"),
    "mlp_xp, recipe table-fast": partial(_recipe, "table-fast"),
    "mlp_xp, recipe table-best": partial(_recipe, "table-best"),
    "mlp_xp, pipeline": partial(_pipeline, "mlp_xp"),
    "scikit-learn MLP, pipeline": partial(_pipeline, "sklearn.neural_network"),
    "pytabkit RealMLP-TD": _realmlp,
    "LightGBM": partial(_trees, "lightgbm", "LGBM"),
    "CatBoost": _catboost,
    "scikit-learn HistGradientBoosting": partial(
        _trees, "sklearn.ensemble", "HistGradientBoosting"
    ),
}
# Contenders that tune and bag, and end within a number of seconds, which is their last argument.
TUNED: dict[str, Callable[[Any, bool, int, int, float], Any]] = {
    "mlp_xp, recipe table-tuned": _table_tuned,
    "LightGBM, tuned and bagged": tuned.lightgbm,
    "CatBoost, tuned and bagged": tuned.catboost,
    "AutoGluon best_quality": _autogluon,
}


def scores(model: Any, X: Any, y: np.ndarray, deviation: float | None) -> dict[str, float]:
    """Return RMSE divided by the standard deviation of the targets, or log loss and error rate."""
    if deviation is not None:
        difference = np.asarray(model.predict(X), dtype=np.float64).reshape(-1) - y
        return {"rmse": float(np.sqrt(np.mean(difference**2)) / deviation)}
    classes = np.asarray(model.classes_).astype(str)
    found = np.asarray(model.predict_proba(X), dtype=np.float64)
    given = np.zeros(len(y))  # A class that is not in the training rows gets probability 0.
    for place, name in enumerate(classes):
        given[y == name] = found[y == name, place]
    error = float(np.mean(classes[found.argmax(axis=1)] != y))
    return {"log_loss": float(-np.mean(np.log(np.maximum(given, _SMALLEST)))), "error": error}


def fit(
    name: str,
    contender: str,
    split: int,
    rows: int = MOST_ROWS,
    threads: int = 2,
    budget: float | None = None,
) -> Result:
    """Fit a contender on four fifths of a data set; return time, and scores on the other fifth.

    A tuned contender may take ``budget`` seconds. Without a budget and with one thread, the time is
    processor time, which other programs hardly affect.
    """
    X, y = ALL[name].load(rows)
    is_regression = ALL[name].task == "regression"
    train, test, y_train, y_test = train_test_split(
        X, y, test_size=TEST_SHARE, random_state=split, stratify=None if is_regression else y
    )
    given = X, is_regression, split, threads
    if contender in CONTENDERS:
        model = CONTENDERS[contender](*given)
    else:
        assert budget is not None
        model = TUNED[contender](*given, budget)
    clock = time.process_time if threads == 1 and budget is None else time.perf_counter
    start = clock()
    model.fit(train, y_train)
    seconds = clock() - start
    deviation = float(np.std(y)) if is_regression else None
    return {"seconds": round(seconds, 4), **scores(model, test, y_test, deviation)}
