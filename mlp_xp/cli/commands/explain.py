"""``mlp-xp explain``: how much each column contributes to the predictions for a table's rows."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from mlp_xp.cli.new_data import find_files, read_rows, read_tables, with_format
from mlp_xp.cli.prediction_files import check_ids, check_out, text_table, write_columns
from mlp_xp.cli.run_folder.config import DataInfo
from mlp_xp.cli.run_folder.saved_run import read_run_on
from mlp_xp.cli.terminal.output import Output
from mlp_xp.cli.terminal.text import count_text
from mlp_xp.estimators.explanations.explanation import Explanation, explain

_N_BACKGROUND = 100


def run(args: argparse.Namespace, output: Output) -> int:
    """Print each column's mean contribution, and write the contributions of each row to a file."""
    model, info = read_run_on(args)
    if info.image_shape is not None:
        raise ValueError(
            "explain is for tables, but RUN is for images: input_gradient in Python shows the "
            "pixels that a prediction depends on"
        )
    files = find_files(args.files, info)
    read = [*files, *([] if args.background is None else [args.background])]
    info = with_format(info, args, read)
    if args.out is not None:
        check_out(args.out, read)
    with output.doing(f"reading {len(files):,} files" if len(files) > 1 else f"reading {files[0]}"):
        rows, x = read_tables(files, info, args.id)
        background = _background(args, x, info)
    with output.doing(f"explaining {count_text(len(x), 'rows')}"):
        found = explain(model, x, background, random_state=args.seed)
    assert isinstance(found, Explanation)
    names = [info.class_names[label] for label in getattr(model, "classes_", [])]
    columns = _columns(found, info.feature_names, names[-1:] if len(names) == 2 else names)
    check_ids(args.id, {"file", "row", *columns})
    if args.out is not None:
        repeats = max(1, len(next(iter(columns.values()))) // len(x))
        ids = {name: [v for v in values for _ in range(repeats)] for name, values in rows.items()}
        write_columns(args.out, ids | columns)
    axes = (0, *range(2, found.values.ndim))
    importance = dict(
        zip(info.feature_names, np.mean(np.abs(found.values), axis=axes).tolist(), strict=True)
    )
    importance = dict(sorted(importance.items(), key=lambda pair: -pair[1]))
    shown = [f"{value:.3g}" for value in importance.values()]
    lines = text_table({"column": [*importance], "mean |value|": shown})
    text = f"{count_text(len(x), 'rows')}, compared with {count_text(len(background), 'rows')}"
    cure = "to write a row for each, type --out values.csv"
    lines.append(f"{text}; {cure}" if args.out is None else f"{text}; written to {args.out}")
    content = {"rows": len(x), "background_rows": len(background), "mean_abs_value": importance}
    content |= {} if args.out is None else {"out": str(args.out)}
    output.result("\n".join(lines), content)
    return 0


def _background(args: argparse.Namespace, x: Any, info: DataInfo) -> Any:
    """Return the rows to compare with: random ones of a table, by default of the explained one."""
    rows = x if args.background is None else read_rows(args.background, info).rows
    if args.background is None and len(x) < 2:
        raise ValueError(
            "one row has no other rows to compare with: set --background to a table of them, such "
            "as the training data"
        )
    return rows[np.random.RandomState(args.seed).permutation(len(rows))[:_N_BACKGROUND]]


def _columns(
    found: Explanation, names: tuple[str, ...], classes: list[str]
) -> dict[str, list[Any]]:
    """Return the columns of a file with one row per explained row and class."""
    n_rows, n_columns = found.values.shape[:2]
    values = np.moveaxis(found.values.reshape((n_rows, n_columns, -1)), 1, 2)
    base = found.base_values.reshape((n_rows, -1))
    columns: dict[str, list[Any]] = {"class": classes * n_rows} if classes else {}
    columns["base_value"] = base.reshape(-1).tolist()
    columns["prediction"] = (base + np.sum(values, axis=2)).reshape(-1).tolist()
    by_column = values.reshape((-1, n_columns)).T
    columns |= {f"value_{name}": v.tolist() for name, v in zip(names, by_column, strict=True)}
    if found.error_std is not None:
        errors = np.moveaxis(found.error_std.reshape((n_rows, n_columns, -1)), 1, 2)
        by_column = errors.reshape((-1, n_columns)).T
        columns |= {
            f"standard_error_{name}": e.tolist() for name, e in zip(names, by_column, strict=True)
        }
    return columns
