"""Whether a backend works, and the summary of check.py as JSON, Markdown and a chart.

python -m bench.gpu.summary torch:cuda      (exit status 1 and the reason where it does not work)
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import shutil
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from bench.suite.tables import grid, seconds

__all__ = ["EMPTY", "NOT_REACHED", "count_tests", "goals", "gpus", "markdown", "usable", "write"]

GRAY = "#999999"
NOT_REACHED = "not reached"
EMPTY = {"passed": 0, "failed": 0, "skipped": 0}
# What captured steps on CuPy should show on an H100: network, precision, the other contender, and
# how many times as fast they are at least.
GOALS = (
    ("goal", "tf32", "torch, compiled", 1.5),
    ("goal", "tf32", "JAX, epoch in a scan", 1.5),
    ("tiny", "float32", "torch", 8.0),
)
CAPTURED = "mlp_xp, cupy, captured"
# By precision and contender: the microseconds of a step that were estimated for the network "goal".
ESTIMATES = {
    ("float32", "mlp_xp, cupy, eager"): (300, 400),
    ("float32", CAPTURED): (150, 190),
    ("tf32", CAPTURED): (100, 120),
    ("tf32", "torch, compiled"): (180, 250),
    ("tf32", "JAX, epoch in a scan"): (160, 190),
}


def usable(spec: str) -> str | None:
    """Return why a backend does not work here, None if it does."""
    from mlp_xp.backends import BackendError, get_backend

    name, _, device = spec.partition(":")
    try:
        get_backend(name, device or None)
    except Exception as error:  # A library may raise what it likes.
        known = isinstance(error, BackendError | ValueError)
        return str(error) if known else f"{type(error).__name__}: {error}"
    return None


def count_tests(junit: Path) -> tuple[dict[str, int], float, dict[str, tuple[str, str]]]:
    """Return counts, seconds, and by test the message and traceback of failures of a JUnit file.

    A killed run has no file.
    """
    counts, failures, taken = dict(EMPTY), {}, 0.0
    text = junit.read_text() if junit.exists() else ""
    cases = ElementTree.fromstring(text).iter("testcase") if text.rstrip().endswith(">") else ()
    for case in cases:
        outcome = "passed"
        for child in case:
            if child.tag in ("failure", "error"):
                outcome = "failed"
                # A file that could not be read has no class.
                name = "::".join(filter(None, (case.get("classname"), case.get("name"))))
                message = " ".join(child.get("message", "").split())[:300]
                failures[name] = message, (child.text or "")[-3000:]
            elif child.tag == "skipped":
                outcome = "skipped"
        counts[outcome] += 1
        taken += float(case.get("time", 0))
    return counts, taken, failures


def gpus() -> list[str]:
    """Return name, memory and driver version of each GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True)
    if answer.returncode:
        return []
    return [", driver ".join(line.rsplit(", ", 1)) for line in answer.stdout.splitlines()]


Result = dict[str, Any]
OURS = "mlp_xp"


def of_part(result: Result, part: str) -> list[Result]:
    """Return the results of a part that ran to the end."""
    return [line for line in result["lines"] if line["part"] == part and "cannot_run" not in line]


def peaks_of(result: Result) -> dict[str, float]:
    """Return the highest measured rate of a large product in each precision."""
    peaks: dict[str, float] = {}
    for line in of_part(result, "peaks"):
        peaks[line["precision"]] = max(peaks.get(line["precision"], 0.0), line["flops"])
    return peaks


def step_of(line: Result) -> float:
    return statistics.median(line["step_seconds"])


def name_of(line: Result) -> str:
    return f"{line['contender']}, {line['mode']}" if "mode" in line else line["contender"]


def key_of(line: Result) -> tuple[str, ...]:
    """Return what a contender's launches and seconds have in common."""
    return line["workload"], line["precision"], name_of(line)


def steps_by_key(result: Result) -> dict[tuple[str, ...], float]:
    """Return the seconds of a step by network, precision and contender."""
    return {key_of(line): step_of(line) for line in of_part(result, "steps")}


