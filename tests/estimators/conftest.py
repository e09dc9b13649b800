"""What the tests of estimators share."""

import pytest


@pytest.fixture
def on(backend_spec: str) -> dict[str, str | None]:
    """Return the settings of an estimator that computes on the backend."""
    name, _, device = backend_spec.partition(":")
    return {"backend": name, "device": device or None}
