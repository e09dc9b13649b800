"""Predictions as CSV, JSON and Parquet files, and as a short text."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlp_xp._utils.optional import pip_command
from mlp_xp._utils.storage.durable import make_folder, replacing
from mlp_xp.cli.terminal.lines import printable

_WIDEST = 40  # The maximum number of characters of a cell.
_NUMBER = re.compile(r"-?[\d.,]+(e[+-]\d+)?( %)?")
_ENDINGS = (".csv", ".json", ".parquet")
_PARQUET = ("pyarrow", "polars")


def check_out(out: Path, files: Sequence[Path]) -> None:
    """Raise an error if predictions cannot be written to a file, before they are computed."""
    if out.suffix.lower() not in _ENDINGS:
        raise ValueError(f"--out must end in {', '.join(_ENDINGS)}, got {out}")
    if out.is_dir():
        raise ValueError(f"{out} is a folder: type a file after --out, e.g. {out / 'new.csv'}")
    if out.resolve() in {file.resolve() for file in files}:
        raise ValueError(f"--out {out} would replace the rows to predict: type another file")
    if out.suffix.lower() == ".parquet" and not any(map(importlib.util.find_spec, _PARQUET)):
        raise ImportError(
            f"{out} needs pyarrow or polars, and neither is installed: type "
            f"{pip_command('pyarrow')}, or write a .csv file"
        )


def check_ids(ids: Sequence[str], others: Collection[str]) -> None:
    """Raise an error if a copied column has the name of another column of the file."""
    for name in ids:
        if name in others:
            raise ValueError(
                f"--id {name} is also the name of a column of the predictions: rename it in the "
                "table"
            )


def write_columns(out: Path, columns: Mapping[str, list[Any]]) -> None:
    """Write columns of equal length to a file, one row after the other."""
    make_folder(out.parent)
    with replacing(out) as temporary:
        _WRITERS[out.suffix.lower()](temporary, columns)


def _write_csv(path: Path, columns: Mapping[str, list[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _write_json(path: Path, columns: Mapping[str, list[Any]]) -> None:
    rows = (
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    )
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _write_parquet(path: Path, columns: Mapping[str, list[Any]]) -> None:
    if importlib.util.find_spec("pyarrow"):
        table = importlib.import_module("pyarrow").table(dict(columns))
        importlib.import_module("pyarrow.parquet").write_table(table, path)
    else:
        importlib.import_module("polars").DataFrame(dict(columns)).write_parquet(path)


_WRITERS = {".csv": _write_csv, ".json": _write_json, ".parquet": _write_parquet}


def text_table(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Return lines with aligned columns and their names."""
    aligned = []
    for name, values in columns.items():
        cells = [*map(_cell, (name, *values))]
        width = max(map(len, cells))
        is_number = all(map(_NUMBER.fullmatch, values))
        aligned.append([cell.rjust(width) if is_number else cell.ljust(width) for cell in cells])
    return ["  ".join(cells).rstrip() for cells in zip(*aligned, strict=True)]


def _cell(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"
