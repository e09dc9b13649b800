"""Run the Python blocks of a page, and compare their output with the output on the page.

``python tests/pages.py PAGE...`` writes the output into the pages.
"""

import contextlib
import io
import re
import sys
import tempfile
import types
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
# A fenced block, preceded by the reason why it is not run, if any.
FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?"
    r"^(?P<fence>```)(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
NUMBER = re.compile(r"-?\d+(?:\.\d*)?(?:e[+-]\d+)?")


class Block(NamedTuple):
    """A block of code, and its output on the page."""

    code: str
    line: int
    reason: str | None  # The reason why the block is not run.
    shown: str
    end: int  # The end of the block without its output.
    shown_end: int


def blocks(text: str) -> list[Block]:
    fences = list(FENCE.finditer(text))
    found = []
    for i, fence in enumerate(fences):
        if fence["language"] != "python":
            continue
        shown, shown_end = "", fence.end()
        if i + 1 < len(fences) and fences[i + 1]["language"] == "text":
            after = fences[i + 1]
            if not text[fence.end() : after.start()].strip():
                shown, shown_end = after["text"], after.end()
        line = text.count("\n", 0, fence.start("fence")) + 1
        found.append(Block(fence["text"], line, fence["reason"], shown, fence.end(), shown_end))
    return found


def run(page: Path) -> list[tuple[Block, str]]:
    """Run a page's blocks as one module, and return each block with its output."""
    module = types.ModuleType(f"page_{page.stem.replace('-', '_')}")
    sys.modules[module.__name__] = module  # Pickled classes need the module.
    results = []
    try:
        for block in blocks(page.read_text(encoding="utf-8")):
            if block.reason:
                continue
            # Newlines make tracebacks show the line number on the page.
            code = compile("\n" * block.line + block.code, str(page), "exec")
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(code, module.__dict__)
            results.append((block, printed.getvalue()))
    finally:
        del sys.modules[module.__name__]
    return results


def differs(shown: str, printed: str) -> bool:
    """Whether texts differ by more than one unit in the last digit of a decimal number."""
    shown, printed = " ".join(shown.split()), " ".join(printed.split())
    if NUMBER.sub("#", shown) != NUMBER.sub("#", printed):
        return True
    for left, right in zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True):
        digits = len(left.partition("e")[0].partition(".")[2])
        if not digits and left != right:
            return True
        if digits and abs(float(left) - float(right)) > 1.01 * 10**-digits:
            return True
    return False


def write(page: Path) -> None:
    """Write the output of a page's blocks into the page."""
    text, parts, start = page.read_text(encoding="utf-8"), [], 0
    for block, printed in run(page):
        if not differs(block.shown, printed):
            continue
        parts.append(text[start : block.end])
        if printed:
            parts.append(f"\n\n```text\n{printed.rstrip()}\n```")
        start = block.shown_end
    page.write_text("".join([*parts, text[start:]]), encoding="utf-8")


if __name__ == "__main__":
    for path in [Path(name).resolve() for name in sys.argv[1:]]:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            write(path)
