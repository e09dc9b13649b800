"""The search: train configurations on folds, drop the worse ones early, and average the best."""

from __future__ import annotations

import hashlib
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone

from mlp_xp._utils.signals import interrupts
from mlp_xp._utils.threads import usable_threads
from mlp_xp.backends import to_numpy
from mlp_xp.estimators.checks.processes import text_of
from mlp_xp.estimators.fitted.state import fitted_state
from mlp_xp.estimators.many import FitTask, fit_many
from mlp_xp.estimators.settings.config import training_backend
from mlp_xp.estimators.tuning.clock import Clock
from mlp_xp.estimators.tuning.configurations import Configuration
from mlp_xp.estimators.tuning.folds import Fold
from mlp_xp.estimators.tuning.progress import Progress
from mlp_xp.estimators.tuning.selection import (
    MOST_CANDIDATES,
    MOST_ROWS,
    MOST_STEPS,
    Average,
)
from mlp_xp.training.data.rows import Rows
from mlp_xp.training.data.shared import SharedData

# The folds on which a configuration is trained before it is compared with the others: this many,
# then twice as many, and so on.
_FIRST_FOLDS = 2
# A configuration continues if it is among the best of all that were trained on the same folds: this
# fraction of them, but at least this number.
_KEPT_FRACTION, _KEPT = 1 / 3, 4
_UNFINISHED = "not finished"
_PILOT_ROWS, _PILOT_EPOCHS = 2000, 4
# Configurations that are trained at once on a backend that trains networks in a stack.
_IN_STACK = 4


class Samples(NamedTuple):
    """The samples of a search: shared inputs (or a sparse matrix), targets and weights."""

    shared: SharedData
    y: Any
    weights: np.ndarray | None
    folds: list[Fold] = []  # noqa: RUF012 - never changed.

    @property
    def rows(self) -> np.ndarray:
        """The positions of all rows that a fold holds out."""
        return np.concatenate([fold.held_out for fold in self.folds])

    def inputs(self, rows: np.ndarray) -> Any:
        """Return some rows of the inputs."""
        x = self.shared.x
        return x[rows] if hasattr(x, "tocsr") else Rows(x, rows, self.shared)

    def task(self, network: Any, fold: Fold) -> FitTask:
        """Return the fit of a network on a fold."""
        weights = self.weights
        held_out = {
            "X_val": self.inputs(fold.held_out),
            "y_val": self.y[fold.held_out],
            "sample_weight_val": None if weights is None else weights[fold.held_out],
        }
        own = None if weights is None else weights[fold.train]
        return FitTask(
            network, self.inputs(fold.train), self.y[fold.train], own, fit_params=held_out
        )


