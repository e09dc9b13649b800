"""Targets that are class labels, one or several for each sample."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sklearn.utils import compute_sample_weight
from sklearn.utils.multiclass import unique_labels

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.estimators.checks.validation import check_labels, check_weights, encode
from mlp_xp.estimators.targets._base import Targets, make_loss
from mlp_xp.nn.losses import (
    CLASSIFICATION_LOSSES,
    BinaryCrossEntropy,
    Loss,
    SoftmaxCrossEntropy,
)

__all__ = ["ClassTargets", "MultilabelTargets"]


class _LabelTargets(Targets):
    """Targets that are class labels, one or several for each sample."""

    metric = "accuracy"
    classes: np.ndarray

    check = staticmethod(check_labels)

    @classmethod
    def learn(
        cls, y: np.ndarray, *, classes: Any, output_activation: str, is_sparse: bool
    ) -> Targets:
        if y.ndim == 1:
            classes = _unique(y) if classes is None else classes
            return ClassTargets(classes, _class_output(classes, output_activation), is_sparse)
        if classes is not None and len(classes) != y.shape[1]:
            raise ValueError(
                f"classes has {len(classes)} entries, {classes!r}, and y has {y.shape[1]} "
                "columns, one for each class."
            )
        classes = np.arange(y.shape[1]) if classes is None else classes
        return MultilabelTargets(classes, _multilabel_output(output_activation), is_sparse)

    @classmethod
    def of_weights(
        cls, attributes: Mapping[str, Any], n_outputs: int, params: Mapping[str, Any]
    ) -> Targets:
        classes = attributes.get("classes_")
        if classes is None:
            binarizer = attributes.get("_label_binarizer")  # Scikit-learn's has one.
            if binarizer is None:
                raise AttributeError(
                    "coefs_ are assigned, and classes_ are not: assign the class labels, sorted."
                )
            classes = binarizer.classes_
        output = attributes.get("out_activation_", "logistic" if n_outputs == 1 else "softmax")
        if output == "logistic" and params["output_activation"] != "logistic" and n_outputs > 1:
            return MultilabelTargets(classes, output)
        return ClassTargets(classes, output)

    def resolve_loss(self, params: Mapping[str, Any]) -> Loss:
        place = 0 if self.output == "softmax" else 1
        named: dict[str, Any] = {name: pair[place] for name, pair in CLASSIFICATION_LOSSES.items()}
        smoothing = float(params["label_smoothing"])
        if smoothing:
            if params["loss"] != "log_loss":
                raise ValueError(
                    f"label_smoothing is {smoothing}, and loss is {params['loss']!r}: only "
                    "'log_loss' takes it. A loss object brings its own, e.g. "
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
            cure = f"give the function itself, or Custom(..., {self.output!r})"
        raise ValueError(
            f"loss is {loss!r}, whose outputs are {output!r}, and those of "
            f"output_activation={params['output_activation']!r} for {self.kind} targets are "
            f"{self.output!r}: {cure}."
        )

    def check_known(self, y: np.ndarray, output_activation: str, *, warm_start: bool) -> None:
        if self._output_of(output_activation) != self.output:
            raise ValueError(
                f"The network to continue with has out_activation_={self.output!r}, and "
                f"output_activation is now {output_activation!r}: fit with warm_start=False "
                "to start a new one."
            )
        if not warm_start:
            return
        classes = self.classes if y.ndim == 2 else _unique(y)
        if not np.array_equal(classes, self.classes):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous "
                f"call to fit. Previously got {self.classes}, `y` has {classes}"
            )

    def check_loss(self, y: np.ndarray, loss: Loss, name: str = "y") -> None:
        pass  # Losses of classes take all that is encoded.

    @abstractmethod
    def _output_of(self, output_activation: str) -> str:
        """Return the output activation that a setting stands for."""

    def _shape_error(self, y: np.ndarray, name: str) -> ValueError:
        return ValueError(
            f"{name} is of shape {y.shape}, and the network was fitted on "
            f"{self.kind} targets with {len(self.classes)} classes."
        )

    def weigh(
        self, y: np.ndarray, weights: np.ndarray | None, class_weight: Any
    ) -> np.ndarray | None:
        if class_weight is None:
            return weights
        if isinstance(class_weight, dict):
            balance = self._named_weights(class_weight)[encode(y, self.classes)]
        else:
            balance = compute_sample_weight(class_weight, y)
        return check_weights(balance if weights is None else weights * balance, len(y))

    def _named_weights(self, named: dict[Any, float]) -> np.ndarray:
        """Return the weight of each class, 1 where none is named."""
        classes = self.classes.tolist()
        unknown = [label for label in named if label not in classes]
        if unknown:
            raise ValueError(
                f"class_weight names {unknown}, which are not among the classes {classes}."
            )
        return np.asarray([named.get(label, 1.0) for label in classes], dtype=np.float64)

    def score(self, y: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None) -> float:
        # As `accuracy_score`, whose checks of its input take longer than a small epoch.
        correct = predicted == y if y.ndim == 1 else (predicted == y).all(axis=1)
        if weights is None:
            return float(np.count_nonzero(correct) / len(correct))
        return float(np.average(correct, weights=weights))

    @property
    def log_loss(self) -> Loss:
        """The log loss of the probabilities, which a temperature is fitted by."""
        return SoftmaxCrossEntropy() if self.output == "softmax" else BinaryCrossEntropy()

    @abstractmethod
    def probabilities(self, outputs: Array, *, xp: Namespace) -> Array:
        """Return the probabilities, (samples, classes), for activated outputs."""

    def margins(self, logits: Array) -> Array:
        """Return the raw outputs, (samples, classes); of two classes the log-odds, (samples,)."""
        return logits


@dataclass(frozen=True, eq=False)
class ClassTargets(_LabelTargets):
    """One class for each sample.

    Parameters
    ----------
    classes : (classes,) NumPy array
        Sorted labels.
    output : {"softmax", "logistic"}
        Output activation; two classes have a single logistic output.
    is_sparse : bool, default=False

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp.estimators.targets import ClassTargets
    >>> targets = ClassTargets(np.asarray(["ant", "bee"]), "logistic")
    >>> targets.n_outputs, targets.encode(np.asarray(["bee"]), "float32")
    (1, array([[1.]], dtype=float32))
    >>> targets.decode(np.asarray([[0.2]]))
    array(['ant'], dtype='<U3')
    """

    classes: np.ndarray
    output: str
    is_sparse: bool = False

    @property
    def kind(self) -> str:  # type: ignore[override]
        """The name of the targets: "binary" or "multiclass"."""
        return "binary" if len(self.classes) == 2 else "multiclass"

    @property
    def n_outputs(self) -> int:  # type: ignore[override]
        """The number of outputs of the network."""
        return 1 if self._is_column else len(self.classes)

    @property
    def _is_column(self) -> bool:
        return len(self.classes) == 2 and self.output != "softmax"

    def _output_of(self, output_activation: str) -> str:
        return _class_output(self.classes, output_activation)

    def encode(self, y: np.ndarray, dtype: str, name: str = "y") -> np.ndarray:
        """Return positions among the classes, or columns of 0 and 1 for logistic outputs."""
        if y.ndim != 1:
            raise self._shape_error(y, name)
        codes = encode(y, self.classes, name)
        if self.output == "softmax":
            return codes
        if self.n_outputs == 1:
            return codes[:, None].astype(dtype)
        return np.eye(self.n_outputs, dtype=dtype)[codes]

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Return the most likely label of each sample."""
        if self._is_column:
            return self.classes[(outputs[:, 0] > 0.5).astype(np.int64)]
        return self.classes[np.argmax(outputs, axis=1)]

    def probabilities(self, outputs: Array, *, xp: Namespace) -> Array:
        """Return the probabilities, (samples, classes), for activated outputs."""
        if self._is_column:
            return xp.concat([1.0 - outputs, outputs], axis=1)
        if self.output == "logistic":  # One against the rest.
            return outputs / xp.sum(outputs, axis=1, keepdims=True)
        return outputs

    def margins(self, logits: Any) -> Array:
        """Return the raw outputs, (samples, classes); of two classes the log-odds, (samples,)."""
        if len(self.classes) != 2:
            return logits
        return logits[:, 0] if self._is_column else logits[:, 1] - logits[:, 0]

    def strata(self, y: np.ndarray, fraction: float) -> np.ndarray | None:
        """Return the classes, unless one of more than two is too rare to be in both parts."""
        codes = encode(y, self.classes)
        if self.kind == "binary":
            # A column of bool, so that the error about a rare class is scikit-learn's.
            return codes[:, None].astype(bool)
        is_rare = 1 in np.bincount(codes).tolist()
        is_possible = not is_rare and len(y) * fraction >= len(self.classes)
        return codes if is_possible else None

    def with_classes(self, classes: np.ndarray) -> ClassTargets:
        """Return the targets with other labels, which were assigned to an estimator."""
        return ClassTargets(classes, self.output, self.is_sparse)


