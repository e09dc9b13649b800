"""Accuracy, time and arithmetic of a recipe: the whole command, a process per seed.

python -m bench.studies.speedrun one-minute --seeds 0 1 2
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path

from bench.suite.records import HISTORY, Result, environment, resume, write
from bench.suite.tables import Table
from mlp_xp import MLPClassifier
from mlp_xp._utils.tree import leaves
from mlp_xp.cli.run_folder.config import read_config
from mlp_xp.cli.run_folder.run_summary import read_history
from mlp_xp.estimators.fitted.state import fitted_state
from mlp_xp.estimators.settings.config import resolve_batch_size, resolve_optimizer
from mlp_xp.optimizers import ByKind, Muon, kinds
from mlp_xp.recipes import read_recipe, recipe_parameters
from mlp_xp.saving import load_model


def update_work(model: MLPClassifier) -> int:
    """Return the multiplications and additions in the products of an update.

    Muon orthogonalizes each matrix. Let m be its shorter side and n its longer side. A group of
    steps shares a Gram matrix, (m, n)(n, m), with 2 m^2 n operations, and a final product with as
    many. Each step squares an m x m matrix, with 2 m^3 operations. Each step except the first of a
    group has three more products of this size; see `mlp_xp.optimizers._muon`.
    """
    rule, params, work = resolve_optimizer(model.get_params()), fitted_state(model).params, 0
    rule = rule.matrix if isinstance(rule, ByKind) else rule
    if not isinstance(rule, Muon):
        return 0
    for kind, p in zip(kinds(params), leaves(params), strict=True):
        if kind == "matrix":
            *several, rows, columns = p.shape
            m, n = sorted((rows, columns))
            at_most = 1 if 2 * n <= 3 * m else 2 if model.precision == "bf16" else 4
            n_groups = math.ceil(rule.ns_steps / at_most)
            squares = 4 * rule.ns_steps - 3 * n_groups
            work += math.prod(several) * (4 * m * m * n * n_groups + 2 * m**3 * squares)
    return work


def facts(folder: Path, seconds: float) -> Result:
    """Read the results of a run folder; ``seconds`` is the time of the whole command."""
    result, model, rows = read_config(folder)["result"], load_model(folder), read_history(folder)
    names = ("seconds", "loss", "accuracy", "validation_accuracy")
    history = {name: [row[name] for row in rows if row[name] is not None] for name in names}
    history["seconds"] = [round(total, 3) for total in accumulate(history["seconds"])]
    counts, summary = [int(row["n_samples"]) for row in rows], model.summary()
    steps = sum(math.ceil(count / resolve_batch_size(model.batch_size)) for count in counts)
    return {
        "test_accuracy": result["test_accuracy"],
        "validation_accuracy": next(reversed(history["validation_accuracy"]), None),
        "seconds": seconds,
        "training_seconds": result["seconds"],
        "epochs": sum(counts) / max(counts),
        "images": sum(counts),
        "steps": steps,
        "parameters": summary.parameters,
        "flop": summary.training_work * sum(counts) + update_work(model) * steps,
        "history": history,
    }


def run_seed(words: list[str], seed: int) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        start = time.perf_counter()
        options = ["--seed", str(seed), "--out", str(out)]
        subprocess.run([sys.executable, "-m", "mlp_xp", *words, *options], check=True)
        return facts(out, time.perf_counter() - start)


def summarized(runs: Iterable[Result]) -> Result:
    """Return mean and standard deviation over the seeds; the deviation is None for one seed."""
    found = {}
    for name in ("test_accuracy", "validation_accuracy", "seconds", "epochs", "parameters", "flop"):
        if values := [run[name] for run in runs if run[name] is not None]:
            deviation = statistics.stdev(values) if len(values) > 1 else None
            found[name] = {"mean": statistics.fmean(values), "deviation": deviation}
    return found


def row(record: Result) -> list[str]:
    """Return a row of the table in docs/accuracy.md."""
    result, machine = record["speedrun"], record["environment"]
    mean = {name: value["mean"] for name, value in result["summary"].items()}
    n_runs, deviation = len(result["runs"]), result["summary"]["test_accuracy"]["deviation"]
    accuracy = f"{100 * mean['test_accuracy']:.2f}"
    seeds = " %, one seed" if deviation is None else f" ± {100 * deviation:.2f} %, {n_runs} seeds"
    if "validation_accuracy" in mean:
        seeds += f" (validation {100 * mean['validation_accuracy']:.2f} %)"
    return [
        result["recipe"],
        accuracy + seeds,
        f"{mean['seconds']:.1f} s",
        f"{mean['epochs']:.1f}",
        f"{mean['parameters'] / 1e6:.2f} M",
        f"{mean['flop'] / 1e15:.4f} PFLOP",
        f"{machine.get('kind', machine['cpu'])}, {machine['cpus']} CPUs",
    ]


def newest_results() -> dict[str, Result]:
    """Return the newest record of each recipe, by file name."""
    files = {file.stem: file for file in sorted(HISTORY.glob("*/speedrun-*.json"))}
    return {name: json.loads(file.read_text()) for name, file in files.items()}


def table() -> Table:
    """Return the table of the newest record of each recipe, fastest first."""
    records = [*newest_results().values()]
    records.sort(key=lambda record: record["speedrun"]["summary"]["seconds"]["mean"])
    columns = "recipe, test accuracy, whole command, epochs, parameters, arithmetic, machine"
    return Table("recipes", columns.split(", "), [row(record) for record in records])


def main(argv: list[str] | None = None) -> None:
    """Run the seeds, and write each result to the file immediately."""
    parser = argparse.ArgumentParser(prog="python -m bench.studies.speedrun", description=__doc__)
    add = parser.add_argument
    add("recipe", help="a name or a TOML file")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--validation", type=float, help="hold out a fraction, to choose settings by")
    add("--into", type=Path, help="file (bench/history/<date>/speedrun-<recipe>.json)")
    args = parser.parse_args(argv)
    path = read_recipe(args.recipe, recipe_parameters(MLPClassifier)).path
    more = [] if args.validation is None else ["--validation", str(args.validation)]
    words = ["train", "--recipe", args.recipe, *more]
    name = f"speedrun-{path.stem}{'-validation' if more else ''}.json"
    file = args.into or HISTORY / time.strftime("%Y-%m-%d") / name
    command = " ".join(["mlp-xp", *words, "--seed", "SEED"])
    own = {"recipe": path.stem, "command": command, "settings": path.read_text(), "runs": {}}
    compared = {"speedrun": ("command", "settings"), "environment": ("cpu", "kind")}
    record = resume(file, {"environment": environment(), "speedrun": own}, compared)
    result = record["speedrun"]
    for seed in args.seeds:
        result["runs"][str(seed)] = run_seed(words, seed)
        result["summary"] = summarized(result["runs"].values())
        write(file, record)
        print(" | ".join(row(record)), flush=True)
    print(file)


if __name__ == "__main__":
    main()
