"""Usable backends, and the summary of gpu_check.py as JSON, Markdown and a chart.

python bench/gpu_summary.py cupy,torch:cuda      (prints those that work here)
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from bench.suite.records import environment
from bench.suite.tables import grid, seconds

__all__ = ["EMPTY", "NOT_REACHED", "count_tests", "gpus", "markdown", "usable", "write"]

NOT_REACHED = "not reached"
EMPTY = {"passed": 0, "failed": 0, "skipped": 0}


def usable(wanted: list[str]) -> list[str]:
    """Return the backends that work here; print to stderr why the others do not."""
    from mlp_xp.backends import BackendError, get_backend

    good = []
    for spec in wanted:
        name, _, device = spec.partition(":")
        try:
            get_backend(name, device or None)
        except Exception as error:  # A library may raise what it likes.
            known = isinstance(error, BackendError | ValueError)
            what = str(error) if known else f"{type(error).__name__}: {error}"
            print(f"Missing: {spec}. {' '.join(what.split())}", file=sys.stderr)
        else:
            good.append(spec)
    return good


def count_tests(junit: Path, specs: list[str]) -> dict[str, Any]:
    """Count the tests of a JUnit file, in total and by the backend named in brackets.

    A killed run has no file.
    """
    counts: dict[str, Any] = {spec: dict(EMPTY) for spec in specs}
    counts |= {"all": dict(EMPTY), "failures": [], "seconds": 0.0}
    if not junit.exists():
        return counts
    for case in ElementTree.parse(junit).iter("testcase"):
        # A file that could not be read has no class.
        name = "::".join(filter(None, (case.get("classname"), case.get("name"))))
        kinds = {child.tag for child in case}
        outcome = "passed"
        if kinds & {"failure", "error"}:
            outcome = "failed"
            counts["failures"].append(name)
        elif "skipped" in kinds:
            outcome = "skipped"
        counts["seconds"] += float(case.get("time", 0))
        parameters = re.split(r"[\[\]-]", name)
        for key in ("all", *(spec for spec in specs if spec in parameters)):
            counts[key][outcome] += 1
    return counts


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


GRAY = "#999999"
Result = dict[str, Any]


def table(names: list[str], alignment: str, rows: list[list[str]]) -> str:
    """Return a table in Markdown, which finds the alignment itself."""
    return grid(names, rows)


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
    return table(names, "lllrrrr", rows)


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

    section("Problems", "\n".join(f"- {problem}" for problem in problems))
    section("Not reached", "\n".join(f"- {name}" for name in result["not_reached"]))
    section("Missing", "\n".join(f"- {missing}" for missing in result["missing"]))
    counts = [
        [spec, *(f"{c[key]:.0f}" for key in (*EMPTY, "seconds"))]
        for spec, c in result["tests"].items()
    ]
    section("Tests", table(["backend", *EMPTY, "seconds"], "lrrrr", counts))
    peaks = [
        [line["backend"], line["precision"], f"{line['flops'] / 1e12:.4g}"]
        for line in of_part(result, "peaks")
    ]
    section("Large products", table(["backend", "precision", "TFLOP/s"], "llr", peaks))
    section("Steps", steps_table(result))
    moved = [
        [x["backend"], x["how"], str(x["rows"]), f"{x['bytes_per_second'] / 1e9:.2f}", x["data"]]
        for x in of_part(result, "transfers")
    ]
    section("Transfers", table(["backend", "how", "rows", "GB/s", "data"], "llrrl", moved))
    recipes = [
        [x["backend"], f"{x['max_time']} s", f"{x['test_accuracy']:.1%}", f"{x['epochs']:.1f}"]
        for x in of_part(result, "record")
    ]
    section("Recipe record", table(["backend", "time", "test accuracy", "epochs"], "lrrr", recipes))
    absent = [
        [x["part"], x.get("workload", ""), name_of(x) if "contender" in x else x["backend"],
         x.get("precision", ""), x["cannot_run"].replace("|", "/")]
        for x in result["lines"] if "cannot_run" in x
    ]  # fmt: skip
    names = ["part", "network", "contender", "precision", "reason"]
    section("Cannot run here", table(names, "lllll", absent))
    facts = environment()
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    section("Measured on", f"{facts['cpu']}, {facts['cpus']} CPUs, {facts['system']}; {versions}")
    return "\n".join(lines) + "\n"


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


def write(result: Result, folder: Path) -> Path:
    """Write JSON, Markdown and chart, named by date and device; return the Markdown file."""
    device = result["gpus"][0].partition(",")[0] if result["gpus"] else "no-gpu"
    stem = re.sub(r"[^0-9a-z]+", "-", f"{result['date'][:19]}-{device}".lower())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / f"{stem}.md").write_text(markdown(result), encoding="utf-8")
    if of_part(result, "steps"):
        with contextlib.suppress(ImportError):  # Without matplotlib there are the tables.
            chart(result, folder / f"{stem}.png")
    return folder / f"{stem}.md"


if __name__ == "__main__":
    print(" ".join(usable(sys.argv[1].split(","))))
