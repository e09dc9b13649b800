"""The README's example runs, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import mlp_xp.datasets

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def test_the_first_two_commands_are_one_line_each():
    install, check = blocks("bash")[:2]
    assert install.count("\n") == check.count("\n") == 1
    assert install.rstrip().endswith("mlp-xp train")
    assert check.rstrip().endswith("pytest")


def test_the_example_runs(monkeypatch, capsys):
    data = mlp_xp.datasets.load_digits()
    small = data._replace(x_train=data.x_train[:100], y_train=data.y_train[:100])
    monkeypatch.setattr(mlp_xp.datasets, "load_cifar10", lambda: small)
    code, one_line = blocks("python")
    exec(one_line, {})
    assert len(code.splitlines()) <= 11
    exec(code.replace('backend="cupy"', 'backend="numpy"'), {})
    assert 0.5 < float(capsys.readouterr().out) <= 1.0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / link).exists(), link
