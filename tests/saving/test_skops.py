"""Files of skops: as large as the weights need, and opened with few types to trust."""

from __future__ import annotations

import numpy as np
import pytest

from mlp_xp import MLPClassifier

io = pytest.importorskip("skops.io")


def test_a_file_holds_weights_and_opens_with_the_same_predictions():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 64)).astype("float32"), rng.integers(0, 3, 300)
    model = MLPClassifier((256, 256), max_iter=1, learning_rate="cosine", solver="sgd", momentum=0)
    content = io.dumps(model.fit(X, y))
    weights = sum(array.nbytes for array in (*model.coefs_, *model.intercepts_))
    assert len(content) < weights + 100_000  # The settings, as JSON.
    types = io.get_untrusted_types(data=content)
    assert len(types) < 16
    assert all(name.startswith("mlp_xp.") for name in types)
    loaded = io.loads(content, trusted=types)
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
