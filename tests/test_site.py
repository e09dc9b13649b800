"""The pages of the site: each job is found from the front page, and no page is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
# What a stranger wants to do, and a word that the page must have.
JOBS = {
    "choose a device": "`device`",
    "an own validation set and early stopping": "X_val",
    "class weights": "class_weight",
    "save and load": "load_model",
    "resume": "resume=",
    "several machines": "mpiexec",
    "tune hyper-parameters": "optuna",
    "arrays that are on a GPU": "cupy",
    "custom loss, activation and callback": "on_epoch_end",
    "reproducibility": "random_state",
    "speed": "float32",
    "trouble with a GPU": "NVRTC",
    "prediction in batches": "working_memory",
    "explaining a model": "permutation_importance",
    "calibrated probabilities and intervals": "CalibratedClassifierCV",
    "export": "to_onnx",
}


def links(page: Path) -> set[Path]:
    """Return the pages that a page links to, not those of its menus."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"\]\(([^)#:]+\.(?:md|rst))(?:#[^)]*)?\)", text)
    return {(page.parent / link).resolve() for link in found}


def trees() -> dict[Path, set[Path]]:
    """Return the pages that each page has in its menus."""
    found = {}
    for page in [*DOCS.rglob("*.md")]:
        text = page.read_text(encoding="utf-8")
        entries = "\n".join(re.findall(r"```\{toctree\}\n(.*?)```", text, flags=re.DOTALL))
        names = re.findall(r"^(?!:)(?:.*<)?([\w/-]+)>?$", entries, flags=re.MULTILINE)
        found[page] = {
            file for name in names for file in page.parent.glob(f"{name}.*") if file.is_file()
        }
    return found


@pytest.mark.parametrize("job", JOBS)
def test_a_job_is_two_clicks_from_the_front_page(job):
    # One click leads to each how-to, a second to the page with all details that it links to.
    how_tos = [page for page in links(DOCS / "index.md") if page.parent.name == "how-to"]
    assert any(JOBS[job] in page.read_text(encoding="utf-8") for page in how_tos)


def test_the_front_page_links_every_how_to():
    how_tos = {page.resolve() for page in (DOCS / "how-to").glob("*.md")}
    assert how_tos - {(DOCS / "how-to" / "index.md").resolve()} <= links(DOCS / "index.md")


def test_every_page_is_in_a_menu():
    listed = {page.resolve() for pages in trees().values() for page in pages}
    pages = {page.resolve() for page in DOCS.rglob("*.md") if "_build" not in page.parts}
    assert pages - listed == {(DOCS / "index.md").resolve()}
