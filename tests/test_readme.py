"""The README's example runs, and its links lead somewhere."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

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


def test_the_example_runs_anywhere(monkeypatch, capsys):
    monkeypatch.setattr("mlp_xp.backends._cuda_driver", lambda: False)
    code, one_line = blocks("python")
    exec(one_line, {})
    assert len(code.splitlines()) <= 8
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        exec(code, {})
    assert said == []
    assert 0.95 < float(capsys.readouterr().out) <= 1.0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / link).exists(), link
