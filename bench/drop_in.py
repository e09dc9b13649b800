"""Time scripts that use scikit-learn's MLP, with its import and with ours, in turns.

    python bench/drop_in.py
    python bench/drop_in.py --only lbfgs "sparse, fit" --threads 1 --rounds 5
    python bench/drop_in.py --out bench/history/2026-01-02-drop-in.json
    python bench/drop_in.py --page bench/history/2026-01-02-drop-in.json

Each case is one call of a script, with the defaults of both libraries. Each contender has its own
process, once with the library's default threads and once with one. `mlp-xp bench --only drop-in`
runs this part of the suite. ``--out`` adds to an existing file, so that cases can be measured one
by one. ``--page`` measures nothing: it writes the table of such a file into docs/performance.md.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from contenders import OURS
from environment import environment
from progress import open_progress
from report import replace_block, seconds, table
from spread import ratio, spread
from turns import POOLS, Announce, Result, Seconds, measure, say

__all__ = [
    "CASES",
    "PEER",
    "PLAIN",
    "WANTED",
    "comparisons",
    "drop_in_section",
    "drop_in_turns",
    "measure_drop_in",
    "quick_names",
]

PLAIN, PEER = f"{OURS}, without numba", "scikit-learn"
MODULES = {OURS: "mlp_xp", PLAIN: "mlp_xp", PEER: "sklearn.neural_network"}
THREADS = {"default": None, "1": 1}
# With one thread a ratio is of the code alone; with more, of how threads get in each other's way.
_QUICK_THREADS = "1"
# Target ratio of scikit-learn's seconds to ours, by kind of case.
WANTED = {
    "sparse": 1.2,
    "lbfgs": 1.1,
    "early stopping": 1.3,
    "warm start": 1.5,
    "first fit": 0.77,  # At most 1.3 times its seconds.
    "grid search": 1.3,
}
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
TERMS = (
    "Each script runs with scikit-learn's import and with ours, with the defaults of both: a fit "
    "in float64 from the same initial weights. Contenders take turns, each in its own process; "
    "times are medians. *times* is scikit-learn's time divided by ours, turn by turn, with "
    "quartiles: above 1, mlp_xp is faster; bold is below the target. *threads* is the setting of "
    "OpenBLAS, OpenMP and numba: the default, all of them, or one. First fits and grid searches "
    "start in a fresh process and are timed after the imports; they are too short for machine "
    "code, so nothing compiled by an earlier process counts."
)
Turn = Callable[[], Any]


def fit_sparse(library: Any, rows: int, columns: int, per_row: int) -> Turn:
    X, y = sparse_rows(rows, columns, per_row)
    model = library.MLPClassifier(max_iter=3, random_state=0)
    return lambda: model.fit(X, y).loss_


def predict_sparse(library: Any, rows: int, columns: int, per_row: int) -> Turn:
    X, y = sparse_rows(rows, columns, per_row)
    model = library.MLPClassifier(max_iter=1, random_state=0).fit(X[:200], y[:200])

    def turn() -> None:
        for _ in range(10):
            model.predict(X)

    return turn


def sparse_rows(rows: int, columns: int, per_row: int) -> tuple[Any, np.ndarray]:
    """Draw rows like those of TfidfVectorizer: few numbers each, common columns more often."""
    from scipy import sparse

    generator = np.random.default_rng(0)
    where = (columns * generator.random((rows, per_row)) ** 3).astype(np.int32)
    numbers = generator.random(where.size)
    starts = np.arange(0, where.size + 1, per_row)
    X = sparse.csr_matrix((numbers, where.ravel(), starts), (rows, columns))
    X.sum_duplicates()
    return X, generator.integers(5, size=rows)


def fit(library: Any, data: str, seeds: int = 3, **settings: Any) -> Turn:
    """Fit to one of scikit-learn's data sets, standardized, from several seeds."""
    X, y = load(data)
    kind = "MLPRegressor" if y.dtype.kind == "f" else "MLPClassifier"
    models = [getattr(library, kind)(random_state=i, **settings) for i in range(seeds)]
    return lambda: float(np.mean([model.fit(X, y).loss_ for model in models]))


def load(data: str) -> tuple[np.ndarray, np.ndarray]:
    from sklearn import datasets
    from sklearn.preprocessing import scale

    X, y = getattr(datasets, f"load_{data}")(return_X_y=True)
    return scale(X), scale(y) if data == "diabetes" else y


def fit_again(library: Any, calls: int) -> Turn:
    """Fit many times with one iteration each, as scripts with their own epoch loop do."""
    X, y = load("digits")
    X, y = X[:32], y[:32]

    def turn() -> float:
        model = library.MLPClassifier(max_iter=1, warm_start=True, random_state=0)
        for _ in range(calls):
            model.fit(X, y)
        return float(model.loss_)

    return turn


