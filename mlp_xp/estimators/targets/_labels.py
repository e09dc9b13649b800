"""The base class of targets that are class labels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np
from sklearn.utils import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, unique_labels

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.dataclass import dataclass
from mlp_xp.estimators.checks.validation import check_weights
from mlp_xp.estimators.targets._base import Targets, dense_targets, make_loss
from mlp_xp.nn.losses import (
    CLASSIFICATION_LOSSES,
    BinaryCrossEntropy,
    Loss,
    SoftmaxCrossEntropy,
)


@dataclass(frozen=True, eq=False)
class LabelTargets(Targets):
    """Targets that are class labels, with one or several labels per sample."""

    classes: Any
    output: str = "softmax"
    is_sparse: bool = False

    metric = "accuracy"

    @staticmethod
    def check(
        y: Any, estimator: str, n_samples: int, *, name: str = "y", known: np.ndarray | None = None
    ) -> np.ndarray:
        # Skip scikit-learn's check of integers, which only warns if more than half are distinct.
        if type(y) is np.ndarray and y.shape == (n_samples,) and y.dtype.kind in "biu":
            if not isinstance(known, np.ndarray) or known.dtype.kind not in "biu":
                known = np.unique(y)
            if 2 * len(known) <= n_samples:
                return y
        labels = dense_targets(y, estimator, n_samples, name)
        columns = [labels]
        if labels.ndim == 2 and labels.dtype == object:
            columns = list(labels.T)  # The targets may have labels of different types.
        for column in columns:
            types = {type(label) for label in column} if labels.dtype == object else set()
            if str in types and len(types) > 1:
                found = " and ".join(sorted(kind.__name__ for kind in types))
                raise TypeError(
                    f"{name} must have labels of one type, got {found}: convert them, e.g. "
                    f"{name} = [str(label) for label in {name}]."
                )
            if types == {int} and max(map(abs, column)) > np.iinfo(np.int64).max:
                raise ValueError(
                    f"{name} has integers above 2**63 - 1, which cannot be labels: convert them, "
                    f"e.g. {name} = [str(label) for label in {name}]."
                )
            check_classification_targets(
                np.asarray(column.tolist()) if len(columns) > 1 else column
            )
        return np.asarray(labels)

    def resolve_loss(self, params: Mapping[str, Any]) -> Loss:
        position = 0 if self.output == "softmax" else 1
        named: dict[str, Any] = {
            name: pair[position] for name, pair in CLASSIFICATION_LOSSES.items()
        }
        smoothing = float(params["label_smoothing"])
        if smoothing:
            if params["loss"] != "log_loss":
                raise ValueError(
                    f"label_smoothing is {smoothing}, but only loss='log_loss' supports it, got "
                    f"{params['loss']!r}. Set it in a loss object, e.g. "
                    "SoftmaxCrossEntropy(label_smoothing=0.1)."
                )
            named["log_loss"] = partial(named["log_loss"], smoothing)
        loss = make_loss(params["loss"], named, self.output)
        output = loss.output
        if output == self.output:
            return loss
        cure = (
            "use 'log_loss', or e.g. Through(SquaredError(), 'logistic') with "
            "output_activation='logistic'"
        )
        if output in ("softmax", "logistic") and self.kind != "multilabel":
            cure = f"set output_activation={output!r}"
        elif loss.is_own:
            cure = f"pass the function itself, or Custom(..., {self.output!r})"
        raise ValueError(
            f"loss={loss!r} requires {output!r} outputs, but "
            f"output_activation={params['output_activation']!r} results in {self.output!r} for "
            f"{self.kind} targets: {cure}."
        )

    def check_known(self, y: np.ndarray, output_activation: str, *, warm_start: bool) -> None:
        if self._output_of(output_activation) != self.output:
            raise ValueError(
                f"The network to continue with has out_activation_={self.output!r}, but "
                f"output_activation is now {output_activation!r}: fit with warm_start=False to "
                "start a new one."
            )
        if not warm_start:
            return
        if not self._is_same(y):
            found = np.unique(y) if y.dtype != object else unique(y.ravel())
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous "
                f"call to fit. Previously got {self.classes}, `y` has {found}"
            )

    def _is_same(self, y: np.ndarray) -> bool:
        """Whether y has the same classes as the targets; always true for columns of 0 and 1."""
        return y.ndim == 2 or np.array_equal(unique(y), self.classes)

    @abstractmethod
    def _output_of(self, output_activation: str) -> str:
        """Return the output activation for the parameter `output_activation`."""

    def _shape_error(self, y: np.ndarray, name: str) -> ValueError:
        return ValueError(
            f"{name} has shape {y.shape}, but the network was fitted on {self.kind} targets with "
            f"{len(self.classes)} classes."
        )

    def weigh(
        self, y: np.ndarray, weights: np.ndarray | None, class_weight: Any
    ) -> np.ndarray | None:
        if class_weight is None:
            return weights
        balance = self._balance(class_weight, y)
        return check_weights(balance if weights is None else weights * balance, len(balance))

    def _balance(self, class_weight: Any, y: np.ndarray) -> np.ndarray:
        """Return each sample's weight, i.e. the class weight of its label."""
        if isinstance(class_weight, list | tuple):
            raise ValueError(
                f"`class_weight` must be a dict or 'balanced' for {self.kind} targets, got a "
                f"{type(class_weight).__name__}, which is only for several targets."
            )
        return self._weights_of(class_weight, y, self.classes)

    def _weights_of(self, class_weight: Any, y: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return each sample's weight for one target with these labels."""
        if isinstance(class_weight, dict):
            return self._named_weights(class_weight, labels)[encode_labels(y, labels)]
        weights: np.ndarray = compute_sample_weight(class_weight, y)
        return weights

    def _named_weights(self, named: dict[Any, float], labels: np.ndarray) -> np.ndarray:
        """Return the weight of each label, 1 by default."""
        classes = labels.tolist()
        unknown = [label for label in named if label not in classes]
        if unknown:
            raise ValueError(
                f"class_weight has {unknown}, which are not among the classes {classes}."
            )
        return np.asarray([named.get(label, 1.0) for label in classes], dtype=np.float64)

    def score(self, y: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None) -> float:
        # This is `accuracy_score` without its input checks, which take longer than a small epoch.
        correct = predicted == y if y.ndim == 1 else (predicted == y).all(axis=1)
        if weights is None:
            return float(np.count_nonzero(correct) / len(correct))
        return float(np.average(correct, weights=weights))

    @property
    def log_loss(self) -> Loss:
        return SoftmaxCrossEntropy() if self.output == "softmax" else BinaryCrossEntropy()

    def with_classes(self, classes: Any) -> Self:
        return replace(self, classes=classes)

    @abstractmethod
    def probabilities(self, outputs: Array, *, xp: Namespace) -> Array:
        """Return the probabilities, (samples, classes), for activated outputs."""

    def margins(self, logits: Array) -> Array:
        """Return the raw outputs, (samples, classes); for two classes the log-odds, (samples,)."""
        return logits


def are_yes_or_no(y: np.ndarray) -> bool:
    """Whether all labels are 0 or 1, as in multilabel targets."""
    return y.dtype.kind in "biuf" and bool(np.all((y == 0) | (y == 1)))


def unique(y: np.ndarray) -> np.ndarray:
    """Return a column's sorted labels, after `LabelTargets.check` has accepted it."""
    # For integers, scikit-learn's result is the same, but takes 0.1 ms longer.
    return np.unique(y) if y.dtype.kind in "biu" else unique_labels(y)


def encode_labels(labels: np.ndarray, classes: np.ndarray, name: str = "y") -> np.ndarray:
    """Return the int32 positions of labels in the sorted classes."""
    positions = np.searchsorted(classes, labels)
    is_known = classes.take(positions, mode="clip") == labels
    if not np.all(is_known):
        unknown = np.unique(labels[~is_known])
        raise ValueError(
            f"`{name}` has classes not in `self.classes_`: {unknown}. `self.classes_` has "
            f"{classes}: "
            + (
                "pass all classes in the first call of partial_fit, or leave these samples out."
                if name == "y"
                else f"leave these samples out of {name}, or fit on samples of these classes, too."
            )
        )
    return positions.astype(np.int32)
