"""The directive ``parameter-groups`` lists an estimator's parameters in groups."""

from __future__ import annotations

import importlib
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from mlp_xp.recipes.parameters import GROUPS


class ParameterGroups(SphinxDirective):
    """One section per group of parameters."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path, _, name = self.arguments[0].rpartition(".")
        rows = getattr(importlib.import_module(path), name)._parameters
        sections = []
        for heading in GROUPS:
            section = nodes.section(ids=[nodes.make_id(f"{name}-{heading}")], names=[])
            section += nodes.title("", heading)
            self.state.document.note_explicit_target(section)
            lines = [""]
            for one, row in rows.items():
                if row.group == heading:
                    first, *text = row.described(one).splitlines()
                    lines += [first.replace(one, f"``{one}``", 1), *text, ""]
            self.state.nested_parse(StringList(lines, self.arguments[0]), 0, section)
            sections.append(section)
        return sections


def setup(app: Any) -> dict[str, Any]:
    app.add_directive("parameter-groups", ParameterGroups)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
