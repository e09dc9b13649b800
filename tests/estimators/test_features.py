"""Each feature of ours in docs/features.md names a test, and that test exists."""

import ast
import functools
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "features.md"
OURS = "mlp_xp"
PEERS = {"feature", OURS, "scikit-learn", "skorch", "Keras", "thinc", "pytabkit"}
LINK = re.compile(r"\[test\]\(\.\./(tests/[\w/]+\.py)\) `(\w+)`")


def rows() -> list[dict[str, str]]:
    """Return the rows of all tables that have a column of ours."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", PAGE.read_text(), re.MULTILINE):
        names, _, *lines = ([c.strip() for c in row.split("|")[1:-1]] for row in table.splitlines())
        if OURS in names:
            found += [dict(zip(names, cells, strict=True)) for cells in lines]
    return found


@functools.cache
def functions(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_each_row_says_yes_partly_or_no_and_names_a_test_of_ours():
    table = rows()
    assert len({row["feature"] for row in table}) == len(table) > 40
    for row in table:
        assert set(row) == PEERS, row["feature"]
        for name in PEERS - {"feature"}:
            assert re.match(r"(yes|no|partly)\b", row[name]), f"{row['feature']}, {name}"
        links = LINK.findall(row[OURS])
        assert bool(links) != row[OURS].startswith("no"), row[OURS]
        for path, function in links:
            assert function.startswith("test_"), function
            assert function in functions(path), f"{path} has no {function}"
