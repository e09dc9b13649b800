"""Targets of this library against its peers, and whether a run reaches them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from contenders import OURS, PLAIN
from spread import ratio, spread
from startup import AFTER
from turns import Result

__all__ = ["Target", "targets"]

FIRST_STEP, IMPORT, STEP = 1.0, 0.050, 50e-6  # seconds
MEMORY = 250e6  # bytes


class Target(NamedTuple):
    """A target, the measured value, and the relative distance: above 0, it is missed."""

    name: str
    wanted: str
    measured: str
    distance: float

    @property
    def met(self) -> bool:
        return self.distance <= 0


def targets(result: Result) -> list[Target]:
    """Return the targets of what was measured; none for a run on fewer images."""
    if result["settings"]["images"] is not None:
        return []
    return [*_ratios(result), *_shares(result), *_others(result)]


def ran(result: Result, workload: str) -> Result:
    """Return the contenders of a workload that ran to the end."""
    contenders = result["workloads"].get(workload, {}).get("contenders", {})
    return {name: run for name, run in contenders.items() if "cannot_run" not in run}


def fastest_peer(contenders: Result) -> str | None:
    """Return the name of the fastest contender in float32 that is not ours."""
    peers = [
        name
        for name, run in contenders.items()
        if run["precision"] == "float32" and not name.startswith("mlp_xp")
    ]
    return min(peers, key=lambda name: spread(contenders[name]["seconds"]).median, default=None)


FASTEST = "the fastest float32 peer"
AUTOCAST = "torch, bfloat16 autocast"
# workload, ours, the peer, how many times our seconds it should take
RATIOS = (
    ("lab", OURS, FASTEST, 1.5),
    ("lab-full", OURS, PLAIN, 12.0),
    ("medium", OURS, FASTEST, 1.25),
    ("wide", OURS, FASTEST, 1.0),
    ("tiny", OURS, FASTEST, 1.5),
    ("tiny", OURS, "scikit-learn", 4.0),
    ("medium", "mlp_xp, torch, bf16", AUTOCAST, 1.4),
    ("wide", "mlp_xp, torch, bf16", AUTOCAST, 1.1),
    ("predict", OURS, FASTEST, 1.0),
    ("one-row", OURS, "scikit-learn", 3.0),
)
SHARES = {"lab-full": 0.80, "medium": 0.85, "wide": 0.92}


def _ratios(result: Result) -> Iterator[Target]:
    for workload, ours, peer, wanted in RATIOS:
        contenders = ran(result, workload)
        name = fastest_peer(contenders) if peer == FASTEST else peer
        if name not in contenders or ours not in contenders:
            continue
        got = ratio(contenders[name]["seconds"], contenders[ours]["seconds"])
        who = f"{peer} ({name})" if peer == FASTEST else peer
        yield Target(
            f"{workload}: {ours} against {who}",
            f"at least {wanted:g} times as fast",
            f"{got.median:.2f} ({got.low:.2f} to {got.high:.2f})",
            1 - got.median / wanted,
        )


def _shares(result: Result) -> Iterator[Target]:
    for workload, wanted in SHARES.items():
        if OURS in (contenders := ran(result, workload)):
            least = result["workloads"][workload]["floor"]["seconds"]
            share = least / spread(contenders[OURS]["seconds"]).median
            yield Target(
                f"{workload}: {OURS}, share of the roofline",
                f"at least {wanted:.0%}",
                f"{share:.0%}",
                1 - share / wanted,
            )


def _others(result: Result) -> Iterator[Target]:
    if OURS in (contenders := ran(result, "tiny")):
        step = spread(contenders[OURS]["seconds"]).median / result["workloads"]["tiny"]["steps"]
        yield Target(
            f"tiny: {OURS}, a step", f"at most {STEP * 1e6:.0f} µs", f"{step * 1e6:.0f} µs",
            step / STEP - 1,
        )  # fmt: skip
    whole = result.get("end_to_end", {})
    ours = whole.get("runs", {}).get("mlp-xp train", {})
    if ours.get("peak_bytes"):
        excess = ours["peak_bytes"] - whole["data_bytes"] - whole["state_bytes"]
        yield Target(
            "mlp-xp train: peak memory beyond uint8 images, parameters and optimizer state",
            f"at most {MEMORY / 1e6:.0f} MB",
            f"{excess / 1e6:.0f} MB",
            excess / MEMORY - 1,
        )
    startup = result.get("startup", {"imports": {}, "first_steps": {}})
    # Within one process, as two processes differ by more than the import takes.
    if "seconds" in (more := startup["imports"].get(AFTER, {})):
        seconds = spread(more["seconds"]).median
        yield Target(
            "import of MLPClassifier, after that of scikit-learn's",
            f"at most {IMPORT * 1e3:.0f} ms",
            f"{seconds * 1e3:.0f} ms",
            seconds / IMPORT - 1,
        )
    first = startup["first_steps"].get(OURS, {"cannot_run": ""})
    if "cannot_run" not in first:
        seconds = spread(first["seconds"]).median
        yield Target(
            f"{OURS}: first step after the import",
            f"at most {FIRST_STEP:g} s",
            f"{seconds:.2f} s",
            seconds / FIRST_STEP - 1,
        )
