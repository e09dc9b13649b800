"""The cost of checkpoints every 10 s in the training of the medium network.

Fits of the same epochs take turns: without checkpoints, with one that never comes (which copies the
weights of each best epoch), and with one a second. The slowdown at 10 s is that of the second, and
a tenth of what the third adds: ten times as much is easier to measure than once. Other work on the
machine adds noise to that. So the parts are measured too: how long the fit waits for a checkpoint,
and the processor time of the thread that writes it, all of which may be missing elsewhere.

    python bench/checkpoint_cost.py --rounds 9 --out bench/history/2026-01-02-checkpoints.json
    python bench/checkpoint_cost.py --page bench/history/2026-01-02-checkpoints.json

A second run with the same ``--out`` adds its rounds. ``--parts`` measures the parts only.
``--page`` measures nothing: it writes the figures of a record into docs/long-trainings.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from environment import environment
from report import replace_block, table
from spread import Spread, spread
from workloads import WORKLOADS

from mlp_xp import MLP
from mlp_xp.callbacks import Callback, Checkpoint

PAGE = Path(__file__).parents[1] / "docs" / "long-trainings.md"
LIMIT = 0.02
INTERVAL = 10.0  # Seconds between the checkpoints whose cost is reported.
MEASURED = 1.0
WORKLOAD = next(workload for workload in WORKLOADS if workload.name == "medium")
ARMS = {"without": None, "never": "9 h", "often": f"{MEASURED} s"}


class Stamps(Callback):
    """The time after each epoch."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_epoch_end(self, model: Any, record: Any) -> None:
        self.times.append(time.perf_counter())


