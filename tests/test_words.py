"""No file of the project names the machine on which it was written."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Home folders, local URLs and package indexes, as in a pasted output.
PRIVATE = re.compile(
    r"(?<![\w.])/(?:home|Users)/\w+|(?<![\w.])/root/|file:///\w|[A-Z]:\\+Users"
    r"|--(?:extra-)?index-url[ =]|(?<![\w.])" + re.escape(f"{ROOT.as_posix()}/")
)


def private(text: str) -> list[str]:
    return PRIVATE.findall(text)


def test_no_file_contains_a_developers_path_or_a_private_package_index():
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("only git knows which files are the project's")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    paths = {ROOT / name for name in done.stdout.splitlines()} - {Path(__file__)}
    found = {}
    for path in filter(Path.is_file, paths):
        if words := private(path.read_bytes().decode(errors="ignore")):
            found[str(path.relative_to(ROOT))] = words
    assert found == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("saved in /home/ann/runs", ["/home/ann"]),
        ("/root/.cache/mlp_xp", ["/root/"]),
        (r"C:\Users\ann", [r"C:\Users"]),
        ("pip install --index-url https://example.org/simple", ["--index-url "]),
        (f"{ROOT.as_posix()}/mlp_xp/cli.py:3", [f"{ROOT.as_posix()}/"]),
        ("~/.cache/mlp_xp, https://example.org/home/page and runs/root/", []),
    ],
)
def test_private_paths_and_package_indexes_are_detected(text, expected):
    assert private(text) == expected
