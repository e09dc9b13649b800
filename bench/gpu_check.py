"""The driver of gpu_check.sh: it runs the parts within a time, and writes each result at once."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gpu_summary import EMPTY, NOT_REACHED, count_tests, gpus, write

ROOT = Path(__file__).parents[1]
WANTED = "cupy,torch:cuda,jax:cuda"
SECONDS = 530
# The most seconds of each part, in their order; the last gets what is left.
LIMITS = {
    "install": 90, "tests": 140, "peaks": 24, "steps": 180, "launches": 30, "transfers": 24,
    "record": 600,
}  # fmt: skip
# Kept for the last summary, the least that is worth starting a part for, and the most that a
# library may take to say whether it works.
RESERVE, LEAST, PROBE = 8, 4, 60
# A GPU's own code is tested first, and ranks not at all: they are for several GPUs.
FIRST = "test_captured_steps.py", "test_kernels.py", "test_precision.py"
WHEELS = ROOT / "wheels"  # See get_wheels.sh.
# By module: what to install, with the major version of CUDA that the driver has.
PACKAGES = {
    "cupy": "cupy-cuda{cuda}x[ctk]>=14",
    "nvmath": "nvmath-python>=1.0",
    "torch": "torch>=2.6",
    "jax": "jax[cuda{cuda}]>=0.8",
    "pytest": "pytest>=8.2",
    "pytest_benchmark": "pytest-benchmark>=5.1",
    "hypothesis": "hypothesis>=6.100",
    "pandas": "pandas>=2.2",
    "array_api_strict": "array-api-strict>=2.4",
    "matplotlib": "matplotlib>=3.9",
    "rich": "rich>=13.7",
    "safetensors": "safetensors>=0.5",
    "sklearn": "scikit-learn>=1.7",
    "array_api_compat": "array-api-compat>=1.12",
    "array_api_extra": "array-api-extra>=0.9",
}


class Check:
    """A run: its result, which is written after each part, and the time that is left."""

    def __init__(
        self, folder: Path, scratch: Path, wanted: list[str], seconds: float, *, tiny: bool
    ) -> None:
        self.folder = folder
        self.tiny = tiny
        self.now = time.monotonic
        self.end = self.now() + seconds
        self.scratch = scratch
        self.lines = self.scratch / "lines.jsonl"
        self.lines.touch()
        self.result: dict[str, Any] = {
            "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "gpus": gpus(),
            "wanted": wanted,
            "usable": [],
            "missing": [],
            "problems": [],
            "not_reached": [],
            "failed": [],
            "tests": {},
            "lines": [],
            "seconds": {},
        }
        self.path: Path | None = None

    def left(self, part: str) -> float:
        """Return the seconds that a part may take."""
        left = self.end - RESERVE - self.now()
        return left if self.tiny else min(LIMITS[part], left)  # A busy machine may try it.

    def save(self) -> None:
        """Write JSON, Markdown and chart with all results so far."""
        text = self.lines.read_text()
        whole = text[: text.rfind("\n") + 1]  # The last line may be half written.
        self.result["lines"] = [json.loads(line) for line in whole.splitlines()]
        self.result["failed"] = [
            f"{line['contender']}, {line['mode']}, {line['workload']}: {line['cannot_run']}"
            for line in self.result["lines"]
            # A card may lack a low precision; that is listed, and no failure.
            if line["part"] == "steps" and line["precision"] == "float32" and "mode" in line
            if line.get("cannot_run", NOT_REACHED) != NOT_REACHED
        ]
        self.path = write(self.result, self.folder)

    def run(self, command: list[str], seconds: float, name: str) -> bool:
        """Run a command within its time; on failure add a problem."""
        if seconds < LEAST:
            self.result["not_reached"].append(f"{name}: no time left")
            return False
        process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, env=environment())
        reason = None
        try:
            status = process.wait(seconds)
            reason = f"exit status {status}" if status else None
        except subprocess.TimeoutExpired:
            reason = f"out of time after {seconds:.0f} s"
        finally:
            stop(process)
        if reason:
            self.result["problems"].append(f"{name}: {reason}")
        return reason is None

    def job(self, job: str, contender: str, seconds: float, *more: str) -> None:
        """Run a measurement of gpu_jobs.py, and save what it wrote."""
        given = [job, contender, *more, "--out", str(self.lines), "--seconds", f"{seconds:.0f}"]
        tiny = ["--tiny"] if self.tiny else []
        self.run(
            [sys.executable, "bench/gpu_jobs.py", *given, *tiny], seconds, f"{job} {contender}"
        )
        self.save()


def environment() -> dict[str, str]:
    """Return the environment of the parts: this tree first, and memory for several libraries."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")]), str(WHEELS / "installed")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "MPLBACKEND": "agg",
    }


