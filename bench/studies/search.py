"""Searches over many small networks, with scikit-learn's classes and with ours, in turns."""

import time
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bench.studies.drop_in import load_scaled
from bench.suite.records import Result
from bench.suite.tables import Table, contender_table, median, spread, times
from bench.suite.turns import Announce, Options, Part, call, in_turns, peak_bytes

TERMS = (
    "Contenders run the same grid search in turns, each turn in a new process. A search over one "
    "setting first starts threads and worker processes. On JAX, this first search is left out, so "
    "the compilation is timed, but not the import. *times* is a contender's time divided by the "
    "time of `mlp_xp.model_selection`, compared turn by turn, with quartiles; ratios below the "
    "target are bold. *memory* is the increase of the process's peak memory during the search, "
    "without worker processes."
)
OURS = "mlp_xp.model_selection"
THEIRS = "scikit-learn's search over its MLP, n_jobs=2"
MIXED = "scikit-learn's search over ours, n_jobs=2"
ALONE = "scikit-learn's search over ours, one by one"


class Case(NamedTuple):
    """A grid search over a network: its data, and the minimum ratio to each other contender."""

    title: str
    data: str  # A data set of scikit-learn, or "images".
    network: dict[str, Any]
    grid: dict[str, list[Any]]
    cv: int
    wanted: dict[str, float]
    dtype: str = "float64"
    backend: str | None = None  # JAX is timed including compilation, without a warm-up.


_ON_DIGITS = Case(
    *("digits, 64-100-10, 20 settings x 5 folds", "digits"),
    {"hidden_layer_sizes": (100,), "batch_size": 32, "max_iter": 20, "random_state": 0},
    {"learning_rate_init": [0.0003, 0.001, 0.003, 0.01, 0.03], "alpha": [1e-5, 1e-4, 1e-2, 1.0]},
    *(5, {THEIRS: 8.0, MIXED: 1.6}),
)
_ON_JAX = {"title": "digits on JAX, compilation included", "wanted": {ALONE: 4.0}, "backend": "jax"}
CASES = {
    "digits": _ON_DIGITS,
    "digits32": _ON_DIGITS._replace(title="the same data in float32", dtype="float32"),
    "jax": _ON_DIGITS._replace(**_ON_JAX),
    "iris": Case(
        *("iris, 10 settings x 5 folds, early stopping", "iris"),
        {"early_stopping": True, "random_state": 0},
        {"learning_rate_init": [0.001, 0.003, 0.01, 0.03, 0.1], "alpha": [1e-4, 1e-2]},
        *(5, {THEIRS: 5.0}),
    ),
    "wide": Case(
        *("3072-512-512-10, 8 settings x 2 folds", "images"),
        {"hidden_layer_sizes": (512, 512), "batch_size": 128, "max_iter": 3, "random_state": 0},
        {"learning_rate_init": [0.0003, 0.001], "alpha": [1e-5, 1e-4, 1e-3, 1e-2]},
        *(2, {ALONE: 1.0}, "float32"),
    ),
}


def load(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return a standardized data set, or random images with the shape of CIFAR-10."""
    if case.data == "images":
        generator = np.random.default_rng(0)
        x = generator.random((2_048, 3_072), dtype=np.float32)
        return x, generator.integers(10, size=len(x))
    X, y = load_scaled(case.data)
    return X.astype(case.dtype), y


def run(name: str, contender: str) -> Result:
    """Return the time of a search, its additional memory, and its best score."""
    import sklearn.model_selection
    import sklearn.neural_network

    import mlp_xp
    import mlp_xp.model_selection

    case, n_jobs = CASES[name], 2 if contender in (THEIRS, MIXED) else None
    module = sklearn.neural_network if contender == THEIRS else mlp_xp
    searches = mlp_xp.model_selection if contender == OURS else sklearn.model_selection
    own = {"backend": mlp_xp.get_backend(case.backend).name} if case.backend else {}
    model = module.MLPClassifier(**case.network, **own)  # Import the library before timing.
    X, y = load(case)
    prepare = partial(searches.GridSearchCV, model, cv=case.cv, n_jobs=n_jobs, refit=False)
    if not case.backend:
        prepare({name: values[:1] for name, values in case.grid.items()}).fit(X, y)
    memory, search = peak_bytes() or 0, prepare(case.grid)
    start = time.perf_counter()
    search.fit(X, y)
    return {
        "seconds": time.perf_counter() - start,
        "bytes": (peak_bytes() or 0) - memory,
        "score": float(search.cv_results_["mean_test_score"].max()),
    }


def measure(options: Options, announce: Announce) -> Result:
    """Return times, memory and scores of each contender's turns by case, or why it failed."""
    results: Result = {}
    for name in options.chosen(CASES):
        title, wanted = CASES[name].title, CASES[name].wanted
        # Use a new process, so that workers of earlier turns are not running.
        turns = {who: partial(call, run, name, who) for who in (OURS, *wanted)}
        found = in_turns(turns, options.rounds, announce)
        for who, own in found.items():
            if isinstance(own, list):
                found[who] = {key: [turn[key] for turn in own] for key in own[0]}
        results[name] = {"title": title, "wanted": wanted, "contenders": found}
    return results


def tables(results: Result) -> list[Table]:
    found: list[Table] = []
    for result in results.values():
        ours, wanted = result["contenders"][OURS].get("seconds"), result["wanted"]

        def cells(who: str, run: Result, ours: Any = ours, wanted: Any = wanted) -> list[str]:
            least = wanted.get(who)
            ratios = [times(run["seconds"], ours, least), f"{least:g}"] if least else ["", ""]
            memory = f"{spread(run['bytes']).median / 2**20:.0f} MiB"
            return [median(run["seconds"]), *ratios, memory]

        columns = ["contender", "time", "times", "target", "memory"]
        runs, terms = result["contenders"], "" if found else TERMS
        found.append(contender_table(result["title"], columns, runs, cells, terms=terms))
    return found


PART = Part("Searches", measure, tables)