@dataclass(frozen=True, eq=False)
class MultilabelTargets(_LabelTargets):
    """Several classes at once for each sample: columns of 0 and 1.

    Parameters
    ----------
    classes : (classes,) NumPy array
        Names of the columns.
    output : str, default="logistic"
    is_sparse : bool, default=False
    """

    classes: np.ndarray
    output: str = "logistic"
    is_sparse: bool = False
    kind: str = "multilabel"

    @property
    def n_outputs(self) -> int:  # type: ignore[override]
        """The number of outputs of the network."""
        return len(self.classes)

    def _output_of(self, output_activation: str) -> str:
        return _multilabel_output(output_activation)

    def encode(self, y: np.ndarray, dtype: str, name: str = "y") -> np.ndarray:
        """Return the columns in the dtype of the network."""
        if y.ndim != 2 or y.shape[1] != self.n_outputs:
            raise self._shape_error(y, name)
        return y.astype(dtype)

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Return columns of 0 and 1."""
        return (outputs > 0.5).astype(np.int64)

    def probabilities(self, outputs: Array, *, xp: Namespace) -> Array:
        """Return the probability of each class."""
        return outputs

    def _named_weights(self, named: dict[Any, float]) -> np.ndarray:
        raise ValueError(
            "class_weight is a dict, and y has several classes at once, whose weights would "
            "contradict each other: give sample_weight, or class_weight='balanced'."
        )

    def with_classes(self, classes: np.ndarray) -> MultilabelTargets:
        """Return the targets with other labels, which were assigned to an estimator."""
        return MultilabelTargets(classes, self.output, self.is_sparse)


def _unique(y: np.ndarray) -> np.ndarray:
    """Return the sorted labels of a column that `check_labels` has accepted."""
    # For integers scikit-learn returns the same, after checks of a tenth of a millisecond.
    return np.unique(y) if y.dtype.kind in "biu" else unique_labels(y)


def _class_output(classes: np.ndarray, setting: str) -> str:
    if setting != "auto":
        return setting
    return "logistic" if len(classes) == 2 else "softmax"


def _multilabel_output(setting: str) -> str:
    if setting == "softmax":
        raise ValueError(
            "output_activation is 'softmax', and y has several classes at once, whose "
            "probabilities do not sum to 1: use 'auto' or 'logistic'."
        )
    return "logistic"
