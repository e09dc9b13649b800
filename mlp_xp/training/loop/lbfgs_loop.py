"""The loop of a fit with L-BFGS, whose iterations SciPy runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from mlp_xp.nn.network import Params
from mlp_xp.training.divergence.finite import NonFiniteError, is_finite
from mlp_xp.training.lbfgs import explain_minimum, minimize
from mlp_xp.training.loop.fit_loop import FitLoop
from mlp_xp.training.loop.records import Record
from mlp_xp.training.loop.requests import Fit, Trained


class LbfgsLoop(FitLoop):
    """A loop that requests no epochs: SciPy calls it after each iteration, which counts as one.

    If a loss is not finite, the trainer keeps the last finite weights.
    """

    def _train(self) -> Fit[None]:
        trainer, settings, history = self.trainer, self._settings, self.history
        assert settings.max_fun is not None
        initial = trainer.learned
        self._last_finite: Callable[[], Params] = lambda: initial
        self.epoch_start += time.perf_counter()
        limits = settings.max_iter, settings.max_fun, settings.tol
        n_iter, loss = minimize(trainer, self._data, self._weights, *limits, self._end_iteration)
        if not (math.isfinite(loss) and is_finite(trainer.backend, trainer.learned)):
            raise self._error()
        history.n_epochs, history.loss = n_iter, np.float64(loss)
        yield from ()

    def _end_iteration(self, params: Callable[[], Params], loss: float) -> bool:
        """Record and report an iteration; return whether the fit should end."""
        watcher = self._watcher
        if not math.isfinite(loss):
            raise self._error()
        self._last_finite = params
        # Convert SciPy's vector to weights only if validation or a callback reads the weights.
        if self.validation is not None or (watcher is not None and watcher.watches_epochs):
            self.trainer.set_learned(params(), ())
        if watcher is not None:
            watcher.begin_epoch()
        now, epoch = time.perf_counter(), len(self.history.losses) + 1
        seconds, self.epoch_start = now - self.epoch_start, now
        n_samples = self._data.n_samples
        self._end_epoch(Trained(Record(epoch, loss, None, np.nan, n_samples, seconds)))
        if self._budget is not None:
            self._budget.count(1)
            self.is_stopped = self.is_stopped or self._budget.next_steps(1) == 0
        self._pause(0)
        return self.is_stopped

    def _count(self, record: Record) -> None:
        """Neither count the samples nor print the loss, as in scikit-learn."""

    def _error(self) -> NonFiniteError:
        """Restore the last finite weights, and return the error for the iteration after them."""
        self.trainer.set_learned(self._last_finite(), ())
        iteration = len(self.history.losses) + 1
        return explain_minimum(self.trainer, self._data, self._weights, iteration)
