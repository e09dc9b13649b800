"""The check of a GPU: its verdict, a trial on the stand-in for CuPy, and runs by a fake clock."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import mlp_xp.datasets

ROOT = Path(__file__).parents[2]
JUNIT = """<testsuites><testsuite>
  <testcase classname="tests.test_step" name="test_step[cupy]" time="1.5"/>
  <testcase classname="tests.test_step" name="test_late" time="0.5">
    <error message="of x">1</error></testcase>
  <testcase classname="tests.test_step" name="test_more"><skipped/></testcase>
</testsuite></testsuites>"""


def test_tests_are_counted_and_failures_listed_with_tracebacks(module, tmp_path):
    gpu_summary = module("bench.gpu.summary")
    assert gpu_summary.count_tests(tmp_path / "none.xml")[0] == gpu_summary.EMPTY
    path = tmp_path / "tests.xml"
    path.write_text(JUNIT)
    counts, failures = gpu_summary.count_tests(path)
    assert counts == {"passed": 1, "failed": 1, "skipped": 1, "seconds": 2.0}
    assert failures == {"tests.test_step::test_late": ("of x", "1")}


def test_processes_end_in_time_and_results_are_complete(module, tmp_path, monkeypatch):
    gpu_run = module("bench.gpu.run")
    monkeypatch.setattr(gpu_run, "GRACE", 0.05)
    check = gpu_run.Check(tmp_path, tmp_path, ["numpy"], 100.0, tiny=True)
    check.lines.write_text('{"part": "peaks", "backend": "x", "precision": "a", "flops": 1}\n{"par')
    hang = {"hang": ["sh", "-c", "trap '' INT; sleep 60 & wait"]}
    told = {"crash": ["sh", "-c", "echo reason; exit 3"], "good": ["true"]}
    monkeypatch.setattr(gpu_run, "LEAST", 0.01)
    assert not check.run(hang, 0.005)
    ended = check.run(told, 60) | check.run(hang, 0.05)
    assert {name: (end.status, end.last) for name, end in ended.items()} == {
        "crash": (3, "reason"), "good": (0, "no output"), "hang": (None, "no output")
    }  # fmt: skip
    check.save()
    half = lambda path, text, **_: path.write_bytes(text[:99].encode()) and sys.exit("killed")  # noqa: E731
    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(SystemExit, match="killed"):
        check.save()
    written = json.loads(check.path.with_suffix(".json").read_text())
    assert written["not_reached"] == ["hang: no time left"]
    assert [line["backend"] for line in written["lines"]] == ["x"]


@pytest.mark.parametrize(
    ("theirs", "verdict"), [({"tf32": 1.5, "float32": 7.9}, "missed"), ({}, "not measured")]
)
def test_goals_are_judged_by_the_measured_times(module, tmp_path, theirs, verdict):
    summary = module("bench.gpu.summary")
    facts = {"part": "steps", "batch": 1, "flop": 1}
    lines = [
        facts | {"workload": w, "precision": p, "contender": c, "step_seconds": [s * 1e-6]} | mode
        for w, p in (("goal", "tf32"), ("tiny", "float32"))
        for c, s, mode in (
            ("mlp_xp, cupy", 100, {"mode": "captured"}),
            *((name, 100 * theirs[p], {}) for _, q, name, _ in summary.GOALS if p == q and theirs),
        )
    ]
    result = {"lines": lines}
    assert [row["verdict"] for row in summary.goals(result)][-1] == verdict
    assert summary.goals(result)[0]["verdict"] == ("met" if theirs else verdict)


@pytest.mark.parametrize(
    ("script", "problem", "found"),
    [
        ("echo a::b PASSED; echo '========= ERROR SUMMARY: 0 errors'", None, "0 errors in 1 tests"),
        ("echo a::b PASSED; echo '========= Invalid __global__ read'", "1 errors, first: Invalid",
         "1 errors in 1 tests"),
        ("echo no GPU; exit 1", "no test passed: no GPU", "0 errors in 0 tests"),
        (None, None, "compute-sanitizer is not installed"),
    ],
)  # fmt: skip
def test_kernels_are_run_under_the_sanitizer(module, tmp_path, monkeypatch, script, problem, found):
    gpu_check, gpu_run = module("bench.gpu.check"), module("bench.gpu.run")
    if script is not None:
        (tmp_path / "compute-sanitizer").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "compute-sanitizer").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    check = gpu_run.Check(tmp_path, tmp_path, ["cupy"], 100.0)
    check.result["usable"] = ["cupy"]
    gpu_check.run_sanitizer(check)
    assert check.result["sanitizer"] == dict.fromkeys(gpu_check.TOOLS, found)
    said = check.result["problems"]
    assert all(problem in line for line in said) if problem else not said
    assert len(said) == 2 * bool(problem)


def test_local_wheels_and_images_are_found(module, tmp_path, monkeypatch):
    install = module("bench.gpu.install")
    x = np.ones((10, 3072), np.uint8)
    (tmp_path / "cache").mkdir()
    few = mlp_xp.datasets.Dataset(x, x[:, 0], x, x[:, 0], (), (3, 32, 32))
    path = tmp_path / "data" / install.IMAGES.name
    monkeypatch.setattr(mlp_xp.datasets, "load_cifar10", lambda: few)
    monkeypatch.setattr(install, "WHEELS", tmp_path)
    monkeypatch.setattr(install, "IMAGES", path)
    monkeypatch.setenv("MLP_XP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "cache")
    assert install.find_cifar10() is None
    install.write_images(10, 5)
    assert install.find_cifar10() == path
    assert mlp_xp.datasets.cifar.load_cifar10(path).x_test.shape == (5, 3072)
    # The last one is installed, under the name pytest-benchmark.
    for name in ("numpy-9.0", "cuda_none-1.0", "nowhere_nvmath-1.0", "pytest_benchmark-9.0"):
        (tmp_path / f"{name}-py3-none-any.whl").touch()
    found = [Path(wheel).name.partition("-")[0] for wheel in install.missing_wheels()]
    assert found == ["cuda_none", "nowhere_nvmath"]


def test_uncaptured_steps_fail_the_check_but_missing_time_does_not(module, tmp_path, monkeypatch):
    jobs, gpu_run = module("bench.gpu.jobs"), module("bench.gpu.run")

    def refused(*_):
        jobs.captured.report(refused, "no cuBLASLt")
        return lambda: None

    monkeypatch.setattr(jobs, "prepare", refused)
    check = gpu_run.Check(tmp_path, tmp_path, [], 100.0, tiny=True)
    told = {"job": "steps", "contender": "cupy", "spec": None, "tiny": True}
    for seconds in (100.0, 0.0):
        lines = list(jobs.results(SimpleNamespace(**told, seconds=seconds)))
        check.lines.write_text("".join(json.dumps(line) + "\n" for line in lines))
        check.save()
        failed = check.result["failed"]
        assert len(failed) == (1 if seconds else 0)
        assert all("captured" in line and "no cuBLASLt" in line for line in failed)
        assert len(lines) == 6


@pytest.mark.matrix
def test_tests_stop_in_time_to_write_their_report(module, tmp_path):
    check, summary = module("bench.gpu.check"), module("bench.gpu.summary")
    env = os.environ | {"MLP_XP_TESTS_END": "1", "NUMBA_DISABLE_JIT": "1"}
    command = [*check.PYTEST, "tests/nn/test_losses.py", f"--junitxml={tmp_path / 'x.xml'}"]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert (check.LATE in done.stdout, done.returncode) == (True, 2)
    assert summary.count_tests(tmp_path / "x.xml")[0]["passed"] == 1


@pytest.mark.matrix
def test_gpu_check_runs_on_the_cupy_stand_in(tmp_path):
    """All parts with small networks; what needs a GPU is listed with the reason."""
    environment = os.environ | {"MLP_XP_CHECK_TINY": "1", "MLP_XP_CHECK_SECONDS": "850"}
    environment |= {"PYTHON": sys.executable, "MLP_XP_CHECK": "cupy,torch:cpu,jax:cpu,numpy:cuda"}
    environment |= {"PYTHONPATH": str(ROOT / "tests" / "stand_in" / "packages")}
    command = [ROOT / "bench" / "gpu" / "check.sh", tmp_path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (page,) = tmp_path.glob("*.md")
    result, text = json.loads(page.with_suffix(".json").read_text()), page.read_text()
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert result["usable"] == ["cupy", "torch:cpu", "jax:cpu"]
    assert any("numpy:cuda" in line for line in result["missing"])
    assert all(counts["passed"] and not counts["failed"] for counts in result["tests"].values())
    modes = {
        (network, f"mlp_xp, {spec}, {mode}")
        for network in ("goal", "tiny")
        for spec in result["usable"]
        for mode in ("captured", "eager")
    }
    found = {(x["workload"], x["precision"], f"{x['contender']}, {x.get('mode')}"): x
             for x in result["lines"] if "workload" in x and "cannot_run" not in x}  # fmt: skip
    assert modes < {(key[0], key[2]) for key in found}
    assert ("goal", "tf32", "JAX, epoch in a scan, None") in found
    assert {precision for _, precision, _ in found} == {"tf32", "float32", "bf16"}
    captured, eager = (found["goal", "float32", f"mlp_xp, cupy, {x}"]["launches"]
                       for x in ("captured", "eager"))  # fmt: skip
    assert captured < eager
    for title in ("Goals", "Tests", "Large products", "Steps", "Transfers", "Recipe record"):
        assert f"## {title}\n" in text


REPORT = '<testsuites><testcase classname="a" name="test_a[cupy]" time="1"/></testsuites>'
LINE = {"part": "steps", "precision": "tf32", "workload": "goal",
        "batch": 1, "flop": 1, "step_seconds": [1.0]}  # fmt: skip
PARTS = ["pip", "probe", "tests", "peaks", "steps", "launches", "transfers", "record", "sanitizer"]
PROGRAMS = {"-m pip": "pip", "--tool": "sanitizer", "-m pytest": "tests"}
SECONDS_OF = {"pip": 2, "probe": 20, "tests": 400, "sanitizer": 400}
# By scenario: the seconds that a job takes of those it may, and its exit status; the parts
# that are reached; a problem, and what was not reached.
SCENARIOS = {
    "usual": (0.9, 0, PARTS, None, "tests of jax:cuda: those after tests/x::test_a, in 120 s"),
    "late": (2.0, 0, PARTS, None, "steps torch, compiled: stopped after"),
    "crash": (0.1, 1, PARTS, "steps torch: exit status 1: ok", None),
    "cupy hangs": (0.9, 0, PARTS, "tests of cupy: no result, at tests/x::test_a", None),
    "all hang": (0.9, 0, PARTS, "steps torch: no result in 15 s: ok", "transfers jax"),
    "no answer": (0.9, 0, PARTS[:2], "none of cupy, torch:cuda, jax:cuda works here", None),
    "slow index": (0.9, 0, [*PARTS[:7], "sanitizer"], "wheels: ok", "record torch:cuda: no time"),
    "killed": (0.9, 0, PARTS[:5], None, "steps, launches, transfers, record, sanitizer: Sys"),
    "killed at once": (0.9, 0, PARTS[:5], None, None),
    "short": (0.9, 0, PARTS[:4], None, "steps torch: no time left"),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_parts_take_nine_minutes_at_most(scenario, module, tmp_path, monkeypatch):
    gpu_check, gpu_run, install = (module(f"bench.gpu.{x}") for x in ("check", "run", "install"))
    ratio, status, parts, problem, late = SCENARIOS[scenario]
    clock, started = [0.0], []

    def spend(seconds):
        clock[0] += seconds
        if "killed" in scenario and clock[0] > 230:
            raise SystemExit("SIGTERM")

    class Process:
        def __init__(self, command, log):
            words = " ".join(map(str, command))
            known = (part for word, part in PROGRAMS.items() if word in words)
            self.part = next(known, command[3])
            started.append((self.part, words))
            if self.part == {"slow index": "pip", "no answer": "probe"}.get(scenario):
                takes = 400
            else:
                told = "--seconds" in command and command[command.index("--seconds") + 1]
                takes = SECONDS_OF.get(self.part) or ratio * float(told)
            self.is_late = self.part in ("tests", "sanitizer")
            is_work = self.part not in ("pip", "probe")
            hanging = {"cupy hangs": "[ =]cupy( |$)", "all hang": ""}.get(scenario, "nothing")
            self.is_deaf = is_work and bool(re.search(hanging, words))
            self.status = status * is_work
            takes += 1000 * self.is_deaf
            self.start, self.end, self.command = clock[0], clock[0] + takes, command
            log.write_text("tests/x::test_a PASSED\ntests/x::test_a" if self.is_late else "ok\n")

        def wait(self, seconds):
            spend(max(0.0, min(seconds, self.end - clock[0])))
            if "--out" in self.command and not self.is_deaf and clock[0] - self.start > 3:
                with open(self.command[self.command.index("--out") + 1], "a") as file:
                    file.write(json.dumps(LINE | {"contender": self.command[4]}) + "\n")
                self.start = float("inf")
            return self.status if clock[0] >= self.end else None

        def send(self, signum):
            if signum == signal.SIGKILL or not self.is_deaf:
                self.end = min(self.end, clock[0] + 2)
            for word in self.command:
                if signum == signal.SIGINT and not self.is_deaf and "--junitxml=" in word:
                    with open(word.partition("=")[2], "w") as file:
                        file.write(REPORT)

    def write(result, folder, *, with_chart):
        clock[0] += 0.5 if with_chart else 0.05
        if scenario == "killed at once" and clock[0] > 230:  # SIGKILL leaves time for nothing.
            return folder
        return real(result, folder, with_chart=False)

    real = gpu_run.write
    monkeypatch.setattr(gpu_run, "write", write)
    monkeypatch.setattr(gpu_run, "find_sanitizer", lambda: "compute-sanitizer")
    monkeypatch.setattr(install, "missing_wheels", lambda: ["a.whl"])
    monkeypatch.setattr(install, "requirements", lambda *_: {"a": "a>=1", "b": "b>=1"})
    monkeypatch.setattr(install, "is_there", lambda name: False)
    monkeypatch.setattr(gpu_check, "find_cifar10", lambda: gpu_check.ROOT)
    seconds = 200 if scenario == "short" else gpu_check.SECONDS
    folder, wanted = tmp_path / "results", gpu_check.WANTED.split(",")
    check = gpu_run.Check(folder, tmp_path, wanted, seconds, now=lambda: clock[0], start=Process)
    ended = gpu_check.check_all(check)
    assert clock[0] < seconds
    assert list(dict.fromkeys(part for part, _ in started)) == parts
    (page,) = folder.glob("*.md")
    result = json.loads(page.with_suffix(".json").read_text())
    assert ended == bool(problem) == bool(result["problems"])
    for given, kind in ((problem, "problems"), (late, "not_reached")):
        assert given is None or any(x.startswith(given) for x in result[kind]), result[kind]
        assert given is None or f"- {given}" in page.read_text()
    if scenario == "killed at once":
        assert len(result["lines"]) == len(check.lines.read_text().splitlines()) == 5
    if scenario == "usual":
        steps = [words for part, words in started if part == "steps"]
        firsts = "cupy", "torch, compiled", "JAX, epoch in a scan", "torch", "torch:cuda"
        for words, first in zip(steps, firsts, strict=False):
            assert f"steps {first} --spec" in words
        assert clock[0] > 450
