"""The check of a GPU by a fake clock, with the nine minutes of a real call."""

import json
import re
import signal

import pytest

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
            self.status, self.is_deaf = (
                status * is_work,
                is_work and bool(re.search(hanging, words)),
            )
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
