"""A busy machine's benchmark measures each way in turn."""

import os

import pytest


@pytest.mark.matrix
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone")
def test_a_case_is_measured_in_each_way(module, monkeypatch):
    busy = module("busy")
    monkeypatch.setitem(busy.CASES, "tiny", ((8, 4, 2), 8, 32, 1))
    found = busy.measure_busy(1, ["tiny"], lambda turn: None)
    assert [len(seconds) for seconds in found["tiny"].values()] == [1, 1, 1]
    assert busy.busy_rows(found)[0][0] == "tiny"
