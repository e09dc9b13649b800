"""The site's search, in a browser: how-to pages come first."""

import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import browser
import pytest
from helpers import wait_until

DOCS = Path(__file__).parent.parent / "docs"
# Searches, and the page that must come first.
FIRST = {
    "imbalanced": "imbalanced",
    "learning rate": "learning-rate",
    "http": "serve-http",
    "serve": "serve-http",
    "multi-label": "several-targets",
    "multilabel": "several-targets",
    "weights & biases": "log",
    "mlflow": "log",
    "fine-tune": "fine-tune",
    "SHAP": "shap",
    "class weights": "class-weights",
    "metric": "metrics",
    "onnx": "export",
    "microcontroller": "c",
    "webassembly": "c",
}
# Pages that must come after all how-to pages and the reference.
LAST = {"architecture", "changelog", "execution", "features", "friendliness"}


@pytest.fixture
def site(tmp_path, chromium):
    for name in ("sphinx", "sphinx_gallery", "myst_parser", "numpydoc", "pydata_sphinx_theme"):
        pytest.importorskip(name)
    build = [sys.executable, "-m", "sphinx", "-q", "-b", "html", str(DOCS), str(tmp_path / "site")]
    # Pages of source files are not in the index of the search.
    left_out = ["-D", "plot_gallery=0", "-D", "repository_pages=0"]
    subprocess.run([*build, *left_out], check=True)
    with browser.served(tmp_path / "site") as url:
        yield url
        chromium.get("about:blank")
    chromium.get_log("browser")  # Later tests have the same browser.


def found(chromium, site, query):
    """Return the pages that a search finds, in their order."""
    chromium.get(f"{site}search.html?q={quote(query)}")
    read = "return document.querySelector('#search-results .search-summary')?.innerText ?? ''"
    wait_until(lambda: "Search finished" in chromium.execute_script(read))
    links = "[...document.querySelectorAll('#search-results ul.search > li > a')]"
    targets = chromium.execute_script(f"return {links}.map(a => a.pathname)")
    return [target.removeprefix("/").removesuffix(".html") for target in targets]


def test_site_search_ranks_how_to_pages_first(chromium, site):
    results = {query: found(chromium, site, query) for query in FIRST}
    assert {query: pages[0] for query, pages in results.items()} == {
        query: f"how-to/{name}" for query, name in FIRST.items()
    }
    for query, pages in results.items():
        jobs = {i for i, page in enumerate(pages) if page.startswith(("how-to/", "reference/gen"))}
        jobs -= {i for i in jobs if pages[i] == "how-to/index"}
        others = [i for i, page in enumerate(pages) if page in LAST]
        assert not others or max(jobs) < min(others), (query, pages)
