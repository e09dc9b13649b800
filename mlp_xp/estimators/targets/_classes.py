"""Class labels as targets: one label per sample, several (multilabel), or one per target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil, prod
from typing import Any, Self

import numpy as np

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.dataclass import dataclass
from mlp_xp.estimators.targets._labels import LabelTargets, are_yes_or_no, encode_labels, unique
from mlp_xp.nn.losses import EachTarget, Loss, SoftmaxCrossEntropy


@dataclass(frozen=True, eq=False)
class ClassTargets(LabelTargets):
    """One class per sample; two classes have one logistic output, unless softmax is requested."""

    @classmethod
    def learn(
        cls, y: np.ndarray, *, classes: Any, output_activation: str, is_sparse: bool
    ) -> LabelTargets:
        """Return targets of the kind that fits y and the settings."""
        kind: type[LabelTargets] = ClassTargets
        if y.ndim == 1:
            classes = unique(y) if classes is None else classes
        elif classes is not None and len(classes) != y.shape[1]:
            raise ValueError(
                f"`classes` must have one entry for each of the {y.shape[1]} columns of y, got "
                f"{len(classes)}: pass the labels of the columns or, for several targets, a list "
                "with the labels of each target, e.g. [[0, 1], [0, 1, 2]]."
            )
        elif isinstance(classes, list) or (classes is None and not are_yes_or_no(y)):
            kind = MultioutputTargets
            classes = [unique(column) for column in _columns(y)] if classes is None else classes
        else:
            kind = MultilabelTargets
            classes = np.arange(y.shape[1]) if classes is None else classes
        found = kind(classes, is_sparse=is_sparse)
        return replace(found, output=found._output_of(output_activation))

    @classmethod
    def of_weights(
        cls, attributes: Mapping[str, Any], n_outputs: int, params: Mapping[str, Any]
    ) -> LabelTargets:
        """Return targets of the right kind for weights that were assigned to an estimator."""
        classes = attributes.get("classes_")
        if classes is None:
            binarizer = attributes.get("_label_binarizer")  # An attribute of scikit-learn's MLP.
            if binarizer is None:
                raise AttributeError(
                    "coefs_ are assigned, but classes_ are not: assign the sorted class labels."
                )
            classes = binarizer.classes_
        if isinstance(classes, list):
            return MultioutputTargets(classes)
        output = attributes.get("out_activation_", "logistic" if n_outputs == 1 else "softmax")
        if output == "logistic" and params["output_activation"] != "logistic" and n_outputs > 1:
            return MultilabelTargets(classes, output)
        return ClassTargets(classes, output)

    @property
    def kind(self) -> str:  # type: ignore[override]
        """The kind of targets: "binary" or "multiclass"."""
        return "binary" if len(self.classes) == 2 else "multiclass"

    @property
    def n_outputs(self) -> int:  # type: ignore[override]
        return 1 if self._is_column else len(self.classes)

    @property
    def _is_column(self) -> bool:
        return len(self.classes) == 2 and self.output != "softmax"

    def _output_of(self, output_activation: str) -> str:
        if output_activation != "auto":
            return output_activation
        return "logistic" if len(self.classes) == 2 else "softmax"

    def encode(self, y: np.ndarray, dtype: str, name: str = "y") -> np.ndarray:
        """Return class indices, or columns of 0 and 1 for logistic outputs."""
        if y.ndim != 1:
            raise self._shape_error(y, name)
        codes = encode_labels(y, self.classes, name)
        if self.output == "softmax":
            return codes
        if self.n_outputs == 1:
            return codes[:, None].astype(dtype)
        return np.eye(self.n_outputs, dtype=dtype)[codes]

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        if self._is_column:
            return self.classes[(outputs[:, 0] > 0.5).astype(np.int64)]
        return self.classes[np.argmax(outputs, axis=1)]

    def probabilities(self, outputs: Array, *, xp: Namespace) -> Array:
        if self._is_column:
            return xp.concat([1.0 - outputs, outputs], axis=1)
        if self.output == "logistic":  # Normalize one-versus-rest probabilities to a sum of 1.
            return outputs / xp.sum(outputs, axis=1, keepdims=True)
        return outputs

    def margins(self, logits: Any) -> Array:
        if len(self.classes) != 2:
            return logits
        return logits[:, 0] if self._is_column else logits[:, 1] - logits[:, 0]

    def strata(self, y: np.ndarray, fraction: float) -> np.ndarray | None:
        """Return the classes to stratify by, or None if a class is too rare to be in both parts."""
        codes = encode_labels(y, self.classes)
        if self.kind == "binary":
            # Return a column of bool, so that scikit-learn raises its error about a rare class.
            return codes[:, None].astype(bool)
        is_rare = 1 in np.bincount(codes).tolist()
        n_held_out = ceil(len(y) * fraction)
        is_possible = not is_rare and min(n_held_out, len(y) - n_held_out) >= len(self.classes)
        return codes if is_possible else None


@dataclass(frozen=True, eq=False)
class MultilabelTargets(LabelTargets):
    """Several classes per sample (multilabel): columns of 0 and 1, named by ``classes``."""

    output: str = "logistic"

    kind = "multilabel"

    @property
    def n_outputs(self) -> int:  # type: ignore[override]
        return len(self.classes)

    def _output_of(self, output_activation: str) -> str:
        if output_activation == "softmax":
            raise ValueError(
                "output_activation must be 'auto' or 'logistic' for multilabel targets, whose "
                "probabilities do not sum to 1, got 'softmax'."
            )
        return "logistic"

    def encode(self, y: np.ndarray, dtype: str, name: str = "y") -> np.ndarray:
        """Return the columns in the network's dtype."""
        if y.ndim != 2 or y.shape[1] != self.n_outputs:
            raise self._shape_error(y, name)
        if not are_yes_or_no(y):
            values = np.unique(y).tolist()
            raise ValueError(
                f"{name} has {y.shape[1]} columns with the values {values}, but multilabel targets "
                f"must be columns of 0 and 1, one per class: e.g. ({name} == "
                f"{values[-1]}).astype(int)."
            )
        return y.astype(dtype)

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        return (outputs > 0.5).astype(np.int64)

    def probabilities(self, outputs: Array, *, xp: Namespace) -> Array:
        return outputs

    def _named_weights(self, named: dict[Any, float], labels: np.ndarray) -> np.ndarray:
        raise ValueError(
            "class_weight must be 'balanced' or None for multilabel targets, got a dict: weights "
            "of several classes of a sample would conflict. Use sample_weight instead."
        )


