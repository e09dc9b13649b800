"""``mlp-xp train``: train a network and leave a run folder."""

from __future__ import annotations

import argparse
import csv
import json
import platform
import sys
import tempfile
import time
import warnings
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from mlp_xp import __version__
from mlp_xp._utils.optional import check_installed, optional
from mlp_xp._utils.signals import interrupts, postponed
from mlp_xp.backends import Backend
from mlp_xp.callbacks import Callback
from mlp_xp.cli.deadline import Deadline
from mlp_xp.cli.loading import describe, load_data, load_recipe_backend
from mlp_xp.cli.progress import Watch, display
from mlp_xp.cli.runs import CONFIG, Images, Room, new_run
from mlp_xp.cli.settings import Settings, settings_of
from mlp_xp.cli.start import printable
from mlp_xp.datasets import Dataset, split_dataset
from mlp_xp.estimators import MLPClassifier
from mlp_xp.plotting import confusion_figure, curves_figure, save_figure
from mlp_xp.saving import encode, replacing, save_model
from mlp_xp.training.divergence import NonFiniteError
from mlp_xp.training.records import Record
from mlp_xp.training.rows import some_rows

__all__ = ["run"]

_COLUMNS = [name.replace("validation_score", "validation_accuracy") for name in Record._fields]


def run(args: argparse.Namespace) -> int:
    """Train as the options say."""
    settings = settings_of(args)
    model = settings.estimator()
    # Before the work, not after it; what draws is loaded behind the training.
    check_installed("matplotlib", "safetensors")
    if settings.tensorboard:
        check_installed("tensorboardX", extra="tensorboard")
    backend = load_recipe_backend(settings.recipe, model)
    if model.precision == "bf16":
        backend.with_bf16()  # Refused before there is a run folder.
    data = load_data(settings.data, settings.data_path)
    # A sentence reports a training that diverges; NumPy's warnings about it are noise.
    quiet = np.errstate(over="ignore", invalid="ignore")
    with new_run(args.out, settings.data) as folder, interrupts() as pressed, quiet:
        _announce(settings, model, data, backend)
        config = _config(settings, model, data, backend)
        _write_config(folder.path, config)  # With it a checkpoint is of use, whatever happens.
        end = None if model.max_time is None else args.began + model.max_time
        with display(model.max_iter, len(data.x_train), end) as shown:
            watching = [
                Room(folder.path),
                Watch(shown, pressed),
                *settings.callbacks(folder.path),
            ]
            diverged, deadline = _fit(model, settings, data, watching, end)
        has_views = deadline is None or deadline.has_views
        # What was trained on is not needed any more, and what follows needs memory too.
        data = data._replace(x_train=data.x_train[:0].copy())
        folder.keep(partial(save_model, model))  # At once: whatever else is to do may fail.
        history = _rows(model)
        _write_history(folder.path, history)
        if pressed():
            print(f"interrupted in epoch {len(history)}; the network is kept as it now is")
        if diverged is not None:
            print(diverged, file=sys.stderr)
        predicted = model.predict(data.x_test, **({} if has_views else {"tta": None}))
        seconds = sum(row["seconds"] for row in history)
        result = {
            "test_accuracy": float(np.mean(predicted == data.y_test)),
            "epochs": len(history),
            "interrupted": pressed(),
            "seconds": seconds,
            # "lbfgs" may find that there is nothing to do.
            "images_per_second": sum(row["n_samples"] for row in history) / (seconds or 1.0),
        }
        precision = "bf16" if model.precision == "bf16" else str(model.coefs_[0].dtype)
        _write_config(folder.path, config | {"precision": precision, "result": result})
        if deadline is None or deadline.has_pictures:
            with postponed():
                optional("matplotlib.backends.backend_agg")
            _draw_curves(folder.path, history)
            _draw(folder.path, data, data.y_test, predicted)
        status = 130 if pressed() else int(diverged is not None)
    print(printable(f"saved in {folder.final}"))
    print(
        f"test accuracy {100 * result['test_accuracy']:.2f} %, {seconds:.1f} s, "
        f"{result['images_per_second']:,.0f} images/s"
        + ("" if end is None else f", {time.perf_counter() - args.began:.1f} s in all")
    )
    return status


def _announce(settings: Settings, model: MLPClassifier, data: Dataset, backend: Backend) -> None:
    """Say what is trained on what."""
    sizes = np.atleast_1d(np.asarray(model.hidden_layer_sizes, dtype=object)).tolist()
    widths = [data.x_train.shape[1], *map(_name, sizes), len(data.class_names)]
    print(
        f"{settings.data}: {len(data.x_train):,} images to train on, {len(data.x_test):,} to test"
    )
    parts = ["-".join(map(str, widths)), _name(model.activation), _name(model.solver)]
    if model.normalization is not None:
        parts.append(f"{model.normalization} normalization")
    if model.residual:
        parts.append("residual")
    if model.dropout != 0:
        parts.append(f"dropout {model.dropout}")
    print(f"network: {', '.join(parts)}")
    print(f"backend: {describe(backend)}")


