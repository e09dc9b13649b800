"""What the tests of the training share."""

import pytest


@pytest.fixture
def where(backend_spec) -> dict[str, str | None]:
    """Return an estimator's settings for a backend: names, as JAX's devices cannot be copied."""
    name, _, device = backend_spec.partition(":")
    return {"backend": name, "device": device or None}
