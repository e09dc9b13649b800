"""Recipes: TOML files with all settings of a training run, some of which come with the library.

`parameters` is the table of all settings; `objects` lists the classes that recipes and saved models
can contain.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "ENSEMBLES",
    "FILES",
    "Recipe",
    "names",
    "params_with",
    "read_recipe",
    "read_table",
    "recipe_parameters",
    "replacements",
]

_FOLDER = Path(__file__).parent
_LONGEST = 1 << 13  # The maximum size in bytes; `tomllib` takes quadratic time for a long key.
# A table or list nested deeper than this cannot be a setting.
_DEEPEST = 32
FILES = "files"  # The value of ``data`` that stands for the user's own files.
_TASKS = ("classification", "regression")
# The parameters that a recipe can set of an ensemble, and of a tuned ensemble.
ENSEMBLES = {
    "ensemble": ("n_estimators", "bootstrap"),
    "tuned": ("max_time", "n_configurations", "n_folds", "max_predict_cost"),
}
_SECTIONS = (*_TASKS, *ENSEMBLES)
_BASE = "based_on"
# `objects` is imported only where needed, so that `mlp-xp train --help` loads no array library.


class Recipe(NamedTuple):
    """The contents of a recipe.

    ``path`` is the recipe's file, and ``data`` is a key of `LOADERS`, or `FILES`. ``params`` has an
    estimator's parameters. ``ensemble`` or ``tuned`` has an ensemble's parameters if the recipe is
    for one.
    """

    path: Path
    description: str
    data: str
    params: dict[str, Any]
    ensemble: dict[str, Any]
    tuned: dict[str, Any]


def names() -> list[str]:
    """Return the names of the recipes that come with the library.

    Examples
    --------
    >>> from mlp_xp.recipes import names
    >>> "one-minute" in names()
    True
    """
    return sorted(file.stem for file in _FOLDER.glob("*.toml"))


def recipe_parameters(estimator: Any) -> list[str]:
    """Return the names of an estimator's parameters that a recipe can set."""
    return [name for name in estimator._get_param_names() if name != "callbacks"]


def read_recipe(
    source: str | os.PathLike[str], parameters: Iterable[str], task: str = _TASKS[0]
) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    source : str or path-like
        A name, or a TOML file with ``description``, ``data``, and any parameters of the estimator.
        An object is written as a table with its class: ``{class = "Muon", ns_steps = 3}``. The
        tables ``[classification]`` and ``[regression]`` have parameters for one task only. If there
        is a table ``[ensemble]`` or ``[tuned]``, the recipe is for an ensemble with these
        parameters. ``based_on = "table"`` takes all other settings from a recipe of the library.
    parameters : iterable of str
        The names of the estimator's parameters.
    task : {"classification", "regression"}, default="classification"
        The task of the estimator.

    Returns
    -------
    Recipe
        The recipe, with its objects created. The estimator checks the values later.

    Raises
    ------
    ValueError
        If the recipe does not exist, or the file is not a valid recipe; the message names the file,
        the key and the nearest valid name.
    OSError
        If a path that ends in ``.toml`` does not exist or cannot be read.

    Examples
    --------
    >>> from mlp_xp.recipes import read_recipe
    >>> read_recipe("default", ["hidden_layer_sizes"])
    Traceback (most recent call last):
    ValueError: ...default.toml: 'activation' is not one of description, data, classification, \
regression, ensemble, tuned, hidden_layer_sizes
    """
    from mlp_xp.datasets import LOADERS
    from mlp_xp.recipes.objects import expected

    path, table = _path_of(source), read_table(source)
    valid = ["description", "data", *_SECTIONS, *parameters]
    own = {name: table.pop(name, {}) for name in _SECTIONS}
    if not all(isinstance(settings, dict) for settings in own.values()):
        raise ValueError(f"{path}: {', '.join(_SECTIONS)} must be tables of parameters")
    table |= own[task]
    of_ensembles = {name: own[name] for name in ENSEMBLES}
    known_keys = [(of_ensembles[name], known) for name, known in ENSEMBLES.items()]
    for settings, known in ((table, valid), *known_keys):
        for key in settings:
            if key not in known:
                raise ValueError(f"{path}: {key!r} is {expected(key, known)}")
    try:
        for key in ("description", "data"):
            if not isinstance(table.get(key), str):
                raise ValueError(f"`{key}` must be a string, got {table.get(key)!r}")
        description, data = table.pop("description"), table.pop("data")
        if data not in (*LOADERS, FILES):
            raise ValueError(f"data is {data!r}, {expected(data, [*LOADERS, FILES])}")
        params = {key: _decode(value, key) for key, value in table.items()}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    return Recipe(path, description, data, params, **of_ensembles)


def params_with(read: Recipe, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's parameters, without device and precision if NumPy overrides the backend."""
    params = read.params
    if overrides.get("backend") == "numpy" != params.get("backend"):
        return {key: params[key] for key in params if key not in ("device", "precision")}
    return params


