"""Tables and plot of docs/tables.md, from the newest run of `bench.studies.real_tables`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.reports.bars import COLORS, OURS
from bench.reports.pictures import picture
from bench.studies import real_tables as study
from bench.studies.tables import tabm
from bench.studies.tables.sets import ASIDE, SETS
from bench.suite.records import Result, measured_on, newest
from bench.suite.tables import count, folded, markdown

PICTURE = "tables.svg"


def blocks() -> dict[str, str]:
    """Return the tables of the page by their names."""
    record, found = study.newest_run()
    names, every = study.measured(found)
    parts = [markdown(study.contenders_table(names, every, "all"))]
    tables = {
        "Loss on each data set": study.sets_tables(names, every),
        "Difference from the recipe on each data set, %": study.differences_tables(names, every),
        "Classification errors, %": [study.errors_table(names, every)],
        "Training time on each data set": [study.seconds_table(names, every)],
    }
    if aside := [s for s in every if s.name in ASIDE]:
        table = study.contenders_table(names, aside, "aside")
        tables = {f"The {len(aside)} data sets not used for tuning": [table]} | tables
    parts += [folded(title, "\n\n".join(map(markdown, each))) for title, each in tables.items()]
    on_cores, of_cores = study.newest_run(study.ON_CORES)
    larger, each = study.measured(of_cores)
    cores = [study.contenders_table(larger, each, ""), *study.sets_tables(larger, each)]
    cores.append(study.seconds_table(larger, each))
    of_paper = newest(tabm.PART)[1]
    return {
        "tables": "\n\n".join(parts),
        "tables-machine": _conditions(record[study.PART], record, found, every),
        "tables-on-cores": "\n\n".join(
            [*map(markdown, cores), _conditions(on_cores[study.ON_CORES], on_cores, {}, each)]
        ),
        "tabm": f"{markdown(tabm.table(of_paper))}\n\n{measured_on(of_paper['environment'])}",
    }


def _conditions(
    part: Result, record: Result, found: dict[Any, Result], every: Sequence[Any]
) -> str:
    """Return sentences about the data, the machine, and the contenders that could not run."""
    splits = sorted({s.losses.shape[1] for s in every})
    one = count(splits[0], "random split")
    spread = one if len(splits) == 1 else f"{splits[0]} to {splits[-1]} random splits"
    lines = [
        f"{count(len(every), 'data set')} with at most {part['rows']:,} rows, {spread}, "
        f"{count(part['threads'], 'thread')}. {part.get('note', '')}".strip(),
        measured_on(record["environment"]),
    ]
    compared = {s.name for s in every}
    if left_out := [name for name in SETS if name not in compared and found]:
        lines.append(f"Not compared, because not all contenders ran: {', '.join(left_out)}.")
    lost = study.failures(found).items()
    lines += [f"- {name} cannot run: {reason}" for name, reason in lost]
    return "\n\n".join(lines)


def draw(folder: Path) -> None:
    """Plot each contender's loss against its training time."""
    names, every = study.measured(study.newest_run()[1])
    times, base = study.typical_seconds(every), names.index(study.SKLEARN)
    with picture(folder / PICTURE, (7, 3.6)) as axes:
        for number, (name, second) in enumerate(zip(names, times, strict=True)):
            loss = 100 * study.over_sets(base, number, every)[0]
            is_ours = name.startswith("mlp_xp")
            other = COLORS["jax:cuda" if "MLP" in name else "torch:cpu"]
            axes.plot(second, loss, "o", color=OURS if is_ours else other)
            # Labels are on different sides of the points, so that they do not cover others.
            offset, side = ((0, 7), "center") if "MLP" in name else ((6, -3), "left")
            if is_ours:
                offset, side = (-4, -12), "right"
            kinds = {"textcoords": "offset points", "ha": side, "fontsize": 8}
            axes.annotate(name, (second, loss), offset, **kinds)
        axes.set_xscale("log")
        axes.margins(x=0.15, y=0.15)
        axes.set_xlabel("seconds of a fit, geometric mean over the sets")
        axes.set_ylabel("loss against scikit-learn's MLP, %")
        axes.grid(alpha=0.3)
