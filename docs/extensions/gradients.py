"""The directive ``gradient`` shows the formula in a docstring next to the code."""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from numpydoc.docscrape import NumpyDocString
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parent.parent.parent


def without_docstring(source: str) -> str:
    """Return the code of a function or a class without its docstrings."""
    source = textwrap.dedent(source)
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            text = node.body[0]
            lines[text.lineno - 1 : text.end_lineno] = [None] * (text.end_lineno - text.lineno + 1)
    kept = "\n".join(line for line in lines if line is not None)
    while "\n\n\n" in kept:
        kept = kept.replace("\n\n\n", "\n\n")
    return kept.strip()


class Gradient(SphinxDirective):
    """A section with a heading, the formulas and references of a docstring, and the code."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path, _, name = self.arguments[0].rpartition(".")
        thing = getattr(importlib.import_module(path), name)
        doc = NumpyDocString(inspect.getdoc(thing))
        text = [*doc["Summary"], "", *doc["Extended Summary"]]
        if doc["References"]:
            text += ["", "*Source:* " + " ".join(doc["References"])]
        code = without_docstring(inspect.getsource(thing))
        file = Path(inspect.getsourcefile(thing))
        self.env.note_dependency(str(file))
        relative = file.relative_to(ROOT).as_posix()
        section = nodes.section(ids=[nodes.make_id(name)], names=[name])
        section += nodes.title("", "", nodes.literal("", name))
        self.state.document.note_explicit_target(section)
        formula = nodes.container(classes=["gradient-formula"])
        self.state.nested_parse(StringList(text, str(file)), 0, formula)
        block = nodes.literal_block(code, code, language="python")
        caption = nodes.caption("", "", nodes.literal("", relative))
        section += formula
        section += nodes.container("", caption, block, classes=["gradient-code"])
        return [section]


def setup(app: Any) -> dict[str, Any]:
    app.add_directive("gradient", Gradient)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