def replacements(
    source: str | os.PathLike[str], params: Mapping[str, Any], overrides: Mapping[str, Any]
) -> tuple[str, dict[str, Any]] | None:
    """Return a notice and the parameters that replace a recipe's on this machine, or None.

    NumPy replaces a missing backend, and float32 replaces bfloat16 if PyTorch is very slow in
    bfloat16 on this processor. Nothing is replaced if the recipe or an override names a device
    other than the CPU.
    """
    from mlp_xp.backends import BACKENDS, BackendError, get_backend, how_to_install, installed

    used = {**params, **overrides}
    name, precision = used.get("backend"), params.get("precision", "auto")
    if name not in BACKENDS or used.get("device") not in (None, "cpu"):
        return None
    package = BACKENDS[name].package
    if not installed(name):
        if "backend" in overrides:
            return None
        return (
            f"{package}, which the recipe {source} uses, is not installed: training on NumPy in "
            "float32, which is slower, so accuracy may be lower than in docs/accuracy.md; to "
            f"install {package}, type {how_to_install(name)}"
        ), {"backend": "numpy"}
    if "precision" in overrides or precision == "auto":
        return None
    try:
        is_slow = get_backend(name, used.get("device")).emulates(precision)
    except BackendError:  # The fit raises this error, too, with more advice.
        is_slow = False
    if not is_slow:
        return None
    return (
        f"{package}, which the recipe {source} uses, is very slow in {precision} on processors "
        "without AVX-512, such as this one: training in float32, which is slower, so accuracy may "
        "be lower than in docs/accuracy.md"
    ), {"precision": "float32"}


def read_table(source: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a recipe's TOML table and the table it is based on, without checking values.

    Raises
    ------
    ValueError, OSError
        As in `read_recipe`, if the recipe does not exist or the file is not valid TOML.

    Examples
    --------
    >>> from mlp_xp.recipes import read_table
    >>> read_table("default")["data"]
    'cifar10'
    """
    import tomllib  # Import late, since estimators do not need it.

    from mlp_xp._utils.storage.files import read_file

    path = _path_of(source)
    try:
        table = tomllib.loads(read_file(path, _LONGEST).decode())
    except ValueError as error:  # Raised for invalid UTF-8, invalid TOML, or huge integers.
        raise ValueError(f"{path} is not a valid TOML file: {error}") from error
    except RecursionError:
        table = None
    # Raise the same short error for any deep nesting.
    if table is None or not _is_shallow(table):
        raise ValueError(f"{path}: its tables are nested too deeply")
    base = table.pop(_BASE, None)
    if base is None:
        return table
    if base not in names():
        from mlp_xp.recipes.objects import expected

        raise ValueError(f"{path}: `{_BASE}` is {base!r}, {expected(str(base), names())}")
    below = read_table(base)
    sections = {
        name: below.get(name, {}) | table[name]
        for name in _SECTIONS
        if isinstance(table.get(name), dict)
    }
    return below | table | sections


def _is_shallow(table: dict[str, Any]) -> bool:
    level: list[Any] = [table]
    for _ in range(_DEEPEST):
        level = [
            item
            for value in level
            if isinstance(value, dict | list)
            for item in (value.values() if isinstance(value, dict) else value)
        ]
    return not level


def _path_of(source: str | os.PathLike[str]) -> Path:
    known, path = names(), Path(source)
    if str(source) in known:
        return _FOLDER / f"{source}.toml"
    if path.is_file():
        return path
    from mlp_xp.recipes.objects import expected

    if path.suffix == ".toml":
        raise FileNotFoundError(f"recipe {path} does not exist: type a path, or {', '.join(known)}")
    raise ValueError(f"recipe {str(source)!r} is {expected(source, known)}, nor a file")


def _decode(value: Any, key: str) -> Any:
    if isinstance(value, list):
        return tuple(_decode(item, key) for item in value)  # Settings must be hashable.
    if not isinstance(value, dict):
        return value
    if "class" not in value:
        from mlp_xp.recipes.parameters import CLASSIFIER

        if key in CLASSIFIER and dict in CLASSIFIER[key].values:
            return value
        raise ValueError(f"{key} is the table {value!r}, which has no 'class'")
    from mlp_xp.recipes.objects import make

    try:
        return make(value, key, _decode)
    except (ValueError, TypeError) as error:
        message = str(error)
        raise ValueError(message if message.startswith(key) else f"{key}: {message}") from error
