"""Rules for text columns: when a category is rare, and when the text is really numbers."""

from __future__ import annotations

from datetime import datetime

FEW = 50  # A text column with at most this many distinct values may consist of numbers.
MANY = 0.9  # A text column with a larger fraction of numbers or distinct values is not categorical.
_MIN_ROWS, _ROWS_A_CATEGORY = 5, 100


def least_rows(n_rows: int) -> int:
    """Return the number of rows below which a category is rare: 5, or 1 % in small tables."""
    return max(1, min(_MIN_ROWS, -(-n_rows // _ROWS_A_CATEGORY)))


def is_date(text: str) -> bool:
    """Whether text is a date such as 2026-01-31, with or without a time."""
    try:
        datetime.fromisoformat(text if text[4:8:3] == "--" else "")
    except ValueError:
        return False
    return True


def is_number(text: str | bytes) -> bool:
    """Whether text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
