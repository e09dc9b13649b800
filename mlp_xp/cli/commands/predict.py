"""``mlp-xp predict``: classify images, or predict the targets of table rows."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlp_xp.cli.new_data import find_files, read_images, read_tables, with_format
from mlp_xp.cli.prediction_files import check_ids, check_out, text_table, write_columns
from mlp_xp.cli.run_folder.saved_run import read_run_on
from mlp_xp.cli.terminal.output import Output
from mlp_xp.cli.terminal.text import count_text
from mlp_xp.cli.training.tasks import Predictions, task_of

_N_SHOWN = 10  # The number of rows that are printed.


def run(args: argparse.Namespace, output: Output) -> int:
    """Print predictions for images or table rows, or write them to a file."""
    model, info = read_run_on(args)
    files = find_files(args.files, info)
    info = with_format(info, args, files)
    if args.out is not None:
        check_out(args.out, files)
    is_table = info.image_shape is None
    if args.id and not is_table:
        raise ValueError(f"--id {','.join(args.id)} is for tables, but RUN is for images")
    with output.doing(f"reading {len(files):,} files" if len(files) > 1 else f"reading {files[0]}"):
        if is_table:
            rows, x = read_tables(files, info, args.id)
        else:
            rows, x = {"file": [*map(str, files)]}, read_images(files, info)
    noun = "rows" if is_table else "images"
    with output.doing(f"predicting {count_text(len(x), noun)}"):
        found = task_of(info.class_names).predict(model, x, args.interval)
    check_ids(args.id, {"file", "row", *found.columns})
    if args.out is not None:
        write_columns(args.out, {**rows, **found.columns})
    content = {"rows": len(x), "out": str(args.out)} if args.out else _as_json(files, rows, found)
    # A folder of images is summarized, since it may have thousands of them.
    n_shown = 0 if args.out or (not is_table and len(args.files) < len(files)) else _N_SHOWN
    output.result("\n".join(_lines(rows, found, n_shown, noun, args.out)), content)
    return 0


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
