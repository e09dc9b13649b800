"""The history of a network's fits: records, curves, and the best loss and score."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from mlp_xp.training.loop.records import Record

# The field of `History` behind each fitted attribute.
_ATTRIBUTES = {
    "history_": "records",
    "loss_curve_": "losses",
    "validation_loss_curve_": "validation_losses",
    "validation_scores_": "scores",
    "loss_": "loss",
    "best_loss_": "best_loss",
    "best_validation_score_": "best_score",
    "n_iter_": "n_epochs",
    "t_": "n_samples",
}


@dataclass(eq=False)
class History:
    """Records of all epochs, and attributes derived from them.

    Validation losses and scores are None without validation samples; ``best_loss`` is None if early
    stopping uses the validation score. ``n_epochs`` counts the epochs of the last fit, and
    ``n_samples`` the samples in all training steps.
    """

    records: list[Record] = field(default_factory=list)
    losses: list[Any] = field(default_factory=list)
    validation_losses: list[float] | None = None
    scores: list[float] | None = None
    loss: Any = None
    best_loss: Any = field(default_factory=lambda: np.float64(np.inf))
    best_score: float | None = None
    n_epochs: int = 0
    n_samples: int = 0

    @classmethod
    def read(cls, attributes: Mapping[str, Any]) -> Self:
        """Create a history from fitted attributes, any of which the user may have changed."""
        names = _ATTRIBUTES.items()
        return cls(**{name: attributes[key] for key, name in names if key in attributes})

    def attributes(self) -> dict[str, Any]:
        """Return the fitted attributes; `loss_` is absent before the first epoch."""
        values = {key: getattr(self, name) for key, name in _ATTRIBUTES.items()}
        if self.loss is None:
            del values["loss_"]
        return values

    def begin(self, *, has_validation: bool, stops_by_score: bool) -> None:
        """Reset the counts before a fit's first epoch."""
        if has_validation:
            self.validation_losses, self.scores = self.validation_losses or [], self.scores or []
            if self.best_score is None:
                self.best_score = -np.inf
        if stops_by_score:
            self.best_loss = None
        elif self.best_loss is None:
            self.best_loss = np.float64(np.inf)

    def add(self, record: Record, least: float = -np.inf) -> bool:
        """Add an epoch; return whether its score is the best so far, and more than ``least``."""
        is_best = False
        score = record.validation_score
        if score is not None:
            assert self.scores is not None
            assert self.validation_losses is not None
            assert self.best_score is not None
            self.scores.append(score)
            self.validation_losses.append(record.validation_loss)  # type: ignore[arg-type]
            is_best = score > max(self.best_score, least)
            self.best_score = score if is_best else self.best_score
        self.loss = np.float64(record.loss)  # A NumPy float, as in scikit-learn.
        self.losses.append(self.loss)
        self.records.append(record)
        if self.best_loss is not None:
            self.best_loss = min(self.best_loss, self.loss)
        self.n_epochs += 1
        return is_best


def kept_epoch(scores: Sequence[float | None], best: float | None) -> int:
    """Return the epoch with the best validation score that early stopping has kept, from 1.

    After a restart, that is not the highest score if it is higher by too little.
    """
    if best in scores:
        return 1 + scores.index(best)
    return 1 + int(np.argmax(np.nan_to_num(np.asarray(scores, float), nan=-np.inf)))


def packed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fitted attributes, with the records as JSON text and without the curves.

    An epoch takes 150 bytes in JSON, but 3 kB in skops.
    """
    records = attributes.get("history_")
    if not records or not all(type(record) is Record for record in records):
        return dict(attributes)
    packed = dict(attributes, history_=json.dumps(records))
    for name, curve in _curves(records).items():
        given = packed.get(name)
        if isinstance(given, list) and given == curve:  # Keep values that the user has assigned.
            del packed[name]
    return packed


def unpacked(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Restore the fitted attributes from `packed`."""
    text = attributes.get("history_")
    if not isinstance(text, str):
        return dict(attributes)
    records = [Record(*row) for row in json.loads(text)]
    return {**_curves(records), **attributes, "history_": records}


def _curves(records: list[Record]) -> dict[str, list[Any]]:
    """Return the learning curves, with validation curves if there was a validation set."""
    scored = [record for record in records if record.validation_score is not None]
    curves: dict[str, list[Any]] = {"loss_curve_": [np.float64(record.loss) for record in records]}
    if scored:
        curves["validation_scores_"] = [record.validation_score for record in scored]
        curves["validation_loss_curve_"] = [record.validation_loss for record in scored]
    return curves
