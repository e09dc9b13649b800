"""Learning-rate schedules: frozen settings that return a factor for each step.

A schedule runs on the host, once per step; the step only receives the factor.
"""

from __future__ import annotations

import math
from typing import Protocol

from mlp_xp._utils.dataclass import dataclass


class Schedule(Protocol):
    """The factor that multiplies the initial learning rate at each step.

    If a fit has a time limit, progress is the fraction of elapsed time. If calls to `partial_fit`
    have different numbers of steps, progress is computed as if all epochs had as many steps as the
    current epoch.
    """

    def __call__(self, step: int, n_steps: int, n_samples: int) -> float:
        """Return the factor for a step.

        Parameters
        ----------
        step : int
            The number of steps before this one.
        n_steps : int
            The number of steps in the whole fit, at least 1.
        n_samples : int
            The number of samples before this step, including repeats.
        """


def _progress(step: int, n_steps: int) -> float:
    """Return the progress at a step: 0 for the first step, 1 for the last step."""
    return min(step / max(n_steps - 1, 1), 1.0)


def _check_fraction(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"`{name}` must be from 0 to 1, got {value!r}.")


@dataclass(frozen=True)
class Constant:
    """A constant learning rate.

    Examples
    --------
    >>> from mlp_xp.optimizers.schedules import Constant
    >>> Constant()(step=7, n_steps=10, n_samples=700)
    1.0
    """

    def __call__(self, step: int, n_steps: int, n_samples: int) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class InvScaling:
    r"""Scikit-learn's inverse scaling: :math:`(n + 1)^{-p}` after n samples.

    Parameters
    ----------
    power_t : float, default=0.5

    Notes
    -----
    Scikit-learn changes the learning rate only at the end of each epoch. The training loop
    therefore passes the number of samples before the current epoch as ``n_samples``.

    Examples
    --------
    >>> from mlp_xp.optimizers.schedules import InvScaling
    >>> InvScaling()(step=3, n_steps=10, n_samples=99)
    0.1
    """

    power_t: float = 0.5

    def __call__(self, step: int, n_steps: int, n_samples: int) -> float:
        """Return ``(n_samples + 1) ** -power_t``."""
        return float((n_samples + 1) ** -self.power_t)


@dataclass(frozen=True)
class LinearWarmup:
    """A linear warmup over the first steps, then another schedule.

    Parameters
    ----------
    fraction : float from 0 to 1, default=0.1
        The fraction of the fit's steps in which the rate rises.
    then : Schedule, default=Constant()
        The schedule after the rise; it counts only the steps after the rise.

    Examples
    --------
    >>> from mlp_xp.optimizers.schedules import LinearWarmup
    >>> [LinearWarmup(0.4)(step, 10, 0) for step in (0, 1, 2, 3, 4, 9)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    """

    fraction: float = 0.1
    then: Schedule = Constant()

    def __post_init__(self) -> None:
        _check_fraction("fraction", self.fraction)

    def __call__(self, step: int, n_steps: int, n_samples: int) -> float:
        """Return the rising factor, or the following schedule's factor."""
        warm = round(self.fraction * n_steps)
        if step < warm:
            return (step + 1) / warm
        return self.then(step - warm, n_steps - warm, n_samples)


@dataclass(frozen=True)
class Cosine:
    r"""A decay along half a cosine.

    The factor is :math:`f + (1 - f)\,\tfrac12 (1 + \cos \pi s)`, for s from 0 to 1.

    Parameters
    ----------
    final : float from 0 to 1, default=0
        The factor ``f`` at the last step.

    References
    ----------
    Loshchilov, Hutter, "SGDR" (2017), arXiv:1608.03983.

    Examples
    --------
    >>> from mlp_xp.optimizers.schedules import Cosine
    >>> [round(Cosine()(step, 5, 0), 3) for step in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """

    final: float = 0.0

    def __post_init__(self) -> None:
        _check_fraction("final", self.final)

    def __call__(self, step: int, n_steps: int, n_samples: int) -> float:
        """Return the factor on the half cosine."""
        fall = 0.5 * (1.0 + math.cos(math.pi * _progress(step, n_steps)))
        return self.final + (1.0 - self.final) * fall