class _FewEpochs:
    """A callback that ends a fit after a few epochs, and records their seconds."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_epoch_end(self, model: Any, record: Any) -> bool:
        """Record an epoch; return whether to end the fit."""
        self.seconds.append(record.seconds)
        return len(self.seconds) == _PILOT_EPOCHS


def time_a_fit(estimator: Any, samples: Samples, seed: int) -> float:
    """Estimate the seconds of a fit of an estimator, from a few epochs on some of the rows.

    The first epoch does not count, since it may include compilation.
    """
    n_rows = samples.shared.x.shape[0]
    few = np.random.default_rng(seed).permutation(n_rows)[:_PILOT_ROWS]
    pilot = _FewEpochs()
    network = clone(estimator).set_params(early_stopping=False, random_state=seed)
    [*_] = fit_many([samples.task(network.set_params(callbacks=[pilot]), Fold(few, few[:1]))])
    if len(pilot.seconds) < 2:
        return 0.0  # The search will raise the error.
    return min(pilot.seconds[1:]) / len(few) * n_rows * float(estimator.max_iter)


@dataclass(eq=False)
class Trial:
    """A configuration and its networks: by fold, their out-of-fold outputs, losses and seconds."""

    configuration: Configuration
    networks: dict[int, Any] = field(default_factory=dict)
    outputs: dict[int, np.ndarray] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    status: str = _UNFINISHED
    error: Exception | None = None

    def loss(self, n_folds: int) -> float:
        """Return the mean loss on the first folds."""
        return statistics.fmean(self.losses[i] for i in range(n_folds))


@dataclass
class Search:
    """A search with a number of configurations, a clock, or both.

    ``read`` fills in a new trial that was finished before an interruption; ``write`` stores a trial
    that is finished.
    """

    estimator: Any
    samples: Samples
    configurations: Iterator[Configuration]
    clock: Clock
    seed: int
    n_configurations: float = math.inf
    n_jobs: int | None = None
    progress: Progress = field(default_factory=Progress)
    read: Callable[[Trial], object] = lambda trial: None
    write: Callable[[Trial], object] = lambda trial: None
    trials: list[Trial] = field(default_factory=list, init=False)
    is_interrupted: bool = field(default=False, init=False)
    _seconds_per_loss: float = field(default=0.0, init=False)

    def identity(self) -> str:
        """Return a digest of what the results of the configurations depend on."""
        samples, sha256 = self.samples, hashlib.sha256(str(self.seed).encode())
        for name, value in sorted(self.estimator._params().items()):
            sha256.update(f"{name}={text_of(value)}".encode())
        y = samples.y.toarray() if hasattr(samples.y, "toarray") else np.asarray(samples.y)
        arrays = [array for fold in samples.folds for array in fold]
        for array in (y.astype(str) if y.dtype == object else y, samples.weights, *arrays):
            sha256.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        return sha256.hexdigest()

    def run(self) -> None:
        """Try configurations until their number is reached or the time is over."""
        self._restore()
        with interrupts() as is_pressed:
            while len(self.trials) < self.n_configurations and not is_pressed():
                # The first configurations are trained on all folds.
                n_fits = _FIRST_FOLDS if len(self.trials) > _KEPT else len(self.samples.folds)
                if self.trials and not self._has_time_for(n_fits, self.trials):
                    break
                wanted = min(self._n_at_once, self.n_configurations - len(self.trials))
                self._try(list(islice(self.configurations, int(wanted))), is_pressed)
                self._raise_if_all_failed()
            self.is_interrupted = is_pressed()

    def _restore(self) -> None:
        """Restore the trials that were finished before an interruption, whatever time is left."""
        while len(self.trials) < self.n_configurations:
            trial = Trial(next(self.configurations))
            self.read(trial)
            if trial.status == _UNFINISHED:
                self.configurations = chain([trial.configuration], self.configurations)
                return
            self.trials.append(trial)

    @property
    def _n_at_once(self) -> int:
        """The number of configurations to train at once; the first is trained alone."""
        if not self.trials:
            return 1
        params = {**self.estimator._params()}
        if not training_backend(params, self.samples.shared.x).has_workers:
            return _IN_STACK
        return max(1, self._n_workers // _FIRST_FOLDS)

    @property
    def _n_workers(self) -> int:
        return min(self.n_jobs or usable_threads(), usable_threads())

    def _has_time_for(self, n_fits: int, trials: Sequence[Trial]) -> bool:
        """Whether there is time for fits that take as long as the median fit of some trials."""
        seconds = [s for trial in trials for s in trial.seconds.values()]
        usual = statistics.median(seconds) if seconds else 0.0
        return self.clock.has_time_for(usual * math.ceil(n_fits / self._n_workers))

    def _try(self, configurations: Sequence[Configuration], is_pressed: Any) -> None:
        """Train some configurations on more and more folds, as long as they are among the best."""
        new = [*map(Trial, configurations)]
        self.trials += new
        n_folds, n_all = min(self._n_first, len(self.samples.folds)), len(self.samples.folds)
        while new:
            self._train(new, n_folds)
            new = [trial for trial in new if self._continues(trial, n_folds)]
            n_before, n_folds = n_folds, min(2 * n_folds, n_all)
            n_fits = len(new) * (n_folds - n_before)
            if is_pressed() or not self._has_time_for(n_fits, new):
                break
        self.progress.end(self.trials)

    @property
    def _n_first(self) -> int:
        """The number of folds to begin with: one if the time is too short for one usual fit."""
        is_short = len(self.trials) == 1 and self.clock.first_fit > self.clock.left
        return 1 if is_short else _FIRST_FOLDS

    def _continues(self, trial: Trial, n_folds: int) -> bool:
        """Record what has become of a trial, and return whether to train it on more folds."""
        if trial.error is not None:
            trial.status = f"failed: {trial.error}"
        elif len(trial.losses) < n_folds:
            return False  # The time is over, or Ctrl-C was pressed.
        elif n_folds == len(self.samples.folds):
            trial.status = "complete"
            self._keep_candidates()
        elif self._is_promising(trial, n_folds):
            return True
        else:
            trial.status = f"dropped after {n_folds} folds"
            trial.networks.clear()
            trial.outputs.clear()
        self.write(trial)
        return False

    def _keep_candidates(self) -> None:
        """Free the networks that cannot be selected, and leave time for the selection."""
        candidates = sorted(self.finished, key=lambda t: statistics.fmean(t.losses.values()))
        for trial in candidates[MOST_CANDIDATES:]:
            trial.networks.clear()
            trial.outputs.clear()
        n_losses = MOST_STEPS * min(len(candidates), MOST_CANDIDATES)
        self.clock.reserved = n_losses * self._seconds_per_loss

    def _is_promising(self, trial: Trial, n_folds: int) -> bool:
        """Whether a trial is among the best of the trials up to it, on the same folds."""
        before = self.trials[: self.trials.index(trial) + 1]
        losses = [other.loss(n_folds) for other in before if len(other.losses) >= n_folds]
        rank = sum(loss < trial.loss(n_folds) for loss in losses)
        return rank < max(_KEPT, _KEPT_FRACTION * len(losses))

    def _train(self, trials: Sequence[Trial], n_folds: int) -> None:
        """Train trials on the first folds, and record their results on the rows held out."""
        self.progress.begin(trials[0].configuration, self.trials, self.clock)
        pairs = [(trial, i) for trial in trials for i in range(n_folds) if i not in trial.losses]
        tasks: list[Any] = [self._task(*pair, len(pairs)) for pair in pairs]

        def is_over() -> bool:
            return self.clock.is_over() and bool(self.finished)

        for result in fit_many(tasks, n_jobs=self.n_jobs, is_over=is_over):
            trial, i = pairs[result.number]
            if result.error is not None:
                trial.error = trial.error or result.error
                continue
            self._record(trial, i, tasks[result.number].model, result.seconds)
            self.progress.update(self.trials)

    def _task(self, trial: Trial, fold: int, n_tasks: int) -> FitTask:
        number, _, params = trial.configuration
        network = clone(self.estimator)
        seed = np.random.SeedSequence([self.seed, number, fold]).generate_state(1)[0]
        network.set_params(**params | {"random_state": int(seed)})
        rows = self.samples.folds[fold].train
        if network.batch_size != "auto":
            network.set_params(batch_size=min(network.batch_size, len(rows)))
        limit = self.clock.limit_of_fit(math.ceil(n_tasks / self._n_workers))
        if number == 0 and limit is not None:
            network.set_params(max_time=limit)
        return self.samples.task(network, self.samples.folds[fold])

    def _record(self, trial: Trial, fold: int, network: Any, seconds: float) -> None:
        rows = self.samples.folds[fold].held_out
        method = "predict_proba" if hasattr(network, "classes_") else "predict"
        average = self.average(network, rows)
        outputs = average.encode(to_numpy(network._outputs(self.samples.inputs(rows), method)))
        # Free the optimizer state, which is larger than the weights.
        network._training, network._state = None, replace(network._state, progress=None)
        trial.networks[fold], trial.outputs[fold] = network, outputs
        start = time.perf_counter()
        trial.losses[fold], trial.seconds[fold] = average.loss(outputs), seconds
        n_rows = min(len(self.samples.rows), MOST_ROWS)
        self._seconds_per_loss = (time.perf_counter() - start) / len(rows) * n_rows

    def average(self, network: Any, rows: np.ndarray) -> Average:
        """Return the loss of averages on some rows."""
        weights = self.samples.weights
        own = None if weights is None else weights[rows]
        return Average(fitted_state(network), self.samples.y[rows], own)

    @property
    def finished(self) -> list[Trial]:
        """The trials that are trained on all folds, or else the trial with the most folds."""
        known = [trial for trial in self.trials if trial.outputs]
        complete = [trial for trial in known if trial.status == "complete"]
        return complete or sorted(known, key=lambda trial: -len(trial.outputs))[:1]

    def _raise_if_all_failed(self) -> None:
        if not self.finished and self.trials[0].error is not None:
            raise self.trials[0].error
