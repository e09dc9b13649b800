"""What is made of benchmark results: tables, chart, the verdict of a GPU check."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
JUNIT = """<testsuites><testsuite>
  <testcase classname="tests.test_step" name="test_step[float32-torch:cpu]" time="1.5"/>
  <testcase classname="tests.test_step" name="test_step[float32-jax:cpu:1]" time="1.5"/>
  <testcase classname="tests.test_step" name="test_late[torch:cpu]" time="0.5">{child}</testcase>
  <testcase classname="tests.test_step" name="test_more[torch:cpu]"><skipped/></testcase>
  <testcase classname="tests.test_tree" name="test_tree"/>
</testsuite></testsuites>"""


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module("report")


@pytest.fixture
def gpu_summary(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module("gpu_summary")


@pytest.fixture
def results():
    def bench(backend, median, **info):
        info |= {"backend": backend, "library": f"{backend} 1.2", "device": "cpu", "data": "digits"}
        return {"extra_info": info, "stats": {"median": median, "iqr": median / 100}}

    def epoch(backend, placement, workload, rate):
        facts = {"placement": placement, "workload": workload, "images": 1000}
        return bench(backend, 1000 / rate, images_per_second=rate, **facts)

    def transfer(backend, rows, rate):
        facts = {"transfer": "put", "rows": rows, "images": 1000}
        return bench(backend, 2e-5, mb_per_second=rate, **facts)

    environment = {
        "date": "2026-01-02",
        "cpu": "Some CPU",
        "cpus": 2,
        "system": "Linux",
        "python": "3.13",
        "versions": {"numpy": "2.4"},
        "thread_pools": ["openblas 0.3 2 threads"],
    }
    return {
        "machine_info": {"environment": environment},
        "benchmarks": [
            epoch("numpy", "resident", "tiny 64-10", 2000.0),
            epoch("numpy", "streamed", "tiny 64-10", 1000.0),
            epoch("numpy", "resident", "wide 64-10", 20.0),
            epoch("torch:cpu", "resident", "tiny 64-10", 4000.0),
            transfer("numpy", 128, None),
            transfer("torch:cpu", "all", 1234.5),
        ],
    }


def test_page_has_a_row_for_each_figure_and_names_what_it_ran_on(report, results):
    text = report.page(results, "# Side by side\n\n## Peers\n")
    assert "| tiny 64-10 | numpy | streamed | 1,000 digits | 1 s | 10 ms | 1,000 |" in text
    assert "| put | numpy | 128 | 1,000 digits | 20 µs | 0.2 µs | nothing copied |" in text
    assert "| put | torch:cpu | all | 1,000 digits | 20 µs | 0.2 µs | 1,234 |" in text
    assert "- Some CPU, 2 CPUs, Linux" in text
    assert "- `torch:cpu`: torch:cpu 1.2; cpu" in text
    assert text.startswith("# Benchmarks\n\n## Side by side\n\n### Peers\n\n")
    # The rows of a network stand together, whatever order they were measured in.
    rows = [line.split(" | ")[0] for line in report.epoch_table(results["benchmarks"]).split("\n")]
    assert rows[2:] == ["| tiny 64-10"] * 3 + ["| wide 64-10"]


def test_sections_without_figures_are_left_out(report, results):
    results["benchmarks"] = results["benchmarks"][-1:]
    text = report.page(results, "")
    assert "Training epochs" not in text
    assert "Side by side" not in text


def test_benchmarks_that_were_cut_short_are_left_out(report, results):
    for bench in results["benchmarks"][1:]:
        bench["extra_info"].pop("images_per_second", None)
        bench["extra_info"].pop("mb_per_second", None)
    assert report.epoch_table(results["benchmarks"]).count("\n") == 2
    assert report.transfer_table(results["benchmarks"]) == ""


@pytest.mark.parametrize(
    ("value", "text"), [(12.345, "12.3 s"), (0.0123, "12.3 ms"), (1.5e-5, "15 µs")]
)
def test_times_have_a_unit_that_suits_them(report, value, text):
    assert report.seconds(value) == text


def test_report_writes_page_and_chart(report, results, tmp_path):
    source = tmp_path / "results.json"
    source.write_text(json.dumps(results))
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "report.md").write_text("# Side by side\n")
    (suite / "growth.png").write_bytes(b"a picture")
    report.main([str(source), "--suite", str(suite), "--out", str(tmp_path / "docs")])
    text = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert text.startswith("# Benchmarks\n\n## Side by side\n")
    assert (tmp_path / "docs" / "growth.png").read_bytes() == b"a picture"
    assert (tmp_path / "docs" / "benchmarks.png").read_bytes().startswith(b"\x89PNG")


def test_results_without_benchmarks_are_refused(report, tmp_path, capsys):
    source = tmp_path / "results.json"
    source.write_text('{"benchmarks": []}')
    with pytest.raises(SystemExit):
        report.main([str(source)])
    assert "was it run with --benchmark-enable?" in capsys.readouterr().err


@pytest.fixture
def scratch(results, tmp_path):
    """What the two pytest runs of a check that passes have written."""
    (tmp_path / "tests.xml").write_text(JUNIT.format(child=""))
    (tmp_path / "bench.xml").write_text(JUNIT.format(child=""))
    (tmp_path / "bench.json").write_text(json.dumps(results))
    return tmp_path


def test_check_that_passes(gpu_summary, scratch, monkeypatch, capsys):
    monkeypatch.setattr(gpu_summary, "gpus", lambda: ["NVIDIA H100, 80 GiB, driver 550.1"])
    arguments = ["write", str(scratch), str(scratch / "out"), "--wanted", "cupy,torch:cpu"]
    assert gpu_summary.main([*arguments, "--statuses", "0", "0"]) == 0
    assert "Written: " in capsys.readouterr().out
    (page,) = (scratch / "out").glob("20*-nvidia-h100.md")
    text = page.read_text()
    assert "**Passed** on torch:cpu; did not run: cupy." in text
    assert "- NVIDIA H100, 80 GiB, driver 550.1" in text
    assert "| torch:cpu | 2 | 0 | 1 |\n| all | 4 | 0 | 1 |" in text
    assert "| tiny 64-10 | numpy | streamed |" in text
    summary = json.loads(page.with_suffix(".json").read_text())
    assert summary["ran"] == ["torch:cpu"]
    assert summary["tests"]["seconds"] == 3.5


def test_a_backend_is_not_taken_for_another_device_of_it(gpu_summary, scratch):
    counts = gpu_summary.count_tests(scratch / "tests.xml", ["jax:cpu", "jax:cpu:1"])
    assert (counts["jax:cpu"]["passed"], counts["jax:cpu:1"]["passed"]) == (0, 1)


@pytest.mark.parametrize("kind", ["failure", "error"])
def test_check_fails_with_a_test(gpu_summary, scratch, kind):
    (scratch / "tests.xml").write_text(JUNIT.format(child=f"<{kind}/>"))
    summary = gpu_summary.summarize(scratch, ["torch:cpu"], [1, 0], [])
    assert summary["problems"] == [
        "failed: tests.test_step::test_late[torch:cpu]",
        "tests: exit status 1 of pytest",
    ]
    assert "**FAILED** on torch:cpu." in gpu_summary.markdown(summary)


def test_check_fails_where_no_backend_ran(gpu_summary, scratch):
    summary = gpu_summary.summarize(scratch, ["cupy", "jax:cuda"], [0, 0], [])
    assert summary["problems"] == ["no test passed on any of cupy, jax:cuda"]


def test_check_fails_when_a_run_was_cut_short(gpu_summary, scratch):
    (scratch / "bench.xml").unlink()
    (scratch / "bench.json").write_text("")
    summary = gpu_summary.summarize(scratch, ["torch:cpu"], [0, 124], [])
    assert summary["problems"] == ["bench: out of time"]
    assert "## Training epochs" not in gpu_summary.markdown(summary)


def test_usable_names_what_is_missing(gpu_summary, capsys):
    assert gpu_summary.main(["usable", "numpy,numpy:cuda,nonsense"]) == 0
    answer = capsys.readouterr()
    assert answer.out == "numpy\n"
    assert "Missing: numpy:cuda. " in answer.err
    assert "Missing: nonsense. " in answer.err
    assert gpu_summary.main(["usable", "nonsense"]) == 1
    assert "nothing to check" in capsys.readouterr().err
