"""The project's files agree on versions, checks and dependencies."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import mlp_xp

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONSTRAINTS = (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8")
# Name, version and, if a package is pinned to several versions, the Python versions.
PINS = re.findall(r"(?m)^([\w.-]+)==([\w.]+)(?: ; ([^\\\n]*))?", CONSTRAINTS)


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def sessions():
    text = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    return set(re.findall(r"(?m)^@nox\.session.*\ndef (\w+)", text))


def test_citation_file_matches_package_version_and_license():
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "mlp_xp/__init__.py"
    citation = read(ROOT / "CITATION.cff")
    assert citation["version"] == mlp_xp.__version__
    assert citation["license"] == PROJECT["project"]["license"]


def test_ci_run_covers_every_session():
    # `readme` already runs `tests`, and `coverage` runs the same tests. `links` needs a network.
    # `oldest` and `nightly` need other versions.
    lines = re.findall(r"(?m)^run(?:_beside)? ([\w ]+)$", (ROOT / ".ci" / "run").read_text())
    run = {name for line in lines for name in line.split()}
    assert run == sessions() - {"tests", "coverage", "links", "oldest", "nightly"}


def test_pre_commit_runs_ruff_and_mypy_and_github_yaml_is_valid():
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert {"ruff-check", "ruff-format", "mypy"} <= {hook["id"] for hook in repository["hooks"]}
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
    for path in (ROOT / ".github").rglob("*.yml"):
        assert isinstance(read(path), dict), path


def test_workflows_pin_actions_to_commits_with_read_only_permissions():
    for path in WORKFLOWS:
        used = re.findall(r"(?m)^\s*-? *uses: (.+)$", path.read_text(encoding="utf-8"))
        assert used, path
        for action in used:
            pinned = re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)
            assert pinned or action.startswith("./.github/workflows/"), action
        assert read(path)["permissions"] == {"contents": "read"}, path
        assert read(path)["concurrency"]["group"], path
        found = {name: job.get("permissions") for name, job in read(path)["jobs"].items()}
        given = {name: may for name, may in found.items() if may is not None}
        assert given in ({}, {"publish": {"id-token": "write"}}), path


def test_ci_tests_every_python_version_and_operating_system():
    # With hashes in the constraints, pip rejects packages without a hash.
    assert not [path for path in WORKFLOWS if "-c .ci" in path.read_text(encoding="utf-8")]
    tests = read(ROOT / ".github" / "workflows" / "tests.yml")
    matrix = tests["jobs"]["session"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert {"macos-latest", "windows-latest"} < {leg["os"] for leg in matrix["include"]}
    named = {*matrix["session"], *(leg["session"] for leg in matrix["include"])}
    assert named == {"tests", "lint", "coverage", "oldest", "nightly"} <= sessions()


def test_a_release_requires_passing_tests_and_a_valid_tag():
    release = read(ROOT / ".github" / "workflows" / "release.yml")["jobs"]
    assert set(release["publish"]["needs"]) == {"tests", "build"}
    assert release["publish"]["environment"] == "pypi"
    commands = [step.get("run") for step in release["build"]["steps"]]
    assert 'nox --session build -- "$GITHUB_REF_NAME"' in commands


def test_every_dependency_is_pinned_within_its_bounds():
    extras = PROJECT["project"]["optional-dependencies"]
    # torch has different builds for CPU and CUDA, the GPU extras need several GB, and no check runs
    # the benchmark on tables.
    unpinned = ("torch", "cuda12", "cuda13", "tables")
    needed = [line for name in extras if name not in unpinned for line in extras[name]]
    for line in map(Requirement, [*PROJECT["project"]["dependencies"], *needed]):
        pins = [pin for package, pin, _ in PINS if package == line.name.lower()]
        assert pins or line.name == "mlp-xp", line
        assert all(pin in line.specifier for pin in pins), line


def test_every_pinned_package_has_a_hash_and_torch_is_not_pinned():
    entries = re.split(r"(?m)^(?=[\w.-]+==)", CONSTRAINTS)[1:]
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
        ("rich  Dependency not found and could not be audited", 0, 0, "NOT AUDITED: the pack"),
        ("ConnectionError: no route", 1, 0, "NOT AUDITED: pip-audit cannot run here: Connection"),
    ],
)
def test_audit_fails_only_if_it_finds_vulnerabilities(said, status, expected, out, tmp_path):
    stand_in = tmp_path / "pip-audit"
    stand_in.write_text(f"#!{sys.executable}\nprint({said!r})\nraise SystemExit({status})\n")
    stand_in.chmod(0o755)
    audit = [str(ROOT / ".ci" / "audit"), str(stand_in)]
    done = subprocess.run(audit, capture_output=True, text=True)
    assert done.returncode == expected
    assert done.stdout.startswith(out)
