"""Text in a data frame: dates, numbers, or text that prevents a column from being either."""

from __future__ import annotations

from mlp_xp._utils.columns.categories import find_wrong_text, is_finite, means_missing, parse_date
from mlp_xp._utils.columns.kinds import RawColumn
from mlp_xp._utils.columns.problems import ColumnError
from mlp_xp._utils.columns.texts import drop_gaps, parse_as, text_and_numbers
from mlp_xp._utils.sklearn_compat import warn_caller
from mlp_xp.estimators.checks.text_advice import cure_of


def parse_text(raw: RawColumn) -> RawColumn:
    """Return a text column as dates or numbers if all of its text is, otherwise as text.

    Words such as "?" mean missing values. A few numbers stay text, since they may be codes; many
    become numbers, with a warning. Raise ColumnError if the text is mostly numbers or dates.
    """
    counts = raw.counts
    is_text = {value: isinstance(value, str) for value in counts}
    texts = {str(v): n for v, n in counts.items() if is_text[v] and not means_missing(str(v))}
    if not all(is_text.values()):
        if all(map(is_finite, texts)):
            return parse_as(raw, "number")
        raise text_and_numbers(raw.label)
    if texts and all(parse_date(text.strip()) for text in texts):
        return parse_as(raw, "date")
    wrong = find_wrong_text(texts)
    if wrong is not None and wrong.is_certain:
        if wrong.form == "plain":
            declare = "cast(polars.Categorical)" if raw.is_polars else "astype('category')"
            warn_caller(
                f"{raw.label} {wrong.reason}, and is used as numbers. For categories, such as ZIP "
                f"codes, declare them, e.g. by column.{declare}."
            )
            return parse_as(raw, "number")
        cure = cure_of(wrong, is_polars=raw.is_polars)
        cure = f"{cure}, or drop the column, or name it in categorical_features"
        raise ColumnError(raw.label, wrong.reason, cure)
    return drop_gaps(raw, ())


def warn_of_values(raw: RawColumn, *, is_left_out: bool) -> None:
    """Warn if the categories of a text column are numbers with units or commas, or dates."""
    texts = {str(value): n for value, n in raw.counts.items()}
    wrong = find_wrong_text(texts)
    if wrong is not None and wrong.is_unusual and len(texts) > 2:
        use = "and is left out" if is_left_out else f"but is used as {len(texts)} categories"
        cure = cure_of(wrong, is_polars=raw.is_polars)
        warn_caller(f"{raw.label} {wrong.reason}, {use}. To use the values, {cure}.")
