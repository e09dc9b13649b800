"""The coverage and width of prediction intervals on real tables."""

import numpy as np
import pytest


@pytest.fixture
def study(module):
    return module("bench.studies.intervals")


def test_coverage_and_width_are_measured_on_test_rows(study, monkeypatch):
    def make(X, y, split, threads):
        low, high = np.quantile(y, [0.1, 0.9])
        return lambda rows: np.tile([low, high], (len(rows), 1))

    monkeypatch.setitem(study.INTERVALS, study.MAPIE, make)
    found = study.fit("diabetes", study.MAPIE, 0)
    assert found["test_rows"] == 221
    assert found["coverage"] == pytest.approx(0.8, abs=0.05)
    y = study.ALL["diabetes"].load()[1]
    width = np.subtract(*np.quantile(y, [0.9, 0.1])) / np.std(y)
    assert found["width"] == pytest.approx(width, rel=0.05)


def test_a_fifth_is_tested_or_more_of_small_sets(study):
    assert [study.test_share(n) for n in (6000, 1000, 400)] == [0.2, 0.3, 0.5]


def test_widths_are_compared_with_mapie(study):
    ours, theirs = (
        {"seconds": 1.0, "coverage": 0.91, "width": 1.0},
        {"seconds": 2.0, "coverage": 0.94, "width": 2.0},
    )
    done = {"mlp_xp, recipe table": [ours], study.MAPIE: [theirs, theirs]}
    unfinished = {"mlp_xp, recipe table": [ours], study.MAPIE: [{"cannot_run": "no"}]}
    found, by_set = study.tables({"concrete": done, "diabetes": unfinished})
    assert found.rows == [
        ["mlp_xp, recipe table", "91.0%", "1 of 1", "0.500", "1 s"],
        [study.MAPIE, "94.0%", "0 of 1", "1.000", "2 s"],
    ]
    assert by_set.rows == [["concrete", "91.0%, 1.00", "94.0%, 2.00"]]
