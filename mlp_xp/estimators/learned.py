"""What an estimator has learned: where it lies, how it is pickled, how it moves."""

from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from mlp_xp._utils.tree import map_leaves
from mlp_xp.backends import get_backend, to_numpy
from mlp_xp.backends.kernels import Scaling, Whitening
from mlp_xp.estimators.settings import Settings
from mlp_xp.nn.layers import BatchStats, Dense, Norm
from mlp_xp.nn.losses import Loss, SoftmaxCrossEntropy, SquaredError, Through
from mlp_xp.nn.network import Network, Params, denses, norms, with_layers
from mlp_xp.training.input_scaling import Whiten
from mlp_xp.training.trainer import Progress, Record, Trainer

__all__ = ["ARRAYS", "Learned"]

# The attributes that hold learned arrays; each is a list, of arrays or of NamedTuples of arrays.
ARRAYS = ("coefs_", "intercepts_", "norms_", "moments_")


class Learned(Settings):
    """What is learned, as the caller sees it.

    It lies in ``coefs_`` and ``intercepts_`` (and ``norms_`` and ``moments_`` where there is a
    normalisation), where the caller's data are, and every prediction starts from there. The
    trainer, with its compiled step and the optimizer's slots, is kept for the next call; a pickle
    holds its progress in its stead.
    """

    coefs_: list[Any]
    intercepts_: list[Any]
    norms_: list[Norm]  # Both only where there is a normalization.
    moments_: list[BatchStats]
    loss_curve_: list[float]
    history_: list[Record]
    n_iter_: int
    t_: int
    n_layers_: int
    out_activation_: str
    loss_: float
    best_loss_: float | None
    validation_scores_: list[float] | None
    validation_loss_curve_: list[float] | None
    best_validation_score_: float | None
    _network: Network
    _loss: Loss
    _scaling: Scaling | Whitening | None
    _scaled_by: str | Whiten | None
    _trainer: Trainer | None
    _progress: Progress | None
    _dtype: str
    _seed: int
    _is_sparse_y = False  # Where it is, so is what a classifier predicts.
    _finite: tuple[Any, ...] = ()  # What was learned, where it is known to be finite.

    def _resolve_loss(self) -> Loss:
        raise NotImplementedError

    def _learn_outputs(self) -> None:
        """Set what targets would have decided, from assigned weights and ``classes_``."""
        raise NotImplementedError

    @property
    def _params(self) -> Params:
        for name in ("coefs_", "intercepts_"):
            for i, array in enumerate(getattr(self, name)):
                if array is None:
                    raise ValueError(
                        f"{name}[{i}] is None, and must be an array; for no effect, one of zeros."
                    )
        layers = list(map(Dense, self.coefs_, self.intercepts_))
        if self._network.is_flat:  # Nothing to walk through.
            return tuple(layers)
        return with_layers(self._network, layers, self._norms)

    @property
    def _norms(self) -> list[Norm]:
        return getattr(self, "norms_", [])

    @property
    def _batch_stats(self) -> tuple[BatchStats, ...]:
        return tuple(getattr(self, "moments_", ()))

    def _set_learned(self, params: Params, batch_stats: tuple[BatchStats, ...]) -> None:
        layers = denses(params)
        self.coefs_ = [layer.W for layer in layers]
        self.intercepts_ = [layer.b for layer in layers]
        self._set_norms(norms(params), list(batch_stats))
        self._finite = self._learned_arrays()  # A training sees to it.

    def _learned_arrays(self) -> tuple[Any, ...]:
        """Return what was learned: arrays, and NamedTuples of arrays."""
        return tuple(entry for name in ARRAYS for entry in getattr(self, name, ()))

    def _set_norms(self, norms: list[Norm], batch_stats: list[BatchStats]) -> None:
        for name, value in (("norms_", norms), ("moments_", batch_stats)):
            self.__dict__.pop(name, None)
            if value:
                setattr(self, name, value)

    def _check_fitted(self) -> None:
        """Check that there are weights, and take in what was assigned since the fit."""
        if not hasattr(self, "coefs_"):
            check_is_fitted(self)
        if "_network" not in vars(self):
            self._adopt()
        activation = (
            tuple(self.activation) if isinstance(self.activation, list) else self.activation
        )
        if activation != self._network.activation:
            self._network = replace(self._network, activation=activation)

    def _adopt(self) -> None:
        """Take over weights that were assigned to an estimator that was never fitted."""
        sizes = [self.coefs_[0].shape[0], *(b.shape[0] for b in self.intercepts_)]
        for i, W in enumerate(self.coefs_):
            if tuple(W.shape) != tuple(sizes[i : i + 2]):
                raise ValueError(
                    f"coefs_[{i}] is of shape {tuple(W.shape)}, and the intercepts_ need one of "
                    f"shape {tuple(sizes[i : i + 2])}."
                )
        for name in ("input_scaling", "normalization"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, which coefs_ and intercepts_ that were "
                    f"assigned do not have: fit, or set {name}=None."
                )
        self.n_features_in_, self.n_outputs_, self.n_layers_ = sizes[0], sizes[-1], len(sizes)
        is_single = all(str(W.dtype).endswith("float32") for W in self.coefs_)
        self._dtype = "float32" if is_single else "float64"
        self._scaling = self._scaled_by = None
        self._seed = self.random_state if isinstance(self.random_state, int) else 0
        self._learn_outputs()
        output = self.out_activation_
        self._loss = self._resolve_loss()
        self.out_activation_ = output
        self._network = self._make_network(tuple(sizes[1:-1]))
        self.__dict__.update(self._nothing_done() | vars(self))

    def _nothing_done(self) -> dict[str, Any]:
        """Return what is known of a training before its first step."""
        curves = ("validation_scores_", "validation_loss_curve_", "best_validation_score_")
        return {
            "_trainer": None,
            "_progress": None,
            "loss_curve_": [],
            "history_": [],
            "best_loss_": np.float64(np.inf),
            **dict.fromkeys(curves),
            "n_iter_": 0,
            "t_": 0,
        }

    def _activating_loss(self) -> Loss:
        """Return what activates outputs: the loss, unless `out_activation_` was assigned since."""
        output = self.out_activation_
        if getattr(self._loss, "output", output) == output:
            return self._loss
        return SoftmaxCrossEntropy() if output == "softmax" else Through(SquaredError(), output)

    def __getstate__(self) -> dict[str, Any]:
        """Give what is pickled: host arrays only, so that it opens where a library is missing."""
        state: dict[str, Any] = dict(super().__getstate__())
        trainer = state.pop("_trainer", None)
        state.pop("_finite", None)
        if "coefs_" in state:
            for name in filter(state.__contains__, ARRAYS):
                state[name] = [map_leaves(_host_copy, entry) for entry in state[name]]
            if state.get("_scaling") is not None:
                state["_scaling"] = map_leaves(to_numpy, state["_scaling"])
            if trainer is not None:
                state["_progress"] = trainer.progress()
            state["_trainer"] = None
        return state

    def to(self, backend: str, device: Any = None) -> Any:
        """Give a copy of the estimator whose arrays are elsewhere, and which computes there.

        Parameters
        ----------
        backend : {"numpy", "cupy", "torch", "jax", "array_api_strict"}
        device : str, optional
            E.g. ``"cuda:1"``; default the library's own.

        Returns
        -------
        estimator
            With the settings `backend` and `device` as given.

        Examples
        --------
        >>> from mlp_xp import MLPRegressor
        >>> model = MLPRegressor(hidden_layer_sizes=4, max_iter=1, learning_rate="cosine")
        >>> model = model.fit([[0.0], [1.0]], [0, 1])
        >>> moved = model.to("array_api_strict", "device1")
        >>> moved.coefs_[0].device, model.coefs_[0].device
        (array_api_strict.Device('device1'), 'cpu')
        """
        there = get_backend(backend, device)
        moved = type(self).__new__(type(self))
        # What a pickle holds, arrays copied; lists grow in place, so each has its own.
        state = self.__getstate__().items()
        moved.__dict__.update({k: list(v) if isinstance(v, list) else v for k, v in state})
        moved.backend, moved.device = backend, device  # A subclass need not take them.
        if hasattr(moved, "coefs_"):
            for name in filter(vars(moved).__contains__, ARRAYS):
                setattr(moved, name, [map_leaves(there.put, e) for e in getattr(moved, name)])
        return moved


def _host_copy(array: Any) -> np.ndarray:
    return np.array(to_numpy(array))
