"""The training loop: one record an epoch; what stops it hangs here too."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import FrameType
from typing import NamedTuple

import numpy as np

from mlp_xp._typing import Tree
from mlp_xp.backends import Backend
from mlp_xp.batches import Data, Plan
from mlp_xp.losses import Loss
from mlp_xp.network import Network, Params
from mlp_xp.optimizers import Optimizer
from mlp_xp.schedules import Schedule
from mlp_xp.step import Scaling, Step, init_state, make_step
from mlp_xp.tree import leaves, map_leaves

__all__ = ["Plateau", "Progress", "Record", "Trainer", "interrupts"]

AfterStep = Callable[[int, int], bool]


class Record(NamedTuple):
    """What an epoch did.

    ``epoch`` counts from 1; ``loss`` is the average over the samples, penalty included, each batch
    taken before its update; ``accuracy`` likewise, or None where it was not asked for;
    ``learning_rate`` is that of the last step; ``seconds`` end when the device has finished.
    """

    epoch: int
    loss: float
    accuracy: float | None
    learning_rate: float
    n_samples: int
    seconds: float


class Progress(NamedTuple):
    """Where a training is, beside its parameters: NumPy slots and what has been counted."""

    slots: tuple[Params, ...]
    n_epochs: int
    n_steps: int
    n_samples: int


class Trainer:
    """A network in training: its state on the device, and how many steps it has done.

    Parameters
    ----------
    backend : Backend
    network, loss, optimizer, schedule : frozen settings
    params : tuple of Dense
        Initial parameters, arrays of any library; copied.
    dtype : {"float32", "float64"}
    learning_rate : float
        What the schedule multiplies.
    alpha : float of at least 0, default=0
        Strength of the L2 penalty, as scikit-learn scales it: divided by the samples of the batch.
    scaling : Scaling on the device, optional
    with_accuracy : bool, default=False
        Whether records tell the training accuracy.

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp.backends import get_backend
    >>> from mlp_xp.batches import place, plan_epoch
    >>> from mlp_xp.losses import SoftmaxCrossEntropy
    >>> from mlp_xp.network import Network, init_params
    >>> from mlp_xp.optimizers import Adam
    >>> from mlp_xp.schedules import Constant
    >>> backend, network = get_backend("numpy"), Network((2, 8, 2))
    >>> params, dtype = init_params(network, seed=0), "float64"
    >>> x, y = np.asarray([[0.0, 1.0], [1.0, 0.0]]), np.asarray([0, 1], dtype=np.int32)
    >>> trainer = Trainer(
    ...     backend, network, SoftmaxCrossEntropy(), Adam(), Constant(),
    ...     params=params, dtype=dtype, learning_rate=0.1, with_accuracy=True,
    ... )
    >>> data, plan = place(backend, x, y, dtype), plan_epoch(2, 2)
    >>> records = [trainer.run_epoch(data, plan, n_epochs=20) for _ in range(20)]
    >>> records[-1].epoch, records[-1].accuracy, records[-1].loss < 0.01
    (20, 1.0, True)
    """

    def __init__(
        self,
        backend: Backend,
        network: Network,
        loss: Loss,
        optimizer: Optimizer,
        schedule: Schedule,
        *,
        params: Params,
        dtype: str,
        learning_rate: float,
        alpha: float = 0.0,
        scaling: Scaling | None = None,
        with_accuracy: bool = False,
    ) -> None:
        self.backend = backend
        self.optimizer = optimizer
        self.schedule = schedule
        self.learning_rate = learning_rate
        self.alpha = alpha
        self.scaling = scaling
        self.dtype = dtype
        self.with_accuracy = with_accuracy
        self.n_epochs = 0
        self.n_steps = 0
        self.n_samples = 0
        self._step = _compiled_step(backend, network, loss, optimizer, alpha > 0)
        with backend.scope():
            self.state = init_state(
                self._own(params), optimizer, with_accuracy=with_accuracy, xp=backend.xp
            )

    def _own(self, tree: Tree) -> Tree:
        """Copy a tree to the device: steps write to their state, so it must be nobody else's."""
        xp, put = self.backend.xp, self.backend.put
        return map_leaves(lambda leaf: xp.asarray(put(leaf, self.dtype), copy=True), tree)

    def set_params(self, params: Params) -> None:
        """Go on from other parameters, arrays of any library, which are copied."""
        with self.backend.scope():
            self.state = self.state._replace(params=self._own(params))

    def progress(self) -> Progress:
        """Give what it takes to go on later, beside the parameters, in the host's memory."""
        # Copies: the next step writes to the slots, and on a CPU `get` may be a view of them.
        slots = map_leaves(lambda leaf: np.array(self.backend.get(leaf)), self.state.slots)
        return Progress(slots, self.n_epochs, self.n_steps, self.n_samples)

    def resume(self, progress: Progress) -> None:
        """Go on from where another trainer was; another kind of rule starts with new slots."""
        if len(progress.slots) == self.optimizer.n_slots:
            with self.backend.scope():
                self.state = self.state._replace(slots=self._own(progress.slots))
        _, self.n_epochs, self.n_steps, self.n_samples = progress

    def run_epoch(
        self, data: Data, plan: Plan, *, n_epochs: int, after_step: AfterStep | None = None
    ) -> Record:
        """Train for one epoch.

        Parameters
        ----------
        data : Data
        plan : Plan
        n_epochs : int
            Epochs of the whole fit, for the schedule.
        after_step : callable, optional
            ``after_step(done, n_steps)`` is called after each step; if it gives True the epoch
            ends there, and the record tells of the steps that were done.

        Returns
        -------
        Record
        """
        backend = self.backend
        xp = backend.xp
        start = time.perf_counter()
        rates, table = self._coefficients(plan, n_epochs)
        with backend.scope():
            zero = xp.zeros_like(self.state.loss)
            accuracy = xp.zeros_like(zero) if self.with_accuracy else ()
            self.state = self.state._replace(loss=zero, accuracy=accuracy)
            batches = data.epoch(plan)
            done = 0
            for coefs in xp.unstack(backend.put(table, self.dtype)):
                self.state = self._step(self.state, next(batches), self.scaling, coefs)
                done += 1
                if after_step is not None and after_step(done, len(table)):
                    break
            del batches  # A streamed epoch that ended early lets go of what was on its way.
            sums = [float(backend.get(total)) for total in leaves(self.state[2:])]
        share = float(np.sum(table[:done, 0]))
        n_samples = sum(plan.counts[:done])
        self.n_epochs += 1
        self.n_steps += done
        self.n_samples += n_samples
        return Record(
            self.n_epochs,
            sums[0] / share,
            sums[1] / share if self.with_accuracy else None,
            rates[done - 1],
            n_samples,
            time.perf_counter() - start,
        )

    def _coefficients(self, plan: Plan, n_epochs: int) -> tuple[list[float], np.ndarray]:
        """Compute what changes from step to step, on the host, for a whole epoch."""
        n_samples = sum(plan.counts)
        n_steps = n_epochs * len(plan.counts)
        rates, table = [], []
        for step, (count, total) in enumerate(zip(plan.counts, plan.totals, strict=True)):
            step += self.n_steps
            rate = self.learning_rate * self.schedule(step, n_steps, self.n_samples)
            l2 = self.alpha / total if total > 0 else 0.0
            rates.append(rate)
            table.append((count / n_samples, l2, *self.optimizer.coefficients(rate, step + 1)))
        return rates, np.asarray(table)


