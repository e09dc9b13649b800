"""Scripts that use scikit-learn's MLP, run in turns with scikit-learn and with this library."""

import importlib
import itertools
import os
import time
from collections.abc import Callable
from operator import itemgetter
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from bench.suite import turns
from bench.suite.contenders import OURS
from bench.suite.records import Result
from bench.suite.tables import Table, median, ratio, reasons, times

PLAIN, PEER = f"{OURS}, without numba", "scikit-learn"
MODULES = {OURS: "mlp_xp", PLAIN: "mlp_xp", PEER: "sklearn.neural_network"}
THREADS = {"default": None, "1": 1}
TERMS = (
    "Each script imports the MLP from scikit-learn or from mlp_xp and uses its default settings. "
    "Both fit in float64 from the same initial weights. Contenders take turns, each in its own "
    "process; times are medians. *times* is scikit-learn's time divided by ours, compared turn by "
    "turn, with quartiles. Above 1, mlp_xp is faster; ratios below the target are bold. *threads* "
    "is the setting of OpenBLAS, OpenMP and numba: the default (all threads) or one. First fits "
    "and grid searches start in a new process and are timed after the imports. They are too short "
    "for machine code, so they do not benefit from code that an earlier process compiled."
)
Turn = Callable[[], Any]


def sparse(library: Any, what: str, rows: int, columns: int, per_row: int) -> Turn:
    """Fit or predict rows such as TfidfVectorizer returns: few numbers, some common columns."""
    from scipy.sparse import csr_matrix

    generator = np.random.default_rng(0)
    where = (columns * generator.random((rows, per_row)) ** 3).astype(np.int32)
    numbers = generator.random(where.size)
    starts = np.arange(0, where.size + 1, per_row)
    X = csr_matrix((numbers, where.ravel(), starts), (rows, columns))
    X.sum_duplicates()
    y = generator.integers(5, size=rows)
    if what == "fit":
        model = library.MLPClassifier(max_iter=3, random_state=0)
        return lambda: model.fit(X, y).loss_
    model = library.MLPClassifier(max_iter=1, random_state=0).fit(X[:200], y[:200])

    def predict() -> None:
        for _ in range(10):
            model.predict(X)

    return predict


def fit(library: Any, data: str, seeds: int = 10, **settings: Any) -> Turn:
    """Fit a standardized scikit-learn data set with several seeds."""
    X, y = load_scaled(data)
    kind = "MLPRegressor" if y.dtype.kind == "f" else "MLPClassifier"
    models = [getattr(library, kind)(random_state=i, **settings) for i in range(seeds)]
    return lambda: float(np.mean([model.fit(X, y).loss_ for model in models]))


def load_scaled(data: str) -> tuple[np.ndarray, np.ndarray]:
    from sklearn import datasets
    from sklearn.preprocessing import scale

    X, y = getattr(datasets, f"load_{data}")(return_X_y=True)
    return scale(X), scale(y) if data == "diabetes" else y


def fit_again(library: Any, calls: int) -> Turn:
    """Fit many times with one iteration each, like scripts with their own training loop."""
    X, y = (array[:32] for array in load_scaled("digits"))

    def turn() -> float:
        model = library.MLPClassifier(max_iter=1, warm_start=True, random_state=0)
        for _ in range(calls):
            model.fit(X, y)
        return float(model.loss_)

    return turn


def first_fit(library: str, searches: str) -> float:
    """Return the seconds of a fit, or of the grid search of a package, after the imports."""
    from sklearn.datasets import load_iris

    X, y = load_iris(return_X_y=True)
    model = importlib.import_module(library).MLPClassifier(max_iter=200, random_state=0)
    if searches:
        grid = {"alpha": [1e-4, 1e-2], "hidden_layer_sizes": [(20,), (50,)]}
        search = importlib.import_module(f"{searches}.model_selection").GridSearchCV
        model = search(model, grid, n_jobs=2, cv=3)
    start = time.perf_counter()
    model.fit(X, y)
    return time.perf_counter() - start


def run_first(library: Any, search: str = "") -> Turn:
    """Time a fit in a new process; with our MLP, a search comes from the package ``search``."""
    searches = search if library.__name__ == MODULES[OURS] else search and "sklearn"

    def turn() -> turns.Seconds:
        answer = turns.call(first_fit, library.__name__, searches)
        if isinstance(answer, dict):
            raise RuntimeError(answer["cannot_run"])
        return turns.Seconds(answer)

    return turn


# By kind of case: the function that prepares it, and the target of scikit-learn's seconds / ours.
KINDS: dict[str, tuple[Callable[..., Turn], float]] = {
    "sparse": (sparse, 1.2),
    "lbfgs": (fit, 1.1),
    "early stopping": (fit, 1.3),
    "warm start": (fit_again, 1.5),
    "first fit": (run_first, 0.77),  # At most 1.3 times scikit-learn's time.
    "grid search": (run_first, 1.3),
}
# Rows, columns, and numbers per row.
_SIZES = ((3_000, 20_000, 100), (10_000, 5_000, 50), (2_000, 50_000, 200), (20_000, 1_000, 20))
# The options of each case. Its name starts with its kind.
CASES: dict[str, dict[str, Any]] = {}
for _what, (_rows, _columns, _n) in itertools.product(("fit", "predict"), _SIZES):
    _name = f"sparse, {_what} {_rows:,} x {_columns:,}, {_n} a row"
    CASES[_name] = {"what": _what, "rows": _rows, "columns": _columns, "per_row": _n}
