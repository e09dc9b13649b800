"""Coverage and width of 90 % prediction intervals on real tables, split by split.

    python -m bench.studies.intervals --splits 10 --into bench/history/DATE-intervals.json

The test rows of a set are a fifth of it, or more so that they are at least 300 where half of the
set suffices. Our recipes are fitted once and use the samples that they hold out anyway. MAPIE's
CV+ fits LightGBM to five folds (Barber, Candes, Ramdas, Tibshirani, "Predictive inference with
the jackknife+", 2021). Each result is written immediately. To resume an interrupted run, use the
same command again.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from bench.studies.real_tables import run
from bench.studies.tables.models import CONTENDERS, TEST_SHARE
from bench.studies.tables.sets import ALL, MOST_ROWS
from bench.suite.records import Result
from bench.suite.tables import Table, print_tables, seconds

PART = "intervals"
COVERAGE, MOST_OFF = 0.9, 0.015  # The mean over the splits of a set should be within MOST_OFF.
_TEST_ROWS = 300
SETS = {name: table for name, table in ALL.items() if table.task == "regression"}

# A fitted model's lower and upper limits, shape (rows, 2).
Interval = Callable[[Any], np.ndarray]


def _ours(recipe: str, X: Any, y: np.ndarray, split: int, threads: int) -> Interval:
    model = CONTENDERS[f"mlp_xp, recipe {recipe}"](X, True, split, threads).fit(X, y)
    return lambda rows: np.asarray(model.predict(rows, interval=COVERAGE))


def _mapie(X: Any, y: np.ndarray, split: int, threads: int) -> Interval:
    from mapie.regression import CrossConformalRegressor
    from sklearn.model_selection import KFold

    model = CrossConformalRegressor(
        CONTENDERS["LightGBM"](X, True, split, threads),
        confidence_level=COVERAGE,
        method="plus",
        cv=KFold(5, shuffle=True, random_state=split),
    )
    model.fit_conformalize(X, y)
    return lambda rows: model.predict_interval(rows)[1][:, :, 0]


MAPIE = "MAPIE CV+, LightGBM"
INTERVALS: dict[str, Callable[[Any, np.ndarray, int, int], Interval]] = {
    "mlp_xp, recipe table": partial(_ours, "table"),
    "mlp_xp, recipe table-best": partial(_ours, "table-best"),
    MAPIE: _mapie,
}


def test_share(n_rows: int) -> float:
    """Return the fraction of test rows."""
    return min(0.5, max(TEST_SHARE, _TEST_ROWS / n_rows))


def fit(name: str, contender: str, split: int, rows: int = MOST_ROWS, threads: int = 2) -> Result:
    """Return the coverage of test rows, and the mean width in units of the targets' deviation."""
    X, y = ALL[name].load(rows)
    share = test_share(len(y))
    train, test, y_train, y_test = train_test_split(X, y, test_size=share, random_state=split)
    start = time.perf_counter()
    low, high = INTERVALS[contender](train, y_train, split, threads)(test).T
    passed = time.perf_counter() - start
    inside = (low <= y_test) & (y_test <= high)
    return {
        "seconds": round(passed, 4),
        "coverage": float(np.mean(inside)),
        "width": float(np.mean(high - low) / np.std(y)),
        "test_rows": len(y_test),
    }


def tables(results: Result) -> list[Table]:
    """Return a table of the contenders, and one of all sets that each of them ran."""
    names = [who for who in INTERVALS if any(results[name].get(who) for name in results)]
    done = {
        name: [_means(results[name].get(who, ())) for who in names]
        for name in SETS
        if name in results
    }
    kept = {name: row for name, row in done.items() if all(map(len, row))}
    if not kept:
        return []
    means = np.asarray([*kept.values()])  # (sets, contenders, [coverage, width, seconds])
    base = means[:, names.index(MAPIE), 1] if MAPIE in names else None
    off = np.abs(means[:, :, 0] - COVERAGE)
    rows = []
    for i, who in enumerate(names):
        wide = "" if base is None else f"{np.exp(np.mean(np.log(means[:, i, 1] / base))):.3f}"
        within = f"{np.count_nonzero(off[:, i] <= MOST_OFF)} of {len(kept)}"
        typical = float(np.exp(np.mean(np.log(means[:, i, 2]))))
        rows.append([who, f"{means[:, i, 0].mean():.1%}", within, wide, seconds(typical)])
    heads = ["contender", "mean coverage", f"within {MOST_OFF:.1%}", "width / MAPIE's", "fit"]
    cells = [
        [name, *(f"{coverage:.1%}, {width:.2f}" for coverage, width, _ in row)]
        for name, row in kept.items()
    ]
    by_set = Table("Coverage, and width in standard deviations", ["set", *names], cells)
    return [Table("90 % prediction intervals", heads, rows), by_set]


def _means(runs: Sequence[Result]) -> np.ndarray:
    kept = [[run["coverage"], run["width"], run["seconds"]] for run in runs if "seconds" in run]
    return np.mean(kept, axis=0) if kept else np.empty(0)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.intervals")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS])
    parser.add_argument("--contenders", nargs="+", choices=INTERVALS, default=[*INTERVALS])
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--rows", type=int, default=MOST_ROWS, help="the most of a set")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--into", type=Path, required=True, help="a file, new or to continue")
    args = parser.parse_args(argv)
    record = run(args.into, PART, args, {"rows": args.rows, "threads": args.threads}, fit)
    print_tables([], tables(record[PART]["results"]))


if __name__ == "__main__":
    main()
