"""Start-up time: the import, and the first training step after it.

Each contender is timed in fresh processes, in turns; the first turn fills compilation caches. A
process imports before it loads anything else, then takes its first step. Ours is also imported
after scikit-learn's estimator.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from contenders import OURS, entries
from contest import Task
from turns import Announce, Result
from workloads import WORKLOADS

__all__ = ["AFTER", "measure_startup", "startup_turns"]

# The import before a first model. A package with lazy imports must load its parts here.
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
# Scikit-learn's users have it loaded: the time that ours adds, in one process.
AFTER = "mlp_xp, after scikit-learn"
TIMED = """
import time
{before}
start = time.perf_counter()
{statement}
imported = time.perf_counter() - start
import sys
sys.path.insert(0, {folder!r})
from startup import first_step
print([imported, first_step({name!r})])
"""
ROUNDS = 3
WORKLOAD = next(workload for workload in WORKLOADS if workload.name == "medium")
ENTRIES = entries(WORKLOAD)
HERE = Path(__file__).parent


def startup_turns(rounds: int) -> int:
    """Return the number of turns of `measure_startup`."""
    return (min(rounds, ROUNDS) + 1) * (len(IMPORTS) + 1)


def measure_startup(rounds: int, announce: Announce) -> Result:
    """Return the seconds of imports and first steps in at most `ROUNDS` turns."""
    imports: Result = {library: {"seconds": []} for library in (*IMPORTS, AFTER)}
    steps: Result = {library: {"seconds": []} for library in imports}
    for number in range(min(rounds, ROUNDS) + 1):
        for library in imports:
            if "cannot_run" in imports[library]:
                continue
            rank = f"round {number} of {min(rounds, ROUNDS)}" if number else "warming up"
            announce(f"{library}, {rank}")
            measured = measure_process(library)
            if isinstance(measured, dict):
                imports[library] = steps[library] = measured
            elif number:
                imports[library]["seconds"].append(measured[0])
                steps[library]["seconds"].append(measured[1])
    # After another import the first step is the same.
    return {"imports": imports, "first_steps": {contender(name): steps[name] for name in IMPORTS}}


def measure_process(library: str) -> list[float] | Result:
    """Return the seconds of an import and of the first step after it, or why there are none."""
    is_after = library == AFTER
    name = OURS if is_after else contender(library)
    code = TIMED.format(
        before=IMPORTS["scikit-learn"] if is_after else "",
        statement=IMPORTS["mlp_xp" if is_after else library],
        folder=str(HERE),
        name=name,
    )
    environment = {**os.environ, **ENTRIES[name].environment}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        return {"cannot_run": last[0] if last else f"status {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def contender(library: str) -> str:
    """Return the name of a library as a contender."""
    return OURS if library == "mlp_xp" else library


def first_step(name: str) -> float:
    """Return the seconds from the import to the end of the first step."""
    entry = ENTRIES[name]
    module = importlib.import_module(entry.module)
    generator = np.random.default_rng(0)
    n = WORKLOAD.batch_size
    task = Task(
        WORKLOAD.widths,
        WORKLOAD.activation,
        WORKLOAD.solver,
        WORKLOAD.learning_rate,
        n,
        generator.standard_normal((n, WORKLOAD.widths[0]), dtype=np.float32),
        (np.arange(n) % WORKLOAD.widths[-1]).astype(np.int32),
        int(os.environ.get("OMP_NUM_THREADS", "1")),
    )
    start = time.perf_counter()
    module.make(task, **entry.options).train(1)
    return time.perf_counter() - start
