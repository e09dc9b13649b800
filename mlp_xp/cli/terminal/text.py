"""Settings, scores, times and counts as readable text."""

from __future__ import annotations

import math
from typing import Any


def readable(value: Any) -> str:
    """Format the JSON value of a setting as readable text.

    Examples
    --------
    >>> from mlp_xp.cli.terminal.text import readable
    >>> readable({"class": "AdamW", "weight_decay": 0.05})
    'AdamW(weight_decay=0.05)'
    >>> readable({"tuple": [512, 256]}), readable({"float": "inf"}), readable(None)
    ('512, 256', 'inf', 'none')
    """
    if isinstance(value, dict) and "class" in value:
        given = ", ".join(f"{k}={readable(v)}" for k, v in value.items() if k != "class")
        return f"{value['class']}({given})"
    if isinstance(value, dict) and len(value) == 1:
        (form, content), *_ = value.items()
        return readable(content) if form in ("tuple", "float") else str(content)
    if isinstance(value, list):
        return ", ".join(map(readable, value))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def score_name(name: str) -> str:
    """Return the displayed name of a score, e.g. "test accuracy" for "test_accuracy"."""
    part, _, metric = name.partition("_")
    return f"{part} {metric if metric == 'accuracy' else metric.upper()}"


def score_text(name: str, value: float) -> str:
    """Format a score; accuracies are in percent."""
    if name.endswith("accuracy"):
        return f"{100 * value:.2f} %"
    return f"{value:.4f}" if name.endswith("r2") and value > -10 else value_text(value)


def value_text(value: float) -> str:
    """Format a target value or an error with at least four digits: "231,457", "3.142"."""
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e15 else f"{value:.4g}"


def seconds_text(seconds: float) -> str:
    """Format a duration with about three digits.

    Examples
    --------
    >>> from mlp_xp.cli.terminal.text import seconds_text
    >>> seconds_text(0.5123), seconds_text(27.84), seconds_text(3671.0)
    ('0.51 s', '27.8 s', '1:01:11')
    """
    if seconds >= 100:
        minutes, whole = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{whole:02d}" if hours else f"{minutes}:{whole:02d} min"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2f} s"


def count_text(count: int, noun: str) -> str:
    """Format a count of things, given their plural.

    Examples
    --------
    >>> from mlp_xp.cli.terminal.text import count_text
    >>> count_text(1, "epochs"), count_text(2000, "epochs")
    ('1 epoch', '2,000 epochs')
    """
    return f"{count:,} {noun.removesuffix('s') if count == 1 else noun}"


def number_text(value: float) -> str:
    """Format a count with thousands separators, or as "" if it is not finite."""
    return "" if not math.isfinite(value) else f"{value:,.0f}"
