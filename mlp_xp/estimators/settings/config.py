"""Resolve an estimator's parameters into a frozen `TrainingConfig`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache, lru_cache
from operator import is_
from typing import Any, cast

import numpy as np

from mlp_xp._utils.dataclass import dataclass
from mlp_xp.augmentation import Augmentation, check
from mlp_xp.backends import LOW_PRECISIONS, Backend, get_backend, namespace_backend
from mlp_xp.estimators.settings.monotone import check_monotone_predictions
from mlp_xp.estimators.targets import Targets
from mlp_xp.nn.blocks import NUMERIC_EMBEDDINGS, TableInputs
from mlp_xp.nn.hidden import Layer
from mlp_xp.nn.losses import EachMember
from mlp_xp.nn.network import Network
from mlp_xp.optimizers import OPTIMIZERS, SGD, Optimizer
from mlp_xp.optimizers.schedules import SCHEDULES, Constant, InvScaling, Schedule
from mlp_xp.training.data.input_scaling import Whiten
from mlp_xp.training.data.rows import View
from mlp_xp.training.loop.loop_settings import LoopSettings
from mlp_xp.training.step.step_settings import Rules

LBFGS = "lbfgs"
ADAPTIVE = "adaptive"
REFINEMENT = "refinement"
# The parameters that ask for a calibration after training; each one evaluates held-out samples.
_CALIBRATIONS = ("calibration", "prediction_intervals", "prediction_sets")
# The methods of `mlp_xp.callbacks.Callback`; an object needs only one of them.
_HOOKS = (
    "on_fit_begin",
    "on_fit_resume",
    "on_progress",
    "on_step_end",
    "on_epoch_end",
    "on_fit_end",
)
# Networks are cached, since resolving the settings takes as long as a small epoch.
known_network = lru_cache(maxsize=64, typed=True)(Network)
_OF_PYTHON = {float, int, bool, str, type(None)}  # Values of these types need no conversion.
# The solver "lbfgs" requires these values, since its loss must depend on the weights alone.
_OF_WEIGHTS_ALONE = {"input_dropout": 0, "max_grad_norm": None, "ema_decay": None}
_OF_WEIGHTS_ALONE |= {"augmentation": None, "dropout": 0, "normalization": None}
# As in scikit-learn, solvers other than "sgd" ignore these schedules.
_FOR_SGD = (ADAPTIVE, "invscaling")


@dataclass(frozen=True)
class TrainingConfig:
    """The settings of a training run; if ``dtype`` is None, the data determine the dtype."""

    rules: Rules
    loop: LoopSettings
    output: str
    input_scaling: str | Whiten | None
    target_scaling: str | None
    dtype: str | None


def resolve_config(
    params: Mapping[str, Any],
    n_features: int,
    targets: Targets,
    layers: tuple[int | Layer, ...] | None = None,
    inputs: TableInputs | None = None,
) -> TrainingConfig:
    """Return the training configuration that an estimator's parameters define.

    If the hidden layers of an existing network are given as ``layers``, they replace
    ``hidden_layer_sizes``. ``inputs`` is the block before the first layer for a table's encoded
    columns. Raise an error for parameters that contradict each other, the data or the targets.
    """
    # Raise an error for an invalid `tta` before training.
    resolve_augmentation("tta", params["tta"], n_features)
    loss, n_members = targets.resolve_loss(params), int(params["n_members"])
    if layers is None:
        layers = resolve_layers(params["hidden_layer_sizes"])
    activation, optimizer = _hashable(params["activation"]), resolve_optimizer(params)
    hashed = {"hidden_layer_sizes": layers, "activation": activation}
    hashed |= {"loss": loss, "solver": optimizer}
    for name, value in hashed.items():
        _check_hashable(name, value)
    if n_members > 1:
        loss = EachMember(loss, n_members)
    scaling = params["input_scaling"]
    n_inputs = scaling.inputs(n_features) if isinstance(scaling, Whiten) else n_features
    n_inputs = n_inputs if inputs is None else inputs.columns
    inputs = _resolve_inputs(params, n_inputs, inputs)
    network = known_network(
        (n_inputs, *layers, targets.n_outputs * loss.outputs_per_target),
        activation,
        params["normalization"],
        _hashable(params["dropout"]),
        _plain_numbers(params["input_dropout"]),
        bool(params["residual"]),
        inputs,
        bool(params["parametric_activation"]),
        params["parametrization"],
        n_members,
    )
    if network.is_monotone:
        check_monotone_predictions(params, targets, loss)
    dropout = _named_schedule(params["dropout_schedule"], params)
    rules = Rules(
        network,
        loss,
        optimizer,
        _resolve_schedule(params),
        learning_rate=params["learning_rate_init"],
        alpha=params["alpha"],
        max_grad_norm=params["max_grad_norm"],
        ema_decay=params["ema_decay"],
        augmentation=resolve_augmentation("augmentation", params["augmentation"], n_features),
        dropout_schedule=dropout if network.n_keys else None,
        weight_decay_schedule=_named_schedule(params["weight_decay_schedule"], params),
    )
    dtype = None if params["precision"] == "auto" else params["precision"]
    if dtype in LOW_PRECISIONS:
        dtype = "float32"  # Weights in lower precision would lose small updates.
    scalings = scaling, params.get("target_scaling")
    return TrainingConfig(
        _plain_numbers(rules), resolve_loop(params), loss.output, *scalings, dtype
    )


def _resolve_inputs(
    params: Mapping[str, Any], n_inputs: int, inputs: TableInputs | None
) -> TableInputs | None:
    """Return the block before the first layer, or None."""
    numeric, scale = params["numeric_embedding"], bool(params["learn_input_scale"])
    if isinstance(numeric, str):
        numeric = NUMERIC_EMBEDDINGS[numeric]()
    given = TableInputs(n_inputs) if inputs is None else inputs
    if numeric is None and not scale and not given.categories and not given.directions:
        return None
    if given.categories:
        for name in ("augmentation", "tta"):
            if params[name] is not None:
                raise ValueError(
                    f"{name} must be None if X has embedded categories, got {params[name]!r}: "
                    "images have no such columns."
                )
        if params["precision"] in ("bf16", "float16"):
            raise ValueError(
                f"precision={params['precision']!r} cannot represent the codes of embedded "
                "categories exactly: set precision='tf32' or 'float32'."
            )
        given = replace(given, embedding_dim=int(params["embedding_dim"]))
    return replace(given, numeric=numeric, scale=scale)


def resolve_loop(params: Mapping[str, Any]) -> LoopSettings:
    """Return the settings of the fit loop."""
    is_lbfgs = params["solver"] == LBFGS
    settings = LoopSettings(
        max_iter=params["max_iter"],
        batch_size=resolve_batch_size(params["batch_size"]),
        shuffle=params["shuffle"],
        tol=params["tol"],
        patience=params["n_iter_no_change"],
        # As in scikit-learn, "lbfgs" ignores early stopping.
        stops_by_score=bool(params["early_stopping"]) and not is_lbfgs,
        is_adaptive=_schedule_name(params) == ADAPTIVE,
        # These schedules do not depend on max_iter, which is therefore only an upper limit.
        has_open_end=isinstance(_resolve_schedule(params), Constant | InvScaling),
        max_time=params["max_time"],
        max_fun=params["max_fun"] if is_lbfgs else None,
        keeps_step=params["warm_start"],
        n_calibrations=sum(params.get(name) is not None for name in _CALIBRATIONS),
        restart_factor=params["restart_factor"],
        verbose=params["verbose"],
    )
    return cast(LoopSettings, _plain_numbers(settings))


def check_params(params: Mapping[str, Any]) -> None:
    """Raise an error for incompatible parameters and for invalid callbacks."""
    for callback in params["callbacks"] or ():
        _refuse_class("callbacks", callback)
        if not any(hasattr(callback, hook) for hook in _HOOKS):
            raise TypeError(
                f"callbacks has {callback!r}, which has none of the methods {', '.join(_HOOKS)}. "
                "See mlp_xp.callbacks.Callback."
            )
    if params["n_members"] > 1 and params["distributed"] is not None:
        _check_members(params)
    if params["solver"] != LBFGS:
        return

    def refuse(name: str, off: Any, needed: str) -> None:
        raise ValueError(
            f"{name} is {params[name]!r}, but solver 'lbfgs' needs {needed}: set {name}={off!r}, "
            "or use e.g. solver='adam'."
        )

    if params["precision"] in LOW_PRECISIONS:
        refuse("precision", "float32", "exact gradients for its line search")
    wrong = {
        "dropout": np.any(np.asarray(params["dropout"]) > 0),
        "normalization": params["normalization"] == "batch",
    }
    for name, off in _OF_WEIGHTS_ALONE.items():
        if wrong.get(name, params[name] != off):
            refuse(name, off, "a loss that depends on the weights alone")


def _check_members(params: Mapping[str, Any]) -> None:
    """Raise ValueError for settings that `n_members` does not support on several processes."""
    is_fixed = getattr(params["distributed"], "deterministic", False)
    drops = bool(np.any(np.asarray(params["dropout"]) > 0))
    for name, need, is_wrong in (("dropout", "0", drops), ("deterministic", "False", is_fixed)):
        if is_wrong:
            raise ValueError(
                f"`{name}` must be {need} with n_members={params['n_members']} on several "
                "processes: change it, or set distributed=None."
            )


def resolve_layers(given: Any) -> tuple[int | Layer, ...]:
    """Return the hidden layers; raise ValueError unless each is a `Layer` or a width above 0."""
    entries = given if isinstance(given, list | tuple) else (given,)
    for entry in entries:
        _refuse_class("hidden_layer_sizes", entry)
    are_objects = [isinstance(entry, Layer) for entry in entries]
    if not any(are_objects):
        return _widths(given)
    pairs = list(zip(entries, are_objects, strict=True))
    numbers = iter(_widths([entry for entry, is_object in pairs if not is_object]))
    return tuple(entry if is_object else next(numbers) for entry, is_object in pairs)


def _refuse_class(name: str, given: Any) -> None:
    """Raise TypeError if a class is given instead of an instance."""
    if isinstance(given, type):
        raise TypeError(
            f"{name} has the class {given.__name__}: pass an instance, {given.__name__}(...)."
        )


def _widths(given: Any) -> tuple[int, ...]:
    sizes = np.atleast_1d(np.asarray(given)).tolist()
    if not all(isinstance(size, int) for size in sizes):
        raise ValueError(f"hidden_layer_sizes must be integers, got {sizes}.")
    if any(size < 1 for size in sizes):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
    return tuple(np.asarray(sizes, dtype=np.int64).tolist())


def resolve_batch_size(given: int | str) -> int:
    """Return the maximum number of samples per batch."""
    return 200 if given == "auto" else int(given)


def resolve_optimizer(params: Mapping[str, Any]) -> Optimizer:
    """Return the optimizer that `solver` specifies by name or as an object."""
    solver = params["solver"]
    if not isinstance(solver, str):
        _refuse_class("solver", solver)
        return cast(Optimizer, solver)
    if solver == "sgd":
        return SGD(params["momentum"], params["nesterovs_momentum"])
    if solver == LBFGS:  # SciPy updates the weights; SGD is an unused placeholder without state.
        return SGD(momentum=0.0)
    rule: Any = OPTIMIZERS[solver]
    is_adam = solver in ("adam", "adamw")
    settings = (params["beta_1"], params["beta_2"], params["epsilon"]) if is_adam else ()
    return cast(Optimizer, rule(*settings))


def resolve_augmentation(name: str, given: Any, n_features: int) -> tuple[Augmentation, ...]:
    """Return a parameter's augmentations; raise an error if they do not fit X's features."""
    if given is None:
        return ()
    chosen = tuple(given) if isinstance(given, list | tuple) else (given,)
    check(chosen, n_features, name=name)
    return cast("tuple[Augmentation, ...]", _plain_numbers(chosen))


def _schedule_name(params: Mapping[str, Any]) -> str | Schedule:
    """Return `learning_rate`, or "constant" if the solver ignores it."""
    name, solver = params["learning_rate"], params["solver"]
    rule = OPTIMIZERS.get(solver, object) if isinstance(solver, str) else type(solver)
    is_ignored = isinstance(name, str) and name in _FOR_SGD and not issubclass(rule, SGD)
    return "constant" if is_ignored else name


def _resolve_schedule(params: Mapping[str, Any]) -> Schedule:
    name = _schedule_name(params)
    return Constant() if name == ADAPTIVE else _named_schedule(name, params)


def _named_schedule(given: Any, params: Mapping[str, Any]) -> Any:
    """Return the schedule of a name; other values are returned unchanged."""
    if not isinstance(given, str):
        return given
    return InvScaling(params["power_t"]) if given == "invscaling" else SCHEDULES[given]()


def _check_hashable(name: str, value: Any) -> None:
    """Raise TypeError unless a compiled step can be cached for a setting."""
    try:
        hash(value)
    except TypeError as error:
        raise TypeError(
            f"`{name}` must be hashable, got {value!r} ({error}): make its class a frozen "
            "dataclass, @dataclass(frozen=True), whose fields are numbers, text or tuples."
        ) from None


def _hashable(value: Any) -> Any:
    return _plain_numbers(tuple(value) if isinstance(value, list) else value)


@cache
def _arguments(kind: Any) -> tuple[str, ...]:
    """Return the names of a dataclass's arguments; () for other classes."""
    return tuple(field.name for field in fields(kind) if field.init) if is_dataclass(kind) else ()


