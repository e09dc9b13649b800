"""Start-up time in a new process: the import, before anything else, and the first training step."""

import os
import time
from functools import partial
from typing import Any

import numpy as np

from bench.suite.contenders import OURS, entries
from bench.suite.records import Result
from bench.suite.tables import Table, median, quartiles, reasons
from bench.suite.turns import Announce, Options, Part, child, in_turns
from bench.suite.workloads import WORKLOADS, Task

# The imports that a first model needs. Packages with lazy imports must load their parts here.
IMPORTS = {
    "mlp_xp": "from mlp_xp import MLPClassifier",
    "scikit-learn": "from sklearn.neural_network import MLPClassifier",
    "torch": "import torch",
    "JAX": "import jax",
    "Keras on JAX": "import keras",
    "Keras on torch": "import keras",
    "skorch": "from skorch import NeuralNetClassifier",
    "thinc": "from thinc.api import Adam, Relu, Softmax, chain",
}
# The additional time for users who have already loaded scikit-learn, in one process.
AFTER = "mlp_xp, after scikit-learn"
TIMED = """
import time
{before}
start = time.perf_counter()
{statement}
imported = time.perf_counter() - start
from bench.studies.startup import first_step
print([imported, first_step({name!r})])
"""
ROUNDS = 3
WORKLOAD = next(workload for workload in WORKLOADS if workload.name == "medium")
ENTRIES = entries(WORKLOAD)


def measure(options: Options, announce: Announce) -> Result:
    """Return the seconds of imports and first steps in at most `ROUNDS` turns."""

    def act(turn: str) -> Any:
        library, before = ("mlp_xp", IMPORTS["scikit-learn"]) if turn == AFTER else (turn, "")
        name = _contender(library)
        code = TIMED.format(before=before, statement=IMPORTS[library], name=name)
        return child("-c", code, **ENTRIES[name].environment)

    # The first turn fills compilation caches.
    turns = {name: partial(act, name) for name in (*IMPORTS, AFTER)}
    found = in_turns(turns, min(options.rounds, ROUNDS) + 1, announce)
    imports, steps = (
        {
            name: runs if isinstance(runs, dict) else {"seconds": [run[i] for run in runs[1:]]}
            for name, runs in found.items()
        }
        for i in (0, 1)
    )
    # The first step does not depend on other imports.
    return {"imports": imports, "first_steps": {_contender(name): steps[name] for name in IMPORTS}}


def _contender(library: str) -> str:
    return OURS if library == "mlp_xp" else library


def first_step(name: str) -> float:
    """Return the seconds from the import to the end of the first step."""
    n = WORKLOAD.batch_size
    x = np.random.default_rng(0).standard_normal((n, WORKLOAD.widths[0]), dtype=np.float32)
    y = (np.arange(n) % WORKLOAD.widths[-1]).astype(np.int32)
    task = Task(WORKLOAD, x, y, int(os.environ.get("OMP_NUM_THREADS", "1")))
    start = time.perf_counter()
    ENTRIES[name].make(task).train(1)
    return time.perf_counter() - start


def tables(startup: Result) -> list[Table]:
    rows = []
    for name, run in startup["imports"].items():
        if "seconds" in run:
            step = startup["first_steps"].get(_contender(name), {}).get("seconds")
            steps = [median(step), quartiles(step)] if step else ["", ""]
            imports = median(run["seconds"]), quartiles(run["seconds"])
            rows.append([name, imports[0], steps[0], imports[1], steps[1]])
    columns = ["library", "import", "first step", "quartiles", "quartiles of the step"]
    terms = (
        "Each library runs in a new process: first the import, then the first step of the medium "
        "network, including compilation. Compilation caches from an earlier run were reused."
    )
    return [Table(PART.title, columns, rows, reasons(startup["imports"]), terms=terms)]


PART = Part("Start-up", measure, tables)
