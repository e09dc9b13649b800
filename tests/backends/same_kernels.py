"""The comparison of a backend's kernels with their defaults."""

import numpy as np
from helpers import tolerance

from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends.kernels import Kernels


def same(backend, function, *arrays, terms=8, exact=False, precision=None) -> None:
    """Check that a function of kernels and arrays returns the same with the defaults."""
    with backend.scope(), np.errstate(all="ignore"):
        found, expected = (
            map_leaves(backend.get, function(kernels, *arrays))
            for kernels in (backend.kernels, Kernels())
        )
    found, expected = leaves(found), leaves(expected)
    assert len(found) == len(expected) > 0
    for mine, plain in zip(found, expected, strict=True):
        assert mine.dtype == plain.dtype
        assert mine.shape == plain.shape
        if exact:
            np.testing.assert_array_equal(mine, plain)
            continue
        np.testing.assert_array_equal(np.isnan(mine), np.isnan(plain))
        finite = plain[np.isfinite(plain)]
        scale = 1.0 + (np.abs(finite).max() if finite.size else 0.0)
        atol = scale * tolerance(precision or str(plain.dtype), terms)
        np.testing.assert_allclose(mine, plain, rtol=0, atol=atol)
