"""The summary of check.py as JSON, Markdown and a chart."""

import contextlib
import functools
import json
import re
import statistics
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bench.suite import records
from bench.suite.tables import grid, seconds

NOT_REACHED = "not reached"
EMPTY = {"passed": 0, "failed": 0, "skipped": 0, "seconds": 0.0}
CAPTURED = "mlp_xp, cupy, captured"
# Goals for captured steps on CuPy on an H100: network, precision, the other contender, and how many
# times as fast captured steps must be.
GOALS = (
    ("goal", "tf32", "torch, compiled", 1.5),
    ("goal", "tf32", "JAX, epoch in a scan", 1.5),
    ("tiny", "float32", "torch", 8.0),
)
Result = dict[str, Any]
environment = functools.cache(records.environment)


def count_tests(junit: Path) -> tuple[dict[str, float], dict[str, tuple[str, str]]]:
    """Return counts and seconds of a JUnit file, and message and traceback of each failure."""
    counts, failures = dict(EMPTY), {}
    text = junit.read_text() if junit.exists() else ""  # A killed run has no file.
    cases = ElementTree.fromstring(text).iter("testcase") if text.rstrip().endswith(">") else ()
    for case in cases:
        bad = [*case.iter("failure"), *case.iter("error")]
        skipped = "passed" if case.find("skipped") is None else "skipped"
        counts["failed" if bad else skipped] += 1
        counts["seconds"] = round(counts["seconds"] + float(case.get("time", 0)), 3)
        # A file that could not be imported has no class name.
        name = "::".join(filter(None, (case.get("classname"), case.get("name"))))
        for child in bad:
            message = " ".join(child.get("message", "").split())[:300]
            failures[name] = message, (child.text or "")[-3000:]
    return counts, failures


def gpus() -> list[str]:
    """Return name, memory and driver version of each GPU."""
    fields = "--query-gpu=name,memory.total,driver_version"
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        lines = subprocess.check_output(["nvidia-smi", fields, "--format=csv,noheader"], text=True)
        return [", driver ".join(line.rsplit(", ", 1)) for line in lines.splitlines()]
    return []


def of_part(result: Result, part: str) -> list[Result]:
    """Return the results of a completed part."""
    return [line for line in result["lines"] if line["part"] == part and "cannot_run" not in line]


def step_of(line: Result) -> float:
    return statistics.median(line["step_seconds"])


def name_of(line: Result) -> str:
    return ", ".join(line[key] for key in ("contender", "mode") if key in line) or line["backend"]


def key_of(line: Result) -> tuple[str, ...]:
    """Return the key under which a contender's launches and seconds are matched."""
    return line["workload"], line["precision"], name_of(line)


def goals(result: Result) -> list[dict[str, str]]:
    """Return each goal, its measurement, and whether it is met."""
    steps, rows = {key_of(line): step_of(line) for line in of_part(result, "steps")}, []
    for network, precision, other, factor in GOALS:
        ours, theirs = (steps.get((network, precision, name)) for name in (CAPTURED, other))
        measured, verdict = "", "not measured"
        if ours and theirs:
            measured = f"{theirs / ours:.2f}"
            verdict = "met" if theirs / ours >= factor else "missed"
        goal = f"captured steps of {network}, {precision}, {factor:g} times {other}"
        rows.append({"goal": goal, "measured": measured, "verdict": verdict})
    return rows


def steps_table(result: Result) -> str:
    """Return the table of steps, by network and precision, the fastest first."""
    peaks: dict[str, float] = {}
    for line in of_part(result, "peaks"):
        peaks[line["precision"]] = max(peaks.get(line["precision"], 0.0), line["flops"])
    launches = {key_of(x): x["launches"] for x in of_part(result, "launches")}
    lines, rows = of_part(result, "steps"), []
    eager = {key_of(x)[:2]: step_of(x) for x in lines if x["contender"] == "torch"}
    order = list(dict.fromkeys(key_of(x)[:2] for x in lines))
    for line in sorted(lines, key=lambda x: (order.index(key_of(x)[:2]), step_of(x))):
        step, key = step_of(line), key_of(line)
        beside, n, peak = eager.get(key[:2]), launches.get(key), peaks.get(line["precision"])
        cells = [f"{key[0]}, batch {line['batch']}", *key[1:], seconds(step)]
        cells.append(f"{beside / step:.2f}" if beside else "")
        cells.append(f"{n:.1f}" if n else "")
        cells.append(f"{line['flop'] / step / peak:.0%}" if peak else "")
        rows.append(cells)
    names = ["network", "precision", "contender", "step", "vs torch", "launches", "of the peak"]
    return grid(names, rows)


