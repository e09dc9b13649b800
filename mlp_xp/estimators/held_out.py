"""Samples that the network is not fitted to, and what it makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.metrics import get_scorer

from mlp_xp.backends import get_backend
from mlp_xp.estimators.scoring import Predictions
from mlp_xp.nn.losses import mean_loss
from mlp_xp.training.batches import Data, place
from mlp_xp.training.inference import predict
from mlp_xp.training.rows import Rows, take_rows
from mlp_xp.training.trainer import Trainer

__all__ = ["Validation"]


class Validation:
    """Held-out samples, and what the network makes of them.

    Parameters
    ----------
    model : estimator
    trainer : Trainer
    sample : Sample
        Checked; inputs may be anywhere.
    x_fit : array or Rows
        Inputs that the network is fitted to.
    data : Data
        The same, as placed.
    """

    def __init__(self, model: Any, trainer: Trainer, sample: Any, x_fit: Any, data: Data) -> None:
        self._model = model
        self._trainer = trainer
        self._y = sample.y
        self._weights = sample.weights
        backend, dtype = trainer.backend, trainer.dtype
        targets = model._encode(sample.y, "y_val")
        # Sparse rows stay as they are: scorers see them so.
        self._x = sample.X
        if isinstance(sample.X, Rows) and isinstance(x_fit, Rows) and sample.X.x is x_fit.x:
            self._x = Rows(data.x, sample.X.rows)  # One array, which is there already.
        elif not sparse.issparse(sample.X):
            self._x = place(backend, sample.X, targets, dtype, model.placement).x
        self._targets = backend.put(targets)
        self._loss_weights = None
        if sample.weights is not None:
            self._loss_weights = backend.put(sample.weights, dtype)
        self._scorer: Callable[..., float] | None = None
        if callable(model.scoring):
            self._scorer = model.scoring
        elif model.scoring not in (None, "loss"):
            self._scorer = get_scorer(model.scoring)
        if self._scorer is not None:  # One that cannot be used fails now, not after an epoch.
            self.measure()

    @classmethod
    def of(cls, model: Any, trainer: Trainer, sample: Any, *fitted: Any) -> Validation | None:
        """Give the validation on a sample, or None where there is none."""
        return None if sample is None else cls(model, trainer, sample, *fitted)

    def measure(self) -> tuple[float, float]:
        """Give loss and score of the network as it now is; a higher score is better."""
        trainer, model = self._trainer, self._model
        # As the fitted model will predict: also where products in training are in bfloat16.
        backend = get_backend(trainer.backend.name, trainer.backend.device)
        loss = trainer.rules.loss
        logits = predict(
            backend,
            trainer.rules.network,
            None,
            trainer.learned,
            self._x,
            trainer.scaling,
            batch_stats=trainer.state.batch_stats,
            dtype=trainer.dtype,
        )
        with backend.scope():
            average, _ = mean_loss(loss, logits, self._targets, self._loss_weights, xp=backend.xp)
            outputs = loss.activate(logits, xp=backend.xp)
        value = loss.reported(float(backend.get(average)), logits.shape[1])
        if model.scoring == "loss":
            return value, -value
        host = backend.get(outputs)
        if not np.all(np.isfinite(host)):
            return value, np.nan
        predictions = Predictions(model, host)
        if self._scorer is None:
            score = model._metric(self._y, predictions.predict(), self._weights)
        else:
            x = self._x
            if isinstance(x, Rows) and callable(model.scoring):  # Others look at predictions only.
                x = take_rows(x, slice(None))
            score = predictions.score(self._scorer, x, self._y, self._weights)
        return value, float(score)
