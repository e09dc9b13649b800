"""array-api-compat's torch namespace, with a `sign` that needs no boolean mask."""

from __future__ import annotations

from typing import Any

import array_api_compat.torch
import torch


def sign(x: Any, /) -> Any:
    """Return -1, 0 or 1 for each element, and NaN for NaN."""
    return torch.where(torch.isnan(x), x, torch.sign(x))


def __getattr__(name: str) -> Any:
    return getattr(array_api_compat.torch, name)
