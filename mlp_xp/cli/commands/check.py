"""``mlp-xp check``: compare the rows of tables with the training data of a run."""

from __future__ import annotations

import argparse
from typing import Any

from mlp_xp.cli.new_data import find_files, read_tables, with_format
from mlp_xp.cli.prediction_files import check_out, write_columns
from mlp_xp.cli.run_folder.saved_run import read_run
from mlp_xp.cli.terminal.output import Output
from mlp_xp.cli.terminal.text import count_text


def run(args: argparse.Namespace, output: Output) -> int:
    """Print how each column differs; return 1 if a column exceeds a limit."""
    model, info = read_run(args.run_folder)
    if info.image_shape is not None:
        raise ValueError("check is for tables, but RUN is for images")
    files = find_files(args.files, info)
    info = with_format(info, args, files)
    if args.out is not None:
        check_out(args.out, files)
    with output.doing(f"reading {len(files):,} files" if len(files) > 1 else f"reading {files[0]}"):
        _, x = read_tables(files, info, ())
    with output.doing(f"checking {count_text(len(x), 'rows')}"):
        limits = {"drift_limit": args.drift_limit, "unseen_limit": args.unseen_limit}
        found = model.check(x, **limits)
    text, columns = str(found), found.to_dict()
    content: dict[str, Any] = {"rows": found.n_rows, "rows_in_fit": found.n_rows_in_fit, **limits}
    if args.out is not None:
        write_columns(args.out, {name: _as_cells(values) for name, values in columns.items()})
        text, content = f"{text}; written to {args.out}", content | {"out": str(args.out)}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    output.result(text, content | {"exceeded": found.exceeded, "columns": rows})
    return int(bool(found.exceeded))


def _as_cells(values: list[Any]) -> list[Any]:
    """Return values as numbers if all are, otherwise as text, or None."""
    if all(type(value) in (int, float) for value in values):
        return values
    return [None if value is None else _as_text(value) for value in values]


def _as_text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple | dict) else str(value)
