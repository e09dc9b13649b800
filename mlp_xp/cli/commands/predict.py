"""``mlp-xp predict``: classify images, or predict the targets of table rows."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlp_xp._utils.columns.table import join_rows
from mlp_xp.cli.loading import load_backend
from mlp_xp.cli.new_data import find_files, read_images, read_rows, with_format
from mlp_xp.cli.prediction_files import check_out, text_table, write_columns
from mlp_xp.cli.run_folder.config import DataInfo
from mlp_xp.cli.run_folder.saved_run import read_run
from mlp_xp.cli.terminal.output import Output
from mlp_xp.cli.terminal.text import count_text
from mlp_xp.cli.training.tasks import Predictions, task_of
from mlp_xp.estimators.averaging import networks_of

_N_SHOWN = 10  # The number of rows that are printed.


def run(args: argparse.Namespace, output: Output) -> int:
    """Print predictions for images or table rows, or write them to a file."""
    model, info = read_run(args.run_folder)
    load_backend(args.backend, args.device)
    for network in networks_of(model):
        network.set_params(backend=args.backend, device=args.device)
    files = find_files(args.files, info)
    info = with_format(info, args, files)
    if args.out is not None:
        check_out(args.out, files)
    is_table = info.image_shape is None
    if args.id and not is_table:
        raise ValueError(f"--id {','.join(args.id)} is for tables, but RUN is for images")
    with output.doing(f"reading {len(files):,} files" if len(files) > 1 else f"reading {files[0]}"):
        if is_table:
            rows, x = _read_tables(files, info, args.id)
        else:
            rows, x = {"file": [*map(str, files)]}, read_images(files, info)
    noun = "rows" if is_table else "images"
    with output.doing(f"predicting {count_text(len(x), noun)}"):
        found = task_of(info.class_names).predict(model, x, args.interval)
    _check_ids(args.id, {"file", "row", *found.columns})
    if args.out is not None:
        write_columns(args.out, {**rows, **found.columns})
    content = {"rows": len(x), "out": str(args.out)} if args.out else _as_json(files, rows, found)
    # A folder of images is summarized, since it may have thousands of them.
    n_shown = 0 if args.out or (not is_table and len(args.files) < len(files)) else _N_SHOWN
    output.result("\n".join(_lines(rows, found, n_shown, noun, args.out)), content)
    return 0


def _read_tables(
    files: Sequence[Path], info: DataInfo, ids: Sequence[str]
) -> tuple[dict[str, list[Any]], Any]:
    """Read tables; return the columns that identify each row, and all rows."""
    tables = [read_rows(path, info, kept=ids) for path in files]
    lengths = [len(table.rows) for table in tables]
    rows: dict[str, list[Any]] = {}
    if len(files) > 1:
        names = map(str, files)
        rows["file"] = [name for name, n in zip(names, lengths, strict=True) for _ in range(n)]
    rows["row"] = [row for n in lengths for row in range(1, n + 1)]
    for name in ids:
        rows[name] = [value for table in tables for value in table.kept[name]]
    return rows, join_rows([table.rows for table in tables])


def _check_ids(ids: Sequence[str], others: Collection[str]) -> None:
    for name in ids:
        if name in others:
            raise ValueError(
                f"--id {name} is also the name of a column of the predictions: rename it in the "
                "table"
            )


def _as_json(
    files: Sequence[Path], rows: Mapping[str, list[Any]], found: Predictions
) -> dict[str, Any]:
    """Return the predictions as JSON values."""
    names = rows.get("file", [str(files[0])] * len(found.results))
    if "row" in rows:
        pairs = zip(names, rows["row"], strict=True)
        names = [f"{name}, row {row}" for name, row in pairs]
    ids = {name: values for name, values in rows.items() if name not in ("file", "row")}
    return {
        "predictions": [
            {"file": name, **{key: values[i] for key, values in ids.items()}, **result}
            for i, (name, result) in enumerate(zip(names, found.results, strict=True))
        ]
    }


def _lines(
    rows: Mapping[str, list[Any]], found: Predictions, n_shown: int, noun: str, out: Path | None
) -> list[str]:
    """Return the first predictions as a table, and a summary if there are more."""
    lines, n_rows = [], len(found.results)
    if n_shown:
        columns = {
            name: ["" if value is None else str(value) for value in values[:n_shown]]
            for name, values in rows.items()
        }
        lines = text_table(columns | found.texts(n_shown))
    if n_rows > n_shown:
        summary = f"{count_text(n_rows, noun)}: {found.summary}"
        cure = "to write a row for each, type --out predictions.csv"
        lines.append(f"{summary}; {cure}" if out is None else f"{summary}; written to {out}")
    return lines