def goals(result: Result) -> list[dict[str, str]]:
    """Return each goal, what was measured, and whether it is met."""
    steps, rows = steps_by_key(result), []
    for network, precision, other, factor in GOALS:
        row = {"goal": f"captured steps of {network}, {precision}, {factor:g} times {other}"}
        ours = steps.get((network, precision, CAPTURED))
        theirs = steps.get((network, precision, other))
        if ours is None or theirs is None:
            row |= {"measured": "", "verdict": "not measured"}
        else:
            verdict = "met" if theirs / ours >= factor else "missed"
            row |= {"measured": f"{theirs / ours:.2f}", "verdict": verdict}
        rows.append(row)
    return rows


def estimates_table(result: Result) -> str:
    """Return the table of what was estimated beside what was measured."""
    steps, rows = steps_by_key(result), []
    for (precision, name), (low, high) in ESTIMATES.items():
        step = steps.get(("goal", precision, name))
        measured = "" if step is None else seconds(step)
        rows.append([name, precision, f"{low} to {high} µs", measured])
    is_measured = any(row[-1] for row in rows)
    names = ["contender", "precision", "estimated for an H100", "measured"]
    return grid(names, rows if is_measured else [])


def steps_table(result: Result) -> str:
    """Return the table of steps, by network and precision, the fastest first."""
    peaks, rows = peaks_of(result), []
    launches = {key_of(x): x["launches"] for x in of_part(result, "launches")}
    lines = of_part(result, "steps")
    order = list(dict.fromkeys((line["workload"], line["precision"]) for line in lines))
    for workload, precision in order:
        here = [x for x in lines if (x["workload"], x["precision"]) == (workload, precision)]
        eager = next((step_of(line) for line in here if line["contender"] == "torch"), None)
        for line in sorted(here, key=step_of):
            step = step_of(line)
            share = line["flop"] / step / peaks[precision] if precision in peaks else None
            rows.append(
                [
                    f"{workload}, batch {line['batch']}",
                    precision,
                    name_of(line),
                    seconds(step),
                    "" if eager is None else f"{eager / step:.2f}",
                    "" if (n := launches.get(key_of(line))) is None else f"{n:.1f}",
                    "" if share is None else f"{share:.0%}",
                ]
            )
    names = ["network", "precision", "contender", "step", "vs torch", "launches", "of the peak"]
    return grid(names, rows)


def markdown(result: Result) -> str:
    """Return a result as Markdown."""
    problems = result["problems"] + result["failed"]
    lines = [
        f"# GPU check, {result['date']}",
        "",
        f"**{'FAILED' if problems else 'Passed'}** on {', '.join(result['usable']) or 'nothing'}.",
        "",
        *[f"- {gpu}" for gpu in result["gpus"] or ["no GPU known to nvidia-smi"]],
    ]

    def section(title: str, text: str) -> None:
        if text:
            lines.extend(["", f"## {title}", "", text])

    verdicts = [[row["goal"], row["measured"], row["verdict"]] for row in result["goals"]]
    if of_part(result, "steps"):
        section("Goals", grid(["goal", "measured", "verdict"], verdicts))
    section("Estimates", estimates_table(result))
    section("Problems", "\n".join(f"- {problem}" for problem in problems))
    late: dict[str, list[str]] = {}
    for x in result["lines"]:
        if x.get("cannot_run") == NOT_REACHED:
            late.setdefault(f"{x['part']} {name_of(x)}", []).append(
                f"{x['workload']} in {x['precision']}"
            )
    out_of_time = [f"{name}: {', '.join(cases)}" for name, cases in late.items()]
    section("Not reached", "\n".join(f"- {name}" for name in result["not_reached"] + out_of_time))
    section("Missing", "\n".join(f"- {missing}" for missing in result["missing"]))
    counts = [
        [spec, *(f"{c[key]:.0f}" for key in (*EMPTY, "seconds"))]
        for spec, c in result["tests"].items()
    ]
    section("Tests", grid(["backend", *EMPTY, "seconds"], counts))
    peaks = [
        [line["backend"], line["precision"], f"{line['flops'] / 1e12:.4g}"]
        for line in of_part(result, "peaks")
    ]
    tools = [f"- {tool}: {found}" for tool, found in result["sanitizer"].items()]
    section("Kernels under compute-sanitizer", "\n".join(tools))
    section("Large products", grid(["backend", "precision", "TFLOP/s"], peaks))
    section("Steps", steps_table(result))
    moved = [
        [x["backend"], x["how"], str(x["rows"]), f"{x['bytes_per_second'] / 1e9:.2f}", x["data"]]
        for x in of_part(result, "transfers")
    ]
    section("Transfers", grid(["backend", "how", "rows", "GB/s", "data"], moved))
    recipes = [
        [
            x["backend"],
            f"{x['n_images']:,}",
            f"{x['max_time']} s",
            f"{x['test_accuracy']:.1%}",
            f"{x['epochs']:.1f}",
        ]
        for x in of_part(result, "record")
    ]
    section(
        "Recipe record",
        grid(["backend", "images", "time", "test accuracy", "epochs"], recipes),
    )
    absent = [
        [x["part"], x.get("workload", ""), name_of(x) if "contender" in x else x["backend"],
         x.get("precision", ""), x["cannot_run"].replace("|", "/")]
        for x in result["lines"] if x.get("cannot_run", NOT_REACHED) != NOT_REACHED
    ]  # fmt: skip
    names = ["part", "network", "contender", "precision", "reason"]
    section("Cannot run here", grid(names, absent))
    with contextlib.suppress(ImportError):  # It asks for the threads of BLAS.
        section("Measured on", measured_on())
    return "\n".join(lines) + "\n"


