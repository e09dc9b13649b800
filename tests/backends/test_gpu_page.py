"""The messages in the table of docs/gpu.md are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
# Messages of CUDA, CuPy and torch themselves.
THEIRS = re.compile("cudaError|Failed to find|libnvrtc|cannot open|not compiled|OutOf|out of mem")


def messages():
    """Return the messages that the first column of the table quotes."""
    table = PAGE.partition("## When it does not work")[2]
    rows = [row.split(" | ")[0] for row in table.splitlines() if row.startswith("| `")]
    assert len(rows) == 10
    return [m for row in rows for m in re.findall("`([^`]+)`", row) if not THEIRS.search(m)]


@pytest.mark.parametrize("message", messages())
def test_each_message_is_in_the_code(message):
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "mlp_xp").rglob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # A literal over several lines.
    # What is filled in matches any word.
    pattern = re.sub("'cupy'|cupy|torch|jax|'cpu'|bfloat16", r"\\S+", re.escape(message))
    assert re.search(pattern, code), message
