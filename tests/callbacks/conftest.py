"""Fixtures of the tests of callbacks."""

import os
from types import SimpleNamespace

import pytest
from fake_fit import X, Y

from mlp_xp import MLPClassifier, callbacks
from mlp_xp.training.loop import time_budget as budget


@pytest.fixture(autouse=True)
def no_flushes(monkeypatch) -> None:
    """Leave files to the system: a busy disk takes seconds, and test_checkpoint.py sees to it."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture(scope="module")
def fitted() -> MLPClassifier:
    return MLPClassifier((4,), max_iter=3, learning_rate="cosine", random_state=0).fit(X, Y)


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=1000.0)
    fake = SimpleNamespace(perf_counter=lambda: clock.now)
    monkeypatch.setattr(callbacks._progress_bar, "time", fake)
    monkeypatch.setattr(budget, "time", fake)
    monkeypatch.setattr("mlp_xp._utils.display.progress.time", fake)
    return clock
