"""The check that numbers fit in the dtype of a network."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from mlp_xp.backends import get_backend
from mlp_xp.training.data.rows import View


def check_range(X: Any) -> None:
    """Raise ValueError if a checked X, of any library, has a number that float32 cannot hold."""
    if type(X) is np.ndarray and X.dtype == np.float32:  # Faster than comparing names of dtypes.
        return
    values = X.x if isinstance(X, View) else X
    values = values.data if sparse.issparse(values) else values
    if "float64" not in str(values.dtype) or 0 in values.shape:
        return
    backend = get_backend(values)
    with backend.scope(), np.errstate(over="ignore"):
        largest = max(float(backend.xp.max(values)), -float(backend.xp.min(values)))
        if np.isfinite(largest) and np.isinf(np.float32(largest)):
            raise ValueError(
                f"Input X has {largest:.3g} in magnitude, which is too large for dtype('float32') "
                "of the network: replace it, or fit with precision='float64'."
            )