for _data in ("iris", "wine", "breast_cancer", "digits", "diabetes"):
    CASES[f"lbfgs, {_data}"] = {"data": _data, "solver": "lbfgs"}
for _data in ("iris", "wine"):
    CASES[f"early stopping, {_data}"] = {"data": _data, "early_stopping": True}
for _calls in (200, 2_000):
    CASES[f"warm start, 32 rows, {_calls:,} fits of one iteration"] = {"calls": _calls}
_SEARCH = "grid search, iris, first time"
CASES |= {"first fit, iris": {}, _SEARCH: {"search": "sklearn"}}
CASES[f"{_SEARCH}, GridSearchCV imported from mlp_xp too"] = {"search": "mlp_xp"}
QUICK = (
    *("sparse, fit 3,000 x 20,000, 100 a row", "sparse, predict 3,000 x 20,000, 100 a row"),
    *("lbfgs, breast_cancer", "lbfgs, digits", "early stopping, iris"),
    *("warm start, 32 rows, 200 fits of one iteration", "first fit, iris", _SEARCH),
)


def kind_of(case: str) -> str:
    return case.partition(",")[0]


class Script(NamedTuple):
    """A contender and a case, with the interface of a `Measurement`."""

    case: str
    contender: str

    threads = None  # All cores are allowed; environment variables set the number of threads.
    repeats = 1

    def get_ready(self) -> Turn:
        if self.contender == PLAIN:  # This also disables cached machine code.
            os.environ["NUMBA_DISABLE_JIT"] = "1"
        library = importlib.import_module(MODULES[self.contender])
        make, _ = KINDS[kind_of(self.case)]
        return make(library, **CASES[self.case])


def comparisons(options: turns.Options) -> dict[str, tuple[str, str]]:
    """Return the chosen cases by name, each with one thread and with all threads."""
    names = options.chosen(QUICK if options.quick else CASES)
    # With one thread, ratios do not depend on how well threads work together.
    labels = ["1"] if options.quick else [*THREADS]
    return {f"{name}, threads {label}": (name, label) for name in names for label in labels}


def measure_all(options: turns.Options, announce: turns.Announce) -> Result:
    """Return the seconds of each contender's turns, by case and threads."""
    known = [OURS, PEER] if options.quick else [*MODULES]
    results: Result = {}
    for title, (name, label) in comparisons(options).items():
        kind, scripts = kind_of(name), {who: Script(name, who) for who in options.listed(known)}
        facts = {"case": name, "kind": kind, "threads": label, "wanted": KINDS[kind][1]}
        with mock.patch.dict(os.environ):
            turns.set_threads(THREADS[label])
            runs = turns.measure(scripts, options.rounds, announce)
        results[title] = facts | {"contenders": runs}
    return results


def tables(results: Result) -> list[Table]:
    """Return the table of cases: seconds of each contender, and their ratios."""
    rows, missing = [], {}
    has_plain = any(PLAIN in result["contenders"] for result in results.values())
    for result in sorted(results.values(), key=lambda result: [*CASES].index(result["case"])):
        threads = "1 thread" if result["threads"] == "1" else "default threads"
        name, runs, wanted = f"{result['case']}, {threads}", result["contenders"], result["wanted"]
        missing |= {f"{name}: {who}": reason for who, reason in reasons(runs).items()}
        own, plain, theirs = (runs.get(who, {}).get("seconds") for who in MODULES)
        rows.append([name, median(own), median(theirs), times(theirs, own, wanted), f"{wanted:g}"])
        rows[-1] += [median(plain), times(theirs, plain, wanted)] if has_plain else []
    columns = ["script", "mlp_xp", PEER, "times", "target"]
    columns += ["without numba", "times"] if has_plain else []
    return [Table(PART.title, columns, rows, missing, terms=TERMS)]


def summary(results: Result) -> Table:
    """Return the table of kinds: range of ratios, target, and number below the target."""
    rows = []
    for kind, group in itertools.groupby(results.values(), key=itemgetter("kind")):
        runs = [(result["contenders"], result["wanted"]) for result in group]
        got = [ratio(each[PEER]["seconds"], each[OURS]["seconds"]).median for each, _ in runs]
        wanted = runs[0][1]
        below = f"{sum(one < wanted for one in got)} of {len(got)}"
        rows.append([kind, f"{min(got):.2f} to {max(got):.2f}", f"{wanted:g}", below])
    columns = ["scripts", "speedup over scikit-learn", "target", "below target"]
    return Table(PART.title, columns, rows)


PART = turns.Part("As a drop-in for scikit-learn", measure_all, tables)
