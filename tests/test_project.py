"""The files that surround the package agree: one version, one list of checks, pinned actions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import mlp_xp

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def jobs(path: Path) -> dict[str, dict]:
    return read(path)["jobs"]


def sessions() -> set[str]:
    text = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    return set(re.findall(r"(?m)^@nox\.session.*\ndef (\w+)", text))


def test_the_version_is_written_in_the_package():
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "mlp_xp/__init__.py"
    assert read(ROOT / "CITATION.cff")["version"] == mlp_xp.__version__


def test_the_citation_has_the_license_of_the_package():
    assert read(ROOT / "CITATION.cff")["license"] == PROJECT["project"]["license"]


def test_the_whole_check_runs_every_session():
    # `tests` is a part of `readme`, and so is `coverage`, which tracing makes up to a third slower.
    # `links` asks other sites.
    (line,) = re.findall(r"(?m)^nox .*--session (.+)$", (ROOT / ".ci" / "run").read_text())
    assert set(line.split()) == sessions() - {"tests", "coverage", "links"}


@pytest.mark.skipif(os.name == "nt", reason="the script is for a shell")
@pytest.mark.parametrize(
    ("present", "user", "system", "status", "installs", "said"),
    [
        ((), 0, "debian", 0, True, ""),
        (("chromium", "chromedriver"), 0, "debian", 0, False, ""),
        (("chromium",), 0, "debian", 0, True, ""),
        ((), 1000, "debian", 0, False, "NO CHROMIUM: pages are not opened in a browser (Debian"),
        ((), 0, "fedora", 0, False, "NO CHROMIUM: pages are not opened in a browser (Debian"),
        ((), 0, "debian", 100, False, "NO CHROMIUM: pages are not opened in a browser: refused"),
    ],
)
def test_chromium_is_installed_where_it_can_be(
    present, user, system, status, installs, said, tmp_path
):
    folder, log = tmp_path / "bin", tmp_path / "log"
    folder.mkdir()
    for name in ("grep", "tail", "timeout"):
        (folder / name).symlink_to(shutil.which(name) or pytest.skip(f"{name} is missing"))
    programs = dict.fromkeys(present, "")
    programs["id"] = f"echo {user}"
    programs["apt-get"] = f'echo "$@" >> {log}; echo refused; exit {status}'
    bash = shutil.which("bash") or pytest.skip("bash is missing")
    for name, body in programs.items():
        (folder / name).write_text(f"#!{bash}\n{body}\n")
        (folder / name).chmod(0o755)
    (tmp_path / "os-release").write_text(f'NAME="x"\nID={system}\n')
    command = [bash, str(ROOT / ".ci" / "get_chromium"), str(tmp_path / "os-release")]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": str(folder)})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(said)
    assert bool(done.stdout) == bool(said)
    asked = log.read_text() if log.exists() else ""
    assert ("chromium chromium-driver" in asked) == installs


def test_hooks_check_style_format_and_types():
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert {"ruff-check", "ruff-format", "mypy"} <= {hook["id"] for hook in repository["hooks"]}
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name
)
def test_settings_of_the_repository_can_be_read(path):
    assert isinstance(read(path), dict)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_to_a_commit_with_their_version(path):
    used = re.findall(r"(?m)^\s*-? *uses: (.+)$", path.read_text(encoding="utf-8"))
    assert used
    for action in used:
        pinned = re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)
        assert pinned or action.startswith("./.github/workflows/"), action


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_may_only_read(path):
    assert read(path)["permissions"] == {"contents": "read"}
    assert read(path)["concurrency"]["group"]
    widened = {name: job["permissions"] for name, job in jobs(path).items() if "permissions" in job}
    assert widened in ({}, {"publish": {"id-token": "write"}})


def test_the_tests_run_on_every_python_and_system():
    matrix = jobs(ROOT / ".github" / "workflows" / "tests.yml")["session"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert {"macos-latest", "windows-latest"} < {leg["os"] for leg in matrix["include"]}
    named = {*matrix["session"], *(leg["session"] for leg in matrix["include"])}
    assert named == {"tests", "lint", "coverage"} <= sessions()


def test_a_release_waits_for_the_tests_and_its_tag_is_checked():
    release = jobs(ROOT / ".github" / "workflows" / "release.yml")
    assert set(release["publish"]["needs"]) == {"tests", "build"}
    assert release["publish"]["environment"] == "pypi"
    commands = [step.get("run") for step in release["build"]["steps"]]
    assert 'nox --session build -- "$GITHUB_REF_NAME"' in commands