def stop(process: subprocess.Popen) -> None:
    """Stop a process and its children; pytest, interrupted, still writes its results."""
    for signum in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10 if signum == signal.SIGINT else None)


def install(check: Check) -> None:
    """Install what is missing, from the folder of wheels or the index; name the rest."""
    driver = re.search(r"driver (\d+)", " ".join(check.result["gpus"]))
    cuda = 13 if driver and int(driver[1]) >= 580 else 12
    absent = {"cupy", "torch", "jax"} - {spec.partition(":")[0] for spec in check.result["wanted"]}
    if "cupy" in absent:
        absent.add("nvmath")  # For CuPy's products.
    needed = {name: text.format(cuda=cuda) for name, text in PACKAGES.items() if name not in absent}
    needed = {name: text for name, text in needed.items() if not is_there(name)}
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--retries", "0"]
    wheels = [path for path in WHEELS.glob("*.whl") if path.name.split("-")[0].lower() in needed]
    folder = WHEELS / "installed"
    if wheels:
        own = [*pip, "--no-index", "--no-deps", "--upgrade", "--target", folder, *wheels]
        check.run([*map(str, own)], check.left("install"), "wheels")
    end = check.now() + check.left("install")
    for name, requirement in needed.items():
        if not is_there(name):  # The first that finds no index has taken the time of all.
            check.run([*pip, "--timeout", "5", requirement], end - check.now(), f"pip {name}")
        if not is_there(name):
            check.result["missing"].append(f"{name}: pip install '{requirement}'")
    for kind in ("problems", "not_reached"):  # Of what is missing there is a line already.
        own = check.result[kind]
        own[:] = [line for line in own if not line.startswith("pip ")]


def is_there(name: str) -> bool:
    """Whether a module can be imported by the parts, which look in the folder of wheels too."""
    if (WHEELS / "installed" / name).exists():
        return True
    importlib.invalidate_caches()
    return importlib.util.find_spec(name) is not None


def find_usable(check: Check) -> None:
    """Record the backends that work here, and why the others do not; each in its process."""
    options: dict[str, Any] = {"cwd": ROOT, "env": environment(), "start_new_session": True}
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    asked = {
        spec: subprocess.Popen([sys.executable, "bench/gpu_summary.py", spec], **options)
        for spec in check.result["wanted"]
    }
    end = check.now() + PROBE
    for spec, process in asked.items():
        try:
            said, error = process.communicate(timeout=max(end - check.now(), 0.1))
        except subprocess.TimeoutExpired:
            stop(process)
            said, error = "", f"no answer in {PROBE} s"
        check.result["usable"] += said.split()
        if not said.split():
            why = [line for line in error.splitlines() if line.strip()] or ["no output"]
            last = why[-1].removeprefix(f"Missing: {spec}. ")
            check.result["missing"].append(f"Missing: {spec}. {last}")
    print("usable:", ", ".join(check.result["usable"]) or "nothing", flush=True)
    print("\n".join(check.result["missing"]), flush=True)
    if not check.result["usable"]:
        check.result["problems"].append(f"none of {', '.join(check.result['wanted'])} works here")


