"""The directive ``parameter-groups``: an estimator's parameters, by what they are about.

Types, defaults and descriptions come from the docstring. A parameter that no group has is an error,
so the page cannot miss a new one.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from numpydoc.docscrape import NumpyDocString
from sphinx.util.docutils import SphinxDirective


class ParameterGroups(SphinxDirective):
    """A table for each group; the content has lines ``Heading: parameter, parameter, ...``."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Create a section for each group."""
        path, _, name = self.arguments[0].rpartition(".")
        doc = NumpyDocString(inspect.getdoc(getattr(importlib.import_module(path), name)))
        described = {
            one: (parameter.type, parameter.desc)
            for parameter in doc["Parameters"]
            for one in parameter.name.split(", ")
        }
        groups = [re.fullmatch(r"(.+?): (.+)", line).groups() for line in self.content if line]
        named = [one for _, members in groups for one in members.split(", ")]
        if sorted(named) != sorted(described):
            odd = sorted(set(named) ^ set(described)) or "one of them twice"
            raise self.error(f"parameter-groups of {name}: {odd} must be in exactly one group")
        sections = []
        for heading, members in groups:
            section = nodes.section(ids=[nodes.make_id(f"{name}-{heading}")], names=[])
            section += nodes.title("", heading)
            self.state.document.note_explicit_target(section)
            lines = [""]
            for one in members.split(", "):
                kind, text = described[one]
                lines += [f"``{one}`` : {kind}", *(f"   {line}" for line in text), ""]
            self.state.nested_parse(StringList(lines, self.arguments[0]), 0, section)
            sections.append(section)
        return sections


def setup(app: Any) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("parameter-groups", ParameterGroups)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