@dataclass(frozen=True)
class Linear:
    r"""A linear decay, :math:`f + (1 - f)(1 - s)`, for s from 0 to 1.

    Parameters
    ----------
    final : float from 0 to 1, default=0
        The factor ``f`` at the last step.

    Examples
    --------
    >>> from mlp_xp.optimizers.schedules import Linear, LinearWarmup
    >>> [Linear()(step, 5, 0) for step in range(5)]
    [1.0, 0.75, 0.5, 0.25, 0.0]
    >>> [LinearWarmup(0.4, then=Linear())(step, 5, 0) for step in range(5)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """

    final: float = 0.0

    def __post_init__(self) -> None:
        _check_fraction("final", self.final)

    def __call__(self, step: int, n_steps: int, n_samples: int) -> float:
        """Return the factor on the line."""
        return self.final + (1.0 - self.final) * (1.0 - _progress(step, n_steps))


@dataclass(frozen=True)
class OneCycle:
    r"""A rise from ``1 / start_div`` to 1 along a cosine, then a decay to ``1 / final_div``.

    The peak is the solver's initial learning rate.

    Parameters
    ----------
    rise : float from 0 to 1, default=0.3
        The fraction of the fit's steps in which the rate rises.
    start_div, final_div : float of at least 1, default=25, 250000
        The divisors of the peak at the first step and at the last step.

    References
    ----------
    Smith, Topin, "Super-convergence" (2018), arXiv:1708.07120.

    Examples
    --------
    >>> from mlp_xp.optimizers.schedules import OneCycle
    >>> [round(OneCycle(rise=0.5)(step, 5, 0), 3) for step in range(5)]
    [0.04, 0.52, 1.0, 0.5, 0.0]
    """

    rise: float = 0.3
    start_div: float = 25.0
    final_div: float = 250_000.0

    def __post_init__(self) -> None:
        _check_fraction("rise", self.rise)
        for name in ("start_div", "final_div"):
            if getattr(self, name) < 1.0:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)!r}.")

    def __call__(self, step: int, n_steps: int, n_samples: int) -> float:
        """Return the factor during the rise or the fall."""
        s = _progress(step, n_steps)
        if s < self.rise:
            low, position = 1.0 / self.start_div, 1.0 - s / self.rise
        else:
            low = 1.0 / self.final_div
            position = (s - self.rise) / (1.0 - self.rise) if self.rise < 1.0 else 0.0
        return low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * position))


@dataclass(frozen=True)
class FlatCosine:
    r"""A constant rate, then a decay to 0 along half a cosine.

    Parameters
    ----------
    flat : float from 0 to 1, default=0.5
        The fraction of the fit's steps before the rate starts to fall.

    Examples
    --------
    >>> from mlp_xp.optimizers.schedules import FlatCosine
    >>> [round(FlatCosine()(step, 9, 0), 3) for step in range(0, 9, 2)]
    [1.0, 1.0, 1.0, 0.5, 0.0]
    """

    flat: float = 0.5

    def __post_init__(self) -> None:
        _check_fraction("flat", self.flat)

    def __call__(self, step: int, n_steps: int, n_samples: int) -> float:
        """Return 1, or the factor on the half cosine."""
        s = _progress(step, n_steps)
        if s <= self.flat:
            return 1.0
        return 0.5 * (1.0 + math.cos(math.pi * (s - self.flat) / (1.0 - self.flat)))


@dataclass(frozen=True)
class CosLog:
    r"""Cycles of a rise and a fall, each twice as long as the previous cycle.

    The factor is :math:`\tfrac12 (1 - \cos(2 \pi \log_2(1 + (2^c - 1) s)))`, for s from 0 to 1.

    Parameters
    ----------
    cycles : int of at least 1, default=4
        The :math:`c` above.

    References
    ----------
    Holzmüller, Grinsztajn, Steinwart, "Better by default: strong pre-tuned MLPs and boosted trees
    on tabular data" (2024), arXiv:2407.04491.

    Examples
    --------
    >>> from mlp_xp.optimizers.schedules import CosLog
    >>> [round(CosLog(cycles=2)(step, 13, 0), 3) for step in (0, 2, 4, 8, 12)]
    [0.0, 0.93, 0.0, 0.93, 0.0]
    """

    cycles: int = 4

    def __post_init__(self) -> None:
        if type(self.cycles) is not int or self.cycles < 1:
            raise ValueError(f"`cycles` must be an integer of at least 1, got {self.cycles!r}.")

    def __call__(self, step: int, n_steps: int, n_samples: int) -> float:
        """Return the factor at this point of the cycles."""
        done = math.log2(1.0 + (2.0**self.cycles - 1.0) * _progress(step, n_steps))
        return 0.5 * (1.0 - math.cos(2.0 * math.pi * done))


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "invscaling": InvScaling,
    "warmup": LinearWarmup,
    "cosine": Cosine,
    "onecycle": OneCycle,
    "linear": Linear,
    "flat_cos": FlatCosine,
    "coslog4": CosLog,
}
