"""The check of what the members of a network cannot have on several processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["check_members"]


def check_members(params: Mapping[str, Any]) -> None:
    """Raise ValueError for what the members of a network cannot have on several processes."""
    is_fixed = getattr(params["distributed"], "deterministic", False)
    drops = bool(np.any(np.asarray(params["dropout"]) > 0))
    for name, need, is_wrong in (("dropout", "0", drops), ("deterministic", "False", is_fixed)):
        if is_wrong:
            raise ValueError(
                f"`{name}` must be {need} with n_members={params['n_members']} on several "
                "processes: set it so, or distributed=None."
            )
