"""`constraints.txt` pins what development installs; `.ci/audit` says what it can do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# With the Pythons that a version is for, where a package has several.
PINS = re.findall(
    r"(?m)^([\w.-]+)==([\w.]+)(?: ; ([^\\\n]*))?", (ROOT / "constraints.txt").read_text()
)


def number(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def test_every_dependency_is_pinned_within_its_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    # torch comes in a build for each machine, and an extra for a GPU is several GB.
    unpinned = ("torch", "cuda12", "cuda13")
    needed = [line for name in extras if name not in unpinned for line in extras[name]]
    for line in [*project["dependencies"], *needed]:
        name, kind, version = re.fullmatch(
            r"([\w-]+)(?:\[.*\])?(?:(>=|==)([\w.]+))?(?:; .*)?", line
        ).groups()
        if name == "mlp-xp":
            continue
        pins = [number(pin) for package, pin, _ in PINS if package == name.lower()]
        assert pins, line
        for pin in pins:
            assert pin == number(version) if kind == "==" else pin >= number(version), line


def test_every_pin_has_a_hash_and_torch_has_none():
    entries = re.split(r"(?m)^(?=[\w.-]+==)", (ROOT / "constraints.txt").read_text())[1:]
    assert len(entries) == len(PINS)
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
    names = [name for name, _, _ in PINS]
    assert "torch" not in names
    assert all(python for name, _, python in PINS if names.count(name) > 1)


@pytest.mark.skipif(os.name == "nt", reason="the script is for a shell")
@pytest.mark.parametrize(
    ("said", "status", "expected", "out"),
    [
        ("No known vulnerabilities found", 0, 0, "No known vulnerabilities found"),
        ("Found 1 known vulnerability in 1 package", 1, 1, ""),
        (
            "rich  Dependency not found and could not be audited: rich",
            0,
            0,
            "NOT AUDITED: the pack",
        ),
        ("ConnectionError: no route", 1, 0, "NOT AUDITED: pip-audit cannot run here: Connection"),
    ],
)
def test_the_audit_fails_only_for_what_it_finds(said, status, expected, out, tmp_path):
    stand_in = tmp_path / "pip-audit"
    stand_in.write_text(f"#!{sys.executable}\nprint({said!r})\nraise SystemExit({status})\n")
    stand_in.chmod(0o755)
    audit = [str(ROOT / ".ci" / "audit"), str(stand_in)]
    done = subprocess.run(audit, capture_output=True, text=True)
    assert done.returncode == expected
    assert done.stdout.startswith(out)
