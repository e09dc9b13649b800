"""The two Python steps of gpu_check.sh: find usable backends, and summarize the results."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from report import epoch_table, platform_list, transfer_table

__all__ = ["count_tests", "gpus", "markdown", "summarize", "usable"]

EMPTY = {"passed": 0, "failed": 0, "skipped": 0}


def usable(wanted: list[str]) -> list[str]:
    """Return the backends that work here; print to stderr why the others do not."""
    from mlp_xp.backends import BackendError, get_backend

    good = []
    for spec in wanted:
        name, _, device = spec.partition(":")
        try:
            get_backend(name, device or None)
        except (BackendError, ValueError) as error:
            print(f"Missing: {spec}. {error}", file=sys.stderr)
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


def summarize(
    scratch: Path, wanted: list[str], statuses: list[int], devices: list[str]
) -> dict[str, Any]:
    """Return the results of both pytest runs; an empty list of problems is a pass."""
    runs, problems = {}, []
    for name, status in zip(("tests", "bench"), statuses, strict=True):
        runs[name] = count_tests(scratch / f"{name}.xml", wanted)
        problems += [f"failed: {test}" for test in runs[name]["failures"]]
        if status:
            reason = "out of time" if status in (124, 137) else f"exit status {status} of pytest"
            problems.append(f"{name}: {reason}")
    ran = [spec for spec in wanted if runs["tests"][spec]["passed"]]
    if not ran:
        problems.append(f"no test passed on any of {', '.join(wanted)}")
    path = scratch / "bench.json"
    # pytest-benchmark creates the file at the start and fills it at the end.
    results = json.loads(path.read_text()) if path.exists() and path.stat().st_size else None
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "gpus": devices,
        "wanted": wanted,
        "ran": ran,
        "problems": problems,
        **runs,
        "results": results,
    }


def markdown(summary: dict[str, Any]) -> str:
    """Return a summary as Markdown."""
    missing = [spec for spec in summary["wanted"] if spec not in summary["ran"]]
    lines = [
        f"# GPU check, {summary['date']}",
        "",
        f"**{'FAILED' if summary['problems'] else 'Passed'}** on "
        f"{', '.join(summary['ran']) or 'nothing'}"
        + (f"; did not run: {', '.join(missing)}." if missing else "."),
        "",
        *[f"- {gpu}" for gpu in summary["gpus"] or ["no GPU known to nvidia-smi"]],
        "",
        "| tests | passed | failed | skipped |",
        "|---|--:|--:|--:|",
    ]
    for name in (*summary["wanted"], "all"):
        counts = summary["tests"][name]
        lines.append(f"| {name} | {counts['passed']} | {counts['failed']} | {counts['skipped']} |")
    lines += ["", f"The tests took {summary['tests']['seconds']:.0f} s."]
    if summary["problems"]:
        lines += ["", "## Problems", "", *[f"- {problem}" for problem in summary["problems"]]]
    results = summary["results"]
    if results:
        benchmarks = results["benchmarks"]
        lines += ["", "## Training epochs", "", epoch_table(benchmarks)]
        lines += ["", "## Transfers", "", transfer_table(benchmarks)]
        lines += ["", "## Measured on", "", platform_list(results)]
    return "\n".join(lines) + "\n"


def write(summary: dict[str, Any], folder: Path) -> Path:
    """Write both files, named by date and device; return the Markdown file."""
    device = summary["gpus"][0].partition(",")[0] if summary["gpus"] else "no-gpu"
    stem = re.sub(r"[^0-9a-z]+", "-", f"{summary['date'][:19]}-{device}".lower())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}.json").write_text(json.dumps(summary, indent=2) + "\n")
    (folder / f"{stem}.md").write_text(markdown(summary), encoding="utf-8")
    return folder / f"{stem}.md"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("usable", help="print the backends that work here")
    command.add_argument("wanted", help="e.g. cupy,torch:cuda")
    command = commands.add_parser("write", help="write the JSON and the Markdown file")
    command.add_argument("scratch", type=Path, help="folder with tests.xml, bench.xml, bench.json")
    command.add_argument("folder", type=Path, help="where the two files go")
    command.add_argument("--wanted", required=True)
    command.add_argument(
        "--statuses", type=int, nargs=2, required=True, help="exit statuses of both pytest runs"
    )
    args = parser.parse_args(argv)

    wanted = args.wanted.split(",")
    if args.command == "usable":
        good = usable(wanted)
        if not good:
            print(f"None of {args.wanted} can be used here: nothing to check.", file=sys.stderr)
            return 1
        print(",".join(good))
        return 0
    summary = summarize(args.scratch, wanted, args.statuses, gpus())
    path = write(summary, args.folder)
    print(
        "\n".join([*summary["problems"], f"Written: {path} and {path.with_suffix('.json').name}"])
    )
    return 1 if summary["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
