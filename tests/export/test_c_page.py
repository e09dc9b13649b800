"""The how-to page on C: each block is run in order, as a reader would."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pages
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "c.md"
# Read files, since node has no server; print what the page computes.
NODE = """
import {{ readFileSync }} from "fs";
const headers = {{ "Content-Type": "application/wasm" }};
globalThis.fetch = async (name) => new Response(readFileSync(name), {{ headers }});
{code}
console.log(probabilities.join(" "));
"""


def differs(shown, printed):
    """Whether the words differ, or numbers by more than the training on another processor does."""
    if pages.NUMBER.sub("#", shown) != pages.NUMBER.sub("#", printed):
        return True
    left, right = ([*map(float, pages.NUMBER.findall(text))] for text in (shown, printed))
    return left != pytest.approx(right, abs=5e-3)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Run the page's Python, C and shell blocks; return their folder, and what differs."""
    pytest.importorskip("ziglang")
    if shutil.which("cc") is None:
        pytest.skip("cc is not installed: install gcc")
    folder, wrong = tmp_path_factory.mktemp("page"), {}
    text = PAGE.read_text(encoding="utf-8")
    fences = list(pages.FENCE.finditer(text))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        pages.run(PAGE)
    for fence, after in zip(fences, [*fences[1:], None], strict=True):
        if fence["language"] == "c":
            name = fence["text"].removeprefix("/* ").partition(" */")[0]
            (folder / name).write_text(fence["text"])
        if fence["language"] == "bash":
            command = ["bash", "-ec", fence["text"]]
            options = {"cwd": folder, "capture_output": True, "text": True}
            done = subprocess.run(command, **options, env=os.environ | {"PATH": path}, check=False)
            is_shown = after is not None and after["language"] == "text"
            if done.returncode or differs(after["text"] if is_shown else "", done.stdout):
                wrong[fence["text"]] = done.stdout + done.stderr
    return folder, wrong


def test_documented_c_programs_compile_and_print_the_shown_output(ran):
    folder, wrong = ran
    assert not wrong
    assert (folder / "iris.wasm").stat().st_size < 4_000


def test_documented_browser_code_predicts_like_python(ran):
    if (node := shutil.which("node")) is None:
        pytest.skip("node is not installed")
    text = PAGE.read_text(encoding="utf-8")
    (code,) = [f["text"] for f in pages.FENCE.finditer(text) if f["language"] == "javascript"]
    command = [node, "--input-type=module", "--eval", NODE.format(code=code)]
    done = subprocess.run(command, cwd=ran[0], capture_output=True, text=True, check=True)
    assert not differs("0.000 0.996 0.003\n", done.stdout)
