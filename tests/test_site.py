"""The pages of the site: each job is found from the front page, and no page is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
# What a stranger wants to do: its page, and a word that the page must have.
JOBS = {
    "choose a device": ("device", "`device`"),
    "an own validation set and early stopping": ("validation", "X_val"),
    "class weights": ("class-weights", "class_weight"),
    "save and load": ("save", "load_model"),
    "resume": ("resume", "resume="),
    "several machines": ("machines", "mpiexec"),
    "tune hyper-parameters": ("tune", "optuna"),
    "arrays that are on a GPU": ("gpu-arrays", "cupy"),
    "custom loss, activation and callback": ("custom", "on_epoch_end"),
    "reproducibility": ("reproduce", "random_state"),
    "speed": ("speed", "float32"),
    "trouble with a GPU": ("gpu-trouble", "NVRTC"),
    "prediction in batches": ("predict", "working_memory"),
    "explaining a model": ("explain", "permutation_importance"),
    "calibrated probabilities and intervals": ("uncertainty", "CalibratedClassifierCV"),
    "export": ("export", "to_onnx"),
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


@pytest.mark.parametrize(("name", "word"), JOBS.values(), ids=JOBS)
def test_a_job_is_two_clicks_from_the_front_page(name, word):
    page = DOCS / "how-to" / f"{name}.md"
    assert word in page.read_text(encoding="utf-8")
    # One click leads to the how-to, a second to the pages with all details that it links to.
    assert page in links(DOCS / "index.md")


def test_every_how_to_is_a_job():
    how_tos = {page.stem for page in (DOCS / "how-to").glob("*.md")} - {"index"}
    assert how_tos == {name for name, _ in JOBS.values()}


def test_every_page_is_in_a_menu():
    listed = {page.resolve() for pages in trees().values() for page in pages}
    pages = {page.resolve() for page in DOCS.rglob("*.md") if "_build" not in page.parts}
    assert pages - listed == {(DOCS / "index.md").resolve()}