def run_tests(check: Check) -> None:
    """Run the tests that take a backend, those of all backends at the same time."""
    files = [
        str(path.relative_to(ROOT))
        for path in sorted(
            (ROOT / "tests").rglob("test_*.py"), key=lambda path: (path.name not in FIRST, path)
        )
        if "distributed" not in path.parts
        and re.search(r"^def test_.*\bbackend\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    if check.tiny:
        files = ["tests/backends/test_pinned.py"]
    seconds = check.left("tests")
    if seconds < LEAST:
        check.result["not_reached"].append("tests: no time left")
        return
    running = {}
    soon = environment() | {"MLP_XP_STEPS_BEFORE_CAPTURE": "2"}
    for spec in check.result["usable"]:
        report = check.scratch / f"{spec.replace(':', '-')}.xml"
        options = ["-q", "-m", "", "-p", "no:cacheprovider", f"--backends={spec}"]
        command = [sys.executable, "-m", "pytest", *files, *options, f"--junitxml={report}"]
        running[spec] = (
            report,
            subprocess.Popen(command, cwd=ROOT, env=soon, start_new_session=True),
        )
    end = time.monotonic() + seconds
    for spec, (report, process) in running.items():
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(end - time.monotonic(), 0.1))
        if process.poll() is None:
            late = f"tests of {spec}: the last of them, out of time after {seconds:.0f} s"
            check.result["not_reached"].append(late)
        elif process.returncode:
            check.result["problems"].append(f"tests of {spec}: exit status {process.returncode}")
        stop(process)
        counts = count_tests(report, [spec])
        check.result["tests"][spec] = counts["all"] | {"seconds": counts["seconds"]}
        check.result["problems"] += [f"failed: {name}" for name in counts["failures"]]
        if counts["all"] == EMPTY:
            check.result["problems"].append(f"tests of {spec}: no result")
        check.save()


def run_steps(check: Check, job: str = "steps") -> None:
    """Time the steps of each contender, or count their launches, a share of the time each."""
    from bench.suite.contenders import GPU_PEERS

    usable = check.result["usable"]
    jobs = [(spec, spec) for spec in usable]
    for name, (library, *_) in GPU_PEERS.items():
        specs = [spec for spec in usable if spec.partition(":")[0] == library]
        # A compiler takes longer than a trial may.
        if specs and not (check.tiny and "compiled" in name):
            jobs.append((name, specs[0]))
    end = check.now() + check.left(job)
    for number, (name, spec) in enumerate(jobs):
        left = end - check.now()
        share = left if check.tiny else left / (len(jobs) - number)
        check.job(job, name, share, "--spec", spec)


def check_all(check: Check) -> int:
    """Run all parts; return the exit status."""

    def each(job: str) -> None:
        end, usable = check.now() + check.left(job), check.result["usable"]
        for number, spec in enumerate(usable):
            left = end - check.now()
            check.job(job, spec, left if check.tiny else left / (len(usable) - number))

    def run_record() -> None:
        usable = check.result["usable"]  # torch has the recipe's layers, CuPy comes next.
        order = sorted(usable, key=lambda spec: not spec.startswith("torch"))
        check.job("record", order[0], min(check.left("record"), 60 if check.tiny else 600))

    parts = {
        "install": lambda: (install(check), find_usable(check)),
        "tests": lambda: run_tests(check),
        "peaks": lambda: each("peaks"),
        "steps": lambda: run_steps(check),
        # Late: a profiler stays attached, and slows what is timed after it.
        "launches": lambda: run_steps(check, "launches"),
        "transfers": lambda: each("transfers"),
        "record": run_record,
    }
    for name, run in parts.items():
        start = check.now()
        print(f"{name}: {check.left(name):.0f} s at most", flush=True)
        try:
            run()
        except Exception as error:  # One part does not take the others with it.
            check.result["problems"].append(f"{name}: {type(error).__name__}: {error}")
        check.result["seconds"][name] = round(check.now() - start, 1)
        check.save()
        if not check.result["usable"]:
            break
    bad = check.result["problems"] + check.result["failed"]
    print("\n".join([*check.result["not_reached"], *bad, f"Written: {check.path}"]))
    return 1 if bad else 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where JSON, Markdown and chart go")
    args = parser.parse_args(argv)
    wanted = os.environ.get("MLP_XP_CHECK", WANTED).split(",")
    tiny = bool(os.environ.get("MLP_XP_CHECK_TINY"))
    seconds = float(os.environ.get("MLP_XP_CHECK_SECONDS", SECONDS))
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as scratch:
        return check_all(Check(args.folder, Path(scratch), wanted, seconds, tiny=tiny))


if __name__ == "__main__":
    sys.exit(main())
