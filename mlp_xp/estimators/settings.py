"""An estimator's settings: what may be given, and what it means to the floors below."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, cast

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, Options, StrOptions

from mlp_xp.augmentation import AUGMENTATIONS, VIEWS, check
from mlp_xp.backends import BACKENDS, Backend, get_backend, namespace_backend
from mlp_xp.nn.hidden import LAYERS, Layer
from mlp_xp.nn.layers import ACTIVATIONS
from mlp_xp.nn.losses import Custom, Loss
from mlp_xp.nn.network import Network
from mlp_xp.optimizers import OPTIMIZERS, RULES, SGD, Optimizer
from mlp_xp.optimizers.schedules import SCHEDULES, Constant, InvScaling, Schedule
from mlp_xp.training.input_scaling import SCALINGS, Whiten
from mlp_xp.training.rows import Rows
from mlp_xp.training.trainer import Rules

__all__ = ["BF16", "LBFGS", "Settings"]

LBFGS = "lbfgs"
BF16 = "bf16"
ADAPTIVE = "adaptive"
_FOR_SGD = (ADAPTIVE, "invscaling")  # Scikit-learn's other solvers ignore them.
HOOKS = ("on_fit_begin", "on_step_end", "on_epoch_end", "on_fit_end")


class Settings(BaseEstimator):  # type: ignore[misc]
    """The settings that classifier and regressor share."""

    hidden_layer_sizes: Any
    activation: Any
    solver: str | Optimizer
    alpha: float
    batch_size: int | str
    learning_rate: str | Schedule
    learning_rate_init: float
    power_t: float
    max_iter: int
    shuffle: bool
    random_state: Any
    tol: float
    verbose: bool | int
    warm_start: bool
    momentum: float
    nesterovs_momentum: bool
    early_stopping: bool
    validation_fraction: float
    beta_1: float
    beta_2: float
    epsilon: float
    n_iter_no_change: float
    max_fun: int
    loss: str | Loss | Callable[..., Any]
    output_activation: str
    scoring: Any
    dropout: Any
    input_dropout: float
    normalization: Any
    residual: bool
    max_grad_norm: float | None
    ema_decay: float | None
    callbacks: Any
    backend: Any
    device: Any
    precision: str
    input_scaling: str | Whiten | None
    placement: Any
    max_time: float | None
    augmentation: Any
    tta: Any

    n_features_in_: int
    n_outputs_: int

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left"), *LAYERS],
        "activation": [StrOptions(set(ACTIVATIONS)), list, tuple, callable],
        "solver": [StrOptions({*OPTIMIZERS, LBFGS}), *RULES],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({*SCHEDULES, ADAPTIVE}), *SCHEDULES.values()],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [
            Interval(Integral, 1, None, closed="left"),
            Options(Real, {np.inf}),
        ],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "scoring": [str, callable, None],
        "dropout": [Interval(Real, 0, 1, closed="left"), list, tuple],
        "input_dropout": [Interval(Real, 0, 1, closed="left")],
        "normalization": [StrOptions({"layer", "batch"}), None],
        "residual": ["boolean"],
        "max_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
        "ema_decay": [Interval(Real, 0, 1, closed="left"), None],
        "callbacks": [list, tuple, None],
        "backend": [StrOptions({"auto", *BACKENDS}), None],
        "device": "no_validation",  # get_backend checks it
        "precision": [StrOptions({"auto", "float32", "float64", BF16})],
        "input_scaling": [StrOptions(set(SCALINGS)), Whiten, None],
        "placement": [StrOptions({"auto", "resident", "streamed"})],
        "max_time": [Interval(Real, 0, None, closed="neither"), None],
        "augmentation": [*AUGMENTATIONS, list, tuple, None],
        "tta": [*VIEWS, list, tuple, None],
    }

    def _store(self, given: dict[str, Any]) -> None:
        """Do what a constructor of scikit-learn does: keep each argument, unchanged.

        They are this class's own arguments: a subclass may take others.
        """
        for name, value in given.items():
            if name != "self":
                setattr(self, name, value)

    def _backend_for(self, X: Any) -> Backend:
        if self.backend is None and self.device is not None and namespace_backend(X) is None:
            return get_backend("numpy", self.device)
        return get_backend(X if self.backend is None else self.backend, self.device)

    def _training_backend(self, X: Any) -> Backend:
        """Give the backend that a fit computes on; its products may be in bfloat16."""
        backend = self._backend_for(X)
        return backend.with_bf16() if self.precision == BF16 else backend

    def _most_rows(self) -> int:
        """Give how many samples a batch has at the most."""
        return 200 if self.batch_size == "auto" else int(self.batch_size)

    def _resolve_precision(self, backend: Backend, X: Any) -> str:
        """Give the dtype of the parameters."""
        if self.precision == "float64" and not backend.has_float64:
            raise ValueError(
                f"precision is 'float64', which device {backend.device!s} of backend "
                f"{backend.name!r} does not have; use precision='float32'."
            )
        if self.precision != "auto":
            return self._parameter_dtype()
        # As scikit-learn does: what is neither single precision nor bytes is computed in double.
        singles = {"float32", "uint8"}
        if not isinstance(X.x if isinstance(X, Rows) else X, np.ndarray):
            singles |= {"float16", "bfloat16"}  # NumPy's float16 is double to scikit-learn.
        is_single = str(X.dtype).rpartition(".")[2] in singles
        return "float32" if is_single or not backend.has_float64 else "float64"

    def _parameter_dtype(self) -> str:
        """Give the dtype that the setting names; bfloat16 would lose small updates."""
        return "float32" if self.precision == BF16 else self.precision

    def _hidden_sizes(self) -> tuple[int | Layer, ...]:
        given = self.hidden_layer_sizes
        if isinstance(given, LAYERS):
            return (given,)
        if isinstance(given, list | tuple) and any(isinstance(entry, LAYERS) for entry in given):
            plain = [entry for entry in given if not isinstance(entry, LAYERS)]
            numbers = iter(self._widths(plain))
            return tuple(e if isinstance(e, LAYERS) else next(numbers) for e in given)
        return self._widths(given)

    def _widths(self, given: Any) -> tuple[int, ...]:
        sizes = np.atleast_1d(np.asarray(given)).tolist()
        if not all(isinstance(size, int) for size in sizes):
            raise ValueError(f"hidden_layer_sizes must be integers, got {sizes}.")
        if any(size < 1 for size in sizes):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
        return tuple(np.asarray(sizes, dtype=np.int64).tolist())

    def _inputs(self) -> int:
        """Give how many numbers of a sample the network sees."""
        how = self.input_scaling
        return how.inputs(self.n_features_in_) if isinstance(how, Whiten) else self.n_features_in_

    def _make_network(self, sizes: tuple[int | Layer, ...]) -> Network:
        return Network(
            (self._inputs(), *sizes, self.n_outputs_),
            _hashable(self.activation),
            self.normalization,
            _hashable(self.dropout),
            self.input_dropout,
            bool(self.residual),
        )

    def _make_loss(self, named: dict[str, Loss], output: str) -> Loss:
        """Give the loss: one of those with a name, an object, or a function of the contract.

        ``output`` is the output activation, which a function is given the results of.
        """
        if isinstance(self.loss, str):
            return named[self.loss]
        # A class that was not called is a mistake that `Custom` would hide.
        if isinstance(self.loss, type):
            raise TypeError(f"loss is the class {self.loss.__name__}: give an object, with ().")
        return self.loss if isinstance(self.loss, Loss) else Custom(self.loss, output)

    def _make_solver(self) -> Optimizer:
        if not isinstance(self.solver, str):
            return self.solver
        if self.solver == "sgd":
            return SGD(self.momentum, self.nesterovs_momentum)
        if self.solver == LBFGS:  # SciPy's; a rule that keeps nothing stands in its place.
            return SGD(momentum=0.0)
        rule: Any = OPTIMIZERS[self.solver]
        is_adam = self.solver in ("adam", "adamw")
        return cast(Optimizer, rule(self.beta_1, self.beta_2, self.epsilon) if is_adam else rule())

    def _stops_early(self) -> bool:
        """Whether held-out samples end the fit; "lbfgs" ignores this, as in scikit-learn."""
        return bool(self.early_stopping) and self.solver != LBFGS

    def _schedule_name(self) -> str | Schedule:
        """Return `learning_rate`, or "constant" where the solver ignores it."""
        is_sgd = self.solver == "sgd" or isinstance(self.solver, SGD)
        ignored = isinstance(self.learning_rate, str) and self.learning_rate in _FOR_SGD
        return "constant" if ignored and not is_sgd else self.learning_rate

    def _is_adaptive(self) -> bool:
        """Whether the training loop lowers the rate at a plateau."""
        return self._schedule_name() == ADAPTIVE

    def _make_schedule(self) -> Schedule:
        name = self._schedule_name()
        if not isinstance(name, str):
            return name
        if name == ADAPTIVE:
            return Constant()
        return InvScaling(self.power_t) if name == "invscaling" else SCHEDULES[name]()

    def _has_no_horizon(self) -> bool:
        """Tell whether `max_iter` is only the most that is allowed: no schedule is made for it."""
        schedule = self._make_schedule()
        return isinstance(schedule, Constant | InvScaling)

    def _make_rules(self, network: Network, loss: Loss) -> Rules:
        return Rules(
            network,
            loss,
            self._make_solver(),
            self._make_schedule(),
            learning_rate=self.learning_rate_init,
            alpha=self.alpha,
            max_grad_norm=self.max_grad_norm,
            ema_decay=self.ema_decay,
            augmentation=self._pictures("augmentation", self.augmentation, AUGMENTATIONS),
        )

    def _pictures(self, name: str, given: Any, kinds: tuple[type, ...]) -> tuple[Any, ...]:
        """Give what changes pictures: none, one object or several, that fit the features."""
        if given is None:
            return ()
        chosen = tuple(given) if isinstance(given, list | tuple) else (given,)
        check(chosen, self.n_features_in_, kinds, name=name)
        return chosen

    def _check_settings(self) -> None:
        """Refuse what cannot be had together, and callbacks that are none."""
        for callback in self.callbacks or ():
            is_class = isinstance(callback, type)
            if is_class or not any(hasattr(callback, hook) for hook in HOOKS):
                what = "is a class: give an object, with ()" if is_class else "has none of the "
                raise TypeError(
                    f"callbacks has {callback!r}, which {what}"
                    + ("." if is_class else f"methods {', '.join(HOOKS)}.")
                    + " See mlp_xp.callbacks.Callback."
                )
        if self.solver != LBFGS:
            return
        if self.precision == BF16:
            self._refuse_with_lbfgs("precision", "float32", "exact gradients for its line search")
        for name, off in (
            ("input_dropout", 0),
            ("max_grad_norm", None),
            ("ema_decay", None),
            ("augmentation", None),
        ):
            if getattr(self, name) != off:
                self._refuse_with_lbfgs(name, off)
        if np.any(np.asarray(self.dropout) > 0):
            self._refuse_with_lbfgs("dropout", 0)
        if self.normalization == "batch":
            self._refuse_with_lbfgs("normalization", None)

    def _refuse_with_lbfgs(
        self, name: str, off: Any, needed: str = "a loss that depends on the weights alone"
    ) -> None:
        raise ValueError(
            f"{name} is {getattr(self, name)!r}, and solver 'lbfgs' needs {needed}: set "
            f"{name}={off!r}, or use e.g. solver='adam'."
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.array_api_support = True
        return tags


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
