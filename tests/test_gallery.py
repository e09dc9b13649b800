"""The gallery shows every example in its order. That each runs, the build of the site checks."""

import ast
import re
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
EXAMPLES = sorted((DOCS / "gallery").glob("plot_*.py"))


def test_every_example_has_its_place_in_the_gallery():
    tree = ast.parse((DOCS / "extensions" / "gallery.py").read_text(encoding="utf-8"))
    (order,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ORDER"
    )
    assert sorted(order) == [path.stem.removeprefix("plot_") for path in EXAMPLES]
    assert len(order) >= 12


def test_an_example_has_a_title_and_a_picture():
    for path in EXAMPLES:
        code = path.read_text(encoding="utf-8")
        title, line, *_ = ast.get_docstring(ast.parse(code)).splitlines()
        assert line == "=" * len(title), path
        assert re.search(r"plt\.subplots\(|Display\.from_estimator\(", code), path
