"""Loading of a run's network."""

from __future__ import annotations

import argparse
import contextlib
import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp.cli.loading import load_backend
from mlp_xp.cli.run_folder.config import CHECKPOINTS, CONFIG, CURE, DataInfo, data_info, read_config
from mlp_xp.cli.run_folder.folder import newest_model
from mlp_xp.estimators import MLPClassifier, MLPRegressor
from mlp_xp.estimators.averaging import BaseEnsemble, networks_of
from mlp_xp.estimators.fitted.state import fitted_state
from mlp_xp.saving import SPEC, load_model


def read_run(folder: Path) -> tuple[Any, DataInfo]:
    """Read the model of a run or of a checkpoint, and the description of its data."""
    is_checkpoint = folder.absolute().parent.name == CHECKPOINTS
    root = folder.absolute().parent.parent if is_checkpoint else folder
    config = read_config(root)
    if not (folder / SPEC).exists():
        newest = newest_model(root)
        raise ValueError(
            f"{folder} contains no network, because training ended before one was saved: type "
            "`mlp-xp train` again, with --checkpoint 1 to save the network after every epoch"
            if newest is None
            else f"{folder} contains no model, but {newest} does: type that instead"
        )
    model = load_model(folder)
    for one in (model, *networks_of(model)):
        vars(one).pop("feature_names_in_", None)  # Commands pass arrays, without column names.
    try:
        names = list(config["data"]["class_names"])
        kind = MLPClassifier if names else MLPRegressor
        if not isinstance(networks_of(model)[0], kind):
            given = type(model).__name__
            raise TypeError(f"expected a model of class {kind.__name__}, got {given}")
        # `named` has replaced the class indices by class names.
        classes: Any = getattr(model, "classes_", None)
        if names and classes.dtype.kind == "U":
            _set_classes(model, np.asarray([names.index(name) for name in classes.tolist()]))
        elif names and np.array_equal(classes, _labels(names)):
            _set_classes(model, np.arange(len(names)))
        info = data_info(config, model)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"{root / CONFIG}, 'data': {reason}: {CURE}") from error
    return model, info


def read_run_on(args: argparse.Namespace) -> tuple[Any, DataInfo]:
    """Read the model of a run, to predict on the backend and device that were typed."""
    model, info = read_run(args.run_folder)
    load_backend(args.backend, args.device)
    for network in networks_of(model):
        network.set_params(backend=args.backend, device=args.device)
    return model, info


def named(model: Any, class_names: Sequence[str], feature_names: Sequence[str]) -> Any:
    """Return a copy of a model that predicts class names and has column names."""
    model = copy.copy(model)
    if isinstance(model, BaseEnsemble):
        model.estimators_ = [copy.copy(network) for network in model.estimators_]
    if class_names:
        _set_classes(model, _labels(class_names)[model.classes_])
    renamed: dict[int, Any] = {}  # Networks that share columns share the renamed ones.
    for network in networks_of(model):
        state = fitted_state(network)
        if state.columns is None:
            continue
        key = id(state.columns)
        renamed[key] = renamed.get(key) or state.columns.renamed(feature_names)
        network._state = replace(state, columns=renamed[key])
        for one in (network, model):
            one.columns_ = renamed[key]
            one.feature_names_in_ = np.asarray(feature_names, dtype=object)
    return model


def _set_classes(model: Any, classes: np.ndarray) -> None:
    for one in {id(one): one for one in (model, *networks_of(model))}.values():
        one.classes_ = classes


def _labels(class_names: Sequence[str]) -> np.ndarray:
    """Return class names as integers if these are in order, otherwise as text."""
    with contextlib.suppress(ValueError, OverflowError):
        numbers = np.asarray(list(map(int, class_names)), np.int64)
        is_same = list(map(str, numbers.tolist())) == list(class_names)
        if is_same and np.all(numbers[1:] > numbers[:-1]):
            return numbers
    return np.asarray(class_names)
