"""The settings of a new or resumed run, from its recipe, the typed options and the data."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from sklearn.metrics import get_scorer_names

from mlp_xp._utils.optional import as_typed
from mlp_xp._utils.signals import postponed
from mlp_xp.callbacks import Callback, Checkpoint, TensorBoard
from mlp_xp.cli.commands import parse
from mlp_xp.cli.commands.parser import suggestion
from mlp_xp.cli.loading import DEFAULT, TABLE
from mlp_xp.cli.run_folder.config import CHECKPOINTS, CONFIG
from mlp_xp.cli.run_folder.folder import FoundRun
from mlp_xp.cli.settings import FREE, OWN_OPTIONS, Settings, option_name, typed_settings
from mlp_xp.cli.terminal.lines import print_note
from mlp_xp.cli.terminal.text import count_text
from mlp_xp.cli.training.tasks import ESTIMATORS
from mlp_xp.datasets import LOADERS, Dataset
from mlp_xp.datasets._own_data.columns import decode_columns
from mlp_xp.datasets._own_data.tables import holds_images
from mlp_xp.estimators import MLPClassifier, MLPRegressor
from mlp_xp.estimators.fitted.groups import column_position
from mlp_xp.estimators.tables.monotone import column_directions, refuse_constraint
from mlp_xp.estimators.targets import RealTargets
from mlp_xp.optimizers import OPTIMIZERS, Optimizer
from mlp_xp.recipes import ENSEMBLES, FILES, read_recipe, recipe_parameters, replacements
from mlp_xp.recipes.parameters import SOLVERS_WITH_DECAY
from mlp_xp.saving import decode

_MIN_STEPS = 1000  # The minimum number of training steps for small data sets.
_INTERVAL = "1 min"  # The default time between two checkpoints.


def complete_settings(settings: Settings) -> Settings:
    """Return the settings of a new run: the recipe's settings, overridden by these settings."""
    path, typed = Path(settings.data), settings.params
    is_table = settings.data not in LOADERS and path.is_file() and not holds_images(path)
    # L-BFGS uses all samples at once, so the table recipe is unsuitable: it uses batches.
    by_default = TABLE if is_table and typed.get("solver") != "lbfgs" else DEFAULT
    name, task = settings.recipe or by_default, settings.task or "classification"
    recipe = read_recipe(name, recipe_parameters(ESTIMATORS[task]), task)
    ensemble = {key: getattr(recipe, key) for key in ENSEMBLES if getattr(recipe, key)}
    if ensemble:
        _refuse_options_of_networks(settings, name, is_tuned="tuned" in ensemble)
    # Only an option sets `distributed`, never the recipe.
    params = {"random_state": recipe.params.get("random_state", 0), "distributed": None} | typed
    if "hidden_layer_sizes" in typed:
        params["hidden_layer_sizes"] = tuple(typed["hidden_layer_sizes"])
    if "n_iter_no_change" in typed:
        params["early_stopping"] = True
    decay = params.pop("weight_decay", None)
    if "solver" in typed or decay is not None:
        base = recipe.params.get("solver", "adam")
        params["solver"] = _solver(base, typed.get("solver"), decay)
    with postponed():  # Ctrl-C during the import of torch could abort the process.
        replaced = replacements(name, recipe.params, typed)
    if replaced:
        note, own = replaced
        print_note(note)
        params |= own
    data, data_path = _locate(settings, name, recipe.data)
    known: dict[str, Any] = {
        "data": data,
        "recipe": name,
        "data_path": data_path,
        "ensemble": ensemble,
    }
    return replace(settings, params=params, **known)


def _refuse_options_of_networks(settings: Settings, recipe: str, *, is_tuned: bool) -> None:
    """Raise ValueError for typed options that a recipe for an ensemble cannot follow."""
    given = {name: getattr(settings, name) for name in ("validation", "checkpoint", "tensorboard")}
    given["distributed"] = settings.params.get("distributed")
    for name, value in given.items():
        if value:
            raise ValueError(
                f"{option_name(name)} is for a single network, but recipe {recipe} is for several: "
                "leave it out"
            )
    if not is_tuned and settings.params.get("max_time") is not None:
        raise ValueError(
            f"recipe {recipe} has no time limit: leave out --max-time, or type --recipe table-tuned"
        )


def _locate(settings: Settings, recipe: str, by_default: str) -> tuple[str, str | None]:
    """Return the name and path of the data set, by default the data set of the recipe."""
    data, path = settings.data or by_default, settings.data_path
    is_there = Path(data).exists()
    if data == FILES and not settings.data:
        raise ValueError(
            f"recipe {recipe} is for your own table: type its file, too, e.g. mlp-xp "
            f"train customers.csv --recipe {recipe}"
        )
    if data not in LOADERS:
        if not is_there:
            meant = suggestion(data, LOADERS) or ","
            raise ValueError(
                f"invalid choice: {data!r}{meant} choose {', '.join(LOADERS)}, "
                "or an existing file or folder of your own"
            )
        if path is not None:
            raise ValueError(f"{data} is a path: leave out --data-path")
        return FILES, str(Path(data).resolve())
    if typed := [name for name in OWN_OPTIONS if getattr(settings, name)]:
        raise ValueError(
            f"{option_name(typed[0])} is for your own data, not for {data}"
            + (f": for your file or folder, type ./{data}" if is_there else "")
        )
    if settings.data and path is None and is_there:
        print_note(f"{data} means the built-in data set; for your file or folder, type ./{data}")
    return data, path