def new_data() -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels."""
    rng = np.random.default_rng(0)
    X = rng.random((WORKLOAD.n_images, WORKLOAD.widths[0]), dtype=np.float32)
    return X, rng.integers(0, WORKLOAD.widths[-1], len(X))


def new_model(n_epochs: int, callbacks: list[Callback]) -> Any:
    """Return the medium network."""
    return MLP(
        WORKLOAD.widths[1:-1],
        batch_size=WORKLOAD.batch_size,
        max_iter=n_epochs,
        learning_rate="cosine",
        precision="float32",
        random_state=0,
        callbacks=callbacks,
    )


def epoch_seconds(every: str | None, folder: str, n_epochs: int, data: tuple) -> float:
    """Return the mean seconds of an epoch of a fit with checkpoints in a new folder.

    Without what comes once, at the beginning and at the end.
    """
    stamps = Stamps()
    with tempfile.TemporaryDirectory(dir=folder) as run:
        watch = [stamps, Checkpoint(run, every=every)] if every else [stamps]
        new_model(n_epochs, watch).fit(*data)
    return (stamps.times[-1] - stamps.times[1]) / (n_epochs - 2)


class Parts(Checkpoint):
    """A checkpoint that measures its parts."""

    def on_fit_begin(self, model: Any) -> None:
        self.start, self.waits, self.best, self.writes = time.perf_counter(), [], 0.0, []
        super().on_fit_begin(model)

    def on_pause(self, model: Any, pause: Any) -> None:
        start, n_checkpoints = time.perf_counter(), self._last_time
        super().on_pause(model, pause)
        seconds = time.perf_counter() - start
        if self._last_time != n_checkpoints:
            self.waits.append(seconds)
        else:  # Nothing, or a copy of the weights of the best epoch.
            self.best += seconds

    def _write(self, *what: Any) -> Any:
        start = time.thread_time()
        failed = super()._write(*what)
        self.writes.append(time.thread_time() - start)
        return failed

    def shares(self) -> dict[str, float]:
        """Return the parts as shares of the time of a training with a checkpoint every 10 s."""
        seconds = time.perf_counter() - self.start
        return {
            "copies of the best weights": self.best / seconds,
            "waiting for a checkpoint": float(np.mean(self.waits)) / INTERVAL,
            "processor time of writing": float(np.mean(self.writes)) / INTERVAL,
        }


def measure_parts(rounds: int, n_epochs: int, folder: str) -> dict[str, list[float]]:
    """Return the shares of each part in each of some fits."""
    found = []
    for _ in range(rounds + 1):
        with tempfile.TemporaryDirectory(dir=folder) as run:
            watch = Parts(run, every=ARMS["often"])
            new_model(n_epochs, [watch]).fit(*new_data())
            found.append(watch.shares())
    return {name: [shares[name] for shares in found[1:]] for name in found[0]}  # One compiles.


def slowdowns(seconds: dict[str, list[float]]) -> list[float]:
    """Return the slowdown at 10 s of each turn."""
    return [
        (never + (often - never) * MEASURED / INTERVAL) / without - 1.0
        for without, never, often in zip(*(seconds[arm] for arm in ARMS), strict=True)
    ]


def measure(rounds: int, n_epochs: int, folder: str) -> dict[str, list[float]]:
    """Return the seconds of an epoch of each arm, in turns, in changing order."""
    data = new_data()
    epoch_seconds(ARMS["often"], folder, 3, data)  # Compiles.
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for number in range(rounds):
        for arm in np.roll(list(ARMS), number):
            seconds[arm].append(epoch_seconds(ARMS[arm], folder, n_epochs, data))
    return seconds


def section(record: dict[str, Any]) -> str:
    """Return the figures of a record, and what they were measured on."""
    seconds, facts = record["seconds"], record["environment"]
    found = spread(slowdowns(seconds))
    names = {
        "without": "no checkpoint",
        "never": "a copy of the weights of each best epoch",
        "often": f"a checkpoint every {MEASURED:g} s",
    }
    rows = []
    for arm, name in names.items():
        taken = spread(seconds[arm])
        times = [f"{1000 * value:.0f}" for value in taken]
        rows.append([name, f"{times[0]} ms ({times[1]} to {times[2]})"])
    parts, place = record["parts"]["shares"], record["parts"]["environment"]
    own = spread([sum(shares) for shares in zip(*parts.values(), strict=True)])
    shares = "; ".join(f"{name} {spread(values).median:.2%}" for name, values in parts.items())
    return (
        f"{table(['fit with', 'epoch'], 'lr', rows)}\n\n**Every {INTERVAL:.0f} s: "
        f"{found.median:.2%}** of the time of a training (quartiles {found.low:.2%} to "
        f"{found.high:.2%}; mark {LIMIT:.0%}), from {len(seconds['without'])} rounds in turns: "
        f"what the second row adds, and a {round(INTERVAL / MEASURED)}th of what the third adds to "
        f"that. Other work on the machine is in these times. **By its parts: {own.median:.2%}** "
        f"(quartiles {own.low:.2%} to {own.high:.2%}, {len(next(iter(parts.values())))} fits; "
        f"{shares}; {place['cpu']}, {place['date']}). The fits in turns were measured on "
        f"{facts['date']}; {facts['cpu']}, {facts['cpus']} CPUs; Python {facts['python']}, numpy "
        f"{facts['versions']['numpy']}.\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--folder", default=".", help="on the disk that is measured")
    parser.add_argument("--out", type=Path, help="a JSON file with all seconds, added to it")
    parser.add_argument("--parts", action="store_true", help="no fits in turns")
    parser.add_argument("--page", type=Path, metavar="FILE", help=f"write one to {PAGE.name}")
    parser.add_argument("--check", action="store_true", help=f"fail above {LIMIT:.0%}")
    options = parser.parse_args()
    if options.page:
        text = section(json.loads(options.page.read_text()))
        page = replace_block(PAGE.read_text(encoding="utf-8"), "checkpoint-cost", text)
        PAGE.write_text(page, encoding="utf-8")
        return 0
    parts = measure_parts(options.rounds, 2 * options.epochs, options.folder)
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    if not options.parts:
        seconds = measure(options.rounds, options.epochs, options.folder)
    if options.out:
        facts = environment()
        record = {"environment": facts, "seconds": seconds}
        if options.out.exists():
            record = json.loads(options.out.read_text())
            seconds = {arm: record["seconds"][arm] + seconds[arm] for arm in ARMS}
            record["seconds"] = seconds
            if not options.parts:
                record["environment"] = facts
        record["parts"] = {"environment": facts, "shares": parts}
        options.out.write_text(json.dumps(record, indent=2) + "\n")
    own = spread([sum(shares) for shares in zip(*parts.values(), strict=True)])
    for name, values in parts.items():
        print(f"{name:28} {np.median(values):.3%}")
    print(f"in all, of 10 s: {own.median:.2%} (quartiles {own.low:.2%} to {own.high:.2%})")
    if not seconds["without"]:
        return int(options.check and own.low > LIMIT)
    for arm in ARMS:
        print(f"{arm:8} {np.median(seconds[arm]):.3f} s")
    found: Spread = spread(slowdowns(seconds))
    print(
        f"checkpoints every {INTERVAL:.0f} s slow the training by {found.median:.2%} "
        f"(quartiles {found.low:.2%} to {found.high:.2%})"
    )
    return int(options.check and own.low > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
