"""``mlp-xp card``: the model card of a run of a table, as Markdown and HTML."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp._utils.storage.durable import replacing
from mlp_xp.cli.card.measure import Measured, describe_columns, drift_limits
from mlp_xp.cli.card.page import PRINTED, as_html, as_markdown, section_of
from mlp_xp.cli.report._elements import svg_of, write_page
from mlp_xp.cli.run_folder.config import DataInfo, digest_of
from mlp_xp.cli.run_folder.run_summary import changed_settings, read_summary
from mlp_xp.cli.run_folder.saved_run import read_run
from mlp_xp.cli.terminal.output import Output
from mlp_xp.datasets import Dataset
from mlp_xp.datasets._files import sha256_of_file
from mlp_xp.estimators.averaging import networks_of

_N_GROUPED = 3  # Columns by which losses are shown by default.


def run(args: argparse.Namespace, output: Output) -> int:
    """Measure the run's network on its test rows, and write the card."""
    model, info = read_run(args.run_folder)
    if info.image_shape is not None:
        raise ValueError("card is for tables, but RUN is for images: see its report.html")
    if getattr(networks_of(model)[0], "columns_", None) is None:
        raise ValueError(
            f"{args.run_folder} has no columns, since it was trained on an array of plain numbers: "
            "type `mlp-xp train` on a .csv or .parquet file"
        )
    config = read_summary(args.run_folder).config
    data = _load(info, args, output)
    if unknown := [name for name in args.group if name not in info.feature_names]:
        known = ", ".join(info.feature_names)
        raise ValueError(f"--group {unknown[0]} is no column of the network; it has {known}")
    with output.doing("measuring the test rows"):
        measured = Measured(model, info, data)
        scores = measured.scores(np.ones(len(data.y_test), bool))
        display, bins = measured.calibration()
        if display is not None:
            scores["expected_calibration_error"] = display.calibration_error
        importances = measured.importances()
        grouped = args.group or [row["column"] for row in importances[:_N_GROUPED]]
        params = config["settings"]["params"]
        facts: dict[str, Any] = {
            "model": {
                "class": type(model).__name__,
                "networks": len(networks_of(model)),
                "parameters": sum(one.summary().parameters for one in networks_of(model)),
                "command": config["command"],
                **config["versions"],
                "platform": config["platform"],
                **({"training_started": config["started"]} if "started" in config else {}),
            },
            "data": _data_facts(info, data),
            "settings": changed_settings(networks_of(model)[0], params),
            "columns": describe_columns(model, data.x_test),
            "scores": scores,
            "groups": [*measured.groups(grouped)],
            "calibration": bins,
            "coverage": measured.coverage(),
            "importances": importances,
            "drift_limits": drift_limits(),
        }
    _write(args.run_folder, facts, display)
    written = [str(args.run_folder / name) for name in ("card.md", "card.html")]
    output.result(f"wrote {' and '.join(written)}", facts | {"files": written})
    return 0


def _load(info: DataInfo, args: argparse.Namespace, output: Output) -> Dataset:
    """Load the data of the run; raise ValueError if they have changed."""
    path = str(args.data_path or info.data_path)
    if not Path(path).is_file():
        raise ValueError(f"{path} is not a file: type the table's new place after --data-path")
    is_same = info.sha256 in (None, sha256_of_file(Path(path)))
    data = replace(info, data_path=path).load(output) if is_same else None
    if data is None or info.digest != digest_of(data):
        raise ValueError(
            f"{path} has changed since the training, so samples to test on may have been trained "
            "on: restore it, or type the place of the original after --data-path"
        )
    return data


def _data_facts(info: DataInfo, data: Dataset) -> dict[str, Any]:
    path = Path(str(info.data_path))
    found: dict[str, Any] = {"file": path.name, "target": info.target}
    found |= {"classes": list(info.class_names)} if info.class_names else {}
    return found | {
        "training_rows": len(data.y_train),
        "test_rows": len(data.y_test),
        "columns": len(info.feature_names),
        "sha256_of_targets": info.digest,
        **({"sha256_of_file": info.sha256} if info.sha256 else {}),
    }


def _write(folder: Path, facts: dict[str, Any], display: Any) -> None:
    title = folder.absolute().name
    svg = "" if display is None else svg_of(display, 4.4, 3.6, "calibration")
    sections = [
        section_of(name, facts[key], n_text, svg if key == "calibration" else "")
        for name, key, n_text in (
            ("Model", "model", 2),
            ("Data", "data", 2),
            ("Columns", "columns", 2),
            ("Test rows", "scores", 2),
            ("Coverage on the test rows", "coverage", 1),
            ("Test rows by group", "groups", 2),
            ("Calibration on the test rows", "calibration", 0),
            ("Importance on the test rows", "importances", 1),
            ("Limits of mlp-xp check", "drift_limits", 2),
            ("Settings", "settings", 2),
        )
        if facts[key]
    ]
    with replacing(folder / "card.md") as temporary:
        temporary.write_text(as_markdown(title, sections), encoding="utf-8")
    write_page(folder / "card.html", title, as_html(title, sections), PRINTED)