def drop_unchanged(settings: Settings, run: FoundRun) -> Settings:
    """Return only the settings that --resume accepts; all others must match the run."""
    arguments = run.config.get("arguments")
    if not isinstance(arguments, list):
        raise ValueError(
            f"{run.folder} does not tell how it was started: type mlp-xp train --resume "
            f"{as_typed(run.folder)}"
        )
    then = _fixed_options(typed_settings(vars(parse(list(map(str, arguments))))))
    now = _fixed_options(settings)
    changed = [name for name in then | now if then.get(name) != now.get(name)]
    if changed:
        old, new = (
            " ".join(_as_option(name, given[name]) for name in changed if name in given)
            for given in (then, now)
        )
        started = f"with {old}, got {new}" if old and new else f"with {old}, got no such option"
        started = started if old else f"without {new}"
        cure = f"type the same options, or {as_typed('--out', f'{run.final}-2')}"
        is_longer = changed == ["max_iter"] and now.get("max_iter", 0) > run.n_epochs
        if is_longer and run.is_complete:
            again = as_typed("mlp-xp", "train", "--resume", run.final)
            cure = f"to train for more epochs, type {again} {new}"
        raise ValueError(f"{run.folder} was started {started}: {cure}")
    params = {name: value for name, value in settings.params.items() if name in FREE}
    free = {name: getattr(settings, name) for name in FREE & vars(settings).keys()}
    return Settings(params=params, **free)


def _fixed_options(settings: Settings) -> dict[str, Any]:
    """Return the options that must not change when a run is resumed."""
    given = {name: value for name, value in vars(settings).items() if value and name != "params"}
    if "data" in given and given["data"] not in LOADERS:
        given["data"] = str(Path(given["data"]).resolve())
    return {name: v for name, v in (given | settings.params).items() if name not in FREE}


def resume_settings(settings: Settings, run: FoundRun) -> Settings:
    """Return an existing run's settings, updated by the options that --resume accepts."""
    folder = run.folder
    given = {name: value for name, value in vars(settings).items() if value}
    params = given.pop("params", {})
    epochs = params.get("max_iter")
    free = {name: given.pop(name) for name in FREE if name in given}
    names = given.keys() | (params.keys() - FREE - {"max_iter"})
    # DATA is usually typed without its option.
    fixed = {given["data"] if name == "data" else option_name(name) for name in names}
    if fixed:
        raise ValueError(
            f"{min(fixed)} cannot be combined with --resume, which keeps the settings of the "
            "run: leave it out, or start a new run without --resume"
        )
    cure = f"{folder} cannot be resumed; start a new run with `mlp-xp train`"
    stored = run.config
    try:
        values = {**stored["settings"]}
        saved = {name: decode(value, name) for name, value in values.pop("params").items()}
        data = stored["data"]
        used = {"target": data["target"], "columns": decode_columns(data["columns"])}
        kept = Settings(params=saved, **values | used)
        n_epochs = saved["max_iter"]
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG} has invalid settings: {error}; {cure}") from error
    if epochs not in (None, n_epochs):
        free["n_before"] = _epochs_to_extend(run, n_epochs, epochs)
    return replace(kept, params=saved | {"distributed": None} | params, **free)


