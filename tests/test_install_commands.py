"""Installation commands in pages and messages work unchanged, also in zsh and before a release."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

import mlp_xp
from mlp_xp import backends
from mlp_xp._utils.optional import install_command, pip_command
from mlp_xp.backends import BackendError, get_backend

ROOT = Path(__file__).parent.parent
PACKAGE = Path(mlp_xp.__file__).parent
TEXTS = [
    path
    for folder, pattern in ((".", "*.md"), ("docs", "**/*.md"), ("docs", "**/*.rst"))
    for path in sorted((ROOT / folder).glob(pattern))
] + [*sorted((ROOT / "docs" / "gallery").glob("*.py")), ROOT / "bench" / "README.md"]


def words(command: str) -> list[str]:
    """Return the words of a command, parsed by bash; as in zsh, unquoted brackets are an error."""
    bash = os.name == "posix" and shutil.which("bash")
    if not bash:
        pytest.skip("bash is missing")
    shell = [bash, "-O", "failglob", "-c", rf"printf '%s\n' {command}"]
    done = subprocess.run(shell, capture_output=True, text=True, cwd=os.sep)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_install_command_uses_running_python_or_uv_if_pip_is_missing(monkeypatch):
    python, pip = "/my env/bin/python", ["-m", "pip", "install"]
    monkeypatch.setattr(sys, "executable", python)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert words(install_command("torch")) == [python, *pip, "-e", f"{ROOT}[torch]"]
    assert words(pip_command("--upgrade numba")) == [python, *pip, "--upgrade", "numba"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert words(pip_command("pyarrow")) == ["uv", *pip[1:], "--python", python, "pyarrow"]


def test_install_command_uses_the_package_name_without_a_clone(tmp_path, monkeypatch):
    # Other packages may leave a pyproject.toml in site-packages, which is no clone.
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "mlp_xp-0.1.0.dist-info").mkdir()
    copied = tmp_path / "mlp_xp" / "_utils" / "optional.py"
    copied.parent.mkdir(parents=True)
    shutil.copy(PACKAGE / "_utils" / "optional.py", copied)
    spec = importlib.util.spec_from_file_location("installed", copied)
    installed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(installed)
    monkeypatch.setattr(sys, "executable", "python")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    command = words(installed.install_command("onnx"))
    assert command == ["python", "-m", "pip", "install", "mlp-xp[onnx]"]


def test_messages_use_the_install_command_helper():
    # A bare `pip` may belong to another environment.
    for path in PACKAGE.rglob("*.py"):
        code = path.read_text(encoding="utf-8")
        if path == PACKAGE / "_utils" / "optional.py" or not re.search(r"install|mlp-xp\[", code):
            continue
        for node in ast.walk(ast.parse(code)):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and ">>>" not in text:
                assert not re.search(r"pip3? install|mlp-xp\[", text), path


def test_documented_install_commands_work_before_a_release():
    found = set()
    for path in TEXTS:
        text = path.read_text(encoding="utf-8")
        found.update(re.findall(r"`+((?:\S*/)?pip install [^`\n]*)`", text))
        found.update(re.findall(r"(?m)^ *(?:[^\n]*&& )?((?:\S*/)?pip install [^#&\n`|]*)", text))
    assert len(found) > 20
    for command in found:
        assert not any(word.startswith("mlp-xp") for word in words(command)), command


def test_unusable_gpu_error_gives_each_librarys_reason(monkeypatch):
    monkeypatch.setattr(backends, "installed", lambda name: name in ("torch", "jax"))

    def load(name, device):
        raise BackendError(f"{name} has no {device}")

    monkeypatch.setattr(backends, "_load", load)
    said = (
        "No installed library can use device 'cuda': torch: torch has no cuda; jax: jax has no cuda"
    )
    monkeypatch.setattr(backends, "has_cuda_driver", lambda: True)
    with pytest.raises(BackendError, match=re.escape(said)):
        get_backend("auto", "cuda")


def test_missing_nvidia_driver_is_reported_before_missing_libraries(monkeypatch):
    monkeypatch.setattr(backends, "installed", lambda name: name in ("numpy", "torch"))
    monkeypatch.setattr(backends, "has_cuda_driver", lambda: False)
    module = Mock(**{"create.side_effect": BackendError("built for a CPU")})
    monkeypatch.setattr(importlib, "import_module", lambda name: module)
    for asked, said in (
        (("torch", "cuda"), r"^There is no NVIDIA driver .* device\. built for a CPU$"),
        (("numpy", "cuda"), r"'numpy', got 'cuda'\. There is no NVIDIA driver .* device\.$"),
        (("auto", "cuda"), r"^Device 'cuda' .* used\. There is no .*\. torch: built for a CPU\.$"),
        (("cupy",), r"not installed\. There is no .* With a driver: type .*cuda12\]"),
    ):
        with pytest.raises((ValueError, BackendError), match=said):
            get_backend(*asked)
