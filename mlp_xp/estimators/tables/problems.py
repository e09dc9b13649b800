"""The problems of a table's columns, collected into one error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_NAMED = 20  # The maximum number of columns with the same cure that an error names.


class ColumnError(ValueError):
    """The error for one column: its label such as ``X['age']``, what is wrong, and the cure."""

    def __init__(self, label: str, reason: str, cure: str) -> None:
        super().__init__(label, reason, cure)
        self.label, self.reason, self.cure = label, reason, cure

    def __str__(self) -> str:
        return f"{self.label} {self.reason}: {self.cure}."


class Problems:
    """The errors of all columns of a table, raised as one."""

    def __init__(self) -> None:
        self._errors: list[ColumnError] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keep the error of a column instead of raising it."""
        try:
            yield
        except ColumnError as error:
            self._errors.append(error)

    def raise_error(self) -> None:
        """Raise ValueError for all errors that were collected, if any."""
        if not self._errors:
            return
        reasons: dict[str, list[str]] = {}
        for error in self._errors:
            reasons.setdefault(error.cure, []).append(f"{error.label} {error.reason}")
        lines = [f"{_listed(found)}: {cure}." for cure, found in reasons.items()]
        if len(self._errors) > 1:
            lines = [f"{len(self._errors)} columns of X cannot be used.", *lines]
        raise ValueError("\n".join(lines))


def _listed(reasons: list[str]) -> str:
    """Return reasons as one text, without the last of many."""
    more = [f"{len(reasons) - _NAMED} more"] if len(reasons) > _NAMED else []
    return "; ".join([*reasons[:_NAMED], *more])
