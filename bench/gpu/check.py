"""The program that check.sh starts. It runs the parts within a time limit, and writes each result
immediately."""

import os
import re
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path

from bench.gpu.install import (
    ROOT,
    WHEELS,
    find_cifar10,
    is_there,
    missing_wheels,
    pip,
    requirements,
)
from bench.gpu.run import LEAST, Check
from bench.gpu.summary import EMPTY, count_tests

WANTED = "cupy,torch:cuda,jax:cuda"
SECONDS = 530
# GPU code is tested first. Ranks are not tested, because they need several GPUs.
FIRST = "test_captured_steps.py", "test_kernels.py", "test_precision.py"
# The contenders in the goals come first, in case time is short. Compilers get twice the time.
PEERS = "torch, compiled", "JAX, epoch in a scan", "torch"
WEIGHTS = {"torch, compiled": 2}
TOOLS = "memcheck", "racecheck"
PYTEST = [sys.executable, "-m", "pytest", "-v", "-m", "", "-p", "no:cacheprovider"]


def install(check: Check) -> None:
    """Install missing packages from the folder of wheels or the index; report packages that remain
    missing."""
    end = check.now() + check.left("install")
    if wheels := missing_wheels():
        print("  from wheels/:", ", ".join(Path(wheel).name for wheel in wheels), flush=True)
        own = "--no-index", "--no-deps", "--upgrade", "--target", str(WHEELS / "installed")
        for name, ended in check.run({"wheels": pip(*own, *wheels)}, end - check.now()).items():
            if ended.status != 0:
                check.add("problems", f"{name}: {ended.last}")
    for name, text in requirements(check.result["gpus"], check.result["wanted"]).items():
        line = f"{name}: pip install '{text}'"
        if not is_there(name) and end - check.now() >= LEAST:
            command = pip("--timeout", "5", text)
            for ended in check.run({name: command}, end - check.now()).values():
                line += f" ({ended.last})" if ended.status else ""
        if not is_there(name):
            check.add("missing", line)
    sys.path[:] = [str(ROOT), *sys.path, str(WHEELS / "installed")]
    try:
        check.cifar10 = find_cifar10()
    except Exception as error:  # Missing packages are reported.
        print(f"  CIFAR-10: {type(error).__name__}: {error}")
    where = {ROOT: "found", WHEELS: "some images, in wheels/data"}
    cure = "mlp-xp data cifar10, or bench/gpu/get_wheels.sh on a machine that has it"
    print(f"  CIFAR-10: {where.get(check.cifar10, f'missing: {cure}')}")
    print(f"  compute-sanitizer: {check.sanitizer or 'not installed'}", flush=True)


def find_usable(check: Check) -> None:
    """Test each backend in its own process; record those that work, and why others do not."""
    wanted, seconds = check.result["wanted"], check.left("probe")
    commands = {spec: [sys.executable, "-m", "bench.gpu.summary", spec] for spec in wanted}
    for spec, end in check.run(commands, seconds).items():
        if end.status == 0:
            check.result["usable"].append(spec)
        else:
            last = f"no answer in {seconds:.0f} s" if end.status is None else end.last
            check.add("missing", f"Missing: {spec}. {last.removeprefix(f'Missing: {spec}. ')}")
    print("  usable:", ", ".join(check.result["usable"]) or "nothing", flush=True)
    if not check.result["usable"]:
        check.add("problems", f"none of {', '.join(wanted)} works here")


