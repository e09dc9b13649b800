"""Examples of the pages in docs run, and links to headings lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlp_xp import MLP
from mlp_xp.datasets import locate

ROOT = Path(__file__).parent.parent
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "bench" / "README.md",
]


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("page", ["cli.md", "lab.md", "datasets.md"])
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch, capsys):
    if page == "datasets.md" and locate("cifar10") is None:
        pytest.skip("CIFAR-10 is not on this machine")
    if page == "cli.md":
        pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(page, "python")
    exec(code, {})
    printed = capsys.readouterr().out.split()
    assert bool(printed) == ("print" in code)
    if page == "cli.md":
        assert float(printed[0]) > 0.9
    if page == "lab.md":
        accuracy, test_accuracy, first, last = map(float, printed)
        assert accuracy > 0.9
        assert test_accuracy > 0.9
        assert last < first


def test_the_examples_about_many_models_run(capsys):
    values: dict = {}
    for block in blocks("many-models.md", "python"):
        exec(block, values)
    printed = capsys.readouterr().out.splitlines()
    assert float(printed[0].split()[-1]) > 0.9
    assert float(printed[1]) > 3  # The spread, outside of the samples and among them.
    curve = [float(score) for score in printed[2].strip("[]").split()]
    assert curve == sorted(curve)
    assert curve[-1] > 0.9


def test_the_page_of_pictures_draws_its_pictures(tmp_path, monkeypatch, capsys):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for code in blocks("pictures.md", "python"):
        exec(code, names)
    pyplot.close("all")
    assert capsys.readouterr().out == "(8, 8)\n"
    shown = re.findall(r"\]\((pictures-.*\.png)\)", (ROOT / "docs/pictures.md").read_text("utf-8"))
    assert {path.name for path in tmp_path.iterdir()} == set(shown)
    assert all((ROOT / "docs" / name).is_file() for name in shown)


def test_the_recipe_on_the_page_of_the_command_is_one(tmp_path):
    (recipe,) = blocks("cli.md", "toml")
    (tmp_path / "my-recipe.toml").write_text(recipe)
    model = MLP.from_recipe(tmp_path / "my-recipe.toml")
    assert tuple(model.hidden_layer_sizes) == (128, 128)
    assert model.solver.ns_steps == 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_to_headings_lead_somewhere(page):
    for link, anchor in re.findall(r"\]\(([^)#:]*)#([^)]*)\)", page.read_text(encoding="utf-8")):
        assert anchor in anchors(page.parent / link if link else page), f"{link}#{anchor}"
