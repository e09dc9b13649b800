"""Held-out samples, and the loss and score of the network on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.metrics import get_scorer

from mlp_xp.backends import get_backend
from mlp_xp.estimators.scoring import Predictions
from mlp_xp.estimators.targets import Targets
from mlp_xp.nn.losses import mean_loss
from mlp_xp.training.batches import Data, place
from mlp_xp.training.inference import predict
from mlp_xp.training.rows import Rows, take_rows
from mlp_xp.training.trainer import Trainer

__all__ = ["HeldOut"]


class HeldOut:
    """Samples that the network is not fitted to.

    Parameters
    ----------
    model : estimator
        For scorers; a callable one may ask for its attributes.
    params : mapping
        From the names of all parameters to their values.
    trainer : Trainer
    targets : Targets
    sample : Sample
        Checked; inputs may be anywhere.
    x_fit : array or Rows
        Inputs that the network is fitted to.
    data : Data
        The same, as placed.
    """

    def __init__(
        self,
        model: Any,
        params: Mapping[str, Any],
        trainer: Trainer,
        targets: Targets,
        sample: Any,
        x_fit: Any,
        data: Data,
    ) -> None:
        self._model = model
        self._scoring = params["scoring"]
        self._trainer = trainer
        self._targets = targets
        self._y = sample.y
        self._weights = sample.weights
        backend, dtype = trainer.backend, trainer.dtype
        encoded = targets.encode(sample.y, dtype, "y_val")
        # Sparse rows stay as they are: scorers see them so.
        self._x = sample.X
        if isinstance(sample.X, Rows) and isinstance(x_fit, Rows) and sample.X.x is x_fit.x:
            self._x = Rows(data.x, sample.X.rows)  # One array, which is there already.
        elif not sparse.issparse(sample.X):
            self._x = place(backend, sample.X, encoded, dtype, params["placement"]).x
        self._encoded = backend.put(encoded)
        self._loss_weights = None
        if sample.weights is not None:
            self._loss_weights = backend.put(sample.weights, dtype)
        self._scorer: Callable[..., float] | None = None
        if callable(self._scoring):
            self._scorer = self._scoring
        elif self._scoring not in (None, "loss"):
            self._scorer = get_scorer(self._scoring)
        if self._scorer is not None:  # One that cannot be used fails now, not after an epoch.
            self.measure()

    def measure(self) -> tuple[float, float]:
        """Return loss and score of the network as it now is; a higher score is better."""
        trainer = self._trainer
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
            average, _ = mean_loss(loss, logits, self._encoded, self._loss_weights, xp=backend.xp)
            outputs = loss.activate(logits, xp=backend.xp)
        value = loss.reported(float(backend.get(average)), logits.shape[1])
        if self._scoring == "loss":
            return value, -value
        host = backend.get(outputs)
        if not np.all(np.isfinite(host)):
            return value, np.nan
        predictions = Predictions(self._model, self._targets, host)
        if self._scorer is None:
            score = self._targets.score(self._y, predictions.predict(), self._weights)
        else:
            x = self._x
            if isinstance(x, Rows) and callable(self._scoring):  # Others look at predictions only.
                x = take_rows(x, slice(None))
            score = predictions.score(self._scorer, x, self._y, self._weights)
        return value, float(score)