@dataclass(frozen=True, eq=False)
class MultioutputTargets(LabelTargets):
    """Several targets per sample; each target has separate classes and a separate softmax."""

    kind = "multiclass-multioutput"

    @property
    def n_outputs(self) -> int:  # type: ignore[override]
        return sum(map(len, self.classes))

    def _output_of(self, output_activation: str) -> str:
        if output_activation == "logistic":
            raise ValueError(
                "`output_activation` must be 'auto' or 'softmax' for several targets with classes, "
                "got 'logistic'."
            )
        return "softmax"

    def _is_same(self, y: np.ndarray) -> bool:
        if y.ndim == 1:
            return True  # The shape of y is checked later.
        found = [unique(column) for column in _columns(y)]
        return len(found) == len(self.classes) and all(map(np.array_equal, found, self.classes))

    def _shape_error(self, y: np.ndarray, name: str) -> ValueError:
        return ValueError(
            f"{name} has shape {y.shape}, but the network was fitted on {len(self.classes)} "
            "targets with classes: pass one column per target."
        )

    @property
    def _loss(self) -> EachTarget:
        return EachTarget(SoftmaxCrossEntropy(), tuple(map(len, self.classes)))

    @property
    def log_loss(self) -> Loss:
        return self._loss

    def resolve_loss(self, params: Mapping[str, Any]) -> Loss:
        """Return a loss that is summed over the targets."""
        return replace(self._loss, loss=super().resolve_loss(params))

    def encode(self, y: np.ndarray, dtype: str, name: str = "y") -> np.ndarray:
        """Return class indices for each target, (samples, targets)."""
        if y.ndim != 2 or y.shape[1] != len(self.classes):
            raise self._shape_error(y, name)
        pairs = zip(_columns(y), self.classes, strict=True)
        codes = [encode_labels(column, labels, name) for column, labels in pairs]
        return np.stack(codes, axis=1)

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        pairs = zip(self.classes, self._loss.split(outputs), strict=True)
        labels = [classes[np.argmax(p, axis=1)] for classes, p in pairs]
        kinds = {classes.dtype.kind for classes in self.classes}
        mixes = len(kinds) > 1 and not kinds <= set("iuf")
        return np.stack([column.astype(object) if mixes else column for column in labels], axis=1)

    def probabilities(self, outputs: Array, *, xp: Namespace) -> Any:
        return self._loss.split(outputs)

    def margins(self, logits: Array) -> Any:
        return self._loss.split(logits)

    def _balance(self, class_weight: Any, y: np.ndarray) -> np.ndarray:
        if isinstance(class_weight, str):
            return self._weights_of(class_weight, y, self.classes)
        is_list = isinstance(class_weight, Sequence)
        if not is_list or len(class_weight) != len(self.classes):
            raise ValueError(
                "`class_weight` must be 'balanced' or a list with a dict for each of "
                f"{len(self.classes)} targets, got {len(class_weight) if is_list else 'a dict'}."
            )
        pairs = zip(class_weight, _columns(y), self.classes, strict=True)
        balance: np.ndarray = prod(self._weights_of(*pair) for pair in pairs)  # type: ignore[assignment]
        return balance

    def with_classes(self, classes: Any) -> Self:
        return super().with_classes([*map(np.asarray, classes)])


def _columns(y: np.ndarray) -> list[np.ndarray]:
    if y.dtype != object:
        return list(y.T)
    return [np.asarray(column.tolist()) for column in y.T]
