"""The numbers that change from step to step, computed on the host: rates, shares, dropout keys."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlp_xp._utils.random import host_generator
from mlp_xp.optimizers import OPTIMIZERS, Optimizer, with_decay
from mlp_xp.training.data.epoch_plan import EpochPlan
from mlp_xp.training.step.step_settings import Rules

if TYPE_CHECKING:  # Few fits have a time limit: others start without this module.
    from mlp_xp.training.loop.time_budget import Budget

__all__ = [
    "SchedulePosition",
    "ScheduledRate",
    "StepScalars",
    "draw_keys",
    "learning_rates",
    "scalar_table",
]

# The weight of a batch in the running statistics of batch normalization; PyTorch's choice.
_BATCH_STATS_RATE = 0.1
# Steps whose coefficients are kept for fits with the same ones.
_MOST_KNOWN = 4_096
# Steps of a schedule that follows the clock.
_TICKS = 10**6


class ScheduledRate(float):
    """A learning rate, with the factors of dropout and of weight decay at its step."""

    dropout = decay = 1.0


class SchedulePosition(NamedTuple):
    """The place of an epoch in its fit: epochs before it, epochs of all, factor of the rate."""

    done: int
    n_epochs: int
    rate_factor: float


class StepScalars(NamedTuple):
    """The numbers that change from step to step, 0-d, or floats on the host.

    They travel to the device packed, ``(..., 4 + k)``: in this order, the k of the rule last. A
    stack of models shares them, or each has its own.

    ``share`` is the step's share of the epoch's samples, ``l2`` the factor of the penalty,
    ``average_rate`` and ``batch_stats_rate`` are how far the moving average and the batch
    statistics move, and ``rule`` is what `optimizer.coefficients` returned.
    """

    share: Any
    l2: Any
    average_rate: Any
    batch_stats_rate: Any
    rule: tuple[Any, ...]

    @classmethod
    def unpack(cls, coefs: Any) -> StepScalars:
        """Return the numbers that were packed.

        Examples
        --------
        >>> import array_api_compat.numpy as xp
        >>> from mlp_xp.training.step.scalars import StepScalars
        >>> StepScalars.unpack(xp.asarray([1.0, 0.1, 0.0, 0.0, 0.5])).rule
        (np.float64(0.5),)
        """
        n_fixed = len(cls._fields) - 1
        place: tuple[Any, ...] = () if coefs.ndim == 1 else (...,)
        numbers = [coefs[(*place, i)] for i in range(coefs.shape[-1])]
        return cls._make((*numbers[:n_fixed], tuple(numbers[n_fixed:])))


def learning_rates(
    rules: Rules,
    steps: range,
    epoch_steps: int,
    position: SchedulePosition,
    n_samples: int,
    budget: Budget | None,
) -> list[float]:
    """Return the learning rates of some steps of an epoch, of ``n_samples`` seen before it.

    Every epoch counts as long as this one: those of `partial_fit` may differ in their steps. Other
    schedules make them `ScheduledRate`.
    """
    n_steps, n_done = position.n_epochs * epoch_steps, position.done * epoch_steps
    if budget is None:
        places = [n_done + step for step in steps]
    else:
        shares = (
            max(budget.fraction(step - steps.start), (n_done + step) / max(n_steps - 1, 1))
            for step in steps
        )
        places = [round(min(share, 1.0) * (_TICKS - 1)) for share in shares]
        n_steps = _TICKS
    rate = rules.learning_rate * position.rate_factor
    rates = [rate * rules.schedule(place, n_steps, n_samples) for place in places]
    others = {"dropout": rules.dropout_schedule, "decay": rules.weight_decay_schedule}
    if not any(others.values()):
        return rates
    rates = list(map(ScheduledRate, rates))
    for name, schedule in others.items():
        if schedule is not None:
            for own, place in zip(rates, places, strict=True):
                setattr(own, name, schedule(place, n_steps, n_samples))
    return rates


def scalar_table(
    rules: Rules,
    plans: Sequence[EpochPlan],
    steps: range,
    rates: Sequence[list[float]],
    n_steps: int,
    rule_start: int,
) -> np.ndarray:
    """Return the packed `StepScalars` of some steps of each of some epochs, one row a step.

    The plans have the same counts. ``n_steps`` were done before the epochs; the rule began at step
    ``rule_start`` of all. A schedule of dropout adds its factor at the end.
    """
    counts, first = plans[0].counts, n_steps + steps.start
    is_known = _can_be_known(rules.optimizer, len(steps) * len(plans))
    coefficients = _known_coefficients if is_known else _coefficients
    given = np.asarray(rates, np.float64).tobytes()
    decays = None
    if rules.weight_decay_schedule is not None:
        decays = tuple(getattr(rate, "decay", 1.0) for own in rates for rate in own)
    rule = coefficients(rules.optimizer, given, first + 1 - rule_start, decays)
    if rules.dropout_schedule is not None:
        shares = [[getattr(rate, "dropout", 1.0)] for own in rates for rate in own]
        rule = np.concatenate([rule, shares], axis=1)
    table = np.zeros((len(plans), len(steps), 4 + rule.shape[1]))
    share, l2, average_rate, batch_stats_rate = (table[..., i] for i in range(4))  # `StepScalars`.
    totals = np.asarray([plan.totals[steps.start : steps.stop] for plan in plans])
    share[:] = np.asarray(counts[steps.start : steps.stop]) / sum(counts)
    np.divide(rules.alpha, totals, out=l2, where=totals > 0)
    # A small last batch says little: it moves the running statistics as little.
    largest = np.asarray([[max(plan.totals) or 1.0] for plan in plans])
    np.divide(_BATCH_STATS_RATE * totals, largest, out=batch_stats_rate)
    rows = table.reshape(rule.shape[0], -1)  # A row for each step.
    rows[:, 4:] = rule
    if rules.ema_decay is not None:
        averages = [_average_rate(rules.ema_decay, first + i) for i in range(len(rows))]
        average_rate[:] = np.reshape(averages, average_rate.shape)
    return rows


def _coefficients(
    optimizer: Optimizer, rates: bytes, first: int, decays: tuple[float, ...] | None = None
) -> np.ndarray:
    """Return what a rule needs in consecutive steps, (steps, numbers); ``rates`` are float64."""
    given = np.frombuffer(rates).tolist()
    rules: Iterable[Optimizer] = itertools.repeat(optimizer)
    if decays is not None:
        rules = (with_decay(optimizer, factor) for factor in decays)
    steps = zip(rules, given, itertools.count(first), strict=False)
    table = np.asarray([rule.coefficients(rate, step) for rule, rate, step in steps], np.float64)
    table.flags.writeable = False
    return table


# The folds of a setting have the same.
_known_coefficients = lru_cache(maxsize=128)(_coefficients)


def _can_be_known(optimizer: Optimizer, n_steps: int) -> bool:
    """Whether coefficients are kept: few, and those of a rule that never changes."""
    return n_steps <= _MOST_KNOWN and type(optimizer) in OPTIMIZERS.values()


def _average_rate(decay: float, step: int) -> float:
    """Return how far a moving average moves towards the newest weights.

    At first it follows them closely, or it would remember the initial weights for long;
    TensorFlow's rule.
    """
    return 1.0 - min(decay, (1 + step) / (10 + step))


def draw_keys(n_steps: int, n_keys: int, *, seed: int, epoch: int) -> np.ndarray | None:
    """Draw the keys of an epoch's dropouts, (steps, dropouts) int32; None without dropouts."""
    if not n_keys:
        return None
    generator = host_generator(seed, "dropout", epoch)
    limits = np.iinfo(np.int32)
    return generator.integers(limits.min, limits.max, (n_steps, n_keys), np.int32, endpoint=True)
