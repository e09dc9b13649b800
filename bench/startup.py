"""What a user waits for before the first epoch: the import, and the first step after it.

Each contender is timed in fresh processes, which take turns; the first turn fills the caches of
what compiles. A process imports before anything else is loaded, and then does its first step.
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
from turns import Result, say
from workloads import WORKLOADS

__all__ = ["measure_startup"]

# What a user types before the first model. A package that loads its parts only when they are asked
# for has to load them here.
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
TIMED = """
import time
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


def measure_startup(rounds: int) -> Result:
    """Give the seconds of imports and of first steps, of at most `ROUNDS` turns."""
    imports: Result = {name: {"seconds": []} for name in IMPORTS}
    steps: Result = {contender(name): {"seconds": []} for name in IMPORTS}
    for number in range(min(rounds, ROUNDS) + 1):
        say(f"  start-up, round {number} of {min(rounds, ROUNDS)}")
        for library, statement in IMPORTS.items():
            name = contender(library)
            if "cannot_run" in steps[name]:
                continue
            code = TIMED.format(statement=statement, folder=str(HERE), name=name)
            environment = {**os.environ, **ENTRIES[name].environment}
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, env=environment
            )
            if done.returncode:
                last = done.stderr.strip().splitlines()[-1:]
                reason = {"cannot_run": last[0] if last else f"status {done.returncode}"}
                imports[library], steps[name] = reason, reason
            elif number:
                imported, stepped = json.loads(done.stdout.splitlines()[-1])
                imports[library]["seconds"].append(imported)
                steps[name]["seconds"].append(stepped)
    return {"imports": imports, "first_steps": steps}


def contender(library: str) -> str:
    """Name the contender that a library takes part as."""
    return OURS if library == "mlp_xp" else library


def first_step(name: str) -> float:
    """Give the seconds from the import to the end of the first step."""
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
