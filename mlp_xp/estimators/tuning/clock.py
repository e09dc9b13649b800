"""The time limit of a search."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

# The fraction of the limit, and the seconds, that are left for the selection of networks.
_RESERVED, _LEAST_RESERVED = 0.02, 0.3
# A fit may take this many times as long as estimated before it gets a time limit.
_SLACK = 2.0


@dataclass
class Clock:
    """A time limit in seconds from ``start``; infinite if there is none.

    ``reserved`` are the seconds to leave for what follows the search. ``first_fit`` is the
    estimated duration of a fit of the first configuration.
    """

    seconds: float = math.inf
    start: float = field(default_factory=lambda: time.perf_counter())
    reserved: float = 0.0
    first_fit: float = 0.0

    @property
    def left(self) -> float:
        """The seconds left for the search."""
        if math.isinf(self.seconds):
            return math.inf
        own = min(max(_RESERVED * self.seconds, _LEAST_RESERVED), 0.2 * self.seconds)
        return self.start + self.seconds - self.reserved - own - time.perf_counter()

    def is_over(self) -> bool:
        """Whether the time of the search is over."""
        return self.left <= 0.0

    def has_time_for(self, seconds: float) -> bool:
        """Whether work of some seconds can be completed."""
        return seconds < self.left

    def limit_of_fit(self, n_rounds: int) -> float | None:
        """Return the limit of one of the first fits, in ``n_rounds`` fits one after another.

        None if there is time enough. The learning rate of a fit with a limit follows the clock, so
        that a short fit gives a useful network, too.
        """
        share = max(self.left, 0.05) / n_rounds
        return None if _SLACK * self.first_fit < share else share


def default_seconds(n_rows: int) -> float:
    """Return the default limit: a minute per 1,000 rows, from one minute to one hour."""
    return float(min(max(60 * round(n_rows / 1000), 60), 3600))
