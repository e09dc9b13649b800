"""Make links from pages to files of the repository work on the site.

On GitHub, these links work unchanged. On the site, a link to a Markdown page leads to its HTML
page, and a link to any other file or folder leads to a page that shows its content. A link to a
missing file causes a warning, which is an error in the build.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

DOCS = Path(__file__).parent.parent
ROOT = DOCS.parent
# Pages outside of docs, and the pages in docs that include them.
INCLUDED = {
    "README.md": "index",
    "CONTRIBUTING.md": "contributing",
    "CHANGELOG.md": "changelog",
    "bench/README.md": "benchmark-suite",
}

TEXTS = {".cpp", ".cu", ".md", ".py", ".rst", ".sh", ".toml", ".yml"}


def find(target: str, docname: str) -> str | None:
    """Return the target of a link as a path relative to the repository, or None."""
    sources = {page: source for source, page in INCLUDED.items() if page != "index"}
    page = ROOT / sources[docname] if docname in sources else DOCS / docname
    path = Path(os.path.normpath(page.parent / target))
    if not path.is_relative_to(ROOT) or not (path.is_dir() or path.suffix in TEXTS):
        return None  # Sphinx copies images and other files.
    return path.relative_to(ROOT).as_posix() if path.exists() else None


class RepositoryLinks(SphinxTransform):
    """Resolve links to files of the repository before Sphinx copies the linked files."""

    default_priority = 900

    def apply(self, **kwargs: Any) -> None:
        for node in list(self.document.findall(addnodes.pending_xref)):
            if node.get("reftype") == "myst":
                self._replace(node)
        for node in list(self.document.findall(addnodes.download_reference)):
            self._replace(node)

    def _replace(self, node: nodes.Element) -> None:
        target, _, anchor = node["reftarget"].partition("#")
        anchor = anchor or node.get("reftargetid") or ""
        if node.get("refdomain") == "doc":
            # MyST resolves links to pages in docs, and gives absolute paths for all others.
            if not target.startswith("/"):
                return
            target = f"{target}.md"
        path = find(target, self.env.docname) if target else None
        if path is None:
            return
        page, title = INCLUDED.get(path), node.get("reftitle") or node.get("title")
        if page is None and path.startswith("docs/") and path.endswith((".md", ".rst")):
            page = path.removeprefix("docs/").rpartition(".")[0]
        if page is None and path.startswith("docs/gallery/plot_"):
            page = f"examples/{Path(path).stem}"
        new: nodes.Element
        if page is not None:
            new = addnodes.pending_xref(
                refdomain="doc",
                reftype="myst",
                reftarget=page,
                reftargetid=anchor or None,
                refdoc=self.env.docname,
                refexplicit=True,
            )
        else:
            if not hasattr(self.env, "repository_files"):
                self.env.repository_files = set()
            self.env.repository_files.add(path)
            up = "../" * self.env.docname.count("/")
            new = nodes.reference(refuri=f"{up}source/{path}.html", internal=True)
            if title:
                new["reftitle"] = title
        new += node.children
        node.replace_self(new)


def pages(app: Any) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield a page for each linked file and folder, and for the entries of these folders.

    With ``-D repository_pages=0``, yield none.
    """
    if not app.config.repository_pages:
        return
    waiting, done = sorted(getattr(app.env, "repository_files", ())), set()
    while waiting:
        path = waiting.pop()
        if path in done:
            continue
        done.add(path)
        if (ROOT / path).is_dir():
            body, listed = folder(path)
            waiting += listed
        else:
            body = file(path, app.builder.highlighter)
        title = html.escape(path)
        yield f"source/{path}", {"title": path, "body": f"<h1>{title}</h1>{body}"}, "page.html"


def folder(path: str) -> tuple[str, list[str]]:
    """Return a folder's listing as HTML, and the paths of its entries."""
    names = [
        entry.name
        for entry in sorted((ROOT / path).iterdir())
        if entry.is_dir() or entry.suffix in TEXTS
        if entry.name[0] != "." and entry.name != "__pycache__"
    ]
    here = Path(path).name
    items = "".join(f'<li><a href="{here}/{name}.html">{name}</a></li>' for name in names)
    return f"<ul>{items}</ul>", [f"{path}/{name}" for name in names]


def file(path: str, highlighter: Any) -> str:
    """Return a file as HTML with highlighted syntax."""
    try:
        lexer = get_lexer_for_filename(path).aliases[0]
    except ClassNotFound:
        lexer = TextLexer.aliases[0]
    text = (ROOT / path).read_text(encoding="utf-8")
    return highlighter.highlight_block(text, lexer, linenos="inline", force=True)


def link_pages(*args: Any) -> None:
    """Replace names of pages in a docstring, such as ``docs/cli.md``, with links."""
    lines: list[str] = args[-1]
    lines[:] = [re.sub(r"`+docs/([\w-]+)\.md`+", r":doc:`/\1`", line) for line in lines]


def setup(app: Any) -> dict[str, Any]:
    app.add_config_value("repository_pages", default=True, rebuild="", types=[bool])
    app.add_transform(RepositoryLinks)
    app.connect("html-collect-pages", pages)
    app.connect("autodoc-process-docstring", link_pages)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
