"""The contenders of `bench.studies.real_tables` with default settings: one fit and its scores.

    python -m bench.studies.tables.models titanic "ours, recipe table" 0 1 --rows 5000

prints a line of JSON for each split, or why the contender cannot run.
"""

import argparse
import importlib
import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.studies.tables.sets import MOST_ROWS, SETS

TEST_SHARE = 0.2
# Smaller probabilities are replaced with this value, so a single row cannot dominate the loss.
_SMALLEST = 1e-7
Model = Any
Maker = Callable[[Any, bool, int, int], Model]  # Arguments: features, task, seed and threads.


def _pipeline(X: Any, network: Model, is_regression: bool) -> Model:
    """Return the usual pipeline: imputation with indicators, scaled numbers, one-hot encoded
    text."""
    from sklearn.compose import TransformedTargetRegressor, make_column_transformer
    from sklearn.compose import make_column_selector as columns
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    texts = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    encoder = make_column_transformer(
        (numbers, columns(dtype_include=np.number)), (texts, columns(dtype_include="category"))
    )
    model = make_pipeline(encoder, network)
    if is_regression:
        model = TransformedTargetRegressor(model, transformer=StandardScaler())
    return model


def _pipeline_of(module: str) -> Maker:
    def make(X: Any, is_regression: bool, seed: int, threads: int) -> Model:
        kind = "MLPRegressor" if is_regression else "MLPClassifier"
        network = getattr(importlib.import_module(module), kind)(random_state=seed)
        return _pipeline(X, network, is_regression)

    return make


def _recipe(name: str) -> Maker:
    def make(X: Any, is_regression: bool, seed: int, threads: int) -> Model:
        import mlp_xp

        kind = mlp_xp.MLPRegressor if is_regression else mlp_xp.MLPClassifier
        return kind.from_recipe(name, random_state=seed)

    return make


def _realmlp(X: Any, is_regression: bool, seed: int, threads: int) -> Model:
    import pytabkit
    from sklearn.compose import make_column_selector as columns
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline

    kind = "Regressor" if is_regression else "Classifier"
    network = getattr(pytabkit, f"RealMLP_TD_{kind}")(
        random_state=seed, device="cpu", n_threads=threads
    )
    # RealMLP does not accept missing numbers.
    filled = make_column_transformer(
        (
            SimpleImputer(strategy="median", add_indicator=True),
            columns(dtype_include=np.number),
        ),
        remainder="passthrough",
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    return make_pipeline(filled, network)


def _lightgbm(X: Any, is_regression: bool, seed: int, threads: int) -> Model:
    import lightgbm

    kind = lightgbm.LGBMRegressor if is_regression else lightgbm.LGBMClassifier
    return kind(random_state=seed, n_jobs=threads, verbose=-1)


def _catboost(X: Any, is_regression: bool, seed: int, threads: int) -> Model:
    import catboost
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    texts = [*X.select_dtypes("category").columns]
    kind = catboost.CatBoostRegressor if is_regression else catboost.CatBoostClassifier
    settings = {"verbose": False, "allow_writing_files": False, "thread_count": threads}

    def fill(frame: Any) -> Any:
        """Return text without missing values, which CatBoost does not accept."""
        return frame.assign(**{n: frame[n].astype(object).fillna("").astype(str) for n in texts})

    model = kind(random_seed=seed, cat_features=texts, **settings)
    return make_pipeline(FunctionTransformer(fill), model)


def _histogram(X: Any, is_regression: bool, seed: int, threads: int) -> Model:
    from sklearn import ensemble

    kind = "Regressor" if is_regression else "Classifier"
    return getattr(ensemble, f"HistGradientBoosting{kind}")(random_state=seed)


CONTENDERS: dict[str, Maker] = {
    "mlp_xp, recipe table": _recipe("table"),
    "mlp_xp, recipe table-fast": _recipe("table-fast"),
    "mlp_xp, recipe table-best": _recipe("table-best"),
    "mlp_xp, pipeline": _pipeline_of("mlp_xp"),
    "scikit-learn MLP, pipeline": _pipeline_of("sklearn.neural_network"),
    "pytabkit RealMLP-TD": _realmlp,
    "LightGBM": _lightgbm,
    "CatBoost": _catboost,
    "scikit-learn HistGradientBoosting": _histogram,
}


def scores(model: Model, X: Any, y: np.ndarray, deviation: float | None) -> dict[str, float]:
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
    name: str, contender: str, split: int, rows: int = MOST_ROWS, threads: int = 2
) -> dict[str, Any]:
    """Fit a contender on four fifths of a data set; return the training time, and the scores on the
    rest.

    With one thread, the time is processor time, which other programs hardly affect.

    Raises
    ------
    Exception
        Anything that a contender raises.
    """
    from sklearn.model_selection import train_test_split

    X, y = SETS[name].load(rows)
    is_regression = SETS[name].task == "regression"
    parts = train_test_split(
        X, y, test_size=TEST_SHARE, random_state=split, stratify=None if is_regression else y
    )
    train, test, y_train, y_test = parts
    model = CONTENDERS[contender](X, is_regression, split, threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    start = clock()
    model.fit(train, y_train)
    seconds = clock() - start
    deviation = float(np.std(y)) if is_regression else None
    return {"seconds": round(seconds, 4), **scores(model, test, y_test, deviation)}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.tables.models")
    parser.add_argument("name", choices=SETS)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("splits", type=int, nargs="+")
    parser.add_argument("--rows", type=int, default=MOST_ROWS)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    for split in args.splits:
        try:
            found = fit(args.name, args.contender, split, args.rows, args.threads)
        except Exception as error:  # A library may raise any error.
            found = {"cannot_run": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
        print(json.dumps({"split": split, **found}), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    main()
