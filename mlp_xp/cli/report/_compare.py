"""The report of several runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mlp_xp.cli.report._elements import figures, heading, paragraph, section, table, write_page
from mlp_xp.cli.report._figures import MOST_RUNS, curve_figures
from mlp_xp.cli.run_folder.run_summary import RunSummary


def write_comparison(
    path: Path,
    runs: Mapping[str, RunSummary],
    results: Sequence[Sequence[str]],
    settings: Sequence[Sequence[str]],
) -> None:
    """Write the page of several runs; a row is a name and a value for each run."""
    title = f"{len(runs)} runs side by side"
    left_out = len(runs) - MOST_RUNS
    write_page(
        path,
        title,
        [
            heading(title, ", ".join(runs)),
            section("Results", table(["", *runs], results)),
            section(
                "Training",
                paragraph(f"The last {left_out} runs have no curve." if left_out > 0 else ""),
                figures(curve_figures({name: run.history for name, run in runs.items()})),
            ),
            section(
                "What differs",
                table(["", *runs], settings, n_text=len(runs) + 1)
                if settings
                else paragraph("Settings, machine and versions are the same."),
            ),
        ],
    )
