"""Losses of networks and LightGBM with monotone constraints that are true, on real tables.

    python -m bench.studies.monotone --rows 3000 --splits 5 --into bench/history/DATE-monotone.json

Each contender is fitted with and without the constraints. For a network with constraints, rows are
changed in the constrained columns, all at once and one by one, and the predictions that move in
the wrong direction are counted. To resume an interrupted run, use the same command again.
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from bench.studies.real_tables import metric, run
from bench.studies.tables.models import CONTENDERS, TEST_SHARE, scores
from bench.studies.tables.sets import ALL, MOST_ROWS
from bench.suite.records import Result
from bench.suite.tables import Table, print_tables

PART = "monotone"
N_PAIRS = 200_000  # Pairs of rows for each fit: a million in five splits.
# The columns with which the target rises (1) or falls (-1), other things being equal. For classes,
# it is the second of them that becomes more likely.
CONSTRAINTS: dict[str, dict[str, int]] = {
    "diamonds": {"carat": 1},
    "credit": {"Income": 1, "Seniority": 1, "Assets": 1},
    "slid": {"education": 1},
    "concrete": {"cement": 1, "age": 1, "blast_furnace_slag": 1},
    "ames": {"Gr_Liv_Area": 1, "Lot_Area": 1, "Total_Bsmt_SF": 1, "Year_Built": 1},
    "hmda": {"pirat": 1, "hirat": 1, "lvrat": 1},
    "sacramento": {"sqft": 1},
    "loans": {"annual_income": -1, "debt_to_income": 1},
}
FREE, CONSTRAINED = "", ", constrained"
_MADE = "mlp_xp, recipe table", "mlp_xp, recipe table-best", "LightGBM"
NAMES = [name + end for name in _MADE for end in (CONSTRAINED, FREE)]
OURS, THEIRS = _MADE[0] + CONSTRAINED, _MADE[2] + CONSTRAINED


def _constrain(model: Any, columns: list[str], directions: Mapping[str, int]) -> None:
    """Set the constraints of an estimator, or of the networks of an ensemble."""
    if type(model).__name__.startswith("LGBM"):
        model.set_params(monotone_constraints=[directions.get(name, 0) for name in columns])
    elif hasattr(model, "estimator"):
        model.set_params(estimator__monotonic_cst=dict(directions))
    else:
        model.set_params(monotonic_cst=dict(directions))


def _raw(model: Any, X: Any, is_regression: bool) -> np.ndarray:
    """Return predicted values, or for two classes the log-odds or the probability."""
    if is_regression:
        return np.asarray(model.predict(X))
    return np.asarray(model.logits(X) if hasattr(model, "logits") else model.predict_proba(X)[:, 1])


def violations(model: Any, X: Any, directions: Mapping[str, int], split: int, n: int) -> int:
    """Count predictions that fall although the constrained columns move in their directions."""
    generator = np.random.default_rng(split)
    rows = X.iloc[generator.integers(len(X), size=n)].reset_index(drop=True)
    rows = rows.assign(**{name: rows[name].astype(float) for name in directions})
    is_regression = not hasattr(model, "classes_")
    before, wrong = _raw(model, rows, is_regression), 0
    groups = [list(directions), *([name] for name in directions if len(directions) > 1)]
    for names in groups:
        steps = {
            name: rows[name] + directions[name] * generator.exponential(np.nanstd(X[name]), n)
            for name in names
        }
        after = _raw(model, rows.assign(**steps), is_regression)
        wrong += int(np.count_nonzero(after < before))
    return wrong


def fit(name: str, contender: str, split: int, rows: int = MOST_ROWS, threads: int = 2) -> Result:
    """Return the loss on a fifth of the rows, and the number of violations of a network."""
    X, y = ALL[name].load(rows)
    is_regression = ALL[name].task == "regression"
    train, test, y_train, y_test = train_test_split(
        X, y, test_size=TEST_SHARE, random_state=split, stratify=None if is_regression else y
    )
    made = contender.removesuffix(CONSTRAINED)
    model = CONTENDERS[made](X, is_regression, split, threads)
    if contender != made:
        _constrain(model, [*X.columns], CONSTRAINTS[name])
    start = time.perf_counter()
    model.fit(train, y_train)
    seconds = time.perf_counter() - start
    deviation = float(np.std(y)) if is_regression else None
    found = {"seconds": round(seconds, 4), **scores(model, test, y_test, deviation)}
    if contender == OURS:
        found["violations"] = violations(model, test, CONSTRAINTS[name], split, N_PAIRS)
    return found


def tables(results: Result) -> list[Table]:
    """Return a table of losses, relative to the constrained recipe `table`."""
    names = [who for who in NAMES if any(results[name].get(who) for name in results)]
    rows, logs = [], []
    for name, contenders in results.items():
        runs = [contenders.get(who, []) for who in names]
        if not all(each and all("seconds" in one for one in each) for each in runs):
            continue
        means = np.asarray([np.mean([one[metric(name)] for one in each]) for each in runs])
        logs.append(np.log(means / means[names.index(OURS)]))
        rules = ", ".join(
            f"{column} {'rises' if sign > 0 else 'falls'}"
            for column, sign in CONSTRAINTS[name].items()
        )
        wrong = sum(one["violations"] for one in contenders[OURS])
        cells = [f"{m:.4f} ({np.expm1(d):+.1%})" for m, d in zip(means, logs[-1], strict=True)]
        rows.append([name, rules, *cells, f"{wrong:,}"])
    if not rows:
        return []
    total = [f"{np.expm1(mean):+.1%}" for mean in np.mean(logs, axis=0)]
    head = ["set", "constraints", *names, "violations"]
    return [
        Table("RMSE in standard deviations, or log loss", head, [*rows, ["mean", "", *total, ""]])
    ]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.monotone")
    parser.add_argument("--sets", nargs="+", choices=CONSTRAINTS, default=[*CONSTRAINTS])
    parser.add_argument("--contenders", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--rows", type=int, default=MOST_ROWS, help="the most of a set")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--into", type=Path, required=True, help="a file, new or to continue")
    args = parser.parse_args(argv)
    own = {"rows": args.rows, "threads": args.threads}
    record = run(args.into, PART, args, own, fit)
    print_tables([], tables(record[PART]["results"]))


if __name__ == "__main__":
    main()
