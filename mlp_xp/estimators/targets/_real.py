"""Targets that are real values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from sklearn.metrics import r2_score

from mlp_xp.estimators.targets._base import Targets, make_loss
from mlp_xp.estimators.validation import check_values
from mlp_xp.nn.losses import REGRESSION_LOSSES, Loss, Through

__all__ = ["RealTargets"]


@dataclass(frozen=True, eq=False)
class RealTargets(Targets):
    """One or several real values for each sample.

    Parameters
    ----------
    n_outputs : int
    """

    n_outputs: int
    kind: str = "real"
    classes: None = None
    output: str = "identity"
    is_sparse: bool = False

    metric = "r2"

    check = staticmethod(check_values)

    @classmethod
    def learn(
        cls, y: np.ndarray, *, classes: Any, output_activation: str, is_sparse: bool
    ) -> RealTargets:
        """Return the targets that y, which is checked, describes."""
        return cls(1 if y.ndim == 1 else y.shape[1])

    @classmethod
    def of_weights(
        cls, attributes: Mapping[str, Any], n_outputs: int, params: Mapping[str, Any]
    ) -> RealTargets:
        """Return the targets of a network whose weights were assigned to an estimator."""
        loss = cls(n_outputs).resolve_loss(params)
        if n_outputs % loss.outputs_per_target:
            raise ValueError(
                f"loss is {loss!r}, with {loss.outputs_per_target} outputs for each target, and "
                f"the last layer has {n_outputs}."
            )
        return cls(n_outputs // loss.outputs_per_target)

    def resolve_loss(self, params: Mapping[str, Any]) -> Loss:
        """Return the loss that the parameters ask for, after the output activation they name."""
        output = params["output_activation"]
        if output == "auto":
            return make_loss(params["loss"], REGRESSION_LOSSES, self.output)
        loss = make_loss(params["loss"], REGRESSION_LOSSES, output)
        return loss if loss.output == output else Through(cast(Any, loss), output)

    def check_loss(self, y: np.ndarray, loss: Loss, name: str = "y") -> None:
        """Raise ValueError if the loss does not take such values."""
        loss.check_targets(cast(Any, y), name, xp=cast(Any, np))

    def check_known(self, y: np.ndarray, output_activation: str, *, warm_start: bool) -> None:
        pass  # Any values will do; `encode` compares the number of outputs.

    def encode(self, y: np.ndarray, dtype: str, name: str = "y") -> np.ndarray:
        """Return a column for each output, in the dtype of the network."""
        columns = y.reshape((y.shape[0], -1)).astype(dtype)
        if columns.shape[1] != self.n_outputs:
            raise ValueError(
                f"{name} is of shape {y.shape}, and the network was fitted on "
                f"{self.n_outputs} outputs."
            )
        return columns

    def decode(self, outputs: Any) -> Any:
        """Return (samples, targets, ...) values, without the second axis for a single target."""
        return outputs[:, 0, ...] if self.n_outputs == 1 else outputs

    def score(self, y: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None) -> float:
        """Return the coefficient of determination, R2."""
        return float(r2_score(y, predicted, sample_weight=weights))