def _plain_numbers(settings: Any) -> Any:
    """Return settings with Python numbers instead of NumPy's, even in tuples and dataclasses.

    NumPy's numbers have the same values and hashes as Python's, but they may change the precision
    of results, and small NumPy integers overflow.
    """
    kind = type(settings)
    if kind in _OF_PYTHON:
        return settings
    if isinstance(settings, np.generic):
        return settings.item()
    if kind is tuple:
        plain = tuple(map(_plain_numbers, settings))
        return settings if all(map(is_, plain, settings)) else plain
    changed = {}
    for name in _arguments(settings.__class__):
        value = getattr(settings, name)
        plain = _plain_numbers(value)
        if plain is not value:
            changed[name] = plain
    return replace(settings, **changed) if changed else settings


# --- where the data are ---------------------------------------------------------------------------


def choose_backend(params: Mapping[str, Any], X: Any) -> Backend:
    """Return the backend named by `backend` and `device`, or the backend of the data."""
    backend, device = params["backend"], params["device"]
    X = X.x if isinstance(X, View) else X
    if backend is None and device is not None and namespace_backend(X) is None:
        return get_backend("numpy", device)
    return get_backend(X if backend is None else backend, device)


def training_backend(params: Mapping[str, Any], X: Any) -> Backend:
    """Return the backend of a fit, with matrix products in the requested precision."""
    return choose_backend(params, X).with_precision(params["precision"])


def resolve_dtype(config: TrainingConfig, backend: Backend, X: Any) -> str:
    """Return the weights' dtype for training on X with a backend."""
    if config.dtype == "float64" and not backend.has_float64:
        raise ValueError(
            f"precision='float64' is not supported by device {backend.device!s} of backend "
            f"{backend.name!r}: use precision='float32'."
        )
    if config.dtype is not None:
        return config.dtype
    # As in scikit-learn, train in single precision only if X is in single precision or uint8.
    if isinstance(X.x if isinstance(X, View) else X, np.ndarray):
        # Scikit-learn converts NumPy's float16 to double. Compare dtypes, since comparing their
        # names is slower.
        is_single = X.dtype in (np.float32, np.uint8)
    else:
        singles = "float32", "uint8", "float16", "bfloat16"
        is_single = str(X.dtype).rpartition(".")[2] in singles
    return "float32" if is_single or not backend.has_float64 else "float64"
