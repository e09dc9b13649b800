"""Time searches over many small networks: scikit-learn's, and ours, in turns.

    python bench/searches.py
    python bench/searches.py --only digits iris --out bench/history/2026-01-02-search.json
    python bench/searches.py --page bench/history/2026-01-02-search.json

Each turn is a process of its own, with a small search to warm up.
`mlp-xp bench --only search` runs this part of the suite. ``--out`` adds to an existing file.
``--page`` measures nothing: it writes the table of such a file into docs/many-models.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from environment import environment
from progress import open_progress
from report import replace_block, seconds, table
from search_costs import costs, costs_section
from spread import ratio, spread
from turns import Announce, Result, peak_bytes

__all__ = ["CASES", "OURS", "measure_search", "search_section", "search_turns"]

PAGE = Path(__file__).parents[1] / "docs" / "many-models.md"
TERMS = (
    "Contenders search the same grid in turns, each time in a new process, after a search of one "
    "setting that starts threads and worker processes; on JAX without it, so that compilation is "
    "timed, but not the import. *times* is a contender's time divided by "
    "that of `mlp_xp.model_selection`, turn by turn, with quartiles; bold is below the target. "
    "*memory* is what the search adds to the peak of the process, without worker processes."
)
OURS = "mlp_xp.model_selection"
THEIRS = "scikit-learn's search over its MLP, n_jobs=2"
MIXED = "scikit-learn's search over ours, n_jobs=2"
ALONE = "scikit-learn's search over ours, one by one"


class Case(NamedTuple):
    """A grid over a network: its data, and the least ratio to each other contender."""

    title: str
    data: Callable[[], tuple[np.ndarray, np.ndarray]]
    network: dict[str, Any]
    grid: dict[str, list[Any]]
    cv: int
    wanted: dict[str, float]
    backend: str | None = None
    warms_up: bool = True

    def model(self, module: Any) -> Any:
        """Return the network of a module, with the library of its backend imported."""
        settings = self.network
        if self.backend is not None:
            import mlp_xp

            settings = settings | {"backend": mlp_xp.get_backend(self.backend).name}
        return module.MLPClassifier(**settings)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's digits, standardized."""
    from sklearn.datasets import load_digits
    from sklearn.preprocessing import scale

    X, y = load_digits(return_X_y=True)
    return scale(X), y


def iris() -> tuple[np.ndarray, np.ndarray]:
    """Return iris, standardized."""
    from sklearn.datasets import load_iris
    from sklearn.preprocessing import scale

    X, y = load_iris(return_X_y=True)
    return scale(X), y


def digits_in_float32() -> tuple[np.ndarray, np.ndarray]:
    """Return them in float32, which all contenders then compute in."""
    X, y = digits()
    return X.astype(np.float32), y


def images() -> tuple[np.ndarray, np.ndarray]:
    """Return random images of CIFAR-10's shape."""
    generator = np.random.default_rng(0)
    return generator.random((2_048, 3_072), dtype=np.float32), generator.integers(10, size=2_048)


_DIGITS = {"hidden_layer_sizes": (100,), "batch_size": 32, "max_iter": 20, "random_state": 0}
_SETTINGS = {
    "learning_rate_init": [0.0003, 0.001, 0.003, 0.01, 0.03],
    "alpha": [1e-5, 1e-4, 1e-2, 1.0],
}
CASES = {
    "digits": Case(
        "digits, 64-100-10, 20 settings x 5 folds",
        digits,
        _DIGITS,
        _SETTINGS,
        5,
        {THEIRS: 8.0, MIXED: 1.6},
    ),
    "digits32": Case(
        "the same data in float32",
        digits_in_float32,
        _DIGITS,
        _SETTINGS,
        5,
        {THEIRS: 8.0, MIXED: 1.6},
    ),
    "jax": Case(
        "digits on JAX, compilation included",
        digits,
        _DIGITS,
        _SETTINGS,
        5,
        {ALONE: 4.0},
        backend="jax",
        warms_up=False,
    ),
    "iris": Case(
        "iris, 10 settings x 5 folds, early stopping",
        iris,
        {"early_stopping": True, "random_state": 0},
        {"learning_rate_init": [0.001, 0.003, 0.01, 0.03, 0.1], "alpha": [1e-4, 1e-2]},
        5,
        {THEIRS: 5.0},
    ),
    "wide": Case(
        "3072-512-512-10, 8 settings x 2 folds",
        images,
        {"hidden_layer_sizes": (512, 512), "batch_size": 128, "max_iter": 3, "random_state": 0},
        {"learning_rate_init": [0.0003, 0.001], "alpha": [1e-5, 1e-4, 1e-3, 1e-2]},
        2,
        {ALONE: 1.0},
    ),
}


