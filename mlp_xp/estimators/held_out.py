"""Held-out samples, and the loss and score of the network on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.metrics import get_scorer

from mlp_xp._utils.array_types import Array
from mlp_xp.backends import Backend, get_backend
from mlp_xp.distributed import Alone
from mlp_xp.estimators.scoring import Predictions
from mlp_xp.estimators.targets import Targets
from mlp_xp.nn.losses import mean_loss
from mlp_xp.training.batches import Data, place
from mlp_xp.training.inference import predict
from mlp_xp.training.rows import Rows, Shard, some_rows, take_rows
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
    ranks : Alone
        Each predicts a part of the samples; rank 0 scores all.
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
        ranks: Alone,
    ) -> None:
        self._model = model
        self._scoring = params["scoring"]
        self._trainer = trainer
        self._targets = targets
        self._y = sample.y
        self._weights = sample.weights
        backend, dtype = trainer.backend, trainer.dtype
        encoded = targets.encode(sample.y, dtype, "y_val")
        self._ranks = ranks
        x = sample.X
        base = x.x if isinstance(x, Shard) else x
        if sparse.issparse(base):
            pass  # Sparse rows stay as they are: scorers see them so.
        elif isinstance(x, Rows | Shard) and isinstance(x_fit, type(x)) and x.x is x_fit.x:
            x = replace(x, x=data.x)  # One array, which is there already.
        else:
            there = place(backend, base, np.zeros(base.shape[0]), dtype, params["placement"]).x
            x = replace(x, x=there) if isinstance(x, Shard) else there
        self._x = x.mine if isinstance(x, Shard) else x
        self._own, self._positions = self._x, np.arange(len(sample.y))
        if isinstance(x, Shard):
            self._positions = np.flatnonzero(x.owned >= 0)
        elif ranks.size > 1:
            self._positions = np.array_split(self._positions, ranks.size)[ranks.rank]
            base, rows = (x.x, x.rows) if isinstance(x, Rows) else (x, np.arange(len(sample.y)))
            self._own = some_rows(base, rows[self._positions])
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
        trainer, ranks = self._trainer, self._ranks
        # As the fitted model will predict: also where products in training are in bfloat16.
        backend = get_backend(trainer.backend.name, trainer.backend.device)
        if ranks.size == 1:
            return self._scores(backend, self._logits(backend))
        parts = ranks.exchange((self._positions, backend.get(self._logits(backend))))
        if ranks.rank:
            return ranks.first((0.0, 0.0))
        logits = np.concatenate([logits for _, logits in parts])
        logits[np.concatenate([positions for positions, _ in parts])] = logits.copy()
        return ranks.first(self._scores(backend, backend.put(logits)))

    def _logits(self, backend: Backend) -> Array:
        """Return the outputs for the samples of this rank."""
        trainer = self._trainer
        network = trainer.rules.network
        if not len(self._positions):
            return backend.put(np.empty((0, network.sizes[-1])), trainer.dtype)
        return predict(
            backend,
            network,
            None,
            trainer.learned,
            self._own,
            trainer.scaling,
            batch_stats=trainer.state.batch_stats,
            dtype=trainer.dtype,
        )

    def _scores(self, backend: Backend, logits: Array) -> tuple[float, float]:
        """Return loss and score of the outputs for all samples."""
        loss = self._trainer.rules.loss
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
