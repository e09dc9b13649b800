"""What the tests of the training share."""

from __future__ import annotations

import pytest


@pytest.fixture
def where(backend) -> dict[str, str | None]:
    """Return an estimator's settings for a backend."""
    return {"backend": backend.name, "device": backend.device}
