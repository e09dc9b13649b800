"""Targets that are real values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
from sklearn.metrics import r2_score

from mlp_xp._utils.array_types import Namespace
from mlp_xp._utils.dataclass import dataclass
from mlp_xp.backends import host
from mlp_xp.estimators.targets._base import Targets, dense_targets, make_loss
from mlp_xp.nn.losses import REGRESSION_LOSSES, Loss, Through

_TINY = 1e-150  # Squares of smaller numbers underflow, so that y would seem constant.


@dataclass(frozen=True, eq=False)
class RealTargets(Targets):
    """One or several real values for each sample.

    The values are standardized with ``scaling`` (mean and standard deviation), and predictions are
    clipped to ``limits`` (lowest and highest value). ``scaling`` and ``limits`` are pairs of
    (outputs,) float64 arrays, or None.
    """

    n_outputs: int
    scaling: tuple[np.ndarray, np.ndarray] | None = None
    limits: tuple[np.ndarray, np.ndarray] | None = None
    kind: str = "real"
    classes: None = None
    output: str = "identity"
    is_sparse: bool = False

    metric = "r2"

    @staticmethod
    def check(
        y: Any, estimator: str, n_samples: int, *, name: str = "y", known: np.ndarray | None = None
    ) -> np.ndarray:
        try:
            values = dense_targets(y, estimator, n_samples, name, numeric=True)
        except ValueError as error:
            # Import only for errors.
            from mlp_xp._utils.columns.categories import find_wrong_text, is_number
            from mlp_xp.estimators.checks.text_advice import cure_of

            texts = [v for v in np.ravel(host(y)).tolist() if isinstance(v, str | bytes)]
            text = next((text for text in texts if not is_number(text)), None)
            if text is None:
                raise
            wrong = find_wrong_text(Counter(v for v in texts if isinstance(v, str)))
            if wrong is not None and wrong.form in ("comma", "unit"):
                series = name if hasattr(y, "str") else f"pandas.Series({name})"
                is_polars = type(y).__module__.startswith("polars")
                cure = cure_of(wrong, series, is_polars=is_polars)
                raise ValueError(f"{name} {wrong.reason}: {cure}.") from error
            raise ValueError(
                f"{name} contains text, e.g. {text!r}, but {estimator} predicts numbers: use "
                "MLPClassifier for classes, or convert the text to numbers."
            ) from error
        if values.dtype.kind in "mM":
            raise ValueError(
                f"{name} must be numbers, got {values.dtype}: convert it, e.g. to days by "
                f"({name} - {name}.min()) / numpy.timedelta64(1, 'D')."
            )
        if values.dtype.kind == "c":
            raise ValueError(f"Complex data not supported: {name} is of dtype {values.dtype}.")
        return values

    @classmethod
    def learn(
        cls, y: np.ndarray, *, classes: Any, output_activation: str, is_sparse: bool
    ) -> RealTargets:
        return cls(1 if y.ndim == 1 else y.shape[1])

    @classmethod
    def of_weights(
        cls, attributes: Mapping[str, Any], n_outputs: int, params: Mapping[str, Any]
    ) -> RealTargets:
        loss = cls(n_outputs).resolve_loss(params)
        if n_outputs % loss.outputs_per_target:
            raise ValueError(
                f"loss={loss!r} requires {loss.outputs_per_target} outputs for each target, but "
                f"the last layer has {n_outputs}."
            )
        return cls(n_outputs // loss.outputs_per_target)

    def resolve_loss(self, params: Mapping[str, Any]) -> Loss:
        output = params["output_activation"]
        loss = make_loss(
            params["loss"], REGRESSION_LOSSES, self.output if output == "auto" else output
        )
        if output not in ("auto", loss.output):
            loss = Through(cast(Any, loss), output)
        if params["clip_predictions"] and loss.outputs_per_target > 1:
            raise ValueError(
                f"`clip_predictions` must be False with loss={params['loss']!r}, which has "
                f"{loss.outputs_per_target} outputs for each target, got True."
            )
        setting = params["target_scaling"]
        if setting is None or loss.takes_standardized:
            return loss
        raise ValueError(
            f"`target_scaling` must be None for {loss.output!r} outputs "
            f"(loss={params['loss']!r}, output_activation={output!r}), got {setting!r}: "
            "standardized targets can be any number, but such outputs cannot. Type "
            "target_scaling=None, or loss='squared_error' with output_activation='identity'."
        )

    def check_loss(self, y: np.ndarray, loss: Loss, name: str = "y") -> None:
        loss.check_targets(cast(Any, y), name, xp=cast(Any, np))

    def encode(self, y: np.ndarray, dtype: str, name: str = "y") -> np.ndarray:
        columns = y.reshape((y.shape[0], -1))
        if self.scaling is not None and columns.shape[1] == self.n_outputs:
            mean, deviation = self.scaling
            columns = (columns - mean) / deviation
        if columns.shape[1] != self.n_outputs:
            raise ValueError(
                f"{name} has shape {y.shape}, but the network was fitted on {self.n_outputs} "
                "outputs."
            )
        return columns.astype(dtype)

    @property
    def plain(self) -> RealTargets:
        return replace(self, scaling=None)

    def standardized(self, y: np.ndarray, weights: np.ndarray | None, dtype: str) -> RealTargets:
        """Return targets whose `encode` standardizes by the mean and standard deviation of y."""
        from sklearn.preprocessing import StandardScaler  # Import only if needed.

        with np.errstate(over="ignore", invalid="ignore"):
            columns = self.plain.encode(y, "float64")
            found = StandardScaler().fit(columns, sample_weight=weights)
            mean, deviation = found.mean_, found.scale_
            width = np.ptp(columns, axis=0)
            is_tiny = (np.max(np.abs(columns), axis=0) < _TINY) & (width > 0.0)
            deviation = np.where(is_tiny, width, deviation)
            sizes = mean.astype(dtype), deviation.astype(dtype)
            is_lost = (width > 0.0) & (np.abs(mean) * np.finfo(dtype).eps > deviation / 10)
        if dtype == "float32" and np.any(is_lost):
            worst = int(np.argmax(is_lost))
            raise ValueError(
                f"`target_scaling` would round away output {worst} of y in float32: its mean is "
                f"{mean[worst]:.9g} and its standard deviation {deviation[worst]:.3g}. Type "
                "precision='float64', or subtract the mean from y first."
            )
        if np.any(is_tiny) or not (np.all(np.isfinite(sizes)) and np.all(sizes[1] > 0.0)):
            worst = int(np.argmax(is_tiny | ~np.isfinite(sizes).all(axis=0) | (sizes[1] == 0.0)))
            raise ValueError(
                f"`target_scaling` cannot scale output {worst} of y to variance 1 in {dtype}: its "
                f"mean is {mean[worst]:.3g} and its standard deviation {deviation[worst]:.3g}. "
                "Rescale y first so that its values are about 1."
            )
        return replace(self, scaling=(mean, deviation))

    def limited(self, y: np.ndarray | None) -> RealTargets:
        """Return targets whose predictions are clipped to the range of y, or not if y is None."""
        if y is None:
            return replace(self, limits=None)
        columns = self.plain.encode(y, "float64")
        return replace(self, limits=(np.min(columns, axis=0), np.max(columns, axis=0)))

    def restore(
        self, loss: Loss, outputs: Any, put: Callable[[np.ndarray], Any], *, xp: Namespace
    ) -> Any:
        if self.scaling is not None:
            factor, summand = loss.units(*cast(Any, self.scaling), xp=cast(Any, np))
            outputs = outputs * put(cast(Any, factor)) + put(cast(Any, summand))
        if self.limits is not None:
            lowest, highest = map(put, self.limits)
            outputs = xp.minimum(xp.maximum(outputs, lowest), highest)
        return outputs

    def decode(self, outputs: Any) -> Any:
        return outputs[:, 0, ...] if self.n_outputs == 1 else outputs

    def score(self, y: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None) -> float:
        return float(r2_score(y, predicted, sample_weight=weights))
