"""The decision whether to use machine code for training steps, based on their cost."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from mlp_xp._utils.threads import n_models
from mlp_xp.training.data.epoch_plan import EpochPlan
from mlp_xp.training.data.placement import Data, count_work
from mlp_xp.training.step.base_trainer import BaseTrainer
from mlp_xp.training.step.step_table import SchedulePosition


def step_context(
    trainer: BaseTrainer, data: Data, plan: EpochPlan, position: SchedulePosition
) -> AbstractContextManager[Any]:
    """Return the context for a trainer's next epoch."""
    work, sparse_work, largest = step_work(trainer, data, plan)
    n_steps = _certain_steps(trainer, plan, position, 0)
    training: AbstractContextManager[Any]
    training = trainer.backend.training(work, n_steps, sparse_work, largest)
    return training


def n_alike(
    trainer: BaseTrainer, data: Data, plan: EpochPlan, position: SchedulePosition, most: int
) -> int:
    """Return the number of epochs, at most ``most``, that can run in the first epoch's context."""
    work, *_ = step_work(trainer, data, plan)
    steps = (_certain_steps(trainer, plan, position, later) for later in range(most))
    is_long, *others = (trainer.backend.is_long(work, n) for n in steps)
    return 1 + next((i for i, other in enumerate(others) if other != is_long), most - 1)


def step_work(trainer: BaseTrainer, data: Data, plan: EpochPlan) -> tuple[int, int, int]:
    """Return the result of `count_work` for a step, identical in all processes."""
    n_rows = -(-plan.batch_size // trainer.processes.size)
    return count_work(data, trainer.state.params, n_rows)


def _certain_steps(
    trainer: BaseTrainer, plan: EpochPlan, position: SchedulePosition, later: int
) -> int:
    """Return the number of steps completed or certain to follow.

    If the fit may stop early, only the current epoch's steps are certain, since users often set
    ``max_iter`` far too high.
    """
    if not trainer.may_compile:
        return 0
    n_epochs = (
        max(position.n_epochs - position.done, later + 1) if trainer.is_planned else later + 1
    )
    # A restart of an overfitted network sets the number of steps to 0, but continues the epochs.
    n_done = max(trainer.n_steps, trainer.n_epochs * len(plan.counts))
    # Models fitted concurrently share machine code, so count the steps of all models.
    return int(n_done + n_epochs * len(plan.counts)) * n_models()
