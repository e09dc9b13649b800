"""The time that a network's first fit compiles, with and without caches, in new processes.

The package is copied to a folder whose cache of machine code is emptied or kept. The first fit's
time less the second's is what tracing, printing, compiling and loading took.
"""

import compileall
import cProfile
import pstats
import shutil
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.studies.setting_rows import EVERYTHING, Workload, settings_of
from bench.suite.records import ROOT, Result
from bench.suite.tables import Table, reasons, seconds, spread
from bench.suite.turns import Announce, Options, Part, call, in_turns

NETWORK = Workload((64, 100, 100, 10), 128, 4, 1.0, 1)
CASES = ("default", "own activation, derived", "own loss, derived", EVERYTHING)
# What is not cached at first, and how long compiling may take then.
COLD, LOOPS, CACHED = "nothing cached", "loops not cached", "all cached"
LIMITS = {COLD: None, LOOPS: 0.3, CACHED: 0.05}
MISSING = {COLD: ("*.bin",), LOOPS: ("formula_*.bin",), CACHED: ()}
# The files in which a fit's time is counted, by what they do.
PHASES = {
    "trace and print": ("mlp_xp/compiler/", "_numpy/kernels/formulas"),
    "record the step": ("_numpy/tracing/", "_numpy/kernels/", "_numpy/runtime/"),
    "LLVM": ("llvmlite/",),
    "numba": ("numba/", "subprocess.py", "_numpy/machine_code/"),
}


def times(name: str, with_profile: bool) -> Result:
    """Return the seconds of llvmlite's import and of two fits, or of the phases of the first."""
    from mlp_xp import MLPClassifier
    from mlp_xp.backends._numpy import backend

    backend._LONG = 0  # Even such a short fit uses machine code.
    rng = np.random.default_rng(0)
    X = rng.standard_normal((NETWORK.batch_size * NETWORK.steps, NETWORK.widths[0]), dtype="f4")
    y = np.arange(len(X)) % NETWORK.widths[-1]
    own = settings_of(NETWORK, name) | {"max_iter": 1, "n_iter_no_change": np.inf}
    model = MLPClassifier(NETWORK.widths[1:-1], random_state=0, **own)
    start = time.perf_counter()
    import llvmlite.binding  # noqa: F401

    found = {"import": time.perf_counter() - start}
    if with_profile:
        profile = cProfile.Profile()
        profile.runcall(model.fit, X, y)
        return found | {"phases": _phases(profile)}
    for fit in ("first", "second"):
        start = time.perf_counter()
        model.fit(X, y)
        found[fit] = time.perf_counter() - start
    return found


def _phases(profile: cProfile.Profile) -> dict[str, float]:
    """Return the seconds in the files of each phase, with the built-in functions they call."""
    found = dict.fromkeys([*PHASES, "rest"], 0.0)
    for (file, _, _), (_, _, own, _, callers) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        parts = {caller[0]: times[2] for caller, times in callers.items()} if file == "~" else {}
        for place, spent in (parts or {file: own}).items():
            found[_phase(place)] += spent
    return found


def _phase(file: str) -> str:
    pairs = PHASES.items()
    return next((name for name, parts in pairs if any(part in file for part in parts)), "rest")


def measure(options: Options, announce: Announce) -> Result:
    """Return the times of each case in each state of the cache, one entry for each round."""
    folder = options.scratch / "compiled"
    compileall.compile_dir(ROOT / "mlp_xp", quiet=1)  # Bytecode is copied, machine code is not.
    skipped = shutil.ignore_patterns("*.bin")
    shutil.copytree(ROOT / "mlp_xp", folder / "mlp_xp", ignore=skipped, dirs_exist_ok=True)
    kept: Any = {"MLP_XP_CACHE": str(folder / "cache"), "cwd": folder}  # Imports the copy.
    names = options.chosen(CASES[:1] if options.quick else CASES)

    def act(name: str, state: str, with_profile: bool) -> Any:
        _remove(folder, MISSING[state])
        return call(times, name, with_profile, **kept)

    found: Result = {}
    for name in names:
        turns = {state: partial(act, name, state, False) for state in MISSING}
        turns["profile"] = partial(act, name, LOOPS, True)
        found[name] = in_turns(turns, min(options.rounds, 3), announce)
    return found


def _remove(folder: Path, patterns: Iterable[str]) -> None:
    for file in (file for pattern in patterns for file in folder.rglob(pattern)):
        file.unlink()


def tables(found: Result) -> list[Table]:
    rows, missing = [], {}
    for name, states in found.items():
        if lost := reasons({k: v for k, v in states.items() if isinstance(v, dict)}):
            missing |= {f"{name}, {state}": why for state, why in lost.items()}
            continue
        cells = []
        for state, limit in LIMITS.items():
            taken = spread([max(run["first"] - run["second"], 0.0) for run in states[state]]).median
            is_over = limit is not None and taken > limit
            cells.append(f"**{seconds(taken)}**" if is_over else seconds(taken))
        phases = [run["phases"] for run in states["profile"]]
        cells += [seconds(spread([phase[k] for phase in phases]).median) for k in phases[0]]
        imports = [run["import"] for run in states[CACHED]]
        rows.append([name, *cells, seconds(spread(imports).median)])
    columns = ["settings", *LIMITS, *PHASES, "rest", "import llvmlite"]
    return [Table(PART.title, columns, rows, missing, terms=TERMS)]


_limits = "; ".join(f"{state}: {limit:g} s" for state, limit in LIMITS.items() if limit)
TERMS = (
    f"A first fit of {'-'.join(map(str, NETWORK.widths))} in a new process, less a second fit in "
    "it: without any machine code, which numba compiles in other processes; without the loops that "
    f"the compiler prints; and with all cached. Limits: {_limits}; times above them are bold. The "
    f"other columns divide a first fit with *{LOOPS}*, under a profiler, which slows Python down."
)
PART = Part("Compile times", measure, tables)
