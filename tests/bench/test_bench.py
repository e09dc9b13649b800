"""What is made of the results of pytest-benchmark: tables and a chart."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def report(module):
    return module("report")


@pytest.fixture
def results(result):
    def bench(backend, median, **info):
        info |= {"backend": backend, "library": f"{backend} 1.2", "device": "cpu", "data": "digits"}
        return {"extra_info": info, "stats": {"median": median, "iqr": median / 100}}

    def epoch(backend, placement, workload, rate):
        facts = {"placement": placement, "workload": workload, "images": 1000}
        return bench(backend, 1000 / rate, images_per_second=rate, **facts)

    def transfer(backend, rows, rate):
        facts = {"transfer": "put", "rows": rows, "images": 1000}
        return bench(backend, 2e-5, mb_per_second=rate, **facts)

    return {
        "machine_info": {"environment": result["environment"] | {"date": "2026-01-02"}},
        "benchmarks": [
            epoch("numpy", "resident", "tiny 64-10", 2000.0),
            epoch("numpy", "streamed", "tiny 64-10", 1000.0),
            epoch("numpy", "resident", "wide 64-10", 20.0),
            epoch("torch:cpu", "resident", "tiny 64-10", 4000.0),
            transfer("numpy", 128, None),
            transfer("torch:cpu", "all", 1234.5),
        ],
    }


def test_what_was_not_measured_is_left_out(report, results):
    benchmarks = results["benchmarks"]
    text = report.page(results | {"benchmarks": benchmarks[-1:]}, "")
    assert "Training epochs" not in text
    assert "Side by side" not in text
    for bench in benchmarks[1:]:  # They were cut short.
        bench["extra_info"].pop("images_per_second", None)
        bench["extra_info"].pop("mb_per_second", None)
    assert report.epoch_table(benchmarks).count("\n") == 2
    assert report.transfer_table(benchmarks) == ""


def test_report_writes_page_chart_and_the_record_of_both(report, results, tmp_path, capsys):
    source = tmp_path / "results.json"
    source.write_text(json.dumps(results | {"datetime": "not kept"}))
    written = ["--out", str(tmp_path / "docs"), "--history", str(tmp_path)]
    report.main([str(source), *written])
    text = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert text.startswith("# Benchmarks\n\n## Training epochs\n")
    assert (tmp_path / "docs" / "benchmarks.png").read_bytes().startswith(b"\x89PNG")
    record = tmp_path / "2026-01-02-backends.json"
    assert "not kept" not in record.read_text()
    report.main([str(record), *written])
    assert (tmp_path / "docs" / "benchmarks.md").read_text() == text

    source.write_text('{"benchmarks": []}')
    with pytest.raises(SystemExit):
        report.main([str(source)])
    assert "was it run with --benchmark-enable?" in capsys.readouterr().err