@functools.cache
def measured_on() -> str:
    """Return processor, system and versions."""
    from bench.suite.records import environment

    facts = environment()
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return f"{facts['cpu']}, {facts['cpus']} CPUs, {facts['system']}; {versions}"


def chart(result: Result, path: Path) -> None:
    """Draw a panel per network: a bar for the float32 step of each contender."""
    from matplotlib.figure import Figure

    lines = [x for x in of_part(result, "steps") if x["precision"] == "float32"]
    networks = list(dict.fromkeys(line["workload"] for line in lines))
    height = 0.6 + 0.25 * max(1, len({name_of(line) for line in lines}))
    figure = Figure(figsize=(8, height * max(1, len(networks))), layout="constrained")
    axes = figure.subplots(max(1, len(networks)), 1, squeeze=False).ravel()
    for axis, network in zip(axes, networks, strict=False):
        here = sorted((x for x in lines if x["workload"] == network), key=step_of)
        steps = [step_of(line) for line in here]
        colors = ["#0072B2" if x["contender"].startswith(OURS) else GRAY for x in here]
        bars = axis.barh([name_of(line) for line in here], steps, color=colors)
        axis.bar_label(bars, [seconds(step) for step in steps], padding=4, fontsize=8)
        axis.set_title(f"{network}, batch {here[0]['batch']}, float32", fontsize=9, loc="left")
        axis.invert_yaxis()
        axis.margins(x=0.15)
        axis.set_xlabel("seconds of a step")
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def write(result: Result, folder: Path, *, with_chart: bool = True) -> Path:
    """Write JSON, Markdown and chart, named by date and device; return the Markdown file.

    What ends this leaves the last files whole.
    """
    device = result["gpus"][0].partition(",")[0] if result["gpus"] else "no-gpu"
    stem = re.sub(r"[^0-9a-z]+", "-", f"{result['date'][:19]}-{device}".lower())
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"json": json.dumps(result, indent=2) + "\n", "md": markdown(result)}
    for kind, text in texts.items():
        whole = folder / f"{stem}.{kind}.tmp"
        whole.write_text(text, encoding="utf-8")
        whole.replace(folder / f"{stem}.{kind}")
    if with_chart and of_part(result, "steps"):
        with contextlib.suppress(ImportError):  # Without matplotlib there are the tables.
            chart(result, folder / f"{stem}.png")
    return folder / f"{stem}.md"


if __name__ == "__main__":
    if (reason := usable(sys.argv[1])) is not None:
        sys.exit(f"Missing: {sys.argv[1]}. {' '.join(reason.split())}")
