"""A training step with each setting of this library on NumPy, beside a jitted step in JAX.

Both sides take the same settings of an estimator, start from the same weights, and must compute the
same losses. Each has one process for a workload, which trains all networks of its rows in turns.
"""

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from bench.studies.setting_rows import (
    DEFAULT,
    EVERYTHING,
    PAIRS,
    QUICK,
    WORKLOADS,
    Workload,
    most,
    rows_of,
    settings_of,
)
from bench.suite.contenders import OURS
from bench.suite.records import Result
from bench.suite.tables import (
    NOT_COMPARED,
    Spread,
    Table,
    count,
    median,
    ratio,
    ratio_text,
    reasons,
    spread,
)
from bench.suite.turns import PAUSE, SLOW, SPAWN, Announce, Options, Part, failure, in_turns

PEER = "JAX"
LEAST, MEDIAN = 1.0, 1.3  # The least time of JAX divided by ours: of each row, of the median row.
TOLERANCE = 1e-3  # The largest relative difference of the losses of the first steps.
STEPS_COMPARED = 5
FEW = 2  # The epochs of a short run: a fit of one epoch may skip what others take.
LONG, SHORT = 0.1, 0.05  # The seconds that a turn measures at least, and in a quick run.


# --- one side, in its own process ----------------------------------------------------------------


