"""The README's examples run, show what they print, and its picture and links are sound."""

from __future__ import annotations

import importlib
import re
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def test_the_first_two_commands_are_one_line_each():
    install, check = blocks("bash")[:2]
    assert install.count("\n") == check.count("\n") == 1
    assert install.rstrip().endswith("mlp-xp train")
    assert check.rstrip().endswith("pytest")


def test_the_example_prints_what_the_page_shows(capsys):
    code, bar_and_accuracy = blocks("python")[0], blocks("text")[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(code, {})
    bar, accuracy = bar_and_accuracy.splitlines()
    *_, last_epoch, printed = capsys.readouterr().out.splitlines()
    assert printed == accuracy
    # Where stdout is no terminal, each epoch prints the facts of the bar in a line.
    shown = re.fullmatch(r"(epoch 20/20) ━+ 100 %  loss (0\.\d{4})  took 0:00", bar)
    ran = re.fullmatch(r"(epoch 20/20)  loss (0\.\d{4})  0:00 left", last_epoch)
    assert ran[1] == shown[1]
    assert float(ran[2]) == pytest.approx(float(shown[2]), abs=3e-4)


def test_the_line_for_a_gpu_is_that_of_the_example_with_a_backend(capsys):
    code, gpu_line = blocks("python")[:2]
    (line,) = re.findall(r"^model = .*\n", code, flags=re.MULTILINE)
    assert gpu_line == line.replace(")\n", ', backend="cupy")\n')
    exec(code.replace(line, gpu_line.replace("cupy", "numpy")), {})
    assert capsys.readouterr().out.endswith(blocks("text")[0].splitlines()[1] + "\n")


def test_the_other_blocks_run():
    for code in blocks("python")[2:]:
        exec(code, {})


def test_the_picture_shows_what_its_records_say(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    readme_picture = importlib.import_module("bench.readme_picture")
    svg = (ROOT / "docs" / "readme.svg").read_text(encoding="utf-8")
    (names,) = re.findall("<dc:source>(.*)</dc:source>", svg)
    readme_picture.draw([ROOT / name for name in names.split("; ")], tmp_path / "again.svg")
    again = (tmp_path / "again.svg").read_text(encoding="utf-8")
    texts = re.compile("<text[^>]*>([^<]*)</text>")
    shown = texts.findall(svg)
    assert shown == texts.findall(again)
    assert {"mlp_xp, NumPy", "thinc"} < set(shown)
    assert "](docs/readme.svg)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_picture_takes_each_librarys_fastest_way_in_float32(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    readme_picture = importlib.import_module("bench.readme_picture")
    contenders = {
        name: {"seconds": [seconds] * 3, "precision": precision}
        for name, seconds, precision in [
            ("mlp_xp, NumPy", 1.0, "float32"),
            ("scikit-learn", 4.0, "float32"),
            ("torch", 2.0, "float32"),
            ("torch, compiled", 0.5, "float32"),
            ("torch, bfloat16 autocast", 0.1, "bfloat16"),
            ("Keras on torch", 5.0, "float32"),
        ]
    }
    contenders["JAX"] = {"cannot_run": "not installed"}
    rates = readme_picture.fastest(contenders, 100)
    assert [(name, rate.median) for name, rate in rates.items()] == [
        ("torch, compiled", 200.0),
        ("mlp_xp, NumPy", 100.0),
        ("scikit-learn", 25.0),
        ("Keras on torch", 20.0),
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link
