"""Run a single fit: train the epochs that its loop requests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from mlp_xp.training.data.epoch_plan import EpochPlan, with_draws
from mlp_xp.training.loop.multi_epoch import new_multi_epoch
from mlp_xp.training.loop.requests import Fit, Trained, TrainingRequest

T = TypeVar("T")


def run_fit(fit: Fit[T]) -> T:
    """Train the epochs that a fit requests until it ends, and return its result."""
    plans: dict[int, EpochPlan] = {}  # The next epoch's plan, made while the device computes.
    train: Callable[[TrainingRequest], list[Trained]] | None = None
    try:
        request = next(fit)
        while True:
            try:
                train = train or new_multi_epoch(request) or partial(_train, plans)
                trained = train(request)
            except BaseException as error:
                request = fit.throw(error)
            else:
                request = fit.send(trained)
    except StopIteration as end:
        result: T = end.value
        return result


def _train(plans: dict[int, EpochPlan], request: TrainingRequest) -> list[Trained]:
    epoch = request.trainer.n_epochs
    plan = plans.pop(epoch, None) or request.plan()

    def plan_next() -> None:
        later, rules = request.plan(1), request.trainer.rules
        if rules.augmentation:
            seed = request.trainer.seed
            later = with_draws(later, rules.augmentation, seed=seed, epoch=epoch + 1)
        plans[epoch + 1] = later

    record = request.trainer.run_epoch(
        request.data,
        plan,
        n_epochs=request.settings.max_iter,
        first_epoch=request.position.first_epoch,
        rate_factor=request.position.rate_factor,
        after_step=request.after_step,
        step_by_step=request.step_by_step,
        budget=request.budget,
        first_step=request.first_step,
        ahead=plan_next if request.n_left > 1 else None,
    )
    return [Trained(record)]
