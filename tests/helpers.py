"""What several test files use."""

from __future__ import annotations

import numpy as np

from mlp_xp.backends import Backend, get_backend


def make_backend(spec: str) -> Backend:
    name, _, device = spec.partition(":")
    return get_backend(name, device or None)


def tolerance(dtype: str, terms: int = 1) -> float:
    """Give what two orders of the same arithmetic may differ by, relative to the largest term.

    Rounding errors of a sum of ``terms`` numbers grow with the square root of their number; 32
    covers the few roundings of each term.
    """
    return 32 * float(np.finfo(dtype).eps) * max(terms, 1) ** 0.5
