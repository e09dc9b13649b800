"""The inputs of an ensemble: checked for all networks, and a table encoded once where it can be."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import _num_samples, validate_data

from mlp_xp.backends import namespace_backend
from mlp_xp.estimators.checks.validation import asks_for_table, check_x
from mlp_xp.training.data.rows import Rows


def note_inputs(ensemble: Any, X: Any, networks: list[Any]) -> int:
    """Set the names and the number of features of an ensemble; return the number of samples.

    The columns of a table are checked by each network.
    """
    if not any(map(asks_for_table, networks)):
        return int(check_x(ensemble, X, reset=True).shape[0])
    validate_data(ensemble, X, reset=True, skip_check_array=True)
    return int(_num_samples(X))


def check_inputs(ensemble: Any, X: Any) -> Any:
    """Return X as each network of an ensemble takes it; raise ValueError if none can."""
    networks = ensemble.estimators_
    first, *others = (getattr(network, "columns_", None) for network in networks)
    if first is None and not any(others):
        check_x(ensemble, X, reset=False)
        return X
    is_array = namespace_backend(X) not in (None, "numpy")
    if is_array or any(columns is not first for columns in others):
        return X  # Each network encodes it.
    from mlp_xp.training.data.shared import SharedData  # Few ensembles are of tables.

    matrix = check_x(networks[0], X, reset=False)
    rows = np.arange(matrix.shape[0])
    return Rows(matrix, rows, SharedData(matrix, {"columns_": first}))