@lru_cache(maxsize=64)
def _compiled_step(
    backend: Backend, network: Network, loss: Loss, optimizer: Optimizer, with_penalty: bool
) -> Step:
    """Make and compile a step, or give the one of an earlier fit with the same settings."""
    step = make_step(
        network, loss, optimizer, backend.kernels, with_penalty=with_penalty, xp=backend.xp
    )
    return backend.compile(step, donate=True)


class Plateau:
    """Scikit-learn's rule: stop when a loss has not fallen by ``tol`` for too many epochs.

    Parameters
    ----------
    tol : float
    patience : int or inf
        How many epochs in a row may pass without such a fall.

    Examples
    --------
    >>> from mlp_xp.training import Plateau
    >>> plateau = Plateau(tol=0.1, patience=1)
    >>> [plateau.reached(loss) for loss in (1.0, 0.5, 0.45, 0.44)]
    [False, False, False, True]
    """

    def __init__(self, tol: float, patience: float) -> None:
        self.tol = tol
        self.patience = patience
        self.best = np.inf
        self.count = 0

    def reached(self, loss: float) -> bool:
        """Take the loss of an epoch; tell whether to stop."""
        self.count = 0 if loss <= self.best - self.tol else self.count + 1
        self.best = min(self.best, loss)
        return self.count > self.patience


@contextlib.contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C into a flag, so that a step is never cut in half.

    A step writes to the state it was given: an exception in the middle would leave it broken. A
    second Ctrl-C raises `KeyboardInterrupt` as usual. Outside the main thread nothing changes.

    Yields
    ------
    callable
        Tells whether Ctrl-C was pressed.
    """
    pressed = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    is_main = threading.current_thread() is threading.main_thread()
    # A handler that somebody else installed is theirs to keep, and so is an ignored signal.
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
