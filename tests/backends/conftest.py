"""What tests of captured steps share."""

from __future__ import annotations

import pytest


@pytest.fixture
def soon(monkeypatch):
    """Capture after two steps."""
    monkeypatch.setattr("mlp_xp.backends._captured._STEPS_BEFORE_CAPTURE", 2)


@pytest.fixture
def no_counts():
    """Count launches, and what was logged, from 0."""
    from cupy import _launch

    from mlp_xp.backends import _captured

    _captured.report.cache_clear()
    for counter in (_launch.launches, _launch.replayed, _launch.waits):
        counter.clear()
