"""Resuming a fit from a checkpoint, and the settings and data that must not change."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_xp._utils.sklearn_compat import warn_caller
from mlp_xp.estimators.checks.processes import text_of
from mlp_xp.estimators.fitted.state import FittedState
from mlp_xp.estimators.settings.config import LBFGS
from mlp_xp.recipes.parameters import CLASSIFIER

if TYPE_CHECKING:  # Imported late, since few fits are resumed.
    from mlp_xp.estimators.tables.columns import TableColumns
    from mlp_xp.training.checkpoints.snapshot import Snapshot

_FREE = {name for name, row in CLASSIFIER.items() if row.free_on_resume}


def newest_snapshot(folder: str | os.PathLike[str], params: Mapping[str, Any]) -> Snapshot | None:
    """Return the newest undamaged checkpoint in a folder.

    If there is none, warn and return None. The fit then starts from the beginning.
    """
    if params["solver"] == LBFGS:
        raise ValueError(
            "resume does not support solver 'lbfgs', whose state is inside SciPy: use "
            "mlp_xp.saving.load_model and a fit with warm_start=True, or another solver."
        )
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(f"`resume` must be the folder of a Checkpoint, got {folder!r}.")
    from mlp_xp.training.checkpoints.checkpoints import read_newest

    snapshot = read_newest(Path(folder))
    if snapshot is None:
        warn_caller(
            f"resume is {os.fspath(folder)!r}, which has no checkpoint: the fit starts at its "
            "first epoch."
        )
    return snapshot


def with_snapshot(state: FittedState, snapshot: Snapshot) -> FittedState:
    """Return a new state with the seed and input scaling of the checkpoint."""
    from mlp_xp.training.checkpoints.snapshot import tree_of

    scaling = None if state.scaling is None else tree_of(snapshot, "scaling", state.scaling)
    return replace(state, seed=snapshot.metadata["seed"], scaling=scaling)


def identity(
    params: Mapping[str, Any],
    encode: Callable[[], np.ndarray],
    weights: np.ndarray | None,
    columns: TableColumns | None = None,
) -> dict[str, str]:
    """Return a text description of the settings and targets that a resumed fit must not change."""
    texts = {name: text_of(value) for name, value in params.items() if name not in _FREE}
    targets = np.ascontiguousarray(encode())
    digest = hashlib.sha256(targets.tobytes())
    if weights is not None:
        digest.update(np.ascontiguousarray(weights).tobytes())
    if columns is not None:  # Leave out medians and scaling, which may be rounded differently.
        parts = repr([column.to_json() for column in columns.columns])
        texts["columns"] = hashlib.sha256(parts.encode()).hexdigest()[:12]
    return {**texts, "samples": str(len(targets)), "y and sample_weight": digest.hexdigest()[:12]}
