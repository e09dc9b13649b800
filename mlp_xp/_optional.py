"""Libraries that are loaded where they are needed, and need not be there."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["optional"]


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
        package = module.partition(".")[0]
        raise ImportError(
            f'module {package!r} is not installed: pip install "mlp-xp[{extra}]"'
        ) from error
