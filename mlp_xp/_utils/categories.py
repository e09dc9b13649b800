"""Rules for columns of text: which categories are rare, and which texts are really numbers."""

from __future__ import annotations

FEW = 50  # Categories that may all be numbers.
MANY = 0.9  # As a fraction of the values: then they are numbers with some text, or an identifier.
_MIN_ROWS, _ROWS_A_CATEGORY = 5, 100


def least_rows(n_rows: int) -> int:
    """Return the number of rows below which a category is rare: 5, or 1 % in small tables."""
    return max(1, min(_MIN_ROWS, n_rows // _ROWS_A_CATEGORY))