def run_tests(check: Check) -> None:
    """Run the tests that depend on the backend, for all backends at the same time."""
    every = (ROOT / "tests").rglob("test_*.py")
    files = [
        str(path.relative_to(ROOT))
        for path in sorted(every, key=lambda path: (path.name not in FIRST, path))
        if "distributed" not in path.parts
        and re.search(r"^def test_.*\bbackend\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    if check.tiny:
        files = ["tests/backends/test_pinned.py"]
    # The log has the name of each test before it runs, and a traceback if the test hangs.
    pytest = [*PYTEST, *files, "-o", "faulthandler_timeout=40"]
    reports = {s: check.scratch / f"{s.replace(':', '-')}.xml" for s in check.result["usable"]}
    commands = {
        f"tests of {spec}": [*pytest, f"--backends={spec}", f"--junitxml={report}"]
        for spec, report in reports.items()
    }
    seconds = check.left("tests")
    ended = check.run(commands, seconds, MLP_XP_STEPS_BEFORE_CAPTURE="2")
    for (name, end), (spec, report) in zip(ended.items(), reports.items(), strict=True):
        counts, taken, failures = count_tests(report)
        at = re.findall(r"^(tests/\S+::\S+)", end.log, re.MULTILINE) or ["no test"]
        if counts == EMPTY:  # The process did not end after an interrupt.
            check.add("problems", f"{name}: no result, at {at[-1]}: {end.last}")
            check.result["tracebacks"][name] = end.log[-3000:]
        elif end.status not in (0, 1, None):
            check.add("problems", f"{name}: exit status {end.status}: {end.last}")
        elif end.status is None:
            check.add("not_reached", f"{name}: those after {at[-1]}, in {seconds:.0f} s")
        check.result["tests"][spec] = counts | {"seconds": taken}
        for test, (message, text) in failures.items():
            check.add("problems", f"failed: {test}: {message}")
            check.result["tracebacks"][test] = text
        print(f"  {name}: {counts}", flush=True)


def steps_of(check: Check) -> dict[str, list[str]]:
    """Return the options for measuring each contender, starting with those in the goals."""
    from bench.suite.contenders import GPU_PEERS

    usable = check.result["usable"]
    specs = {spec.partition(":")[0]: spec for spec in usable}
    every = {spec: spec for spec in usable} | {
        name: specs[library]
        for name, (library, _) in GPU_PEERS.items()
        # Compiling takes longer than a trial run may take.
        if library in specs and not (check.tiny and "compiled" in name)
    }
    order = dict.fromkeys(["cupy", *PEERS, *every])
    return {name: ["--spec", every[name]] for name in order if name in every}


def count_launches(check: Check) -> None:
    """Count the kernel launches on GPUs."""
    own = {name: o for name, o in steps_of(check).items() if not o[1].endswith(":cpu")}
    check.jobs("launches", own, check.left("launches"))


def time_backends(job: str, check: Check) -> None:
    check.in_sequence(job, {spec: [] for spec in check.result["usable"]}, {})


def run_record(check: Check) -> None:
    """Train with the recipe `record` for the remaining time."""
    if check.cifar10 is None and not check.tiny:
        check.add("missing", "record: CIFAR-10, see docs/gpu.md")
        return
    usable = check.result["usable"]  # Prefer torch, then CuPy.
    spec = min(usable, key=lambda spec: not spec.startswith("torch"))
    own = [] if check.cifar10 is None else ["--folder", str(check.cifar10)]
    seconds = check.left("record")
    check.jobs("record", {spec: own}, min(seconds, 60) if check.tiny else seconds)


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
    commands = {tool: [check.sanitizer, "--tool", tool, *options] for tool in TOOLS}
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
    "peaks": partial(time_backends, "peaks"),
    "steps": lambda check: check.in_sequence("steps", steps_of(check), WEIGHTS),
    "launches": count_launches,  # Late, because a profiler slows other measurements.
    "transfers": partial(time_backends, "transfers"),
    "record": run_record,
    "sanitizer": run_sanitizer,
}


def check_all(check: Check) -> int:
    """Run all parts; return the exit status."""
    names = iter(PARTS)
    for name in names:
        start = check.now()
        print(f"{name}: {max(check.left(name), 0):.0f} s at most", flush=True)
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
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as scratch:
        return check_all(Check(Path(sys.argv[1]), Path(scratch), wanted, seconds, tiny=tiny))


if __name__ == "__main__":
    sys.exit(main())
