"""``history.csv`` of a run: a row for each epoch."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlp_xp.training.loop.records import Record

_FILE = "history.csv"
# The curves of figures: their axis, their names, and the columns that hold them.
CURVES = {
    "loss": {"training": "loss", "validation": "validation_loss"},
    "accuracy [%]": {"training": "accuracy", "validation": "validation_accuracy"},
    "R²": {"validation": "validation_r2"},
    "score": {"validation": "validation_score"},
    "learning rate": {"": "learning_rate"},
}


def _columns(score: str) -> list[str]:
    return [
        f"validation_{score}" if name == "validation_score" else name for name in Record._fields
    ]


def history_rows(records: Sequence[Record], score: str) -> list[dict[str, Any]]:
    """Return a row for each record, in which the validation score is called ``score``."""
    return [dict(zip(_columns(score), record, strict=True)) for record in records]


def write_history(folder: Path, records: Sequence[Record], score: str) -> None:
    """Write the file."""
    with (folder / _FILE).open("w", newline="") as file:
        csv.writer(file).writerows([_columns(score), *records])


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Read the rows, with None for missing values; no rows if there is no file."""
    if not (folder / _FILE).exists():
        return []
    with (folder / _FILE).open(newline="", encoding="utf-8") as file:
        return [
            {name: float(text) if text else None for name, text in row.items()}
            for row in csv.DictReader(file)
        ]