@cache
def data_of(workload: Workload, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return random inputs and targets: "numbers", "labels" or "bits"."""
    rng = np.random.default_rng(0)
    n, outputs = workload.batch_size * workload.steps, workload.widths[-1]
    x = rng.standard_normal((n, workload.widths[0]), dtype=np.float32)
    targets = {
        "numbers": lambda: rng.exponential(size=n).astype(np.float32),
        "labels": lambda: (np.arange(n) % outputs).astype(np.int32),
        "bits": lambda: rng.integers(2, size=(n, outputs)),
    }
    return x, targets[kind]()


def kind_of(workload: Workload, name: str) -> str:
    """Return the kind of a row's targets."""
    kind = "bits" if name.startswith("binary") else "labels"
    return "numbers" if workload.is_regression else kind


class Ours:
    """An estimator in training, with the interface of `jax_settings.Training`."""

    def __init__(self, workload: Workload, name: str) -> None:
        import mlp_xp

        kind = mlp_xp.MLPRegressor if workload.is_regression else mlp_xp.MLPClassifier
        own = {"alpha": 0.0} | settings_of(workload, name)
        common = {"random_state": 0, "n_iter_no_change": np.inf, "backend": "numpy"}
        self._make = partial(kind, hidden_layer_sizes=workload.widths[1:-1], **common)
        self._settings, self._batch = own, workload.batch_size
        self._x, self._y = data_of(workload, kind_of(workload, name))
        self._model = self._make(**own, warm_start=True)

    def train(self, epochs: int) -> None:
        """Train for more epochs in one fit."""
        self._model.set_params(max_iter=epochs).fit(self._x, self._y)

    def losses(self, steps: int) -> list[float]:
        """Return the losses of a new model's steps that all train on the first batch."""
        model = self._make(**self._settings, max_iter=steps, shuffle=False)
        found = model.fit(self._x[: self._batch], self._y[: self._batch]).loss_curve_
        # The reported loss is a mean over the quantiles.
        n = len(getattr(self._settings["loss"], "levels", ())) or 1
        return [n * float(loss) for loss in found]

    def weights(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return initial weights: a step with such a small learning rate does not change them."""
        kept = {key: self._settings[key] for key in ("activation", "loss") if key in self._settings}
        model = self._make(**kept, max_iter=1, learning_rate_init=1e-30)
        model.fit(self._x[: self._batch], self._y[: self._batch])
        return list(zip(model.coefs_, model.intercepts_, strict=True))


_trainings: dict[str, Any] = {}  # The rows of this process.
_epochs: dict[str, int] = {}


def start_process(threads: int) -> None:
    from mlp_xp.backends._numpy import backend

    backend._LONG = 0  # Short runs use machine code, too.
    if hasattr(os, "sched_setaffinity"):  # XLA starts one thread for each usable CPU.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    warnings.simplefilter("ignore")
    warnings.filterwarnings("error", SLOW, RuntimeWarning)


def prepare(who: str, workload: Workload, name: str, weights: Any, least: float) -> Result:
    """Compile and warm up a row; return the losses of its first steps, and initial weights."""
    found: Result = {}
    if who == OURS:
        training: Any = Ours(workload, name)
        found["weights"] = training.weights()
    else:
        from bench.peers.jax_settings import Training

        data = data_of(workload, kind_of(workload, name))
        training = Training(settings_of(workload, name), weights, *data)
    found["losses"] = training.losses(STEPS_COMPARED)
    training.train(workload.warm_up)
    short, n = _least_seconds(training, FEW), 1
    while _least_seconds(training, FEW + n) - short < least:  # What any fit takes does not count.
        n *= 2
    _epochs[name] = n
    _trainings[name] = training
    return found


def _least_seconds(training: Any, epochs: int) -> float:
    """Return the least of three times, since one that another program delays says nothing."""
    return min(_seconds(training, epochs) for _ in range(3))


def _seconds(training: Any, epochs: int) -> float:
    start = time.perf_counter()
    training.train(epochs)
    return time.perf_counter() - start


def step_seconds(workload: Workload, name: str) -> float:
    """Return the seconds of a step: of a long run less a short one, for what a fit takes anyway."""
    taken = [_seconds(_trainings[name], epochs) for epochs in (FEW, FEW + _epochs[name])]
    return (taken[1] - taken[0]) / (_epochs[name] * workload.steps)


# --- both sides in turns -------------------------------------------------------------------------


@contextlib.contextmanager
def both_sides(threads: int) -> Iterator[dict[str, Executor]]:
    """Yield a process for each side; only one of them computes at a time."""
    with contextlib.ExitStack() as stack:
        own = {"mp_context": SPAWN, "initializer": start_process, "initargs": (threads,)}
        yield {who: stack.enter_context(ProcessPoolExecutor(1, **own)) for who in (OURS, PEER)}


def ask(process: Executor, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a function in a process, or why there is none."""
    time.sleep(PAUSE)
    try:
        return process.submit(function, *arguments).result()
    except Exception as error:  # The row may fail in any way, which the table shows.
        return failure(error)


def measure(options: Options, announce: Announce) -> Result:
    """Return the seconds of a step of each row by workload, one number for each round."""
    results: Result = {}
    for title, workload in WORKLOADS.items():
        known = [name for name in rows_of(workload) if not options.quick or name in QUICK]
        chosen = {
            text.partition(", ")[2] for text in options.chosen(f"{title}, {k}" for k in known)
        }
        if not chosen:
            continue
        names = [name for name in known if name in chosen or name == DEFAULT]
        least = SHORT if options.quick else LONG
        with both_sides(options.threads) as sides:
            results[title] = _measure(title, workload, names, sides, least, options, announce)
    return results


def _measure(
    title: str,
    workload: Workload,
    names: list[str],
    sides: dict[str, Executor],
    least: float,
    options: Options,
    announce: Announce,
) -> Result:
    rows, turns = {}, {}
    for name in names:
        announce(f"{title}, {name}, compiling")
        ours = ask(sides[OURS], prepare, OURS, workload, name, None, least)
        peer = ours  # If ours fails, there are no weights to start from.
        if "cannot_run" not in ours:
            peer = ask(sides[PEER], prepare, PEER, workload, name, ours.pop("weights"), least)
        rows[name] = {"contenders": {OURS: ours, PEER: peer}}
        for who, found in rows[name]["contenders"].items():
            if "cannot_run" not in found:
                turns[f"{title}, {name}: {who}"] = partial(
                    ask, sides[who], step_seconds, workload, name
                )
    for turn, found in in_turns(turns, options.rounds, announce).items():
        name, _, who = turn.removeprefix(f"{title}, ").rpartition(": ")
        is_done = isinstance(found, list)
        rows[name]["contenders"][who] |= {"seconds": found} if is_done else found
    return {"widths": workload.widths, "batch_size": workload.batch_size, "rows": rows}


# --- tables --------------------------------------------------------------------------------------


class Mark(NamedTuple):
    """A ratio of times that should be at least or at most a limit."""

    title: str
    got: float
    limit: float
    is_least: bool = False

    @property
    def missed_by(self) -> float:
        """The part by which the limit is missed; below 0 if it is met."""
        return self.limit / self.got - 1 if self.is_least else self.got / self.limit - 1


def marks(results: Result) -> list[Mark]:
    """Return all marks, missed ones first."""
    found = []
    for title, result in results.items():
        against = {name: got.median for name, got in ratios(result).items() if name != "Muon"}
        for name, got in against.items():
            found.append(Mark(f"{title}, {name}: JAX / ours", got, LEAST, True))
        if against:
            middle = spread([*against.values()]).median
            found.append(Mark(f"{title}, the median row: JAX / ours", middle, MEDIAN, True))
        ours, workload = _times(result, OURS), WORKLOADS[title]
        pairs: list[Any] = [(name, DEFAULT, most(workload, name)) for name in ours]
        pairs += [(name, *other) for name, other in PAIRS.items()]
        for name, other, limit in pairs:
            if limit is not None and name in ours and other in ours:
                got = ratio(ours[name], ours[other]).median
                found.append(Mark(f"{title}, {name} / {other}", got, limit))
    return sorted(found, key=lambda mark: -mark.missed_by)


def ratios(result: Result) -> dict[str, Spread]:
    """Return JAX's time divided by ours for each row that ran on both sides."""
    ours, theirs = (_times(result, who) for who in (OURS, PEER))
    return {name: ratio(theirs[name], ours[name]) for name in ours if name in theirs}


def _times(result: Result, who: str) -> dict[str, list[float]]:
    runs = {name: row["contenders"][who] for name, row in result["rows"].items()}
    return {name: run["seconds"] for name, run in runs.items() if "seconds" in run}


def difference(row: Result) -> float:
    """Return the largest difference of both sides' first losses, as a part of the largest loss."""
    ours, theirs = (np.asarray(run["losses"]) for run in row["contenders"].values())
    return float(np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs)))