def run(case: Case, contender: str) -> Result:
    """Return the seconds of one search, the memory that it added, and its best score."""
    warnings.simplefilter("ignore")
    os.environ["PYTHONWARNINGS"] = "ignore"  # Of worker processes.
    import sklearn.model_selection
    import sklearn.neural_network

    import mlp_xp
    import mlp_xp.model_selection

    module = sklearn.neural_network if contender == THEIRS else mlp_xp
    searches = mlp_xp.model_selection if contender == OURS else sklearn.model_selection
    model = case.model(module)  # What is compiled is timed.
    X, y = case.data()
    settings = {"cv": case.cv, "n_jobs": 2 if contender in (THEIRS, MIXED) else None}
    if case.warms_up:
        few = {name: values[:1] for name, values in case.grid.items()}
        searches.GridSearchCV(model, few, refit=False, **settings).fit(X, y)
    memory = peak_bytes() or 0
    search = searches.GridSearchCV(model, case.grid, refit=False, **settings)
    start = time.perf_counter()
    search.fit(X, y)
    return {
        "seconds": time.perf_counter() - start,
        "bytes": (peak_bytes() or 0) - memory,
        "score": float(search.cv_results_["mean_test_score"].max()),
    }


def search_turns(rounds: int, chosen: list[str] | None = None) -> int:
    """Return the number of turns of `measure_search`."""
    return sum(1 + rounds * (1 + len(CASES[name].wanted)) for name in chosen or CASES)


def measure_search(rounds: int, announce: Announce, chosen: list[str] | None = None) -> Result:
    """Return seconds, memory and scores of each contender's turns, by case, or why it failed."""
    results: Result = {}
    for name in chosen or CASES:
        case = CASES[name]
        contenders = [OURS, *case.wanted]
        turns: dict[str, list[Result]] = {who: [] for who in contenders}
        failed: dict[str, Result] = {}
        for number in range(rounds):
            for who in contenders:
                if who in failed:
                    continue
                announce(f"{name}, {who}, round {number + 1} of {rounds}")
                result = _in_a_process("--run", name, who)
                if "cannot_run" in result:
                    failed[who] = result
                else:
                    turns[who].append(result)
        if OURS not in failed:
            announce(f"{name}, what it takes its time for")
        results[name] = {
            "title": case.title,
            "wanted": case.wanted,
            "contenders": {
                who: failed.get(who) or {field: [turn[field] for turn in own] for field in own[0]}
                for who, own in turns.items()
            },
            "costs": failed.get(OURS) or _in_a_process("--costs", name),
        }
    return results


def _in_a_process(*arguments: str) -> Result:
    """Return what this script prints: workers of an earlier turn must not run beside it."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        return {"cannot_run": (last or [f"status {done.returncode}"])[0][:300]}
    result: Result = json.loads(done.stdout)
    return result


def search_section(results: Result) -> str:
    """Return the terms of the comparison and its table."""
    rows = []
    for result in results.values():
        ours = result["contenders"][OURS]
        for who, run_ in result["contenders"].items():
            if "cannot_run" in run_:
                rows.append([result["title"], who, "cannot run here", "", "", run_["cannot_run"]])
                continue
            cells = ["", ""]
            if who != OURS and "seconds" in ours:
                got, wanted = ratio(run_["seconds"], ours["seconds"]), result["wanted"][who]
                times = f"{got.median:.2f} ({got.low:.2f} to {got.high:.2f})"
                cells = [f"{wanted:g}", times if got.median >= wanted else f"**{times}**"]
            memory = f"{spread(run_['bytes']).median / 2**20:.0f} MiB"
            rows.append(
                [result["title"], who, seconds(spread(run_["seconds"]).median), memory, *cells]
            )
    names = ["search", "contender", "time", "memory", "target", "times"]
    return "\n\n".join([TERMS, table(names, "llrrrr", rows).rstrip(), costs_section(results)])


def written_into(page: str, record: Result) -> str:
    """Return the page with the table of a record, and its machine, in the block of this part."""
    facts = record["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    machine = f"{facts['date']}; {facts['cpu']}, {facts['cpus']} CPUs; Python {facts['python']}"
    known = {name: record["search"][name] for name in CASES if name in record["search"]}
    return replace_block(
        page, "search", f"{search_section(known)}\n\nMeasured on {machine}, {versions}.\n"
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--only", nargs="+", choices=list(CASES), metavar="CASE", help=", ".join(CASES))
    add("--rounds", type=int, default=5, help="turns of each contender (%(default)s)")
    add("--out", type=Path, metavar="FILE", help="JSON file to write to, or to add to")
    add("--page", type=Path, metavar="FILE", help=f"write the table of this file to {PAGE.name}")
    add("--costs", choices=list(CASES), metavar="CASE", help="where its time goes, as JSON")
    add("--run", nargs=2, metavar=("CASE", "CONTENDER"), help="one turn, printed as JSON")
    args = parser.parse_args(argv)
    if args.run is not None:
        print(json.dumps(run(CASES[args.run[0]], args.run[1])))
        return
    if args.costs is not None:
        print(json.dumps(costs(CASES[args.costs])))
        return
    if args.page is not None:
        record = json.loads(args.page.read_text())
        PAGE.write_text(written_into(PAGE.read_text(encoding="utf-8"), record), encoding="utf-8")
        return
    with open_progress({"search": search_turns(args.rounds, args.only)}) as progress:
        progress.begin("search")
        results = measure_search(args.rounds, progress.announce, args.only)
    if args.out is not None:
        before = json.loads(args.out.read_text())["search"] if args.out.exists() else {}
        record = {"environment": environment(), "search": before | results}
        args.out.write_text(json.dumps(record, indent=1) + "\n")
    print(search_section(results))


if __name__ == "__main__":
    main()
