"""Text columns of pyarrow, as codes."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlp_xp._utils.columns.kinds import CodedColumn


def read_text(label: str, column: Any) -> CodedColumn:
    """Return a column of text or of a dictionary, given as an array in chunks."""
    if not hasattr(column.type, "value_type"):
        column = column.dictionary_encode()
    places: dict[Any, int] = {}
    parts = [np.empty(0, dtype=np.int32)]
    for part in column.chunks:  # Missing values have code -1, which selects the last place.
        codes = np.nan_to_num(part.indices.to_numpy(zero_copy_only=False), nan=-1)
        found = [
            -1 if v is None else places.setdefault(v, len(places))
            for v in part.dictionary.to_pylist()
        ]
        parts.append(np.asarray([*found, -1], np.int32)[codes.astype(np.int64)])
    return CodedColumn(label, "text", np.concatenate(parts), categories=[*places])
