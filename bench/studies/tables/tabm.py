"""TabM with the settings and split of its paper, compared with the paper's figures.

    python -m bench.studies.tables.tabm churn --file Churn_Modelling.csv

Each seed is added to the newest record with this part; to resume an interrupted run, type the
command again. The paper's figures are means and standard deviations over 15 seeds, from the reports
in github.com/yandex-research/tabm. In the case "churn, shared", the paper trains all networks on
the same batches, as this library does.
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import QuantileTransformer

from bench.suite.records import Result, environment, newest, resume, write
from bench.suite.tables import Table, print_tables, seconds
from mlp_xp import MLPClassifier

PART = "tabm"
Parts = list[tuple[np.ndarray, np.ndarray]]  # Inputs and targets to train on, validate and test.
_SETTINGS = {"n_members": 32, "batch_size": 256, "precision": "float32", "max_grad_norm": 1.0}
_SETTINGS |= {"alpha": 0.0, "tol": 0.0, "max_iter": 10_000}
_SETTINGS |= {"early_stopping": True, "n_iter_no_change": 16}


class Case(NamedTuple):
    """The mean and deviation of the paper's test accuracies, and the settings that it tuned."""

    paper: tuple[float, float]
    widths: tuple[int, ...]
    learning_rate: float
    dropout: float


CASES = {
    "churn": Case((0.8605, 0.0016), (192,) * 4, 7.091576793635641e-4, 0.0),
    "churn, shared": Case((0.8613, 0.0025), (448,) * 5, 4.6156856557107476e-4, 0.03497913168507137),
}


def load(file: Path) -> Parts:
    """Return inputs and targets of the paper's training, validation and test sets."""
    import pandas

    frame = pandas.read_csv(file)
    names = ["CreditScore", "Age", "Tenure", "Balance", "NumOfProducts"]
    names += ["EstimatedSalary", "EstimatedSalary"]  # The paper has this column twice.
    texts = ["Gender", "HasCrCard", "IsActiveMember", "Geography"]
    numbers, y = frame[names].to_numpy(np.float64), frame["Exited"].to_numpy()
    categories = pandas.get_dummies(frame[texts], columns=texts).to_numpy()  # 0 and 1.
    others, test = train_test_split(range(len(y)), test_size=0.2, random_state=0, stratify=y)
    train, val = train_test_split(others, test_size=0.2, random_state=1, stratify=y[others])
    noise = np.random.default_rng(0).normal(0.0, 1e-5, (len(train), numbers.shape[1]))
    scaler = QuantileTransformer(
        n_quantiles=max(10, min(1000, len(train) // 30)), output_distribution="normal"
    )
    scaler.fit(numbers[train] + noise)
    X = np.column_stack([scaler.transform(numbers), categories]).astype(np.float32)
    return [(X[rows], y[rows]) for rows in (train, val, test)]


def fit(name: str, parts: Parts, seed: int) -> Result:
    """Return the accuracies of a network, its number of epochs and its training time."""
    case, (train, val, test) = CASES[name], parts
    own = {"learning_rate_init": case.learning_rate, "dropout": case.dropout, "random_state": seed}
    model = MLPClassifier(case.widths, **own, **_SETTINGS)
    start = time.perf_counter()
    model.fit(*train, X_val=val[0], y_val=val[1])
    taken = time.perf_counter() - start
    scores = {"val": float(model.score(*val)), "test": float(model.score(*test))}
    return {"seed": seed, **scores, "epochs": model.n_iter_, "seconds": round(taken, 1)}


def table(record: Result) -> Table:
    """Return a table with a row per case: the paper's accuracy and ours."""
    columns = ["set", "score", "TabM's paper, 15 seeds", "`n_members=32`", "seeds", "a fit"]
    rows = []
    for name, results in record[PART].items():
        scores = np.asarray([result["test"] for result in results])
        ours = f"{scores.mean():.4f}"
        ours += f" ± {scores.std(ddof=1):.4f}" if len(scores) > 1 else ""
        taken = seconds(float(np.median([result["seconds"] for result in results])))
        paper = "{:.4f} ± {:.4f}".format(*CASES[name].paper)
        rows.append([name, "accuracy", paper, ours, f"{len(scores)}", taken])
    return Table("TabM", columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.tables.tabm")
    parser.add_argument("name", choices=CASES)
    parser.add_argument(
        "--file", type=Path, required=True, help="from kaggle.com/shrutimechlearn/churn-modelling"
    )
    parser.add_argument("--seeds", type=int, default=15)
    parser.add_argument("--into", type=Path, help="a file; default: the newest record's")
    args = parser.parse_args()
    fresh, path = {"environment": environment(), PART: {}}, args.into or newest(PART)[0]
    record = resume(path, fresh, {"environment": ("cpu", "kind")})
    parts, results = load(args.file), record[PART].setdefault(args.name, [])
    for seed in range(len(results), args.seeds):
        results.append(fit(args.name, parts, seed))
        print(results[-1], flush=True)
        write(path, record)
    print_tables([], [table(record)])


if __name__ == "__main__":
    main()
