"""Figures and plot of docs/tables.md and the README, from `bench.studies.real_tables`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.reports.bars import COLORS, OURS
from bench.reports.charts import image
from bench.studies import real_tables as study
from bench.studies.tables.sets import ASIDE, SETS
from bench.suite.records import DOCS, Result, measured_on, newest
from bench.suite.tables import Table, bold_least, count, folded, markdown, paragraphs, reasons


def blocks() -> dict[str, str]:
    """Return the tables of the page by their names."""
    record, on_cores = (newest(part)[1] for part in (study.PART, study.ON_CORES))
    results = record[study.PART]["results"]
    names, every = study.measured(results)
    contenders = study.contenders_table(names, every)
    aside = [s for s in every if s.name in ASIDE]
    untuned = study.contenders_table(names, aside)
    errors = {
        s.name: bold_least(100 * s.errors.mean(axis=1), ".2f")
        for s in every
        if study.metric(s.name) != "rmse"
    }
    tables = {
        f"The {len(aside)} data sets not used for tuning": [untuned],
        "Loss on each data set": study.losses_tables(names, every),
        "Difference from the recipe on each data set, %": study.differences_tables(names, every),
        "Classification errors, %": [study.by_set(names, errors)],
        "Training time on each data set": [study.seconds_table(names, every)],
    }
    parts = [folded(title, paragraphs(*map(markdown, each))) for title, each in tables.items()]
    own, larger = study.measured(on_cores[study.ON_CORES]["results"])
    cores = [study.contenders_table(own, larger), *study.losses_tables(own, larger)]
    cores.append(study.seconds_table(own, larger))
    missing = ", ".join(name for name in SETS if name not in {s.name for s in every})
    last = {f"{name}, {who}": runs[-1] for name in results for who, runs in results[name].items()}
    return {
        "tables-summary": _summary(
            contenders, untuned, record[study.PART]["rows"], len(every), len(aside)
        ),
        "tables": paragraphs(markdown(contenders), *parts),
        "tables-machine": paragraphs(
            *_conditions(study.PART, record, every),
            f"Not compared, because not all contenders ran: {missing}." if missing else "",
            *(f"- {name} cannot run: {why}" for name, why in reasons(last).items()),
        ),
        "tables-on-cores": paragraphs(
            *map(markdown, cores), *_conditions(study.ON_CORES, on_cores, larger)
        ),
    }


def _summary(every: Table, untuned: Table, n_rows: int, n_sets: int, n_untuned: int) -> str:
    """Return the README's list of reasons to use the recipes, with their cost."""
    rows, others = (
        {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
        for table in (every, untuned)
    )
    key = "loss against `table`, %"
    trees, network, catboost = (rows[n][key] for n in ("LightGBM", study.SKLEARN, "CatBoost"))
    fit = {name: row["fit"] for name, row in rows.items()}
    best = "mlp_xp, recipe table-best"
    return paragraphs(
        f"On {n_sets} data sets with at most {n_rows:,} rows, all with default settings:",
        f"- **Lower loss.** LightGBM's loss is {trees} % higher than with the recipe `table`.\n"
        f"  The loss of scikit-learn's MLP in the usual pipeline is {network} % higher.\n"
        f"  CatBoost is level: {catboost} %. (Means with 95 % intervals.)\n"
        f"  On the {n_untuned} sets that were not used to choose the recipe's settings,\n"
        f"  LightGBM's loss is {others['LightGBM'][key]} % higher.\n"
        f"- **Short training.** A fit takes {fit[study.TABLE]}; CatBoost takes {fit['CatBoost']}.\n"
        "  The second training of overfitted networks is newer: with it, fits take\n"
        f"  {_restart_factor():.1f} times as long.\n"
        f"  LightGBM is faster: {fit['LightGBM']}.\n"
        f"- **The lowest loss on {rows[best]['best on']} of {n_sets} sets** with `table-best`.\n"
        f"  This recipe averages eight networks and takes {fit[best]}.",
    )


def _restart_factor() -> float:
    """Return how many times as long fits take with a second training, in the mean of the sets."""
    part = "table-restart"
    ratios = []
    for runs in newest(part)[1][part]["results"].values():
        before, after = (np.mean([run["seconds"] for run in each]) for each in runs.values())
        ratios.append(after / before)
    return float(np.mean(ratios))


def _conditions(name: str, record: Result, every: Sequence[Any]) -> list[str]:
    """Return sentences about the data and the machine of a part of a record."""
    part, splits = record[name], sorted({s.losses.shape[1] for s in every})
    one = count(splits[0], "random split")
    spread = one if len(splits) == 1 else f"{splits[0]} to {splits[-1]} random splits"
    return [
        f"{count(len(every), 'data set')} with at most {part['rows']:,} rows, {spread}, "
        f"{count(part['threads'], 'thread')}. {part.get('note', '')}".strip(),
        measured_on(record["environment"]),
    ]


def draw() -> None:
    """Plot each contender's loss against its training time."""
    names, every = study.measured(newest(study.PART)[1][study.PART]["results"])
    times, base = study.typical_seconds(every), names.index(study.SKLEARN)
    with image(DOCS / "tables.svg", (7, 3.6)) as axes:
        for number, (name, second) in enumerate(zip(names, times, strict=True)):
            loss = 100 * study.over_sets(base, number, every)[0]
            is_ours = name.startswith("mlp_xp")
            other = COLORS["jax:cuda" if "MLP" in name else "torch:cpu"]
            axes.plot(second, loss, "o", color=OURS if is_ours else other)
            # Place labels on different sides of the points, so they do not overlap.
            offset, side = ((0, 7), "center") if "MLP" in name else ((6, -3), "left")
            offset, side = ((-4, -12), "right") if is_ours else (offset, side)
            kinds = {"textcoords": "offset points", "ha": side, "fontsize": 8}
            axes.annotate(name, (second, loss), offset, **kinds)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.margins(x=0.15, y=0.15)
        axes.set_title("Lower is better, further left is faster", loc="left", fontsize=10)
        axes.set_xlabel("seconds of a fit, geometric mean over the sets")
        axes.set_ylabel("loss against scikit-learn's MLP, %")
        axes.grid(alpha=0.3)
