"""The comparison of new data with the training data, column by column."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from functools import reduce
from typing import Any

import numpy as np

from mlp_xp._utils.columns.kinds import Category
from mlp_xp._utils.columns.streams import is_table_stream
from mlp_xp._utils.dataclass import dataclass
from mlp_xp.estimators.tables.columns import TableColumns
from mlp_xp.estimators.tables.distribution import ColumnDistribution, Observed
from mlp_xp.estimators.tables.kinds import Column

DRIFT_LIMIT, UNSEEN_LIMIT = 0.25, 0.01
_CHANCE = 0.99  # Random rows of the training data exceed a limit in 1 % of the columns.
_N_SHOWN = 3  # The number of unknown categories in a printed table.


@dataclass(frozen=True)
class ColumnCheck:
    """The comparison of one column with the training data; see `TableCheck`.

    Attributes
    ----------
    name, kind : str
        The column, and "number", "date" or "category".
    fraction_missing, fraction_missing_in_fit : float
        The fraction of rows without a value in the new data, and in the training data.
    low, high : float, str or None
        The range of the new data, dates as ISO 8601 text; None for categories.
    low_in_fit, high_in_fit : float, str or None
        The range of the training data.
    fraction_below, fraction_above : float
        The fraction of rows outside the range of the training data.
    fraction_unknown, fraction_unknown_in_fit : float
        The fraction of rows with categories that are not inputs of the network, because they are
        new, or were too rare in the training data.
    unknown : dict
        The fraction of rows of each such category, the most frequent first.
    stability_index : float
        The population stability index. Usually, below 0.1 means no drift, and above 0.25 drift.
    stability_by_chance : float
        Random rows of the training data have a larger index in 1 % of cases.
    exceeded : tuple of str
        What exceeds a limit: "drift", "missing", "range" or "unknown".
    """

    name: str
    kind: str
    fraction_missing: float
    fraction_missing_in_fit: float
    low: Any
    high: Any
    low_in_fit: Any
    high_in_fit: Any
    fraction_below: float
    fraction_above: float
    fraction_unknown: float
    fraction_unknown_in_fit: float
    unknown: dict[Category, float]
    stability_index: float
    stability_by_chance: float
    exceeded: tuple[str, ...]


@dataclass(frozen=True)
class TableCheck:
    """How new data differ from the training data; it prints as a table.

    Columns without values in the training data are left out.

    Attributes
    ----------
    n_rows, n_rows_in_fit : int
        The number of new rows, and of training rows from which the columns were learned.
    columns : tuple of ColumnCheck
        One entry per column, in the order of the fit.
    drift_limit, unseen_limit : float
        The limits; see `MLPClassifier.check`.
    """

    n_rows: int
    n_rows_in_fit: int
    columns: tuple[ColumnCheck, ...]
    drift_limit: float
    unseen_limit: float

    @property
    def exceeded(self) -> dict[str, tuple[str, ...]]:
        """What exceeds a limit, by column: "drift", "missing", "range" or "unknown"."""
        return {column.name: column.exceeded for column in self.columns if column.exceeded}

    def to_dict(self) -> dict[str, list[Any]]:
        """Return one list per attribute of `ColumnCheck`, e.g. for ``pandas.DataFrame``."""
        names = ColumnCheck.__dataclass_fields__
        return {name: [getattr(column, name) for column in self.columns] for name in names}

    def _cells(self) -> Iterator[tuple[str, ...]]:
        yield "column", "missing", "range", "new values", "stability index", "exceeds"
        for column in self.columns:
            yield (
                column.name,
                _change(
                    _percent(column.fraction_missing_in_fit), _percent(column.fraction_missing)
                ),
                _change(*_ranges(column)),
                ", ".join(_new_values(column)),
                f"{column.stability_index:.3f}",
                ", ".join(column.exceeded),
            )

    @property
    def _note(self) -> str:
        text = f"{self.n_rows:,} rows, compared with {self.n_rows_in_fit:,} of the fit: "
        n, total = len(self.exceeded), len(self.columns)
        if not n:
            return f"{text}none of {total} columns exceeds a limit"
        return f"{text}{n} of {total} columns exceed a limit: {', '.join(self.exceeded)}"

    def __str__(self) -> str:
        cells = [tuple(map(_printable, row)) for row in self._cells()]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
        return "\n".join([*lines, _printable(self._note)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, *body = self._cells()
        rows = [
            "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
            for tag, cells in [("th", head), *(("td", row) for row in body)]
        ]
        return f"<table>{''.join(rows)}</table><p>{html.escape(self._note)}</p>"


def check_table(model: Any, X: Any, *, drift_limit: float, unseen_limit: float) -> TableCheck:
    """Compare new data with the distributions of a fitted network; see `CheckMixin.check`."""
    for name, limit in (("drift_limit", drift_limit), ("unseen_limit", unseen_limit)):
        if not limit >= 0.0:
            raise ValueError(f"`{name}` must be at least 0, got {limit}.")
    columns = getattr(model, "columns_", None)
    name = type(model).__name__
    if columns is None:
        raise ValueError(
            f"`check` compares tables, but this {name} was fitted on a plain matrix: fit with "
            "categorical_features='from_dtype' or missing_values='impute'."
        )
    if not columns.distributions:
        raise ValueError(
            f"This {name} has no distributions of its columns, because an earlier version saved "
            "it, or it has more than 1,000 columns: fit again, or on fewer columns."
        )
    observed = _observe(model, columns, X)
    limits = drift_limit, unseen_limit
    found = tuple(
        _check_column(column, known, new, *limits)
        for column, known, new in zip(columns.columns, columns.distributions, observed, strict=True)
        if known is not None and new is not None
    )
    n_rows = max(new.n_rows for new in observed if new is not None)
    n_known = max(known.n_rows for known in columns.distributions if known is not None)
    return TableCheck(n_rows, n_known, found, *limits)


def _observe(model: Any, columns: TableColumns, X: Any) -> list[Observed | None]:
    """Count the new values of each column; None for columns without values in the fit."""
    if not is_table_stream(X):
        return _observe_part(model, columns, X)
    from mlp_xp.estimators.checks.streams import map_frames  # Import only if needed.

    parts: Iterable[list[Observed | None]] = map_frames(
        model, X, lambda frame: _observe_part(model, columns, frame)
    )
    return reduce(_join, parts)


def _join(some: list[Observed | None], more: list[Observed | None]) -> list[Observed | None]:
    return [a and b and a.join(b) for a, b in zip(some, more, strict=True)]


def _observe_part(model: Any, columns: TableColumns, X: Any) -> list[Observed | None]:
    raws = columns.read(X)
    if len(raws) != len(columns.columns):
        raise ValueError(
            f"X has {len(raws)} features, but {type(model).__name__} is expecting "
            f"{len(columns.columns)} features as input."
        )
    if not len(raws[0].values):
        raise ValueError("X has no rows: check how it was loaded.")
    pairs = zip(columns.convert(raws), columns.distributions, strict=True)
    return [None if known is None else column.count(raw, known) for (column, raw), known in pairs]


def _check_column(
    column: Column, known: ColumnDistribution, new: Observed, drift_limit: float, limit: float
) -> ColumnCheck:
    n, n_then = new.n_rows, known.n_rows
    before = np.asarray([*known.counts, known.n_missing])
    index, by_chance = stability_index(before, np.asarray([*new.counts, new.n_missing]))
    is_ordered = known.low is not None
    n_unknown, n_rare = new.unknown.total(), 0 if is_ordered else known.counts[-1]

    def is_more(now: int, then: int) -> bool:
        """Whether rows exceed the fraction of the fit by more than the limit, and not by chance."""
        return now > n * (then / n_then + limit) and now > most_by_chance(n, then, n_then)

    exceeds = {
        "drift": index > max(drift_limit, by_chance),
        "missing": not known.n_missing and is_more(new.n_missing, 0),
        "range": is_more(new.n_below + new.n_above, 0),
        "unknown": is_more(n_unknown, n_rare),
    }

    def shown(number: float | None) -> Any:
        return None if number is None else column.shown(number)

    return ColumnCheck(
        name=column.name,
        kind=column.kind,
        fraction_missing=new.n_missing / n,
        fraction_missing_in_fit=known.fraction_missing,
        low=shown(new.low),
        high=shown(new.high),
        low_in_fit=shown(known.low),
        high_in_fit=shown(known.high),
        fraction_below=new.n_below / n,
        fraction_above=new.n_above / n,
        fraction_unknown=n_unknown / n,
        fraction_unknown_in_fit=n_rare / n_then,
        unknown={value: count / n for value, count in new.unknown.most_common()},
        stability_index=index,
        stability_by_chance=by_chance,
        exceeded=tuple(name for name, is_exceeded in exceeds.items() if is_exceeded),
    )


def stability_index(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    r"""Return the population stability index of the counts in some bins, and its 99 % quantile.

    .. math:: \sum_i (q_i - p_i) \log(q_i / p_i)

    has the fractions :math:`p` of n earlier rows and :math:`q` of m later rows; an empty bin counts
    as half a row. The quantile is for rows of equal distribution, for which the index is about
    :math:`1/n + 1/m` times a chi-squared variable with one degree less than there are bins.

    Siddiqi, "Credit risk scorecards" (2006), for the index and its limits 0.1 and 0.25; Yurdakul,
    Naranjo, "Statistical properties of the population stability index", Journal of Risk Model
    Validation 14 (2020).
    """
    from scipy.stats import chi2  # Import late, since it is slow.

    is_used = (before > 0) | (after > 0)
    n, m = before.sum(), after.sum()
    p, q = np.maximum(before[is_used], 0.5) / n, np.maximum(after[is_used], 0.5) / m
    quantile = chi2.ppf(_CHANCE, np.count_nonzero(is_used) - 1) if len(p) > 1 else 0.0
    return float(np.sum((q - p) * np.log(q / p))), float(quantile * (1.0 / n + 1.0 / m))


def most_by_chance(n_rows: int, n_then: int, n_rows_then: int) -> float:
    """Return how many rows of equal distribution are like ``n_then`` earlier ones, at 99 %.

    The probability is estimated by Laplace's rule, (k + 1) / (n + 2), with another row added since
    a range has two ends.
    """
    from scipy.stats import binom  # Import late, since it is slow.

    found: float = binom.ppf(_CHANCE, n_rows, (n_then + 2) / (n_rows_then + 2))
    return found


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %" if 0.0 < fraction < 1.0 else f"{100 * fraction:.0f} %"


def _change(then: str, now: str) -> str:
    return then if now == then else f"{then} -> {now}"


def _ranges(column: ColumnCheck) -> tuple[str, str]:
    """Return the range of the fit and of the new data, or "" for categories."""
    pairs = (column.low_in_fit, column.high_in_fit), (column.low, column.high)
    then, now = (" to ".join(_text(end) for end in pair if end is not None) for pair in pairs)
    return then, now


def _text(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"


def _new_values(column: ColumnCheck) -> Iterator[str]:
    if column.fraction_below:
        yield f"below {_percent(column.fraction_below)}"
    if column.fraction_above:
        yield f"above {_percent(column.fraction_above)}"
    for value, fraction in [*column.unknown.items()][:_N_SHOWN]:
        yield f"{_text(value)[:20]} {_percent(fraction)}"
    if (n_more := len(column.unknown) - _N_SHOWN) > 0:
        yield f"{n_more} more"


def _printable(text: str) -> str:
    """Return text with control characters escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
