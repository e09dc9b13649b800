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
from typing import NamedTuple

import numpy as np
from sklearn.datasets import fetch_california_housing
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import QuantileTransformer

from bench.suite.records import HISTORY, Result, environment, newest, write
from bench.suite.tables import Table, seconds
from mlp_xp import MLPClassifier, MLPRegressor

PART = "tabm"
Parts = list[tuple[np.ndarray, np.ndarray]]  # Inputs and targets to train on, validate and test.
_SETTINGS = {"n_members": 32, "batch_size": 256, "precision": "float32", "max_grad_norm": 1.0}
_SETTINGS |= {"alpha": 0.0, "tol": 0.0, "max_iter": 10_000}
_SETTINGS |= {"early_stopping": True, "n_iter_no_change": 16}
_OF_REGRESSION = {"target_scaling": "standardize", "scoring": "neg_root_mean_squared_error"}


class Case(NamedTuple):
    """The mean and standard deviation of the paper's test scores on a data set, and the settings
    that it tuned."""

    score: str
    paper: tuple[float, float]
    widths: tuple[int, ...]
    learning_rate: float
    dropout: float


CASES = {
    "churn": Case("accuracy", (0.8605, 0.0016), (192,) * 4, 7.091576793635641e-4, 0.0),
    "churn, shared": Case(
        "accuracy", (0.8613, 0.0025), (448,) * 5, 4.6156856557107476e-4, 0.03497913168507137
    ),
    "california, shared": Case(
        "RMSE", (0.4509, 0.0032), (352,) * 3, 8.468726533903873e-4, 0.1697377329739597
    ),
}


def load(name: str, file: Path | None) -> Parts:
    """Return inputs and targets of the paper's training, validation and test sets."""
    if name.startswith("california"):
        numbers, y = fetch_california_housing(return_X_y=True)
        categories = np.empty((len(y), 0))
    elif file is None:
        raise SystemExit("pass the table of kaggle.com/shrutimechlearn/churn-modelling with --file")
    else:
        import pandas

        frame = pandas.read_csv(file)
        names = ["CreditScore", "Age", "Tenure", "Balance", "NumOfProducts"]
        names += ["EstimatedSalary", "EstimatedSalary"]  # The paper has this column twice.
        texts = ["Gender", "HasCrCard", "IsActiveMember", "Geography"]
        numbers, y = frame[names].to_numpy(np.float64), frame["Exited"].to_numpy()
        categories = pandas.get_dummies(frame[texts], columns=texts).to_numpy()  # 0 and 1.

    def split(rows: np.ndarray, seed: int) -> list[np.ndarray]:
        classes = y[rows] if CASES[name].score == "accuracy" else None
        return train_test_split(rows, test_size=0.2, random_state=seed, stratify=classes)

    rest, test = split(np.arange(len(y)), 0)
    train, val = split(rest, 1)
    noise = np.random.default_rng(0).normal(0.0, 1e-5, (len(train), numbers.shape[1]))
    scaler = QuantileTransformer(
        n_quantiles=max(10, min(1000, len(train) // 30)), output_distribution="normal"
    )
    scaler.fit(numbers[train] + noise)
    X = np.column_stack([scaler.transform(numbers), categories]).astype(np.float32)
    return [(X[rows], y[rows]) for rows in (train, val, test)]


def fit(name: str, parts: Parts, seed: int) -> Result:
    """Return the scores of a network, its number of epochs and its training time."""
    case, (train, val, test) = CASES[name], parts
    is_classes = case.score == "accuracy"
    settings = _SETTINGS | ({} if is_classes else _OF_REGRESSION)
    settings |= {"learning_rate_init": case.learning_rate, "dropout": case.dropout}
    kind = MLPClassifier if is_classes else MLPRegressor
    model = kind(hidden_layer_sizes=case.widths, random_state=seed, **settings)
    start = time.perf_counter()
    model.fit(*train, X_val=val[0], y_val=val[1])
    taken = time.perf_counter() - start

    def score(X: np.ndarray, y: np.ndarray) -> float:
        if is_classes:
            return float(model.score(X, y))
        return float(np.sqrt(np.mean((model.predict(X) - y) ** 2)))

    scores = {"val": score(*val), "test": score(*test)}
    return {"seed": seed, **scores, "epochs": model.n_iter_, "seconds": round(taken, 1)}


def table(record: Result) -> Table:
    """Return a table with a row per data set: the paper's score and ours."""
    columns = ["set", "score", "TabM's paper, 15 seeds", "`n_members=32`", "seeds", "a fit"]
    rows = []
    for name, results in record[PART].items():
        case, scores = CASES[name], np.asarray([result["test"] for result in results])
        ours = f"{scores.mean():.4f}"
        ours += f" ± {scores.std(ddof=1):.4f}" if len(scores) > 1 else ""
        time_ = seconds(float(np.median([result["seconds"] for result in results])))
        paper = "{:.4f} ± {:.4f}".format(*case.paper)
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
    parts = load(args.name, args.file)
    results = record[PART].setdefault(args.name, [])
    for seed in range(len(results), args.seeds):
        results.append(fit(args.name, parts, seed))
        print(results[-1], flush=True)
        write(path, record | {"environment": environment()})
    for row in table(record).rows:
        print(" | ".join(row))


if __name__ == "__main__":
    main()