def _name(setting: Any) -> str:
    """Return a setting in a word: what was given, or the class of an object."""
    plain = isinstance(setting, str | int | tuple)
    return str(setting) if plain else type(setting).__name__.lower()


def _fit(
    model: MLPClassifier,
    settings: Settings,
    data: Dataset,
    watching: list[Callback],
    end: float | None,
) -> tuple[NonFiniteError | None, Deadline | None]:
    """Train, until there is just the time left for the rest.

    Returns
    -------
    NonFiniteError or None
        Of a training that diverged.
    Deadline or None
        What there is time for.
    """
    x: Any = data.x_train
    y = data.y_train
    held: dict[str, Any] = {}
    if settings.validation is not None:
        places = np.arange(len(y))
        split = split_dataset(places, y, 1 - settings.validation, seed=model.random_state)
        fit, y, held_out, y_held = split
        x, x_held = some_rows(data.x_train, fit), some_rows(data.x_train, held_out)
        if unseen := [data.class_names[label] for label in np.setdiff1d(y_held, y)]:
            raise ValueError(
                f"--validation {settings.validation:g} leaves {len(y):,} images to train on, and "
                f"none of {', '.join(unseen)}: hold out a smaller share"
            )
        held = {"X_val": x_held, "y_val": y_held}
    max_time, deadline = model.max_time, None
    if end is not None:
        draw = partial(_try_to_draw, data, y)
        deadline = Deadline(end, data.x_train, len(data.x_test), draw)
    model.set_params(callbacks=watching if deadline is None else [*watching, deadline])
    try:
        with warnings.catch_warnings():
            # The epochs are as many as were asked for, converged or not.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, y, **held)
    except NonFiniteError as error:
        return error, deadline
    finally:
        model.set_params(max_time=max_time)  # The deadline has left the fit less.
    return None, deadline


def _rows(model: MLPClassifier) -> list[dict[str, Any]]:
    """Return a row of the history for each epoch."""
    return [dict(zip(_COLUMNS, record, strict=True)) for record in model.history_]


def _config(
    settings: Settings, model: MLPClassifier, data: Dataset, backend: Backend
) -> dict[str, Any]:
    """Return what decides a run, and what must be known to use its models."""
    path = None if settings.data_path is None else str(Path(settings.data_path).resolve())
    images = Images(settings.data, path, data.class_names, data.image_shape, data.max_value)
    libraries = ("numpy", "scikit-learn", "array-api-compat")
    params = model.get_params(deep=False)
    del params["callbacks"]
    written = {name: encode(name, value, name) for name, value in params.items()}
    return {
        "settings": {**asdict(settings), "params": written},
        "data": asdict(images),
        "backend": {"name": backend.name, **backend.describe()},
        "versions": {"python": platform.python_version(), "mlp-xp": __version__}
        | {name: version(name) for name in libraries},
        "platform": platform.platform(),
    }


def _write_config(folder: Path, config: dict[str, Any]) -> None:
    with replacing(folder / CONFIG) as beside:
        beside.write_text(json.dumps(config, indent=2, allow_nan=False))


def _write_history(folder: Path, history: list[dict[str, Any]]) -> None:
    with (folder / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(history)


def _draw_curves(folder: Path, history: list[dict[str, Any]]) -> None:
    """Draw loss and accuracy by epoch."""
    columns = {"training": "accuracy", "validation": "validation_accuracy"}
    accuracies = {name: [row[column] for row in history] for name, column in columns.items()}
    # Of the iterations of "lbfgs" only the loss is known.
    known = {name: values for name, values in accuracies.items() if history and None not in values}
    save_figure(curves_figure([row["loss"] for row in history], known), folder / "curves.png")


def _draw(folder: Path, data: Dataset, y: np.ndarray, predicted: np.ndarray) -> None:
    """Draw which of the first images were taken for what."""
    confusion = confusion_figure(y[: len(predicted)], predicted, data.class_names)
    save_figure(confusion, folder / "confusion.png")


def _try_to_draw(data: Dataset, y: np.ndarray, predicted: np.ndarray) -> None:
    """Draw a picture that nobody is to see: one of an untrained network must not be left."""
    with tempfile.TemporaryDirectory() as folder:
        _draw(Path(folder), data, y, predicted)
