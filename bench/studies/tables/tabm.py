"""TabM with the settings and split of its paper, compared with the paper's figures.

    python -m bench.studies.tables.tabm Churn_Modelling.csv

Each seed is added to the newest record with this part; to resume an interrupted run, type the
command again. The paper's figures are means and standard deviations over 15 seeds, from the reports
in github.com/yandex-research/tabm.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import QuantileTransformer

from bench.suite.records import Result, environment, newest, resume, write
from bench.suite.tables import Table, print_tables, seconds
from mlp_xp import MLPClassifier

PART, NAME = "tabm", "churn"
PAPER = "0.8605 ± 0.0016"  # The mean and deviation of its test accuracies.
SETTINGS = {
    "hidden_layer_sizes": (192,) * 4,
    "learning_rate_init": 7.091576793635641e-4,
    "n_members": 32,
    "batch_size": 256,
    "precision": "float32",
    "max_grad_norm": 1.0,
    "alpha": 0.0,
    "tol": 0.0,
    "max_iter": 10_000,
    "early_stopping": True,
    "n_iter_no_change": 16,
}


def load(file: Path) -> list[tuple[np.ndarray, np.ndarray]]:
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


def table(record: Result) -> Table:
    """Return the table of the paper's accuracy and ours."""
    columns = ["set", "score", "TabM's paper, 15 seeds", "`n_members=32`", "seeds", "a fit"]
    results = record[PART][NAME]
    scores = [result["test"] for result in results]
    ours = f"{np.mean(scores):.4f} ± {np.std(scores, ddof=1):.4f}"
    taken = seconds(float(np.median([result["seconds"] for result in results])))
    return Table("TabM", columns, [[NAME, "accuracy", PAPER, ours, f"{len(scores)}", taken]])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.tables.tabm")
    parser.add_argument("file", type=Path, help="from kaggle.com/shrutimechlearn/churn-modelling")
    args = parser.parse_args()
    fresh, path = {"environment": environment(), PART: {NAME: []}}, newest(PART)[0]
    record = resume(path, fresh, {"environment": ("cpu", "kind")})
    train, (X_val, y_val), test = load(args.file)
    for seed in range(len(record[PART][NAME]), 15):
        model, start = MLPClassifier(**SETTINGS, random_state=seed), time.perf_counter()
        model.fit(*train, X_val=X_val, y_val=y_val)
        taken = round(time.perf_counter() - start, 1)
        scores = {"val": float(model.score(X_val, y_val)), "test": float(model.score(*test))}
        result = {"seed": seed, **scores, "epochs": model.n_iter_, "seconds": taken}
        record[PART][NAME].append(result)
        print(result, flush=True)
        write(path, record)
    print_tables([], [table(record)])


if __name__ == "__main__":
    main()
