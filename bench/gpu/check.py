"""The program that check.sh starts: the parts, which run within a time limit."""

import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

from bench.gpu.install import find_cifar10, install
from bench.gpu.run import GRACE, LEAST_TRAINING, Check
from bench.gpu.summary import EMPTY, GOALS, count_tests
from bench.suite.contenders import GPU_PEERS
from bench.suite.records import ROOT

WANTED = "cupy,torch:cuda,jax:cuda"
SECONDS = 530
# GPU code is tested first. Ranks are not tested, because they need several GPUs.
FIRST = "test_captured_steps.py", "test_kernels.py"
LAUNCHES = "test_launches.py"  # It needs the tests' stand-in for CuPy.
LATE = "the time is over"  # See tests/conftest.py.
TOOLS = "memcheck", "racecheck"
PYTEST = [sys.executable, "-m", "pytest", "-v", "-m", "", "-p", "no:cacheprovider"]
# Plugins may be missing, and a file that cannot be imported must not stop the other tests.
PYTEST += ["-o", "addopts=", "--continue-on-collection-errors"]


def find_usable(check: Check) -> None:
    """Test each backend in its own process; record those that work, and why others do not."""
    seconds, python = check.left("probe"), [sys.executable, "-m", "bench.gpu.jobs", "probe"]
    for spec, end in check.run({s: [*python, s] for s in check.wanted}, seconds).items():
        if end.status == 0:
            check.result["usable"].append(spec)
        else:
            last = f"no answer in {seconds:.0f} s" if end.status is None else end.last
            check.add("missing", f"Missing: {spec}. {last}")
    print("  usable:", ", ".join(check.result["usable"]) or "nothing")
    if not check.result["usable"]:
        check.add("problems", f"none of {', '.join(check.wanted)} works here")


