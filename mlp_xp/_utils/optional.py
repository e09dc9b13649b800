"""Import optional dependencies on first use; errors show the command that installs them."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def optional(module: str, extra: str = "cli") -> Any:
    """Import a module from an optional extra; if it is missing, the error shows how to install it.

    Examples
    --------
    >>> from mlp_xp._utils.optional import optional
    >>> optional("nothing.like.this")
    Traceback (most recent call last):
    ImportError: module 'nothing' is not installed: type ... -m pip install -e "...[cli]"
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(module, extra) from error


def check_installed(*packages: str, extra: str = "cli") -> None:
    """Raise ImportError, with the install command, if a package is missing; import nothing."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise _missing(package, extra)


def install_command(extra: str) -> str:
    """Return the command that installs an extra of this package for the running Python.

    For an installed package, pip keeps the version and adds the extra's missing dependencies, so no
    release on PyPI is needed. Otherwise, the command installs from a clone, by its path if this
    package runs from it. The quotes are for zsh, which expands brackets.
    """
    folder = Path(__file__).absolute().parents[2]
    if any(folder.glob("mlp_xp-*.dist-info")):
        return f'{pip_command()} "mlp-xp[{extra}]"'
    is_clone = (folder / "pyproject.toml").is_file()
    target = f"{folder if is_clone else '.'}[{extra}]"
    where = "" if is_clone else " in a clone of mlp-xp"
    return f'{pip_command()} -e "{target}"{where}'


def pip_command(options: str = "") -> str:
    """Return the command that installs packages into the environment of the running Python.

    A bare ``pip`` would install into a different environment if this one is not activated, and
    environments created by uv have no pip.
    """
    python = as_typed(sys.executable)
    has_pip = importlib.util.find_spec("pip") is not None
    command = f"{python} -m pip install" if has_pip else f"uv pip install --python {python}"
    return f"{command} {options}".rstrip()


def as_typed(*arguments: object) -> str:
    """Quote arguments for the shell."""
    import shlex  # Needed only for messages.

    join = shlex.join if os.name == "posix" else subprocess.list2cmdline
    return join(list(map(str, arguments)))


def _missing(module: str, extra: str) -> ImportError:
    package = module.partition(".")[0]
    return ImportError(f"module {package!r} is not installed: type {install_command(extra)}")
