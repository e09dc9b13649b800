"""Write the tables of docs/performance.md that summarize a run of the suite.

    python bench/summary.py bench/history/2026-01-02-120000

The block "speed" has our time for each job and the ratios to peers, "missed" the missed targets.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from contenders import OURS
from drop_in import PAGE
from report import replace_block, seconds, table
from spread import ratio, spread
from targets import fastest_peer, ran, targets
from turns import Result

__all__ = ["missed_table", "speed_table", "written_into"]


def speed_table(result: Result) -> str:
    """Return the table of our times, and of the peers' times divided by ours."""
    rows = []
    for name, workload in result["workloads"].items():
        contenders = ran(result, name)
        own, peer = contenders[OURS]["seconds"], fastest_peer(contenders)
        unit = "epoch" if workload["kind"] == "train" else "prediction"
        median = spread(own).median
        rows.append(
            [
                f"{workload['title']}: {unit} of {workload['images']:,}",
                seconds(median),
                *(
                    f"{ratio(contenders[other]['seconds'], own).median:.2f}"
                    if other in contenders
                    else ""
                    for other in ("scikit-learn", peer)
                ),
                peer or "",
                f"{workload['floor']['seconds'] / median:.0%}",
            ]
        )
    names = ["job", "mlp_xp", "vs scikit-learn", "vs fastest peer", "which", "roofline"]
    return table(names, "lrrrlr", rows)


def missed_table(result: Result) -> str:
    """Return the table of missed targets, each with its distance."""
    rows = [
        [target.name, target.wanted, target.measured, f"{target.distance:.0%}"]
        for target in targets(result)
        if not target.met
    ]
    return table(["measure", "target", "measured", "missed by"], "llrr", rows)


def written_into(page: str, result: Result) -> str:
    page = replace_block(page, "speed", speed_table(result) + "\n")
    return replace_block(page, "missed", missed_table(result) + "\n")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of `mlp-xp bench`")
    args = parser.parse_args(argv)
    result = json.loads((args.folder / "result.json").read_text())
    PAGE.write_text(written_into(PAGE.read_text(encoding="utf-8"), result), encoding="utf-8")


if __name__ == "__main__":
    main()
