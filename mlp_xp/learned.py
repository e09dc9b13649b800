"""What an estimator has learned: where it lies, how it is pickled, how it moves."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlp_xp.backends import get_backend, to_numpy
from mlp_xp.kernels import Scaling, Whitening
from mlp_xp.layers import Dense, Moments, Norm
from mlp_xp.losses import Loss
from mlp_xp.network import Network, Params, denses, norms, with_layers
from mlp_xp.scaling import Whiten
from mlp_xp.settings import Settings
from mlp_xp.training import Progress, Record, Trainer
from mlp_xp.tree import map_leaves

__all__ = ["Learned"]

# The attributes that hold learned arrays; each is a list, of arrays or of NamedTuples of arrays.
_ARRAYS = ("coefs_", "intercepts_", "norms_", "moments_")


class Learned(Settings):
    """What is learned, as the caller sees it.

    It lies in ``coefs_`` and ``intercepts_`` (and ``norms_`` and ``moments_`` where there is a
    normalisation), where the caller's data are, and every prediction starts from there. The
    trainer, with its compiled step and the optimizer's slots, is kept for the next call; a pickle
    holds its progress in its stead.
    """

    coefs_: list[Any]
    intercepts_: list[Any]
    norms_: list[Norm]
    moments_: list[Moments]
    loss_curve_: list[float]
    history_: list[Record]
    n_iter_: int
    t_: int
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

    @property
    def _params(self) -> Params:
        layers = list(map(Dense, self.coefs_, self.intercepts_))
        if self._network.is_flat:  # Nothing to walk through.
            return tuple(layers)
        return with_layers(self._network, layers, self.norms_)

    def _set_learned(self, params: Params, moments: tuple[Moments, ...]) -> None:
        layers = denses(params)
        self.coefs_ = [layer.W for layer in layers]
        self.intercepts_ = [layer.b for layer in layers]
        self.norms_ = norms(params)
        self.moments_ = list(moments)

    def __getstate__(self) -> dict[str, Any]:
        """Give what is pickled: host arrays only, so that it opens where a library is missing."""
        state: dict[str, Any] = dict(super().__getstate__())
        trainer = state.pop("_trainer", None)
        if "coefs_" in state:
            for name in _ARRAYS:
                state[name] = [map_leaves(_host_copy, entry) for entry in state[name]]
            if state["_scaling"] is not None:
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
            for name in _ARRAYS:
                setattr(moved, name, [map_leaves(there.put, e) for e in getattr(moved, name)])
        return moved


def _host_copy(array: Any) -> np.ndarray:
    return np.array(to_numpy(array))
