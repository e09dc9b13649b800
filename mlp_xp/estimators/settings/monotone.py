"""Checks that predictions of a monotone network are monotone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlp_xp.estimators.targets import Targets
from mlp_xp.nn.losses import Loss

# The outputs that do not grow with all outputs of the network: the parameter, and what to type.
_OTHERWISE = {
    "softmax": ("output_activation", "type output_activation='auto'"),
    "gaussian": ("loss", "type loss='quantile', or train without monotonic_cst"),
}
_MIXING = "zca", "pca"


def check_monotone_predictions(params: Mapping[str, Any], targets: Targets, loss: Loss) -> None:
    """Raise ValueError if predictions may not be monotone, although the raw outputs are."""
    if "multiclass" in targets.kind:
        raise ValueError(
            "`monotonic_cst` must be None for more than two classes, since their probabilities sum "
            "to 1: if one of them rises, others fall. Train a classifier of two classes, e.g. on "
            "y >= 'B', or MLPRegressor on the number of each class."
        )
    if loss.output in _OTHERWISE:
        name, cure = _OTHERWISE[loss.output]
        raise ValueError(
            f"`{name}` must not be {loss.output!r} with monotonic_cst, since predictions may then "
            f"fall where the network's outputs rise: {cure}."
        )
    scaling = params["input_scaling"]
    is_mixing = scaling is not None and (not isinstance(scaling, str) or scaling in _MIXING)
    for name, is_wrong, cure in (
        ("input_scaling", is_mixing, "type input_scaling='standardize'"),
        ("tta", params["tta"] is not None, "type tta=None"),
    ):
        if is_wrong:
            raise ValueError(
                f"`{name}` must not mix columns with monotonic_cst, got {params[name]!r}: {cure}."
            )
