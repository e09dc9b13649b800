"""Write the figures of the newest records in bench/history into the docs, and draw their charts."""

import argparse
import re
from pathlib import Path

from bench.reports import charts, sections, table_page
from bench.reports.targets import targets
from bench.studies import backends, drop_in, ranks, speedrun
from bench.suite.records import DOCS, ROOT, measured_on, newest
from bench.suite.tables import folded, grid, markdown, paragraphs, replace_block

# Prefixes of the targets that are in the tables by processor, which have newer records.
BY_PROCESSOR = tuple(f"{name}: time" for name in ("tiny", "lab", "medium", "wide"))
# The blocks that consist of the tables of a part, and its key in a record.
GENERATED = {
    "c-export": "c_export",
    "distributed-marks": "ranks",
    "drop-in": "drop_in",
    "search": "search",
}
REPRODUCE = """\
```bash
pip install -e ".[test,fast,peers]"
mlp-xp bench                    # commit what it writes to bench/history
mlp-xp bench --only backends
python -m bench.reports --charts
```"""


def blocks() -> dict[str, str]:
    """Return the text of each generated block of the pages, by the name in its markers."""
    _, suite = newest("workloads", "one-row")
    wanted = targets(suite)
    missed = [r for r in wanted.rows if r[1] == "no" and not r[0].startswith(BY_PROCESSOR)]
    found = {
        "speed": markdown(sections.speed_table(suite["workloads"])),
        "missed": grid(wanted.columns, missed),
        "processors": sections.processor_tables(),
        "slower": f"{sections.slower(suite['workloads'])} [All benchmarks](benchmarks.md).",
        "speedrun": markdown(speedrun.table()),
        "out-of-core": ranks.section(newest("out_of_core")[1]),
        **table_page.blocks(),
    }
    for name, key in GENERATED.items():
        _, record = newest(key)
        tables = sections.part_tables(sections.ALL[key], record[key])
        found[name] = paragraphs(tables, measured_on(record["environment"]))
    short = markdown(drop_in.summary(newest("drop_in")[1]["drop_in"]))
    found["drop-in"] = paragraphs(short, folded("Each script, with quartiles", found["drop-in"]))
    return found


def benchmarks_page() -> str:
    """Return docs/benchmarks.md: the report of the suite, epochs of backends, and their machine."""
    suite, record = newest("workloads", "one-row")[1], newest("backends")[1]
    (epochs,) = backends.PART.tables(record["backends"])
    machine = [f"- {measured_on(record['environment'])}", *backends.devices(record["backends"])]
    picture = "![Images per second of a training epoch, by network and backend](benchmarks.png)"
    epochs = epochs._replace(terms=paragraphs(epochs.terms, picture))
    page = paragraphs(
        "# Benchmarks",
        # Move all headings of the report one level down.
        re.sub("^#", "##", sections.report(suite), flags=re.MULTILINE).strip(),
        markdown(epochs, f"## {epochs.title}", "Each network, backend and placement"),
        folded("Machine and versions of these epochs", "\n".join(machine)),
        "## Measure again",
        REPRODUCE,
    )
    return f"{page}\n"


def pages() -> dict[Path, str]:
    """Return the text of each page, with figures from the newest records."""
    files = [ROOT / "README.md", *sorted([*DOCS.glob("*.md"), *DOCS.glob("how-to/*.md")])]
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    for name, text in blocks().items():
        texts = {path: replace_block(page, name, text) for path, page in texts.items()}
    return texts | {DOCS / "benchmarks.md": benchmarks_page()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.reports", description=__doc__)
    parser.add_argument("--charts", action="store_true", help="draw the charts again")
    args = parser.parse_args()
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    if args.charts:
        suite = newest("workloads", "one-row")[1]
        charts.draw(suite | {"backends": newest("backends")[1]["backends"]}, DOCS)
        for name, record in speedrun.newest_results().items():
            charts.speedrun_figure(record["speedrun"]).savefig(DOCS / f"{name}.png", dpi=150)
        charts.draw_readme(charts.readme_sources(), DOCS)
        table_page.draw()


if __name__ == "__main__":
    main()
