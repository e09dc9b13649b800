"""Examples of the pages run and show what they print, and links to headings lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pages
import pytest

from mlp_xp import MLP
from mlp_xp.datasets import locate

ROOT = Path(__file__).parent.parent
SOURCES = [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
PAGES = [*sorted(ROOT.glob("*.md")), *SOURCES, ROOT / "bench" / "README.md"]
# Their blocks are programs of their own, which tests/test_migrate.py runs.
PROGRAMS = {"migrate.md"}
NEEDED = {"device.md": "torch", "export.md": "torch", "gpu-arrays.md": "torch", "tune.md": "optuna"}
NEEDED |= {"cli.md": "safetensors", "save.md": "skops", "resume.md": "safetensors"}
NEEDED |= {"gpu-trouble.md": "torch", "pictures.md": "matplotlib", "quickstart.md": "safetensors"}
NEEDED |= {"long-trainings.md": "safetensors", "reproduce.md": "torch"}
WITH_CODE = [
    page
    for page in [ROOT / "README.md", *SOURCES]
    if page.name not in PROGRAMS and pages.blocks(page.read_text(encoding="utf-8"))
]


# Readers would see a warning, also one that other tests expect.
@pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_examples_of_a_page_print_what_it_shows(page, tmp_path, monkeypatch):
    if page.name == "datasets.md" and locate("cifar10") is None:
        pytest.skip("cifar10 is not in the cache")
    if page == ROOT / "docs" / "export.md":
        for name in ("onnxruntime", "skl2onnx", "ndonnx"):
            pytest.importorskip(name)
    if page.name in NEEDED:
        pytest.importorskip(NEEDED[page.name])
    monkeypatch.chdir(tmp_path)
    for block, printed in pages.run(page):
        assert not pages.differs(block.shown, printed), f"line {block.line} prints:\n{printed}"


@pytest.mark.parametrize(
    ("shown", "printed", "expected"),
    [
        ("accuracy 0.97", "accuracy 0.98\n", False),
        ("accuracy 0.97", "accuracy 0.99\n", True),
        ("accuracy 0.97", "score 0.97\n", True),
        ("(2, 3)", "(2, 4)\n", True),
        ("", "something\n", True),
        ("something", "", True),
    ],
)
def test_outputs_may_differ_by_a_unit_of_the_last_digit(shown, printed, expected):
    assert pages.differs(shown, printed) == expected


def test_blocks_of_python_are_all_found():
    for page in [ROOT / "README.md", *SOURCES]:
        text = page.read_text(encoding="utf-8")
        assert len(pages.blocks(text)) == text.count("```python"), page.name


def test_the_page_of_pictures_shows_what_it_draws():
    text = (ROOT / "docs" / "pictures.md").read_text(encoding="utf-8")
    shown = re.findall(r"\]\((pictures-.*\.png)\)", text)
    assert sorted(shown) == sorted(re.findall(r'savefig\("(pictures-.*\.png)"', text))
    assert all((ROOT / "docs" / name).is_file() for name in shown)


def test_the_recipe_on_the_page_of_the_command_is_one(tmp_path):
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"^```toml\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "my-recipe.toml").write_text(recipe)
    model = MLP.from_recipe(tmp_path / "my-recipe.toml")
    assert tuple(model.hidden_layer_sizes) == (128, 128)
    assert model.solver.ns_steps == 3


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_to_headings_lead_somewhere(page):
    for link, anchor in re.findall(r"\]\(([^)#:]*)#([^)]*)\)", page.read_text(encoding="utf-8")):
        assert anchor in anchors(page.parent / link if link else page), f"{link}#{anchor}"
