"""Count lines of code, entries per folder, and files that mention ranks.

``python tests/house.py`` prints the counts. No test enforces them: they are for people to judge.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
RANKS = re.compile(r"\b(rank|ranks|n_ranks|communicator)\b")
_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.ENCODING,
}


def sources(folder: str) -> list[Path]:
    """Return the Python files in a folder and its subfolders."""
    return sorted(ROOT.joinpath(folder).rglob("*.py"))


def text_lines(text: str) -> Iterator[int]:
    """Yield the line numbers of imports and docstrings."""
    for node in ast.walk(ast.parse(text)):
        is_import = isinstance(node, ast.Import | ast.ImportFrom)
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_import or (is_text and isinstance(node.value.value, str)):
            yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)


def code_lines(text: str) -> int:
    """Return the number of lines that are not imports, docstrings, comments or blank."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines.difference(text_lines(text)))


def entries(folder: str) -> tuple[int, str]:
    """Return the name of the package with the most modules and subpackages, and their number.

    ``__init__.py`` and the top level of `mlp_xp` are not counted.
    """
    top = ROOT / folder
    folders = {file.parent for file in sources(folder)} - {ROOT / "mlp_xp"}
    counts = {
        str(path.relative_to(ROOT)): sum(
            (p.suffix == ".py" and p.stem != "__init__") or any(p.rglob("*.py"))
            for p in path.iterdir()
        )
        for path in folders
        if path == top or top in path.parents
    }
    return max((n, name) for name, n in counts.items())


def main() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in sources("mlp_xp")}
    lines = sum(len(text.splitlines()) for text in texts.values())
    bench = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in sources("bench"))
    tests = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in sources("tests"))
    knowing = [
        path
        for path, text in texts.items()
        if "distributed" not in path.parts and RANKS.search(text)
    ]
    rows = [
        ("code lines of the package", sum(map(code_lines, texts.values()))),
        ("all lines of the package", lines),
        ("lines of bench", bench),
        ("lines of tests", tests),
        *((f"entries of {name}", n) for n, name in map(entries, ("mlp_xp", "bench"))),
        ("files outside of distributed that mention ranks", len(knowing)),
    ]
    for name, count in rows:
        print(f"{name:<52}{count:>8,}")
    print()
    for room in sorted(ROOT.joinpath("mlp_xp").iterdir()):
        if room.is_dir() and any(room.rglob("*.py")):
            own = [text for path, text in texts.items() if room in path.parents]
            count = sum(map(code_lines, own))
            total = sum(len(text.splitlines()) for text in own)
            print(f"{room.name:<20}{len(own):>4} files{count:>8,} lines of code{total:>8,} in all")


if __name__ == "__main__":
    main()
