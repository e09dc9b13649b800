"""TabM with the settings and split of its paper, compared with the paper's figures.

    python -m bench.studies.tables.tabm churn --file Churn_Modelling.csv
    python -m bench.studies.tables.tabm "california, shared"    # scikit-learn downloads it

The file is kaggle.com/shrutimechlearn/churn-modelling. Each seed is added to the newest record with
this part; to resume an interrupted run, type the command again. The paper's figures are means and
standard deviations over 15 seeds, from the reports in github.com/yandex-research/tabm. In cases
that end in "shared", all networks train on the same batches, as in this library.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.suite.records import HISTORY, Result, environment, newest, write
from bench.suite.tables import Table, seconds

PART = "tabm"
Data = tuple[np.ndarray, np.ndarray, np.ndarray]  # Numeric columns, categories as 0 and 1, targets.
Parts = list[tuple[np.ndarray, np.ndarray]]  # Inputs and targets to train on, validate and test.
_SETTINGS = {
    "n_members": 32,
    "alpha": 0.0,
    "batch_size": 256,
    "max_grad_norm": 1.0,
    "max_iter": 10_000,
    "early_stopping": True,
    "n_iter_no_change": 16,
    "tol": 0.0,
    "precision": "float32",
}


class Case(NamedTuple):
    """The settings that the paper tuned for a data set, and the mean and standard deviation of its
    test scores."""

    settings: dict[str, Any]
    score: str
    paper: tuple[float, float]


CASES = {
    "churn": Case(
        {"hidden_layer_sizes": (192,) * 4, "learning_rate_init": 7.091576793635641e-4},
        *("accuracy", (0.8605, 0.0016)),
    ),
    "churn, shared": Case(
        {
            "hidden_layer_sizes": (448,) * 5,
            "dropout": 0.03497913168507137,
            "learning_rate_init": 4.6156856557107476e-4,
        },
        *("accuracy", (0.8613, 0.0025)),
    ),
    "california, shared": Case(
        {
            "hidden_layer_sizes": (352,) * 3,
            "dropout": 0.1697377329739597,
            "learning_rate_init": 8.468726533903873e-4,
            "target_scaling": "standardize",
            "scoring": "neg_root_mean_squared_error",
        },
        *("RMSE", (0.4509, 0.0032)),
    ),
}


def load(name: str, file: Path | None) -> Data:
    """Return a data set in the order of its source."""
    if name.startswith("california"):
        from sklearn.datasets import fetch_california_housing

        X, y = fetch_california_housing(return_X_y=True)
        return X, np.empty((len(y), 0)), y
    import pandas

    if file is None:
        raise SystemExit("pass the table of kaggle.com/shrutimechlearn/churn-modelling with --file")
    frame = pandas.read_csv(file)
    numbers = ["CreditScore", "Age", "Tenure", "Balance", "NumOfProducts"]
    numbers += ["EstimatedSalary", "EstimatedSalary"]  # The paper has this column twice.
    categories = ["Gender", "HasCrCard", "IsActiveMember", "Geography"]
    one_hot = pandas.get_dummies(frame[categories], columns=categories)
    return frame[numbers].to_numpy(np.float64), one_hot.to_numpy(), frame["Exited"].to_numpy()


def split(data: Data, is_classes: bool) -> Parts:
    """Return inputs and targets of the paper's training, validation and test sets."""
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import QuantileTransformer

    numbers, categories, y = data
    rest, test = train_test_split(
        np.arange(len(y)), test_size=0.2, random_state=0, stratify=y if is_classes else None
    )
    train, val = train_test_split(
        rest, test_size=0.2, random_state=1, stratify=y[rest] if is_classes else None
    )
    noise = np.random.default_rng(0).normal(0.0, 1e-5, (len(train), numbers.shape[1]))
    scaler = QuantileTransformer(
        n_quantiles=max(10, min(1000, len(train) // 30)), output_distribution="normal"
    )
    scaler.fit(numbers[train] + noise)
    X = np.column_stack([scaler.transform(numbers), categories]).astype(np.float32)
    return [(X[rows], y[rows]) for rows in (train, val, test)]


def fit(name: str, parts: Parts, seed: int) -> Result:
    """Return the scores of a network, its number of epochs and its training time."""
    import mlp_xp

    case = CASES[name]
    is_classes = case.score == "accuracy"
    (X, y), (X_val, y_val), (X_test, y_test) = parts
    kind = mlp_xp.MLPClassifier if is_classes else mlp_xp.MLPRegressor
    model = kind(**_SETTINGS, **case.settings, random_state=seed)
    start = time.perf_counter()
    model.fit(X, y, X_val=X_val, y_val=y_val)
    seconds = time.perf_counter() - start

    def score(X: np.ndarray, y: np.ndarray) -> float:
        if is_classes:
            return float(model.score(X, y))
        return float(np.sqrt(np.mean((model.predict(X) - y) ** 2)))

    scores = {"val": score(X_val, y_val), "test": score(X_test, y_test)}
    return {"seed": seed, **scores, "epochs": model.n_iter_, "seconds": round(seconds, 1)}


def table(record: Result) -> Table:
    """Return a table with a row per data set: the paper's score and ours."""
    columns = ["set", "score", "TabM's paper, 15 seeds", "`n_members=32`", "seeds", "a fit"]
    rows = []
    for name, results in record[PART].items():
        case, scores = CASES[name], np.asarray([result["test"] for result in results])
        (mean, deviation), of_ours = case.paper, np.std(scores, ddof=min(1, len(scores) - 1))
        ours = f"{scores.mean():.4f}" + f" ± {of_ours:.4f}" * (len(scores) > 1)
        time_ = seconds(float(np.median([result["seconds"] for result in results])))
        paper = f"{mean:.4f} ± {deviation:.4f}"
        rows.append([name, case.score, paper, ours, f"{len(scores)}", time_])
    return Table("TabM", columns, rows)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.tables.tabm")
    parser.add_argument("name", choices=CASES)
    parser.add_argument("--file", type=Path, help="the table of churn")
    parser.add_argument("--seeds", type=int, default=15)
    parser.add_argument("--into", type=Path, help="a file; default: the newest record's")
    args = parser.parse_args(argv)
    try:
        path = args.into or newest(PART)[0]
    except FileNotFoundError:
        path = HISTORY / f"{time.strftime('%Y-%m-%d')}-{PART}.json"
    record = json.loads(path.read_text()) if path.exists() else {PART: {}}
    parts = split(load(args.name, args.file), CASES[args.name].score == "accuracy")
    results = record[PART].setdefault(args.name, [])
    for seed in range(len(results), args.seeds):
        results.append(fit(args.name, parts, seed))
        print(results[-1], flush=True)
        write(path, record | {"environment": environment()})
    for row in table(record).rows:
        print(" | ".join(row))


if __name__ == "__main__":
    main()
