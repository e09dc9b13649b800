"""L-BFGS: SciPy minimises, loss and gradient are computed on the device, a block at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy.optimize import OptimizeResult
from scipy.optimize import minimize as scipy_minimize
from sklearn.utils.fixes import _get_additional_lbfgs_options_dict
from sklearn.utils.optimize import _check_optimize_result

from mlp_xp.backends import Backend
from mlp_xp.batches import Data, plan_epoch
from mlp_xp.losses import Loss
from mlp_xp.network import Network, Params
from mlp_xp.step import Gradient, make_gradient
from mlp_xp.training import Trainer
from mlp_xp.tree import leaves, rebuild

__all__ = ["BLOCK", "minimize"]

# Large enough for the products to run at full speed; the sum over blocks is that of the full batch.
BLOCK = 8192

AfterIteration = Callable[[Params, float], bool]


def minimize(
    trainer: Trainer,
    data: Data,
    weights: np.ndarray | None,
    *,
    max_iter: int,
    max_fun: int,
    tol: float,
    verbose: int,
    after_iteration: AfterIteration,
) -> tuple[int, float]:
    """Minimise the loss of all samples together, from where the trainer is.

    Parameters
    ----------
    trainer : Trainer
        Its weights are the start, and become the result; an iteration counts as an epoch.
    data : Data
    weights : (samples,) array, optional
    max_iter, max_fun : int
        How many iterations and evaluations of the loss there may be.
    tol : float
        The largest entry of the gradient at which to stop.
    verbose : int
    after_iteration : callable
        ``after_iteration(params, loss)``, NumPy arrays; True ends the search.

    Returns
    -------
    n_iter : int
    loss : float

    References
    ----------
    Byrd, Lu, Nocedal, Zhu, "A limited memory algorithm for bound constrained optimization" (1995).
    """
    objective = _Objective(trainer, data, weights)
    stopped = False

    def callback(intermediate_result: OptimizeResult) -> None:
        nonlocal stopped
        params = objective.unravel(intermediate_result.x)
        trainer.n_epochs += 1  # Another solver that goes on from here counts on.
        stopped = after_iteration(params, float(intermediate_result.fun))
        if stopped:
            raise StopIteration

    result = scipy_minimize(
        objective,
        objective.ravel(trainer.learned),
        method="L-BFGS-B",
        jac=True,
        callback=callback,
        options={
            "maxfun": max_fun,
            "maxiter": max_iter,
            "gtol": tol,
            **_get_additional_lbfgs_options_dict("iprint", 1 if verbose >= 1 else -1),
        },
    )
    trainer.set_learned(objective.unravel(result.x), ())
    n_iter = result.nit if stopped else _check_optimize_result("lbfgs", result, max_iter)
    return int(n_iter), float(result.fun)


class _Objective:
    """The loss, penalty included, and its gradient, as functions of one float64 vector."""

    def __init__(self, trainer: Trainer, data: Data, weights: np.ndarray | None) -> None:
        self._trainer = trainer
        self._backend: Backend = trainer.backend
        self._data = data
        self._like = trainer.learned
        n_samples = data.y.shape[0]
        self._plan = plan_epoch(n_samples, BLOCK, weights=weights, pad=trainer.pads)
        self._total = sum(self._plan.totals)
        rules = trainer.rules
        self._gradient: Gradient = _compiled_gradient(self._backend, rules.network, rules.loss)

    def ravel(self, params: Params) -> np.ndarray:
        """Put all parameters into one vector, on the host."""
        host = [self._backend.get(leaf).reshape(-1) for leaf in leaves(params)]
        return np.concatenate(host).astype(np.float64)

    def unravel(self, vector: np.ndarray) -> Params:
        """Take the parameters out of a vector."""
        pieces, start = [], 0
        for leaf in leaves(self._like):
            size = int(np.prod(leaf.shape))
            piece = vector[start : start + size].reshape(leaf.shape)
            pieces.append(piece.astype(self._trainer.dtype))
            start += size
        return rebuild(self._like, pieces)

    def __call__(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        """Give loss and gradient."""
        backend, trainer = self._backend, self._trainer
        host = self.unravel(vector)
        total, slope = 0.0, np.zeros_like(vector)
        # A streamed epoch that fails lets go of its thread.
        with backend.scope(), contextlib.closing(self._data.epoch(self._plan)) as batches:
            params = rebuild(host, [backend.put(leaf) for leaf in leaves(host)])
            for batch, weight in zip(batches, self._plan.totals, strict=True):
                value, grads = self._gradient(params, batch, trainer.scaling)
                share = weight / self._total
                total += share * float(backend.get(value))
                slope += share * self.ravel(grads)
        l2 = trainer.rules.alpha / self._total
        start = 0
        for leaf in leaves(host):
            piece = slice(start, start + leaf.size)
            start += leaf.size
            if leaf.ndim > 1:
                total += 0.5 * l2 * float(np.dot(vector[piece], vector[piece]))
                slope[piece] += l2 * vector[piece]
        return total, slope


@lru_cache(maxsize=64)
def _compiled_gradient(backend: Backend, network: Network, loss: Loss) -> Gradient:
    return backend.compile(make_gradient(network, loss, backend.kernels, xp=backend.xp))
