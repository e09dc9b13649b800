"""Tables and picture of docs/tables.md, from the newest run of `bench.studies.real_tables`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.reports.pictures import OURS, STYLE
from bench.studies import real_tables as study
from bench.studies.table_sets import ASIDE, SETS
from bench.suite.records import Result, measured_on
from bench.suite.tables import count, folded, markdown

PICTURE = "tables.svg"
_TREES, _NETWORKS = "#E69F00", "#CC79A7"


def blocks() -> dict[str, str]:
    """Return the tables of the page by their names."""
    record, found = study.newest_run()
    names, every = study.measured(found)
    aside = [s for s in every if s.name in ASIDE]
    parts = [markdown(study.contenders_table(names, every, "all"))]
    if aside:
        table = study.contenders_table(names, aside, "aside")
        parts.append(folded(f"The {len(aside)} sets set aside", markdown(table)))
    tables = {
        "Loss on each set": study.sets_table(names, every),
        "Differences from the recipe on each set, %": study.differences_table(names, every),
        "Errors of the sets of classes, %": study.errors_table(names, every),
        "Seconds of a fit on each set": study.seconds_table(names, every),
    }
    parts += [folded(title, markdown(table)) for title, table in tables.items()]
    return {"tables": "\n\n".join(parts), "tables-machine": _conditions(record, found, every)}


def _conditions(record: Result, found: dict[Any, Result], every: Sequence[Any]) -> str:
    """Return what was measured, where, and what could not run."""
    part = record[study.PART]
    splits = sorted({s.losses.shape[1] for s in every})
    one = count(splits[0], "random split")
    spread = one if len(splits) == 1 else f"{splits[0]} to {splits[-1]} random splits"
    lost = study.failures(found)
    left_out = [name for name in SETS if name not in {s.name for s in every}]
    lines = [
        f"{count(len(every), 'set')} of at most {part['rows']:,} rows, {spread}, "
        f"{count(part['threads'], 'thread')}. {part.get('note', '')}".strip(),
        measured_on(record["environment"]),
    ]
    if left_out:
        lines.append(f"Not compared, since not all contenders ran: {', '.join(left_out)}.")
    lines += [f"- {name} cannot run: {reason}" for name, reason in lost.items()]
    return "\n\n".join(lines)


def draw(folder: Path) -> None:
    """Draw each contender's loss beside its seconds."""
    import matplotlib

    names, every = study.measured(study.newest_run()[1])
    times = study.typical_seconds(every)
    base = names.index(study.SKLEARN)
    losses = [100 * study.over_sets(base, i, every)[0] for i in range(len(names))]
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": "tables"}):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 3.6), layout="constrained")
        axes = figure.subplots()
        for name, second, loss in zip(names, times, losses, strict=True):
            axes.plot(second, loss, "o", color=_color(name))
            # Ours stand below and to the left, since they are often beside another one.
            is_ours = name.startswith("mlp_xp")
            offset, side = ((-4, -12), "right") if is_ours else ((0, 7), "center")
            kinds = {"textcoords": "offset points", "ha": side, "fontsize": 8}
            axes.annotate(name, (second, loss), offset, **kinds)
        axes.set_xscale("log")
        axes.margins(x=0.15, y=0.15)
        axes.set_xlabel("seconds of a fit, geometric mean over the sets")
        axes.set_ylabel("loss against scikit-learn's MLP, %")
        axes.grid(alpha=0.3)
        axes.patch.set_alpha(0)
        axes.spines[["top", "right"]].set_visible(False)
        metadata = {"Date": None, "Creator": None}
        figure.savefig(folder / PICTURE, transparent=True, metadata=metadata)


def _color(name: str) -> str:
    if name.startswith("mlp_xp"):
        return OURS
    return _NETWORKS if "MLP" in name else _TREES
