"""Loading of data sets and backends, with messages for the command line."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlp_xp._utils.signals import postponed
from mlp_xp.backends import BACKENDS, Backend, BackendError, get_backend, has_cuda_driver, installed
from mlp_xp.cli.terminal.output import Output
from mlp_xp.datasets import LOADERS, Dataset, cache_dir, locate
from mlp_xp.datasets._download import UnreachableError
from mlp_xp.datasets._own_data.own import read_files
from mlp_xp.recipes import FILES, names, read_table

DEFAULT = "default"
TABLE = "table"  # The default recipe for the user's own tables.


def load_data(
    name: str,
    path: str | None,
    options: Mapping[str, Any],
    output: Output,
    *,
    is_logged: bool = False,
) -> Dataset:
    """Load a data set, and show a spinner or the progress of the download.

    If the data are the user's own files, ``options`` are passed to `read_files`.
    """
    is_here = path is not None or locate(name) is not None
    if not is_here:
        output.print(f"fetching {name}, which is kept in {cache_dir()}")
    spinner = output.doing(f"loading {path if name == FILES else name}", is_logged=is_logged)
    with spinner if is_here else contextlib.nullcontext():
        if name == FILES:
            if not Path(path or "").exists():
                raise ValueError(f"{path} does not exist: type its new place after --data-path")
            return read_files(path or "", **options)
        if name == "digits" and path is not None:
            raise ValueError(
                "digits come with scikit-learn and have no path: leave out --data-path"
            )
        try:
            return LOADERS[name](*([] if path is None else [path]))
        except UnreachableError as error:
            raise UnreachableError(
                f"{error}; or type --data digits, which comes with scikit-learn"
            ) from error


def load_backend(name: str | None, device: str | None) -> Backend:
    """Return a backend; defer Ctrl-C, which could abort the process during the import."""
    with postponed():
        return get_backend(name, device)


def load_recipe_backend(recipe: str, model: Any) -> Backend:
    """Return the backend of a recipe's estimator; errors list the recipes that run here."""
    try:
        return load_backend(model.backend or "numpy", model.device)
    except BackendError as error:
        if missing_for(recipe) is None:  # The user chose the backend.
            raise
        here = ", ".join(name for name in names() if missing_for(name) != GPU)
        raise BackendError(
            f"{error}. Recipes that run here: {here}. Or type --backend numpy, which is far slower"
        ) from error


GPU = "a CUDA GPU"


def missing_for(recipe: str) -> str | None:
    """Return the package or device that a recipe needs but this machine lacks, or None."""
    table = read_table(recipe)
    name = table.get("backend") or "numpy"
    if str(table.get("device")).startswith("cuda") and not has_cuda_driver():
        return GPU
    if name in BACKENDS and not installed(name):
        return BACKENDS[name].package
    return None


def describe(backend: Backend) -> str:
    """Return a one-line description of a backend."""
    return ", ".join(f"{key} {value}" for key, value in backend.describe().items())