def adapt_to_data(settings: Settings, data: Dataset) -> Settings:
    """Return the settings adapted to the task and number of samples of the user's own data.

    The batch size and epochs of the default recipe are for 50,000 images. With fewer samples,
    batches are smaller and there are more epochs, unless the user has set them.
    """
    if settings.data != FILES:
        return settings
    settings = replace(settings, task="classification" if data.class_names else "regression")
    model, n_samples = create_estimator(settings), len(data.x_train)
    params: dict[str, Any] = {}
    # Without scaling, a network that predicts prices would spend its training on reaching their
    # scale. Loss objects are used without scaling: their settings are in target units.
    if isinstance(model, MLPRegressor) and isinstance(model.loss, str):
        loss = RealTargets(1).resolve_loss(model.get_params(deep=False))
        params |= {"target_scaling": "standardize"} if loss.takes_standardized else {}
    if data.columns is not None and data.columns.used:
        params |= {"categorical_features": "from_dtype", "missing_values": "impute"}
    if settings.recipe == DEFAULT:
        smaller = min(model.batch_size, max(1, n_samples // 20))
        params["batch_size"] = batch_size = settings.params.get("batch_size", smaller)
        n_steps = math.ceil(n_samples / batch_size)
        params["max_iter"] = max(model.max_iter, math.ceil(_MIN_STEPS / n_steps))
    params |= settings.params
    if isinstance(model.monotonic_cst, dict):  # A fit receives arrays, without column names.
        params["monotonic_cst"] = _directions(model.monotonic_cst, data)
    if isinstance(model.coverage_by, str):
        params["coverage_by"] = column_position(model.coverage_by, data.feature_names)
    return replace(settings, params=params)


def _directions(given: dict[str, int], data: Dataset) -> list[int]:
    names = data.feature_names
    directions = column_directions(given, names, has_names=bool(names))
    used = data.columns.used if data.columns else ()
    for column, direction in zip(used, directions, strict=False):  # Arrays have no columns.
        if direction and column.kind == "text":
            refuse_constraint(f"column {column.name!r}")
    return directions


def create_estimator(settings: Settings) -> MLPClassifier | MLPRegressor:
    """Return the unfitted estimator, which is a classifier if the task is not known yet.

    For the recipe of an ensemble, it is the estimator of the networks.
    """
    kind = ESTIMATORS[settings.task or "classification"]
    known = {*recipe_parameters(kind)}
    if unknown := sorted(settings.params.keys() - known):
        raise ValueError(
            f"--{unknown[0].replace('_', '-')} is for classification, but the target of "
            f"{settings.data_path} is numeric: leave it out, or type --task classification"
        )
    if settings.params.keys() >= known:
        return kind(**settings.params)  # Do not read the recipe file, which may have been deleted.
    made = kind.from_recipe(settings.recipe, **settings.params)
    if isinstance(made, kind):
        return made
    shared = made.get_params(deep=False).keys() & known  # Set on the ensemble by `from_recipe`.
    return made.estimator.set_params(**{name: getattr(made, name) for name in shared})


def check_held_out(settings: Settings, model: Any) -> None:
    """Raise ValueError for options that need held-out samples if there are none."""
    scoring, known = model.scoring, ("loss", "refinement", *get_scorer_names())
    if isinstance(scoring, str) and scoring not in known:
        meant = suggestion(scoring, known)
        cure = meant or ", choose loss, refinement or a scikit-learn scorer"
        raise ValueError(f"unknown scoring {scoring!r}{cure}")
    # L-BFGS ignores early stopping, so it needs --validation.
    if settings.validation or (model.early_stopping and model.solver != "lbfgs"):
        return
    used = {"calibration": getattr(model, "calibration", None)}
    used["scoring"] = settings.params.get("scoring")
    for name, value in used.items():
        if value is not None:
            raise ValueError(
                f"--{name} {value} needs held-out samples: type --validation 0.1, or "
                "--early-stopping"
            )


def create_callbacks(settings: Settings, folder: Path, model: Any) -> list[Callback]:
    """Return the callbacks that write into the run folder."""
    kept = folder / CHECKPOINTS
    if settings.checkpoint is None:
        watch = Checkpoint(kept, every=_INTERVAL, keep_last=2, keep_best=0)
    else:
        has_score = settings.validation is not None or model.early_stopping
        watch = Checkpoint(kept, every=settings.checkpoint, keep_best=int(has_score))
    callbacks: list[Callback] = [watch]
    if settings.tensorboard:
        callbacks.append(TensorBoard(folder / "tensorboard"))
    return callbacks


def _as_option(name: str, value: Any) -> str:
    """Return an option as it is typed."""
    if name == "data":
        return as_typed(value)
    option = option_name(name)
    if isinstance(value, bool):
        return option if value else option.replace("--", "--no-", 1)
    return as_typed(option, *(value if isinstance(value, list) else [value]))


def _epochs_to_extend(run: FoundRun, n_epochs: int, wanted: int) -> int:
    """Return the number of epochs of a run that can be trained up to the epoch ``wanted``."""
    again, done = as_typed("mlp-xp", "train", "--resume", run.final), run.result.get("epochs")
    if not run.is_complete or type(done) is not int:
        raise ValueError(
            f"{run.folder} is not complete after {count_text(n_epochs, 'epochs')}: type {again} to "
            "complete it before you add epochs"
        )
    if run.result.get("diverged"):
        raise ValueError(
            f"the training of {run.folder} diverged: start a new run with a smaller --learning-rate"
        )
    if wanted <= done:
        raise ValueError(
            f"--epochs must be above the {count_text(done, 'epochs')} of {run.folder}, got {wanted}"
        )
    return done


def _solver(base: str | Optimizer, name: str | None, decay: float | None) -> str | Optimizer:
    """Return the solver of a recipe with ``--solver`` and ``--weight-decay`` applied.

    The recipe's weight decay is kept if the new solver supports weight decay.
    """
    is_typed = decay is not None
    if not is_typed:
        decay = getattr(base, "weight_decay", None)
    if name is not None and base != name and type(base) is not OPTIMIZERS.get(name):
        base = name
    rule: Any = OPTIMIZERS[base]() if isinstance(base, str) and base in OPTIMIZERS else base
    if hasattr(rule, "weight_decay"):
        return base if decay is None else replace(rule, weight_decay=decay)
    if is_typed:
        solver = base if isinstance(base, str) else type(base).__name__
        raise ValueError(
            f"--weight-decay is {decay:g}, but the solver {solver} does not support weight decay: "
            f"leave it out, or set --solver to one of {', '.join(SOLVERS_WITH_DECAY)}"
        )
    return base
