"""Advice on text in X, for the error that numbers are expected."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["text_advice"]

# Columns that an error names.
_NAMED = 3


def text_advice(X: Any, estimator: str) -> str:
    """Return a sentence that says how text in X is made numbers, for an error.

    Examples
    --------
    >>> import pandas
    >>> from mlp_xp.estimators.checks.text_advice import text_advice
    >>> print(text_advice(pandas.DataFrame({"color": ["red", "blue"]}), "MLPClassifier"))
    MLPClassifier takes numbers in X. X['color'] has text: encode it. E.g. \
make_pipeline(make_column_transformer((OneHotEncoder(handle_unknown='ignore'), ['color']), \
remainder='passthrough'), MLPClassifier()).
    """
    numbers, texts = _text_columns(X)
    if not numbers and not texts:
        return (
            f"{estimator} takes numbers in X: convert numbers with text among them, e.g. by "
            "pandas.to_numeric(column, errors='coerce'), and encode other text, e.g. by "
            "sklearn.preprocessing.OneHotEncoder(handle_unknown='ignore')."
        )
    advice, first = [f"{estimator} takes numbers in X."], "SimpleImputer()"
    if numbers:
        column = f"X[{numbers[0]!r}]"
        advice.append(
            f"{_have(numbers)} text among numbers: {column} = pandas.to_numeric({column}, "
            "errors='coerce') makes it missing, and SimpleImputer fills it in."
        )
    if texts:
        has_gaps = bool(X.drop(columns=texts).isna().to_numpy().any())
        others = "SimpleImputer()" if numbers or has_gaps else "'passthrough'"
        first = (
            "make_column_transformer((OneHotEncoder(handle_unknown='ignore'), "
            f"{texts[:_NAMED]}), remainder={others})"
        )
        advice.append(f"{_have(texts)} text: encode it.")
    more = ", with the names of all columns of text" if len(texts) > _NAMED else ""
    return " ".join([*advice, f"E.g. make_pipeline({first}, {estimator}()){more}."])


def _text_columns(X: Any) -> tuple[list[str], list[str]]:
    """Return the columns of a pandas frame that have text: mostly numbers, and all others."""
    numbers: list[str] = []
    texts: list[str] = []
    is_frame = hasattr(X, "columns") and hasattr(X, "items")
    # Encoders take other names for positions.
    if not is_frame or not all(isinstance(name, str) for name in X.columns):
        return numbers, texts
    to_numeric = importlib.import_module("pandas").to_numeric  # X is made of it.

    def is_text(values: Any) -> Any:
        return to_numeric(values.astype(object), errors="coerce").isna()

    for name, column in X.items():
        if column.dtype.kind not in "biufcmM":
            values = column.dropna()
            if is_text(values.head(1000)).mean() >= 0.5:
                texts.append(name)
            elif is_text(values).any():
                numbers.append(name)
    return numbers, texts


def _have(names: list[str]) -> str:
    """Return the first columns, the number of the others, and a verb."""
    shown = [f"X[{name!r}]" for name in names[:_NAMED]]
    if len(names) > _NAMED:
        shown.append(f"{len(names) - _NAMED} more")
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]])) + (
        " have" if len(names) > 1 else " has"
    )
