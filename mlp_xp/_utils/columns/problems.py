"""The problems of a table's columns, collected into one error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

# The maximum numbers of columns with the same remedy that an error explains and names.
_EXPLAINED, _NAMED = 5, 50


class ColumnError(ValueError):
    """The error for one column: its label such as ``X['age']``, the problem, and the remedy."""

    def __init__(self, label: str, reason: str, cure: str) -> None:
        super().__init__(label, reason, cure)
        self.label, self.reason, self.cure = label, reason, cure

    def __str__(self) -> str:
        return f"{self.label} {self.reason}: {self.cure}."


class Problems:
    """Collects the errors of all columns of a table and raises them as a single error."""

    def __init__(self) -> None:
        self._errors: list[ColumnError] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Catch a column's error and store it."""
        try:
            yield
        except ColumnError as error:
            self._errors.append(error)

    def raise_error(self) -> None:
        """Raise one ValueError for all collected errors, if any."""
        if not self._errors:
            return
        by_cure: dict[str, list[ColumnError]] = {}
        for error in self._errors:
            by_cure.setdefault(error.cure, []).append(error)
        lines = [f"{_explain(errors)}: {cure}." for cure, errors in by_cure.items()]
        if len(self._errors) > 1:
            lines = [f"{len(self._errors)} columns of X cannot be used.", *lines]
        raise ValueError("\n".join(lines))


def _explain(errors: list[ColumnError]) -> str:
    """Describe the problems of several columns; only the first ones are described in full."""
    texts = [f"{error.label} {error.reason}" for error in errors[:_EXPLAINED]]
    labels = [error.label for error in errors[_EXPLAINED:_NAMED]]
    labels += [f"{len(errors) - _NAMED} more"] if len(errors) > _NAMED else []
    return "; ".join([*texts, *([f"likewise {', '.join(labels)}"] if labels else [])])
