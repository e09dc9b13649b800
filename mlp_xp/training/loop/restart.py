"""`restart_factor`: train an overfitted network again, with a higher learning rate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mlp_xp.training.loop.fit_loop import FitLoop, Learned
from mlp_xp.training.loop.loop_settings import LoopPosition, epochs_after_restart
from mlp_xp.training.loop.requests import Fit, TrainingRequest

# A restarted network is kept if its score is better by this fraction. With a smaller one, noise in
# the score of some hundred samples would choose the worse network too often.
_LEAST_GAIN = 0.08


class RestartingLoop(FitLoop):
    """A loop that trains a second time if the network overfits, and keeps the better network.

    ``initial`` are the weights and batch statistics from which both trainings start. During the
    second one, ``position.n_epochs`` is the length of its schedule.
    """

    def __init__(self, *args: Any, initial: Learned, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._initial = initial

    def _train(self) -> Fit[None]:
        max_iter = self._settings.max_iter
        if not self.position.n_epochs:
            yield from self._train_until(max_iter)
            if not self._is_overfitted():
                return
            self._restart()
        yield from self._train_until(max_iter + self.position.n_epochs)

    def _is_overfitted(self) -> bool:
        """Whether the best epoch was in the first half of a complete schedule."""
        settings, history = self._settings, self.history
        is_overfitted = (
            settings.restart_factor is not None
            and settings.max_time is None
            and not settings.is_adaptive
            and not self.is_stopped
            and len(history.scores or ()) == history.n_epochs == settings.max_iter
            and 2 * (1 + int(np.argmax(history.scores or ()))) <= settings.max_iter
        )
        return bool(self.trainer.processes.decide(is_overfitted))

    def _restart(self) -> None:
        """Return to the initial weights, and begin a schedule with a higher learning rate."""
        settings, trainer = self._settings, self.trainer
        assert settings.restart_factor is not None
        trainer.guard.release()
        trainer.guard.forget()
        trainer.reset(*self._initial)
        n_epochs = epochs_after_restart(settings.max_iter)
        self.position = LoopPosition(trainer.n_epochs, settings.restart_factor, n_epochs=n_epochs)
        self.plateau.count = 0

    def _request(self, n_epochs: int, *, n_left: int) -> TrainingRequest:
        request = super()._request(n_epochs, n_left=n_left)
        if not self.position.n_epochs:
            return request
        return replace(request, settings=replace(self._settings, max_iter=self.position.n_epochs))

    def _score_to_beat(self) -> float:
        """Return the score that the second training must exceed, or -inf in the first one."""
        if not self.position.n_epochs:
            return -np.inf
        first = max((self.history.scores or [])[: self._settings.max_iter])
        return first + _LEAST_GAIN * abs(first)