def tables(results: Result) -> list[Table]:
    found = [_table(title, result) for title, result in results.items()]
    rows, every = [], marks(results)
    for mark in every:
        if (is_missed := mark.missed_by > 0) or "median row" in mark.title:
            target = f"{'at least' if mark.is_least else 'at most'} {mark.limit:.4g}"
            off = f"{mark.missed_by:.0%}" if is_missed else ""
            rows.append([mark.title, f"{mark.got:.2f}", target, off])
    missed = sum(mark.missed_by > 0 for mark in every)
    note = f"{missed} of {count(len(every), 'mark')} are missed, the furthest first."
    columns = ["mark", "measured", "target", "missed by"]
    return [*found, Table("Missed marks of the settings", columns, rows, note=note)]


def _table(title: str, result: Result) -> Table:
    workload, rows, missing = WORKLOADS[title], [], {}
    own, against = _times(result, OURS), ratios(result)
    for name, row in result["rows"].items():
        if lost := reasons(row["contenders"]):
            missing |= {f"{name}: {who}": why for who, why in lost.items()}
            continue
        ours, theirs = (row["contenders"][who]["seconds"] for who in (OURS, PEER))
        limit, text = most(workload, name), ratio_text(against[name])
        is_behind = against[name].median < LEAST and name != "Muon"
        cells = [median(ours), median(theirs), f"**{text}**" if is_behind else text]
        if DEFAULT in own:
            times = ratio(ours, own[DEFAULT]).median
            is_over = limit is not None and times > limit
            cells.append(f"**{times:.2f}**" if is_over else f"{times:.2f}")
        else:
            cells.append(NOT_COMPARED)
        cells += [f"{limit:.3g}" if limit else "", _same(name, row)]
        rows.append([name, *cells])
    columns = ["setting", "mlp_xp", PEER, "JAX / ours", "of default", "at most", "same losses"]
    widths = "-".join(map(str, result["widths"]))
    kind = "regression" if workload.is_regression else "classification"
    note = f"{widths}, batch {result['batch_size']}, {kind}; the time of a step."
    terms = TERMS if title == next(iter(WORKLOADS)) else ""
    return Table(f"Settings, {title}", columns, rows, missing, note, terms)


def _same(name: str, row: Result) -> str:
    """Return whether both sides' first losses are equal, for rows without random numbers."""
    if "dropout" in name or name == EVERYTHING:
        return ""
    return "yes" if difference(row) <= TOLERANCE else "**no**"


TERMS = (
    "A step of an estimator on NumPy in float32, and a jitted step in JAX with the same formulas, "
    "weights and number of threads. Rows and sides take turns; times are medians, from long runs "
    "less short ones, so they leave out what a fit takes once. *JAX / ours* is compared turn by "
    "turn, with quartiles; above 1, mlp_xp is faster. *of default* is our time divided by our time "
    "of the default, and *at most* its limit. Ratios that miss a mark are bold. *same losses* says "
    f"whether the losses of {STEPS_COMPARED} steps differ by at most {TOLERANCE:g} of the largest; "
    "dropout draws other random numbers in JAX, so it is not compared. All other settings of a row "
    "are the default's: relu, Adam, no penalty."
)
PART = Part("Settings", measure, tables)
