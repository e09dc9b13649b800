"""The settings of what stands before the first layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mlp_xp.nn.blocks import NUMERIC_EMBEDDINGS, TableInputs

__all__ = ["resolve_inputs"]


def resolve_inputs(
    params: Mapping[str, Any], n_inputs: int, inputs: TableInputs | None
) -> TableInputs | None:
    """Return what stands before the first layer, None for the inputs as they are."""
    numeric, scale = params["numeric_embedding"], bool(params["learn_input_scale"])
    if isinstance(numeric, str):
        numeric = NUMERIC_EMBEDDINGS[numeric]()
    given = TableInputs(n_inputs) if inputs is None else inputs
    if numeric is None and not scale and not given.categories:
        return None
    if given.categories:
        for name in ("augmentation", "tta"):
            if params[name] is not None:
                raise ValueError(
                    f"{name} is {params[name]!r}, and X has categories that are embedded, and so "
                    f"is no image: set {name}=None."
                )
        if params["precision"] in ("bf16", "float16"):
            raise ValueError(
                f"precision is {params['precision']!r}, which has no number for each category that "
                "is embedded: set precision='tf32' or 'float32'."
            )
        given = replace(given, embedding_dim=int(params["embedding_dim"]))
    return replace(given, numeric=numeric, scale=scale)
