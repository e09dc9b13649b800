"""Held-out samples, and the network's loss and score on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from scipy import sparse
from sklearn import get_config

from mlp_xp._utils.array_types import Array
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends import get_backend
from mlp_xp.estimators.fitted.calibration import Calibration, Tempered, calibrate, fit_temperature
from mlp_xp.estimators.fitted.groups import GroupColumn
from mlp_xp.estimators.fitted.prediction_sets import ONE_CLASS, calibrate_sets
from mlp_xp.estimators.fitted.scoring import Predictions, scorer_of
from mlp_xp.estimators.settings.config import REFINEMENT
from mlp_xp.estimators.targets import Targets
from mlp_xp.estimators.targets._labels import encode_labels
from mlp_xp.nn.layers import BatchStats
from mlp_xp.nn.losses import EachMember, mean_loss
from mlp_xp.nn.network import Params
from mlp_xp.training.data.placement import Data, put_data
from mlp_xp.training.data.rows import Rows, Shard, some_rows, take_rows
from mlp_xp.training.inference.inference import predict
from mlp_xp.training.trainer import Trainer

_T = TypeVar("_T")
_FEW = 8  # The maximum MiB of activations when several networks are evaluated in one call.


class HeldOut:
    """Held-out samples on which loss and score are measured.

    ``model`` is passed to scorers. If ``looks_at_model`` is true, a callable scorer may use the
    model's attributes. ``x_fit`` is the X passed to the fit, and ``data`` has its copy on the
    device.
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
        self.model = model
        self._scoring = params["scoring"]
        loss = trainer.rules.loss
        if self._scoring is None and (loss.has_std or loss.levels):
            self._scoring = "loss"  # R2 does not measure the quality of intervals.
        if self._scoring == REFINEMENT:
            targets.log_loss  # noqa: B018 - an error for real values.
        self.looks_at_model = callable(self._scoring)
        self._trainer = trainer
        self._targets: Any = targets
        self._y = sample.y
        self._weights = sample.weights
        backend, dtype = trainer.backend, trainer.dtype
        # Predict in float32, as the fitted model does, even if training uses lower precision.
        self._backend = get_backend(backend.name, backend.device)
        # Score on the host if the backend would compile operations for this number of samples,
        # unless a user's loss may require the backend's library.
        on_host = backend.fixed_shapes and not trainer.rules.has_own_functions
        self._scores_on = get_backend("numpy") if on_host else self._backend
        encoded = targets.encode(sample.y, dtype, "y_val")
        x = sample.X
        base = x.x if isinstance(x, Shard) else x
        if sparse.issparse(base):
            pass  # Keep sparse rows sparse for scorers.
        elif isinstance(x, Rows | Shard) and isinstance(x_fit, type(x)) and x.x is x_fit.x:
            x = replace(x, x=data.x)  # Use the array that is already on the device.
        else:
            there = put_data(backend, base, np.zeros(base.shape[0]), dtype, params["placement"]).x
            x = replace(x, x=there) if isinstance(x, Shard) else there
        self._x = x.mine if isinstance(x, Shard) else x
        self._parts, self._positions = [self._x], np.arange(len(sample.y))
        if isinstance(x, Shard):
            self._positions = np.flatnonzero(x.owned >= 0)
        elif (parts := trainer.processes.parts(len(sample.y))) is not None:
            base, rows = (x.x, x.rows) if isinstance(x, Rows) else (x, np.arange(len(sample.y)))
            self._parts = [some_rows(base, rows[part]) for part in parts if len(part)]
            self._positions = np.concatenate(parts)
        self._encoded = self._scores_on.put(encoded)
        self._loss_weights = None
        if sample.weights is not None:
            self._loss_weights = self._scores_on.put(sample.weights, dtype)
        has_scorer = self._scoring not in (None, "loss", REFINEMENT)
        self._scorer = scorer_of(self._scoring) if has_scorer else None
        if self._scorer is not None:  # Raise a scorer's error before the first epoch.
            self.measure()

    def measure(self) -> tuple[float, float]:
        """Return the current network's loss and score; a higher score is better."""
        return self._on_all(self._scores)

    def temperature(self) -> float:
        """Return the best temperature for the current network."""
        return self._on_all(lambda logits: self._tempered(self._scores_on.get(logits)).temperature)

    def conformal(
        self, temperature: float | None, column: GroupColumn | None
    ) -> Calibration | None:
        """Return the errors of a regressor, or how likely a classifier's correct classes were.

        Return None if a prediction is not finite, or a sample may have several classes. The raw
        outputs are divided by ``temperature``, if given. The values of ``column`` are groups.
        """
        if column is None:
            return self._on_all(lambda logits: self._conformal(logits, temperature))
        found = [column.codes_of(part) for part in self._parts]
        backend, dtype = self._scores_on, self._trainer.dtype

        def measure(both: Array) -> Calibration | None:
            codes = backend.get(both[:, -1]).astype(dtype)
            return self._conformal(both[:, :-1], temperature, codes)

        return self._on_all(measure, backend.put(np.concatenate(found)[:, None], dtype))

    def _conformal(
        self, logits: Array, temperature: float | None, codes: np.ndarray | None = None
    ) -> Calibration | None:
        loss, targets = self._trainer.rules.loss, self._targets
        outputs = self._activated(logits if temperature is None else logits / temperature)
        if not np.all(np.isfinite(outputs)):
            return None
        if targets.classes is None:
            return calibrate(loss, outputs, targets.plain.encode(self._y, "float64"), codes)
        if targets.kind not in ONE_CLASS:
            return None
        probabilities = targets.probabilities(outputs, xp=get_backend("numpy").xp)
        return calibrate_sets(probabilities, encode_labels(self._y, targets.classes), codes)

    def _on_all(self, measure: Callable[[Array], _T], more: Array | None = None) -> _T:
        """Apply ``measure`` to the outputs for all samples; all processes get the same result.

        ``more`` are further columns of this process's samples, which are appended to the outputs.
        """
        trainer = self._trainer
        logits = self._logits(trainer.learned, trainer.state.batch_stats)
        if more is not None:
            with self._scores_on.scope():
                logits = self._scores_on.xp.concat([logits, more], axis=1)
        return trainer.processes.on_all(measure, logits, self._positions, self._scores_on)

    def measure_each(
        self, params: Params, batch_stats: tuple[BatchStats, ...]
    ) -> Iterable[tuple[float, float]]:
        """Return the result of `measure` for each network, stacked on the weights' first axis."""
        rules = self._trainer.rules
        n_networks = leaves(params)[0].shape[0]
        takes_axes = not (rules.has_own_functions or sparse.issparse(self._x))
        n_bytes = 24 * n_networks * len(self._y) * sum(rules.network.sizes)
        # With larger outputs, one call for all networks is no faster than separate calls.
        if takes_axes and n_bytes <= min(_FEW, get_config()["working_memory"]) * 2**20:
            return self._score_each(*self._evaluate(self._logits(params, batch_stats)))

        def entry(i: int) -> Any:
            return map_leaves(lambda leaf: leaf[i, ...], (params, batch_stats))

        return [self._scores(self._logits(*entry(i))) for i in range(n_networks)]

    def _logits(self, params: Params, batch_stats: tuple[BatchStats, ...]) -> Array:
        """Return the outputs for this process's samples."""
        trainer, backend = self._trainer, self._backend
        network = trainer.rules.network
        if not len(self._positions):
            return self._scores_on.put(np.empty((0, network.sizes[-1])), trainer.dtype)
        logits = [
            predict(
                backend,
                network,
                None,
                params,
                x,
                trainer.scaling,
                batch_stats=batch_stats,
                to=self._scores_on,
                dtype=trainer.dtype,
                precision=trainer.backend.precision,
            )
            for x in self._parts
        ]
        return logits[0] if len(logits) == 1 else self._scores_on.xp.concat(logits, axis=0)

    def _scores(self, logits: Array) -> tuple[float, float]:
        """Return the loss and the score of the outputs for all samples."""
        return self._score(*self._evaluate(logits))

    def _evaluate(self, logits: Array) -> tuple[np.ndarray, np.ndarray]:
        """Return the average loss and the activated outputs on the host.

        If the score is "refinement", the outputs are not activated.
        """
        loss, backend = self._trainer.rules.loss, self._scores_on
        with backend.scope():
            average, _ = mean_loss(loss, logits, self._encoded, self._loss_weights, xp=backend.xp)
        is_raw = self._scoring == REFINEMENT
        return backend.get(average), backend.get(logits) if is_raw else self._activated(logits)

    def _activated(self, logits: Array) -> np.ndarray:
        """Return the activated outputs on the host, in the unit of y."""
        loss, backend = self._trainer.rules.loss, self._scores_on
        with backend.scope():
            outputs = backend.get(loss.activate(logits, xp=backend.xp))
        dtype: Any = outputs.dtype
        xp: Any = get_backend("numpy").xp
        restored: np.ndarray = self._targets.restore(
            loss, outputs, lambda array: array.astype(dtype), xp=xp
        )
        return restored

    def _score_each(
        self, averages: np.ndarray, outputs: np.ndarray
    ) -> Iterable[tuple[float, float]]:
        """Return the result of `_score` for each network, stacked on the first axis."""
        if self._scoring is not None or not np.all(np.isfinite(outputs)):
            return map(self._score, averages, outputs)
        n_networks, n_samples, n_outputs = outputs.shape
        predicted = self._predictions(outputs.reshape(-1, n_outputs)).predict()
        by_network = predicted.reshape(n_networks, n_samples, *predicted.shape[1:])
        return [
            (self._reported(value), self._targets.score(self._y, labels, self._weights))
            for value, labels in zip(averages.tolist(), by_network, strict=True)
        ]

    def _predictions(self, outputs: np.ndarray) -> Predictions:
        return Predictions(self.model, self._trainer.rules.loss, self._targets, outputs)

    def _reported(self, value: float) -> float:
        """Return an average loss in the form that estimators report."""
        # The last size is the total number of outputs of all `n_members` networks.
        return self._trainer.rules.loss.reported(value, self._trainer.rules.network.sizes[-1])

    def _tempered(self, logits: np.ndarray) -> Tempered:
        log_loss, encoded = self._targets.log_loss, self._scores_on.get(self._encoded)
        loss = self._trainer.rules.loss
        if isinstance(loss, EachMember):
            log_loss = replace(loss, loss=log_loss)
        return fit_temperature(log_loss, logits, encoded, self._weights)

    def _score(self, average: Any, outputs: np.ndarray) -> tuple[float, float]:
        value = self._reported(float(average))
        if self._scoring == "loss":
            return value, -value
        if not np.all(np.isfinite(outputs)):
            return value, np.nan
        if self._scoring == REFINEMENT:
            return value, -self._tempered(outputs).loss
        predictions = self._predictions(outputs)
        if self._scorer is None:
            score = predictions.score(None, self._y, self._weights)
        else:
            x = self._x
            # A callable scorer may use X; others use only predictions.
            if isinstance(x, Rows) and callable(self._scoring):
                x = take_rows(x, slice(None))
            score = predictions.score_with(self._scorer, x, self._y, self._weights)
        return value, float(score)