FIRST_FIT = """
import time
from sklearn.datasets import load_iris
from {module} import MLPClassifier
X, y = load_iris(return_X_y=True)
model = MLPClassifier(max_iter=200, random_state=0)
start = time.perf_counter()
model.fit(X, y)
print(time.perf_counter() - start)
"""
SEARCH = """
import time
from sklearn.datasets import load_iris
from {search} import GridSearchCV
from {module} import MLPClassifier
X, y = load_iris(return_X_y=True)
grid = {{"alpha": [1e-4, 1e-2], "hidden_layer_sizes": [(20,), (50,)]}}
search = GridSearchCV(MLPClassifier(max_iter=200, random_state=0), grid, n_jobs=2, cv=3)
start = time.perf_counter()
search.fit(X, y)
print(time.perf_counter() - start)
"""


def run_first(library: Any, script: str, *, has_own_search: bool = False) -> Turn:
    """Run a script in a fresh process, which prints its seconds."""
    is_ours = has_own_search and library.__name__ == MODULES[OURS]
    search = "mlp_xp.model_selection" if is_ours else "sklearn.model_selection"

    def turn() -> Seconds:
        paths = [path for path in sys.path if path]
        done = subprocess.run(
            [sys.executable, "-c", script.format(module=library.__name__, search=search)],
            env={
                **os.environ,
                "PYTHONWARNINGS": "ignore",
                "PYTHONPATH": os.pathsep.join(paths),
            },
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return Seconds(done.stdout)

    return turn


class Case(NamedTuple):
    """A timed call: its kind, its function and their options."""

    kind: str
    make: Callable[..., Turn]
    options: dict[str, Any]
    quick: bool = False  # Whether it is part of a quick run.


_SPARSE = {
    f"{rows:,} x {columns:,}, {per_row} a row": (rows, columns, per_row)
    for rows, columns, per_row in (
        (3_000, 20_000, 100),
        (10_000, 5_000, 50),
        (2_000, 50_000, 200),
        (20_000, 1_000, 20),
    )
}
_NAMES = ("rows", "columns", "per_row")
_QUICK_DATA = ("breast_cancer", "digits")
CASES = {
    **{
        f"sparse, {what} {name}": Case(
            "sparse", make, dict(zip(_NAMES, shape, strict=True)), shape[0] == 3_000
        )
        for what, make in (("fit", fit_sparse), ("predict", predict_sparse))
        for name, shape in _SPARSE.items()
    },
    **{
        f"lbfgs, {data}": Case(
            "lbfgs", fit, {"data": data, "solver": "lbfgs", "seeds": 10}, data in _QUICK_DATA
        )
        for data in ("iris", "wine", "breast_cancer", "digits", "diabetes")
    },
    **{
        f"early stopping, {data}": Case(
            "early stopping",
            fit,
            {"data": data, "early_stopping": True, "seeds": 10},
            data == "iris",
        )
        for data in ("iris", "wine")
    },
    **{
        f"warm start, 32 rows, {calls:,} fits of one iteration": Case(
            "warm start", fit_again, {"calls": calls}, quick=calls < 2_000
        )
        for calls in (200, 2_000)
    },
    "first fit, iris": Case("first fit", run_first, {"script": FIRST_FIT}, quick=True),
    "grid search, iris, first time": Case("grid search", run_first, {"script": SEARCH}, quick=True),
    "grid search, iris, first time, GridSearchCV imported from mlp_xp too": Case(
        "grid search", run_first, {"script": SEARCH, "has_own_search": True}
    ),
}


class Job(NamedTuple):
    """A contender at a case, in the form `turns` expects."""

    case: Case
    contender: str

    threads = None  # All processors are allowed; environment variables set the number.
    repeats = 1

    def get_ready(self) -> Turn:
        warnings.simplefilter("ignore")
        if self.contender == PLAIN:  # As for a missing numba: nor does kept machine code run.
            os.environ["NUMBA_DISABLE_JIT"] = "1"
        library = importlib.import_module(MODULES[self.contender])
        return self.case.make(library, **self.case.options)


class Comparison(NamedTuple):
    """A case, a setting of the threads, and who takes part."""

    case: str
    threads: str
    contenders: list[str]


def comparisons(
    beginnings: list[str] | None = None,
    threads: list[str] | None = None,
    contenders: list[str] | None = None,
    *,
    quick: bool = False,
) -> list[Comparison]:
    """Return what `measure_drop_in` measures: all cases, or those whose names begin so."""
    names = [
        name
        for name, case in CASES.items()
        if name.startswith(tuple(beginnings or WANTED)) and (case.quick or not quick)
    ]
    labels = threads or ([_QUICK_THREADS] if quick else [*THREADS])
    who = contenders or ([OURS, PEER] if quick else [*MODULES])
    return [Comparison(name, label, who) for name in names for label in labels]


def drop_in_turns(chosen: list[Comparison], rounds: int) -> int:
    """Return the number of turns of `measure_drop_in`."""
    return sum(len(comparison.contenders) for comparison in chosen) * (rounds + 1)


def measure_drop_in(
    chosen: list[Comparison], rounds: int, announce: Announce = say
) -> dict[str, Result]:
    """Return the seconds of each contender's turns, by case and threads."""
    results: dict[str, Result] = {}
    for name, label, contenders in chosen:
        case = CASES[name]
        with pools(THREADS[label]):
            measured = measure({who: Job(case, who) for who in contenders}, rounds, announce)
        results[f"{name}, threads {label}"] = {
            "case": name,
            "kind": case.kind,
            "threads": label,
            "wanted": WANTED[case.kind],
            "contenders": measured,
        }
    return results


@contextmanager
def pools(threads: int | None) -> Iterator[None]:
    """Set the threads of libraries in new processes; None leaves them the default."""
    before = dict(os.environ)
    for pool in POOLS:
        os.environ.pop(f"{pool}_NUM_THREADS", None)
        if threads is not None:
            os.environ[f"{pool}_NUM_THREADS"] = str(threads)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def quick_names() -> list[str]:
    """Return the names of what a quick run measures."""
    return [f"{name}, threads {_QUICK_THREADS}" for name, case in CASES.items() if case.quick]


def drop_in_section(results: dict[str, Result]) -> str:
    """Return the terms of the comparison and its table."""
    return f"{TERMS}\n\n{drop_in_table(results)}"


def drop_in_table(results: dict[str, Result]) -> str:
    """Return the table of cases: seconds of each contender, and their ratios."""
    rows = []
    for result in results.values():
        runs = result["contenders"]
        theirs = runs.get(PEER, {}).get("seconds")
        cells = [seconds(spread(theirs).median) if theirs else ""]
        for who in (OURS, PLAIN):
            own = runs.get(who, {"cannot_run": ""})
            if "cannot_run" in own:
                cells += [own["cannot_run"] and "cannot run here", ""]
                continue
            cells.append(seconds(spread(own["seconds"]).median))
            if theirs:
                got = ratio(theirs, own["seconds"])
                times = f"{got.median:.2f} ({got.low:.2f} to {got.high:.2f})"
                cells.append(times if got.median >= result["wanted"] else f"**{times}**")
            else:
                cells.append("")
        rows.append([result["case"], result["threads"], f"{result['wanted']:g}", *cells])
    names = ["case", "threads", "target", PEER, "mlp_xp", "times", "without numba", "times"]
    return table(names, "llrrrrrr", rows)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--only", nargs="+", metavar="CASE", help=f"beginnings of names: {', '.join(WANTED)}")
    add("--threads", nargs="+", choices=list(THREADS), help="of each contender (both)")
    add("--contenders", nargs="+", choices=list(MODULES), metavar="NAME", help="; ".join(MODULES))
    add("--rounds", type=int, default=5, help="turns of each contender (%(default)s)")
    add("--quick", action="store_true", help="one case each of what a quick run watches")
    add("--out", type=Path, metavar="FILE", help="JSON file to write to, or to add to")
    add("--page", type=Path, metavar="FILE", help=f"write the table of this file to {PAGE.name}")
    args = parser.parse_args(argv)
    # With it, a checkout is compiled again at every import.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if args.page is not None:
        record = json.loads(args.page.read_text())
        PAGE.write_text(written_into(PAGE.read_text(encoding="utf-8"), record), encoding="utf-8")
        return
    start = time.perf_counter()
    chosen = comparisons(args.only, args.threads, args.contenders, quick=args.quick)
    if not chosen:
        parser.error(f"no case begins with --only: there are {'; '.join(CASES)}")
    with open_progress({"drop-in": drop_in_turns(chosen, args.rounds)}) as progress:
        progress.begin("drop-in")
        results = measure_drop_in(chosen, args.rounds, progress.announce)
    if args.out is not None:
        before = json.loads(args.out.read_text())["drop_in"] if args.out.exists() else {}
        record = {"environment": environment(), "drop_in": before | results}
        args.out.write_text(json.dumps(record, indent=1) + "\n")
    print(drop_in_table(results))
    say(f"{time.perf_counter() - start:.0f} s")


def written_into(page: str, record: Result) -> str:
    """Return the page with the table of a record, and its machine, in the block of this part."""
    facts = record["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    machine = f"{facts['date']}; {facts['cpu']}, {facts['cpus']} CPUs; Python {facts['python']}"
    order = [f"{name}, threads {label}" for name in CASES for label in THREADS]
    known = {name: record["drop_in"][name] for name in order if name in record["drop_in"]}
    text = f"{drop_in_section(known)}\n\nMeasured on {machine}, {versions}.\n"
    return replace_block(page, "drop-in", text)


if __name__ == "__main__":
    main()
