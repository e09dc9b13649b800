"""The check of a GPU: its verdict, and a trial on the stand-in for CuPy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
JUNIT = """<testsuites><testsuite>
  <testcase classname="tests.test_step" name="test_step[float32-torch:cpu]" time="1.5"/>
  <testcase classname="tests.test_step" name="test_step[float32-jax:cpu:1]" time="1.5"/>
  <testcase classname="tests.test_step" name="test_late[torch:cpu]" time="0.5">{child}</testcase>
  <testcase classname="tests.test_step" name="test_more[torch:cpu]"><skipped/></testcase>
  <testcase classname="tests.test_tree" name="test_tree"/>
</testsuite></testsuites>"""


def test_tests_are_counted_for_each_device_and_failed_ones_named(module, tmp_path):
    gpu_summary = module("gpu_summary")
    path, specs = tmp_path / "tests.xml", ["torch:cpu", "jax:cpu", "jax:cpu:1"]
    path.write_text(JUNIT.format(child=""))
    counts = gpu_summary.count_tests(path, specs)
    assert counts["torch:cpu"] == {"passed": 2, "failed": 0, "skipped": 1}
    assert (counts["jax:cpu"]["passed"], counts["jax:cpu:1"]["passed"]) == (0, 1)
    assert counts["seconds"] == 3.5
    for kind in ("failure", "error"):
        path.write_text(JUNIT.format(child=f"<{kind}/>"))
        counts = gpu_summary.count_tests(path, specs[:1])
        assert counts["failures"] == ["tests.test_step::test_late[torch:cpu]"], kind
    assert gpu_summary.count_tests(tmp_path / "none.xml", [])["all"] == gpu_summary.EMPTY


def test_a_part_that_fails_or_is_late_leaves_the_others(module, tmp_path, monkeypatch):
    gpu_check = module("gpu_check")
    monkeypatch.setattr(gpu_check, "LEAST", 0.01)
    check = gpu_check.Check(tmp_path, tmp_path, ["numpy"], 100.0, tiny=True)
    check.lines.write_text('{"part": "peaks", "backend": "x", "precision": "a", "flops": 1}\n{"par')
    assert not check.run(["sh", "-c", "exit 3"], 20, "first")
    assert not check.run(["sleep", "60"], 0.05, "second")
    assert not check.run(["sleep", "60"], 0.005, "third")
    assert check.run(["true"], 20, "fourth")
    check.save()
    written = json.loads(check.path.with_suffix(".json").read_text())
    assert written["problems"] == ["first: exit status 3", "second: out of time after 0 s"]
    assert written["not_reached"] == ["third: no time left"]
    assert [line["backend"] for line in written["lines"]] == ["x"]
    assert "**FAILED**" in check.path.with_suffix(".md").read_text()


def test_refused_steps_are_a_failure_and_cases_that_time_leaves_out_are_none(module, tmp_path):
    jobs, gpu_check = module("gpu_jobs"), module("gpu_check")
    workload = jobs.chosen_workloads(tiny=True)[0]

    def refused():
        jobs.report(refused, "no cuBLASLt")
        return (lambda: None), 1

    measure = jobs.Measure(lambda *_: {}, float("inf"))
    facts = {"contender": "mlp_xp, cupy", "mode": "captured", "precision": "float32"}
    lines = [
        jobs.step_line("steps", workload, refused, facts, some)
        for some in (measure, measure._replace(end=0.0))
    ]
    check = gpu_check.Check(tmp_path, tmp_path, [], 100.0, tiny=True)
    check.lines.write_text("".join(json.dumps(line) + "\n" for line in lines))
    check.save()
    (failed,) = check.result["failed"]
    assert "no cuBLASLt" in failed


@pytest.mark.matrix
def test_a_trial_on_the_stand_in(tmp_path):
    """All parts with small networks; what needs a GPU is listed with the reason."""
    paths = [str(ROOT / "tests" / "stand_in" / "packages"), str(ROOT)]
    environment = os.environ | {
        "PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join(paths),
        "MLP_XP_CHECK": "cupy,torch:cpu,jax:cpu,numpy:cuda",
        "MLP_XP_CHECK_TINY": "1",
        "MLP_XP_CHECK_SECONDS": "500",
    }
    command = [ROOT / "bench" / "gpu_check.sh", tmp_path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stdout + done.stderr
    (page,) = tmp_path.glob("*.md")
    result, text = json.loads(page.with_suffix(".json").read_text()), page.read_text()
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert result["usable"] == ["cupy", "torch:cpu", "jax:cpu"]
    assert any("numpy:cuda" in line for line in result["missing"])
    assert all(counts["passed"] and not counts["failed"] for counts in result["tests"].values())
    steps = {
        (line["contender"], line.get("mode"), line["workload"])
        for line in result["lines"]
        if line["part"] == "steps" and "cannot_run" not in line
    }
    for network in ("tiny", "medium"):
        for contender in result["usable"]:
            for mode in ("captured", "eager"):
                assert (f"mlp_xp, {contender}", mode, network) in steps
        assert {("torch", None, network), ("JAX, epoch in a scan", None, network)} <= steps
    launches = {
        line["mode"]: line["launches"]
        for line in result["lines"]
        if line.get("contender") == "mlp_xp, cupy" and line.get("launches")
    }
    assert launches["captured"] < launches["eager"]
    for how in ("pageable", "pinned", "overlapped"):
        assert f"| cupy | {how} | 128 |" in text
    for title in ("Tests", "Large products", "Steps", "Transfers", "Recipe record", "Measured on"):
        assert f"## {title}\n" in text
