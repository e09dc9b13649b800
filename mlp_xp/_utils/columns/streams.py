"""Recognize tables that are read in parts, without importing the library that reads them."""

from __future__ import annotations

import inspect
from typing import Any


def is_table_stream(X: Any) -> bool:
    """Whether X is a table that is read in blocks: Parquet, a polars LazyFrame, or a function."""
    is_lazy = type(X).__name__ == "LazyFrame" and hasattr(X, "collect_batches")
    return hasattr(X, "open_blocks") or is_lazy or inspect.isroutine(X)
