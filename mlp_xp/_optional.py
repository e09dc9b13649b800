"""Libraries that are loaded where they are needed, and need not be there."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

__all__ = ["check_installed", "optional"]


def optional(module: str, extra: str = "cli") -> Any:
    """Import a module that an extra of this package installs.

    Parameters
    ----------
    module : str
    extra : str, default="cli"
        The extra that the module belongs to.

    Returns
    -------
    module

    Raises
    ------
    ImportError
        If it is not there; says how to install it.

    Examples
    --------
    >>> from mlp_xp._optional import optional
    >>> optional("nothing.like.this")
    Traceback (most recent call last):
    ImportError: module 'nothing' is not installed: pip install "mlp-xp[cli]"
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(module, extra) from error


def check_installed(*packages: str, extra: str = "cli") -> None:
    """Do as `optional` where packages are not there, and load none of them.

    Examples
    --------
    >>> from mlp_xp._optional import check_installed
    >>> check_installed("numpy", "nothing")
    Traceback (most recent call last):
    ImportError: module 'nothing' is not installed: pip install "mlp-xp[cli]"
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise _missing(package, extra)


def _missing(module: str, extra: str) -> ImportError:
    package = module.partition(".")[0]
    return ImportError(f'module {package!r} is not installed: pip install "mlp-xp[{extra}]"')
