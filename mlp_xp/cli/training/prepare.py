"""Checks, data loading and messages before training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mlp_xp.backends import Backend
from mlp_xp.cli.loading import describe, load_recipe_backend
from mlp_xp.cli.settings import Settings
from mlp_xp.cli.terminal.output import Output
from mlp_xp.cli.terminal.text import count_text
from mlp_xp.cli.training.settings import adapt_to_data, check_held_out, create_estimator
from mlp_xp.cli.training.tasks import Task, task_of
from mlp_xp.datasets import Dataset
from mlp_xp.datasets._dataset import Column, Columns
from mlp_xp.estimators.settings.config import resolve_batch_size
from mlp_xp.recipes import FILES


class Prepared(NamedTuple):
    """The inputs of a fit; the settings are adapted to the data, and the model is unfitted."""

    settings: Settings
    data: Dataset
    model: Any
    task: Task
    backend: Backend


def prepare(settings: Settings, output: Output) -> Prepared:
    """Check the device, load the data, and create the network."""
    model = create_estimator(settings)
    check_held_out(settings, model)
    if settings.data == FILES:
        output.samples = "samples"
    with output.doing("choosing a device"):
        backend = load_recipe_backend(settings.recipe, model)
    backend.with_precision(model.precision)  # Check this before the run folder is created.
    data = settings.load(output, is_logged=True)
    settings = adapt_to_data(settings, data)
    task = task_of(data.class_names)
    return Prepared(settings, data, create_estimator(settings), task, backend)


def print_prepared(prepared: Prepared, output: Output) -> None:
    """Print the data set, the network and the backend."""
    settings, data, model, task, backend = prepared
    name = settings.data_path if settings.data == FILES else settings.data
    output.print(
        f"{name}: {count_text(len(data.x_train), output.samples)} to train on, "
        f"{len(data.x_test):,} to test"
    )
    columns = data.columns or Columns("", ())
    if columns.used:
        output.print(f"columns: {_describe_columns(columns.used)}")
    for note in columns.notes:
        output.print(note)
    sizes = np.atleast_1d(np.asarray(model.hidden_layer_sizes, dtype=object)).tolist()
    widths = [*map(_name, sizes), len(data.class_names) or 1]
    if not columns.used:
        widths.insert(0, data.x_train.shape[1])
    parts = ["-".join(map(str, widths)), _name(model.activation), _name(model.solver)]
    if model.normalization is not None:
        parts.append(f"{model.normalization} normalization")
    if model.residual:
        parts.append("residual")
    if model.dropout != 0:
        parts.append(f"dropout {model.dropout}")
    output.print(f"network: {', '.join(parts)}")
    if settings.data == FILES:
        name = "" if data.columns is None else f"{columns.target}, "
        output.print(f"target: {name}{task.describe(data.y_train)} ({settings.task})")
        size = min(resolve_batch_size(model.batch_size), len(data.x_train))
        output.print(
            f"training: recipe {settings.recipe}, {count_text(model.max_iter, 'epochs')}, "
            f"batches of {size}"
        )
    output.print(f"backend: {describe(backend)}")


def _describe_columns(used: Sequence[Column]) -> str:
    counts = {
        "numeric": sum(column.kind in ("number", "flag") for column in used),
        "date": sum(column.kind == "date" for column in used),
        "text": sum(column.kind == "text" for column in used),
        "with missing values": sum(column.has_gaps for column in used),
    }
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)


def _name(setting: Any) -> str:
    is_plain = isinstance(setting, str | int | tuple)
    return str(setting) if is_plain else type(setting).__name__.lower()
