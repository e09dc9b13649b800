"""What a user waits for before the first epoch: the import, and the first step after it.

Each is timed in fresh processes, which take turns; the first turn fills the caches of what
compiles. Run as a script, it is such a process, and prints the seconds of a contender's first step.
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
print(time.perf_counter() - start)
"""
WORKLOAD = next(workload for workload in WORKLOADS if workload.name == "medium")
ENTRIES = entries(WORKLOAD)


def measure_startup(rounds: int) -> Result:
    """Give the seconds of imports and of first steps."""
    imports = {
        name: [sys.executable, "-c", TIMED.format(statement=statement)]
        for name, statement in IMPORTS.items()
    }
    steps = {name: [sys.executable, __file__, name] for name in (OURS, *list(IMPORTS)[1:])}
    return {"imports": take_turns(imports, rounds), "first_steps": take_turns(steps, rounds)}


def take_turns(commands: dict[str, list[str]], rounds: int) -> Result:
    results: Result = {name: {"seconds": []} for name in commands}
    for number in range(rounds + 1):
        say(f"  start-up, round {number} of {rounds}")
        for name, command in commands.items():
            if "cannot_run" in results[name]:
                continue
            environment = {**os.environ, **(ENTRIES[name].environment if name in ENTRIES else {})}
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            if done.returncode:
                last = done.stderr.strip().splitlines()[-1:]
                results[name] = {"cannot_run": last[0] if last else f"status {done.returncode}"}
            elif number:
                results[name]["seconds"].append(json.loads(done.stdout.splitlines()[-1]))
    return results


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


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    print(first_step(sys.argv[1]))
