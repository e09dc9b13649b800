"""The blocks in docs/migrate.md run unchanged and reach the expected accuracy."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "migrate.md"
PEERS = ("scikit-learn", "skorch", "Keras")
ACCURACY = 0.93  # On 450 test images; all six blocks reach at least 0.95.


def blocks(peer):
    part = PAGE.read_text().split(f"\n## From {peer}\n")[1].split("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```$", part, flags=re.MULTILINE | re.DOTALL)


def accuracy_of(code, tmp_path, *options):
    """Run a block in a separate process, because Keras selects its backend when it is imported."""
    script = tmp_path / "block.py"
    script.write_text(f"{code}\nprint(float(accuracy))\n")
    environment = os.environ | {"KERAS_BACKEND": "torch", "KERAS_HOME": str(tmp_path / "keras")}
    environment |= {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    settings = {"env": environment, "cwd": tmp_path, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, *options, str(script)], timeout=300, **settings)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.split()[-1])


def test_each_peer_has_a_block_before_and_one_after():
    text = PAGE.read_text()
    assert re.findall("^## From (.*)$", text, flags=re.MULTILINE) == list(PEERS)
    for peer in PEERS:
        before, after = blocks(peer)
        assert "mlp_xp" not in before
        assert "from mlp_xp import" in after
    assert text.count("```") == 4 * len(PEERS), "a block that no test runs"


def test_fewer_than_ten_differences_from_scikit_learn_are_left_each_with_a_reason():
    differences, inside = PAGE.read_text().split("\n### ")[1:3]
    for part in differences, inside.split("\n## ")[0]:
        lines = [line.strip("|") for line in part.splitlines() if line.startswith("|")]
        names, _, *rows = [[cell.strip() for cell in line.split(" | ")] for line in lines]
        assert [name.split()[0] for name in names[1:]] == ["scikit-learn", "mlp_xp", "reason"]
        assert 0 < len(rows) < 10
        assert all(len(row) == 4 and all(row) for row in rows), rows


@pytest.mark.matrix
@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_block_reaches_the_accuracy(when, peer, tmp_path):
    if when == "before" and peer != "scikit-learn":
        pytest.importorskip("torch")
        # Importing Keras would load its default backend.
        if importlib.util.find_spec(peer.lower()) is None:
            pytest.skip(f"{peer} is not installed")
    options = ["-W", "error"] * (when == "after")
    assert accuracy_of(blocks(peer)[when == "after"], tmp_path, *options) > ACCURACY
