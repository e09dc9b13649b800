"""The messages in the table of docs/gpu.md are those of the code."""

import re
from pathlib import Path

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


def test_each_message_is_in_the_code():
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "mlp_xp").rglob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # A literal over several lines.
    # What is filled in matches any word.
    filled = "'cupy'|cupy|torch|jax|'cpu'|bfloat16"
    patterns = {message: re.sub(filled, r"\\S+", re.escape(message)) for message in messages()}
    assert [m for m, pattern in patterns.items() if not re.search(pattern, code)] == []