def run_tests(check: Check) -> None:
    """Run the tests that depend on the backend, for all backends at the same time."""
    every = (ROOT / "tests").rglob("test_*.py")
    files = [
        str(path.relative_to(ROOT))
        for path in sorted(every, key=lambda path: (path.name not in FIRST, path))
        if not {"distributed", LAUNCHES} & {*path.parts}
        and re.search(r"^def test_.*\bbackend\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    if check.tiny:
        files = ["tests/backends/test_pinned.py"]
    selected = {
        spec: [*files, f"--backends={spec}", "--only-backends"] for spec in check.result["usable"]
    }
    if "cupy" in selected:
        words = ["tests/backends/test_precision.py", "--backends=cupy", "-k", "cupy"]
        selected["precision"] = words
    folder, seconds = check.scratch, check.left("tests")
    # pytest writes no report if a fit handles Ctrl-C, so it ends by itself. Compiling for the CPU
    # would take ten seconds.
    end = f"MLP_XP_TESTS_END={time.time() + seconds - GRACE}"
    pytest = ["env", "MLP_XP_STEPS_BEFORE_CAPTURE=2", "NUMBA_DISABLE_JIT=1", end, *PYTEST]
    # The log has the name of each test before it runs, and a traceback if the test hangs.
    pytest += ["-o", "faulthandler_timeout=40", "-o", "faulthandler_exit_on_timeout=false"]
    commands = {
        f"tests of {spec}": [*pytest, *words, f"--junitxml={folder}/{spec}.xml"]
        for spec, words in selected.items()
    }
    for name, ended in check.run(commands, seconds).items():
        spec = name.removeprefix("tests of ")
        counts, failures = count_tests(folder / f"{spec}.xml")
        at = re.findall(r"^(tests/\S+::\S+)", ended.log, re.MULTILINE) or ["no test"]
        if counts == EMPTY:  # The process did not end after an interrupt.
            check.add("problems", f"{name}: no result, at {at[-1]}: {ended.last}")
            check.result["tracebacks"][name] = ended.log[-3000:]
        elif ended.status is None or LATE in ended.log:
            check.add("not_reached", f"{name}: those after {at[-1]}, in {seconds:.0f} s")
        elif ended.status not in (0, 1):
            check.add("problems", f"{name}: exit status {ended.status}: {ended.last}")
        check.result["tests"][spec] = counts
        for test, (message, text) in failures.items():
            check.add("problems", f"failed: {test}: {message}")
            check.result["tracebacks"][test] = text
        print(f"  {name}: {counts}")


def contenders(check: Check) -> dict[str, str]:
    """Return the backend of each contender, starting with those in the goals."""
    found = {spec: spec for spec in check.result["usable"]}
    specs = {spec.partition(":")[0]: spec for spec in found}
    found |= {name: specs[library] for name, (library, _) in GPU_PEERS.items() if library in specs}
    if check.tiny:  # Compiling takes longer than a trial run may take.
        found.pop("torch, compiled", None)
    order = dict.fromkeys(["cupy", *(other for _, _, other, _ in GOALS), *found])
    return {name: found[name] for name in order if name in found}


def count_launches(check: Check) -> None:
    """Count the kernel launches on GPUs."""
    own = {name: spec for name, spec in contenders(check).items() if not spec.endswith(":cpu")}
    check.jobs("launches", own, check.left("launches"))


def run_record(check: Check) -> None:
    """Train with the recipe `record` for the remaining time."""
    if find_cifar10() is None and not check.tiny:
        check.add("missing", "record: CIFAR-10, see docs/gpu.md")
        return
    usable = check.result["usable"]  # Prefer torch, then CuPy.
    spec = min(usable, key=lambda spec: not spec.startswith("torch"))
    if check.left("record") < LEAST_TRAINING and not check.tiny:
        check.add("not_reached", f"record {spec}: no time left")
        return
    check.jobs("record", {spec: spec}, check.left("record"))


def run_sanitizer(check: Check) -> None:
    """Run the kernel tests with each tool of compute-sanitizer, at the same time."""
    found = check.result["sanitizer"]
    if check.sanitizer is None or "cupy" not in check.result["usable"]:
        why = "no CuPy" if check.sanitizer else "compute-sanitizer is not installed"
        found |= dict.fromkeys(TOOLS, why)
        return
    # Check only kernels, because CuPy handles the errors that CUDA's functions return.
    options = ["--report-api-errors", "no", "--target-processes", "all", *PYTEST]
    options += ["tests/backends/test_kernels.py", "--backends=cupy"]
    plain = ["env", "NUMBA_DISABLE_JIT=1", check.sanitizer]
    commands = {tool: [*plain, "--tool", tool, *options] for tool in TOOLS}
    for tool, end in check.run(commands, check.left("sanitizer")).items():
        said = [line.lstrip("= ") for line in end.log.splitlines() if line.startswith("=====")]
        kinds = re.compile(r"(Invalid|Error:|Race|Misaligned|Out-of)|.*hazard")
        wrong = [x for x in said if kinds.match(x) and "SUMMARY" not in x]
        n_passed = len(re.findall(r"::\S+ PASSED", end.log))
        found[tool] = f"{len(wrong)} errors in {n_passed} tests"
        if wrong:
            check.add("problems", f"{tool}: {len(wrong)} errors, first: {wrong[0]}")
            check.result["tracebacks"][tool] = "\n".join(said)[:3000]
        elif not n_passed:
            check.add("problems", f"{tool}: no test passed: {end.last}")
        elif end.status is None:
            check.add("not_reached", f"{tool}: all but {n_passed} tests of the kernels")


PARTS = {
    "install": install,
    "probe": find_usable,
    "tests": run_tests,
    "peaks": lambda check: check.in_sequence("peaks"),
    "steps": lambda check: check.in_sequence("steps", contenders(check)),
    "launches": count_launches,  # Late, because a profiler slows other measurements.
    "transfers": lambda check: check.in_sequence("transfers"),
    "record": run_record,
    "sanitizer": run_sanitizer,
}


def check_all(check: Check) -> int:
    """Run all parts; return the exit status."""
    names = iter(PARTS)
    for name in names:
        start = check.now()
        print(f"{name}: {max(check.left(name), 0):.0f} s at most")
        try:
            PARTS[name](check)
        except Exception as error:  # An error in one part does not stop the others.
            check.add("problems", f"{name}: {type(error).__name__}: {error}")
        except BaseException as error:  # Ctrl-C or SIGTERM.
            check.add("not_reached", f"{name}, {', '.join(names)}: {type(error).__name__}")
            break
        finally:
            check.result["seconds"][name] = round(check.now() - start, 1)
            check.save()
        if name == "probe" and not check.result["usable"]:
            break
    check.save(with_chart=True)
    bad = check.result["problems"] + check.result["failed"]
    met = [f"{goal['goal']}: {goal['verdict']}" for goal in check.result["goals"]]
    print("\n".join([*met, *check.result["not_reached"], *bad, f"Written: {check.path}"]))
    return 1 if bad else 0


def main() -> int:
    wanted = os.environ.get("MLP_XP_CHECK", WANTED).split(",")
    tiny = bool(os.environ.get("MLP_XP_CHECK_TINY"))
    seconds = float(os.environ.get("MLP_XP_CHECK_SECONDS", SECONDS))
    if tiny:
        os.environ["MLP_XP_STEPS_BEFORE_CAPTURE"] = "2"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("SIGTERM"))
    # Background processes ignore Ctrl-C, and so would the processes that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as scratch:
        return check_all(Check(Path(sys.argv[1]), Path(scratch), wanted, seconds, tiny=tiny))


if __name__ == "__main__":
    sys.exit(main())
