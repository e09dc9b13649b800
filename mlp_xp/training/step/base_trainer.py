"""The base class for trainers, which runs single steps, and copies and restores the state."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from mlp_xp._utils.array_types import Tree
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends import Backend
from mlp_xp.backends.kernels import Scaling, Whitening
from mlp_xp.nn.layers import BatchStats
from mlp_xp.nn.network import Params
from mlp_xp.training.processes import SINGLE_PROCESS, SingleProcess
from mlp_xp.training.step.step import (
    StepArguments,
    TrainState,
    init_state,
    make_indexed_step,
    make_step,
)
from mlp_xp.training.step.step_settings import Rules


class BaseTrainer:
    """The training state of a network, on the device, and the step function.

    ``params`` and ``batch_stats`` are copied from arrays of any library; ``scaling`` is already on
    the device. ``seed`` determines dropout and augmentation, ``processes`` compute each step
    together, and ``with_accuracy`` adds the training accuracy to records. If ``may_compile`` is
    true, machine code may be compiled, which takes a few seconds the first time. If ``is_planned``
    is true, only a failure or the user can end the fit before its last epoch. ``function`` is the
    uncompiled step.
    """

    def __init__(
        self,
        backend: Backend,
        rules: Rules,
        *,
        params: Params,
        batch_stats: tuple[BatchStats, ...] = (),
        dtype: str,
        scaling: Scaling | Whitening | None = None,
        seed: int = 0,
        with_accuracy: bool = False,
        processes: SingleProcess = SINGLE_PROCESS,
    ) -> None:
        self.backend, self.processes = backend, processes
        self.rules, self.scaling = rules, scaling
        self.dtype, self.seed, self.with_accuracy = dtype, seed, with_accuracy
        self.n_epochs = self.n_steps = self.n_samples = self.rule_start = 0
        self.may_compile, self.is_planned = True, False
        self.function = _step(
            rules.network,
            rules.loss,
            rules.optimizer,
            backend.kernels,
            with_penalty=rules.alpha > 0,
            max_grad_norm=rules.max_grad_norm,
            augmentation=rules.augmentation,
            takes_dropout_rates=self.takes_dropout_rates,
            make_gradient=processes.gradient(backend),
            xp=backend.xp,
        )
        self._compile()
        self.reset(params, batch_stats)

    @property
    def takes_dropout_rates(self) -> bool:
        """Whether dropout rates are inputs of a step."""
        return self.rules.dropout_schedule is not None

    @property
    def home(self) -> Backend:
        """The backend that stores the state."""
        return self.backend

    def _compile(self) -> None:
        self._step = self.backend.compile(self.function, donate=True)
        self._loop = self.backend.loop(make_indexed_step(self.function))

    def reset(self, params: Params, batch_stats: tuple[BatchStats, ...]) -> None:
        """Reset the state to its initial value, with copies of the given arrays."""
        average = params if self.rules.ema_decay is not None else ()
        with self.home.scope():
            copied = self._put_copy((params, batch_stats, average))
            self.state = init_state(
                copied[0],
                self.rules.optimizer,
                batch_stats=copied[1],
                average=copied[2],
                with_accuracy=self.with_accuracy,
                with_loss_scale=self.backend.scales_loss,
                xp=self.home.xp,
            )
        self.n_steps = 0
        self.token = object()  # Tells a stack whether it has the state.

    def _put_copy(self, tree: Tree) -> Tree:
        """Copy a tree to the state's backend, since steps overwrite the arrays in the state."""
        return map_leaves(lambda leaf: self.home.put_copy(leaf, self.dtype), tree)

    def copy(self, *names: str) -> TrainState:
        """Return a copy of the state, or of some of its fields, in host memory."""
        others = {name: () for name in TrainState._fields if names and name not in names}
        state = self.state._replace(**others)  # type: ignore[arg-type]
        return map_leaves(lambda leaf: np.array(self.home.get(leaf)), state)

    def restore(self, state: TrainState, n_steps: int) -> None:
        """Restore a copied state, taken after ``n_steps`` steps in total."""
        with self.home.scope():
            self.state = self._put_copy(state)
        self.n_steps = n_steps

    def set_state(self, state: TrainState) -> None:
        """Replace the state with one trained elsewhere."""
        self.state = state

    def release(self, compiled: Any) -> None:
        """Release the memory of a compiled step, unless it calls the user's functions."""
        if not self.rules.has_own_functions:
            self.state = self.backend.release(compiled, self.state)

    def run_step(self, arguments: StepArguments) -> None:
        """Run one step."""
        self.state = self._step(self.state, *arguments)

    def read_sums(self) -> list[float]:
        """Wait for the device, and return the sums of loss and accuracy over the epoch so far."""
        sums = leaves((self.state.loss, self.state.accuracy))
        stacked = sums[0] if len(sums) == 1 else self.backend.xp.stack(sums)
        return self.backend.get(stacked).reshape(-1).tolist()


# Fits with the same settings share one function, so that a backend compiles it once.
_step = lru_cache(maxsize=64)(make_step)
