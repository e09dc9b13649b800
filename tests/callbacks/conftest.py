"""Fixtures of the tests of callbacks."""

import os

import pytest
from fake_fit import X, Y

from mlp_xp import MLPClassifier


@pytest.fixture(autouse=True)
def no_flushes(monkeypatch) -> None:
    """Skip flushing files, which takes seconds on a busy disk; test_checkpoint.py tests it."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture(scope="module")
def fitted() -> MLPClassifier:
    return MLPClassifier((4,), max_iter=3, learning_rate="cosine", random_state=0).fit(X, Y)
