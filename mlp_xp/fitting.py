"""How an estimator trains: from its settings and checked data to learned arrays."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from mlp_xp.backends import Backend, get_backend, namespace_backend, to_numpy
from mlp_xp.batches import Resident, Streamed, place, plan_epoch
from mlp_xp.layers import Dense
from mlp_xp.losses import BinaryCrossEntropy, Loss, SoftmaxCrossEntropy
from mlp_xp.network import Network, Params, init_params
from mlp_xp.optimizers import SGD, Adam, AdamW, Optimizer
from mlp_xp.scaling import standardization
from mlp_xp.schedules import SCHEDULES, InvScaling, Schedule
from mlp_xp.step import Scaling
from mlp_xp.training import Plateau, Progress, Record, Trainer
from mlp_xp.tree import map_leaves
from mlp_xp.validation import check_labels, check_weights, check_x

__all__ = ["Training"]

AfterStep = Callable[[int, int], bool]


class Training(BaseEstimator):  # type: ignore[misc]
    """The training half of an estimator; see `mlp_xp.estimators` for the settings.

    What is learned lies in ``coefs_`` and ``intercepts_``, where the caller's data are, and every
    prediction starts from there. The trainer, with its compiled step and the optimizer's slots, is
    kept for the next call of ``partial_fit``; a pickle holds its slots in its stead.
    """

    # Set by the estimator's __init__ and by what follows.
    n_features_in_: int
    _trainer: Trainer | None
    _progress: Progress | None

    def _epochs(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        with_accuracy: bool = False,
        after_step: AfterStep | None = None,
    ) -> Iterator[Record]:
        """Fit from the start, and give a record after each epoch."""
        with self._unchanged_by_errors():
            X = check_x(self, X, reset=True)
            labels = check_labels(y, X.shape[0])
            weights = check_weights(sample_weight, X.shape[0])
            classes, codes = np.unique(labels, return_inverse=True)
            self._begin(X, classes)
            trainer = self._trainer_for(X, with_accuracy=with_accuracy)
            data = self._place(trainer, X, codes.astype(np.int32))
        plateau = Plateau(self.tol, self.n_iter_no_change)
        stopped = False

        def watch(done: int, n_steps: int) -> bool:
            nonlocal stopped
            stopped = after_step is not None and after_step(done, n_steps)
            return stopped

        try:
            for _ in range(self.max_iter):
                record = self._train_epoch(
                    trainer, data, weights, n_epochs=self.max_iter, after_step=watch
                )
                yield record
                if stopped or not np.isfinite(record.loss) or plateau.reached(record.loss):
                    break
        finally:
            self._export(X)

    @contextlib.contextmanager
    def _unchanged_by_errors(self) -> Iterator[None]:
        """Take back whatever was set if preparing a fit fails: bad input changes nothing."""
        before = dict(self.__dict__)
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _begin(self, X: Any, classes: np.ndarray) -> None:
        """Draw the weights of a new network and forget the old one."""
        sizes = np.atleast_1d(np.asarray(self.hidden_layer_sizes, dtype=np.int64)).tolist()
        if any(size < 1 for size in sizes):
            raise ValueError(
                f"hidden_layer_sizes must be at least 1 each, got {self.hidden_layer_sizes}."
            )
        backend = self._backend_for(X)
        self._dtype = self._resolve_precision(backend, X)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self._seed = int(self.random_state) if isinstance(self.random_state, Integral) else seed
        self.classes_ = classes
        self.n_outputs_ = 1 if len(classes) == 2 else len(classes)
        self.n_layers_ = len(sizes) + 2
        self._sizes = tuple(sizes)
        self.out_activation_ = "logistic" if self.n_outputs_ == 1 < len(classes) else "softmax"
        self._set_params(init_params(self._network, self._seed))
        self._scaling: Scaling | None = None
        if self.input_scaling == "standardize":
            self._scaling = standardization(backend, X, self._dtype)
        self._trainer: Trainer | None = None
        self._progress = None
        self.loss_curve_: list[float] = []
        self.best_loss_ = np.inf
        self.n_iter_ = 0
        self.t_ = 0

    def _trainer_for(self, X: Any, *, with_accuracy: bool = False) -> Trainer:
        """Give the trainer that goes on from `coefs_`: the last one, or a new one."""
        backend = self._backend_for(X)
        params = self._params
        trainer = self._trainer
        if trainer is not None and trainer.backend == backend:
            # Where the estimator's arrays are the trainer's own there is nothing to bring back; but
            # a compiled step takes over the memory of its state, which must then be a copy.
            own = all(map(_same, params, trainer.state.params))
            if not own or backend.donates:
                trainer.set_params(params)
            return trainer
        scaling = None
        if self._scaling is not None:
            scaling = map_leaves(lambda leaf: backend.put(leaf, self._dtype), self._scaling)
        new = Trainer(
            backend,
            self._network,
            self._loss,
            self._make_solver(),
            self._make_schedule(),
            params=params,
            dtype=self._dtype,
            learning_rate=self.learning_rate_init,
            alpha=self.alpha,
            scaling=scaling,
            with_accuracy=with_accuracy,
        )
        progress = self._progress if trainer is None else trainer.progress()
        if progress is not None:
            new.resume(progress)
        self._trainer = new
        return new

    def _place(self, trainer: Trainer, X: Any, codes: np.ndarray) -> Resident | Streamed:
        # The logistic output is trained on 0 and 1 as numbers, in a column.
        binary = self.out_activation_ == "logistic"
        targets = codes[:, None].astype(self._dtype) if binary else codes
        return place(trainer.backend, X, targets, self._dtype, self.placement)

    def _train_epoch(
        self,
        trainer: Trainer,
        data: Resident | Streamed,
        weights: np.ndarray | None,
        *,
        n_epochs: int,
        after_step: AfterStep | None = None,
    ) -> Record:
        n_samples = data.y.shape[0]
        batch_size = 200 if self.batch_size == "auto" else self.batch_size
        if batch_size > n_samples and self.batch_size != "auto":
            warnings.warn(
                f"Got `batch_size` {batch_size} larger than the sample size {n_samples}. It is "
                "going to be clipped.",
                stacklevel=2,
            )
        plan = plan_epoch(
            n_samples,
            batch_size,
            seed=self._seed if self.shuffle else None,
            epoch=trainer.n_epochs,
            weights=weights,
            pad=trainer.backend.fixed_shapes,
        )
        record = trainer.run_epoch(data, plan, n_epochs=n_epochs, after_step=after_step)
        self.loss_ = record.loss
        self.loss_curve_.append(record.loss)
        self.best_loss_ = min(self.best_loss_, record.loss)
        self.n_iter_ += 1
        self.t_ += record.n_samples
        return record

    def _check_finite(self) -> None:
        if not np.isfinite(self.loss_):
            raise ValueError(
                f"The loss is {self.loss_} after epoch {self.n_iter_}: solver produced non-finite "
                "parameter weights. Try a smaller learning_rate_init than "
                f"{self.learning_rate_init}, or input_scaling='standardize'."
            )

    # --- what the settings mean ----------------------------------------------------------------

    def _backend_for(self, X: Any) -> Backend:
        if self.backend is None and self.device is not None and namespace_backend(X) is None:
            return get_backend("numpy", self.device)
        return get_backend(X if self.backend is None else self.backend, self.device)

    def _resolve_precision(self, backend: Backend, X: Any) -> str:
        if self.precision == "float64" and not backend.has_float64:
            raise ValueError(
                f"precision is 'float64', which device {backend.device!s} of backend "
                f"{backend.name!r} does not have; use precision='float32'."
            )
        if self.precision != "auto":
            return self.precision
        # As scikit-learn does: what is neither single precision nor bytes is computed in double.
        is_single = str(X.dtype).rpartition(".")[2] in ("float32", "float16", "bfloat16", "uint8")
        return "float32" if is_single or not backend.has_float64 else "float64"

    def _make_solver(self) -> Optimizer:
        if not isinstance(self.solver, str):
            return self.solver
        if self.solver == "sgd":
            return SGD(self.momentum, self.nesterovs_momentum)
        rule = {"adam": Adam, "adamw": AdamW}[self.solver]
        return rule(self.beta_1, self.beta_2, self.epsilon)

    def _make_schedule(self) -> Schedule:
        if not isinstance(self.learning_rate, str):
            return self.learning_rate
        if self.learning_rate == "invscaling":
            return InvScaling(self.power_t)
        return SCHEDULES[self.learning_rate]()

    @property
    def _network(self) -> Network:
        return Network((self.n_features_in_, *self._sizes, self.n_outputs_), self.activation)

    @property
    def _loss(self) -> Loss:
        is_binary = self.out_activation_ == "logistic"
        return BinaryCrossEntropy() if is_binary else SoftmaxCrossEntropy()

    # --- the learned arrays --------------------------------------------------------------------

    @property
    def _params(self) -> Params:
        return tuple(map(Dense, self.coefs_, self.intercepts_))

    def _set_params(self, params: Params) -> None:
        self.coefs_ = [layer.W for layer in params]
        self.intercepts_ = [layer.b for layer in params]

    def _export(self, X: Any) -> None:
        """Show what was learned where the caller's data are."""
        assert self._trainer is not None
        caller = get_backend(X)
        self._set_params(map_leaves(caller.put, self._trainer.state.params))

    def __getstate__(self) -> dict[str, Any]:
        """Give what is pickled: host arrays only, so that it opens where a library is missing."""
        state: dict[str, Any] = dict(super().__getstate__())
        trainer = state.pop("_trainer", None)
        if "coefs_" in state:
            for name in ("coefs_", "intercepts_"):
                state[name] = [np.array(to_numpy(array)) for array in state[name]]
            if state["_scaling"] is not None:
                state["_scaling"] = map_leaves(to_numpy, state["_scaling"])
            if trainer is not None:
                state["_progress"] = trainer.progress()
            state["_trainer"] = None
        return state


def _same(layer: Dense, other: Dense) -> bool:
    return layer.W is other.W and layer.b is other.b