def sections(result: Result) -> Iterator[tuple[str, str]]:
    """Yield the titles and texts of the page; titles without text are skipped."""

    def bullets(items: Iterable[str]) -> str:
        return "\n".join(f"- {item}" for item in items)

    if of_part(result, "steps"):
        yield "Goals", grid([*result["goals"][0]], [[*goal.values()] for goal in result["goals"]])
    yield "Problems", bullets(result["problems"] + result["failed"])
    late: dict[str, list[str]] = {}
    absent = []
    for x in result["lines"]:
        name = name_of(x)
        if (reason := x.get("cannot_run")) == NOT_REACHED:
            case = f"{x['workload']} in {x['precision']}"
            late.setdefault(f"{x['part']} {name}", []).append(case)
        elif reason:
            own = [x["part"], x.get("workload", ""), name, x.get("precision", "")]
            absent.append([*own, reason.replace("|", "/")])
    out_of_time = [f"{name}: {', '.join(cases)}" for name, cases in late.items()]
    yield "Not reached", bullets(result["not_reached"] + out_of_time)
    yield "Missing", bullets(result["missing"])
    tests = result["tests"].items()
    counts = [[spec, *(f"{count:.0f}" for count in found.values())] for spec, found in tests]
    yield "Tests", grid(["backend", *EMPTY], counts)
    tools = bullets(f"{tool}: {found}" for tool, found in result["sanitizer"].items())
    yield "Kernels under compute-sanitizer", tools
    part = functools.partial(of_part, result)
    rates = [[x["backend"], x["precision"], f"{x['flops'] / 1e12:.4g}"] for x in part("peaks")]
    yield "Large products", grid(["backend", "precision", "TFLOP/s"], rates)
    yield "Steps", steps_table(result)
    row = "{backend}; {how}; {rows}; {0:.2f}; {data}"
    moves = [row.format(x["bytes_per_second"] / 1e9, **x).split("; ") for x in part("transfers")]
    yield "Transfers", grid(["backend", "how", "rows", "GB/s", "data"], moves)
    row = "{backend}; {n_images:,}; {max_time} s; {test_accuracy:.1%}; {epochs:.1f}"
    runs = [row.format(**x).split("; ") for x in part("record")]
    yield "Recipe record", grid(["backend", "images", "time", "test accuracy", "epochs"], runs)
    yield "Cannot run here", grid(["part", "network", "contender", "precision", "reason"], absent)
    with contextlib.suppress(ImportError):  # threadpoolctl may be missing.
        facts = environment()
        yield "Measured on", f"{records.machine(facts)}; {records.versions(facts)}"


def markdown(result: Result) -> str:
    """Return a result as Markdown."""
    verdict = "FAILED" if result["problems"] + result["failed"] else "Passed"
    lines = [
        f"# GPU check, {result['date']}",
        f"**{verdict}** on {', '.join(result['usable']) or 'nothing'}.",
        "\n".join(f"- {gpu}" for gpu in result["gpus"] or ["no GPU known to nvidia-smi"]),
    ]
    lines += [f"## {title}\n\n{text}" for title, text in sections(result) if text]
    return "\n\n".join(lines) + "\n"


def chart(result: Result) -> Any:
    """Plot a panel per network, with a bar for the float32 steps per second of each contender."""
    from bench.reports.bars import GRAY, OURS, Bar, rate_panels

    panels: dict[str, dict[str, Bar]] = {}
    for x in of_part(result, "steps"):
        if x["precision"] == "float32":
            color = OURS if x["contender"].startswith("mlp_xp") else GRAY
            panel = panels.setdefault(f"{x['workload']}, batch {x['batch']}, float32", {})
            panel[name_of(x)] = Bar(1 / step_of(x), color)
    return rate_panels(panels, "Steps a second") if panels else None


def write(result: Result, folder: Path, *, with_chart: bool = True) -> Path:
    """Write JSON, Markdown and chart, named by date and device; return the Markdown file."""
    device = result["gpus"][0].partition(",")[0] if result["gpus"] else "no-gpu"
    stem = re.sub(r"[^0-9a-z]+", "-", f"{result['date'][:19]}-{device}".lower())
    folder.mkdir(parents=True, exist_ok=True)
    records.replace(folder / f"{stem}.json", json.dumps(result, indent=2) + "\n")
    records.replace(folder / f"{stem}.md", markdown(result))
    with contextlib.suppress(ImportError):  # matplotlib may be missing.
        if with_chart and (figure := chart(result)):
            figure.savefig(folder / f"{stem}.png", dpi=150)
    return folder / f"{stem}.md"
