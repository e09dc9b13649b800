"""Predictions for rows that mix the columns of an explained row and of a background row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from mlp_xp._utils.array_types import Array
from mlp_xp.backends import Backend, get_backend, to_numpy
from mlp_xp.estimators.fitted.device_cache import put_leaves
from mlp_xp.estimators.fitted.prediction import place
from mlp_xp.estimators.fitted.state import FittedState, fitted_state
from mlp_xp.training.data.rows import take_rows
from mlp_xp.training.inference.coalitions import compiled_parts
from mlp_xp.training.inference.inference import predict

# The rows that a network predicts at once: on a CPU, so that activations stay in the cache.
_HOST_ROWS, _DEVICE_ROWS = 2048, 1 << 16
_NUMBERS = 1 << 22  # The most numbers in an array of inputs, or of sums of background rows.


class Game:
    """A model's prediction as a function of the columns that come from the explained row.

    The other columns come from a background row. ``masks : (1 or background rows, masks, columns)``
    are true for the columns of the explained row; ``columns`` are the positions of the columns that
    are inputs of the network, and ``n_columns`` is the number of all columns.
    """

    def __init__(
        self, model: Any, X: Any, background: Any, *, is_raw: bool, random_state: Any, method: str
    ) -> None:
        models = getattr(model, "estimators_", [model])
        self._weights = vars(model).get("weights_", np.full(len(models), 1 / len(models)))
        state = fitted_state(models[0])
        is_single = len(models) == 1 and state.network.n_members == 1
        is_activated = not (is_raw and is_single)
        self._convert = _Conversion(state, is_raw=is_raw, is_activated=is_activated)
        inputs = _inputs(model, X, method)
        self.backend, self.n_columns = inputs[0].backend, state.n_columns
        self.n_rows = len(inputs[0].rows)
        if isinstance(background, Integral):
            chosen = _choose(self.n_rows, int(background), random_state)
            others = [one._replace(rows=one.rows[chosen]) for one in inputs]
        else:
            others = _background_inputs(model, background, method)
        self.n_background = len(others[0].rows)
        owners = [_owners(fitted_state(one)) for one in models]
        self.columns = np.unique(np.concatenate(owners))
        self._networks = [
            _Network(fitted_state(one), x, other, places == self.columns[:, None], is_activated)
            for one, x, other, places in zip(models, inputs, others, owners, strict=True)
        ]
        self.of_rows = self._outputs("x")
        self.of_background = self._outputs("background")

    def _outputs(self, rows: str) -> np.ndarray:
        """Return the model's outputs for all rows, (rows, outputs)."""
        found = [network.outputs(getattr(network, rows)) for network in self._networks]
        return self._predict(found)

    def _predict(self, outputs: list[np.ndarray]) -> np.ndarray:
        """Return the explained numbers for the outputs of all networks."""
        total: Any = sum(w * found for w, found in zip(self._weights, outputs, strict=True))
        return self._convert(total)

    def blocks(self, n_masks: int) -> list[slice]:
        """Return slices of explained rows to compute at once."""
        size = max(1, self.rows_at_once // (n_masks * self.n_background))
        return [slice(i, min(i + size, self.n_rows)) for i in range(0, self.n_rows, size)]

    @property
    def rows_at_once(self) -> int:
        """The number of mixed rows that the network predicts at once."""
        is_host = self.backend.shares_host_memory and not self.backend.fixed_shapes
        return _HOST_ROWS if is_host else _DEVICE_ROWS

    def map(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        """Return the function's result for each task, computed in threads if that is faster."""

        def run(i: int) -> Any:
            with self.backend.scope():
                return function(tasks[i])

        if len(tasks) == 1:  # Leave the threads to the matrix products.
            return [run(0)]
        with self.backend.sharing(1):
            return list(self.backend.map(run, range(len(tasks))))

    def background_rows_at_once(self, n_masks: int) -> int:
        """Return for how many background rows to compute `background_sums` at once."""
        width = max(network.n_sums for network in self._networks)
        return max(1, min(self.n_background, _NUMBERS // (n_masks * width)))

    def background_sums(self, masks: np.ndarray, rows: slice) -> list[Array]:
        """Return the sums over the columns that come from the background, for each network."""
        with self.backend.scope():
            return [network.background_sums(masks, rows) for network in self._networks]

    def mixed(
        self, rows: slice, masks: np.ndarray, background_sums: list[Array]
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield the outputs of mixed rows, (rows, background rows, masks, outputs), in parts.

        Each part is for a slice of the background rows.
        """
        n_rows, n_masks, n = rows.stop - rows.start, masks.shape[1], background_sums[0].shape[0]
        terms = [network.terms(network.x[rows]) for network in self._networks]
        is_shared = len(masks) == 1
        sums = (
            [network.sums(masks, own) for network, own in self._pairs(terms)] if is_shared else []
        )
        size = max(1, self.rows_at_once // (n_rows * n_masks))
        for start in range(0, n, size):
            part = slice(start, min(start + size, n))
            if not is_shared:
                sums = [network.sums(masks[part], own) for network, own in self._pairs(terms)]
            found = [
                network.rest(own, others[part, ...])
                for (network, own), others in zip(self._pairs(sums), background_sums, strict=True)
            ]
            outputs = self._predict(found)
            yield part, outputs.reshape((n_rows, part.stop - start, n_masks, -1))

    def _pairs(self, values: list[Any]) -> Iterator[tuple[_Network, Any]]:
        return zip(self._networks, values, strict=True)


class _Inputs(NamedTuple):
    """The inputs of a network on the host, and the backend and dtype of predictions."""

    rows: np.ndarray
    backend: Backend
    dtype: str


class _Network:
    """A network of the model, with the inputs of the explained rows and of the background.

    ``belongs : (columns, inputs)`` tells which inputs each column has.
    """

    def __init__(
        self,
        state: FittedState,
        inputs: _Inputs,
        background: _Inputs,
        belongs: np.ndarray,
        is_activated: bool,
    ) -> None:
        self.x, self.background = inputs.rows, background.rows
        self.backend, self._dtype = backend, dtype = inputs.backend, inputs.dtype
        self._state, self._belongs = state, belongs
        self._loss = state.activating_loss if is_activated else None
        self._parts = compiled_parts(backend, state.network, self._loss)
        with backend.scope():
            self._weights: Any = put_leaves(backend, state.on(backend, dtype), dtype)
            self._reference = self._first(self.background[:1])
            size = max(1, _NUMBERS // belongs.size)
            blocks = range(0, len(self.background), size)
            terms = [self.terms(self.background[i : i + size]) for i in blocks]
            self._terms = backend.xp.concat(terms, axis=0)
        self.n_sums = self._terms.shape[-1]

    def outputs(self, rows: np.ndarray) -> np.ndarray:
        """Return the outputs for rows without a mixture, in float64, (rows, outputs)."""
        state, backend, here = self._state, self.backend, get_backend("numpy")
        weights, batch_stats, scaling = self._weights
        settings: Any = {"batch_stats": batch_stats, "to": here, "dtype": self._dtype}
        found = predict(backend, state.network, self._loss, weights, rows, scaling, **settings)
        return self._restore(found)

    def _first(self, rows: np.ndarray) -> Array:
        params, batch_stats, scaling = self._weights
        return self._parts.first(params, batch_stats, self.backend.put(rows, self._dtype), scaling)

    def terms(self, rows: np.ndarray) -> Array:
        """Return each column's term in the sums, (rows, columns, sums).

        It is the change of the sums if this column alone replaces that of the first background row.
        """
        mixed = np.where(self._belongs, rows[:, None, :], self.background[0])
        sums = self._first(mixed.reshape((-1, mixed.shape[-1]))) - self._reference
        return self.backend.xp.reshape(sums, (*mixed.shape[:2], -1))

    def sums(self, masks: np.ndarray, terms: Array) -> Array:
        """Return the sums over the masks' columns, (rows, background rows or 1, masks, sums)."""
        return self.backend.xp.matmul(self.backend.put(masks, self._dtype), terms[:, None, ...])

    def background_sums(self, masks: np.ndarray, rows: slice) -> Array:
        """Return the sums over the other columns, of background rows, (rows, masks, sums)."""
        others = self.backend.put(~masks, self._dtype)
        return self.backend.xp.matmul(others, self._terms[rows, ...]) + self._reference

    def rest(self, one: Array, other: Array) -> np.ndarray:
        """Return the outputs for sums over all columns, in float64, (mixed rows, outputs)."""
        params, batch_stats, _ = self._weights
        return self._restore(self.backend.get(self._parts.rest(params, batch_stats, one, other)))

    def _restore(self, outputs: Any) -> Any:
        found: Any = to_numpy(outputs).astype(np.float64)
        if self._loss is None:
            return found
        targets: Any = self._state.targets
        found = targets.restore(self._loss, found, np.asarray, xp=_numpy())
        # Networks of an ensemble may have different losses, which predict a value differently.
        return self._loss.point(found, xp=_numpy()) if targets.classes is None else found


class _Conversion:
    """The conversion of a network's outputs, averaged over networks, to the explained numbers."""

    def __init__(self, state: FittedState, *, is_raw: bool, is_activated: bool) -> None:
        self._targets: Any = state.targets
        self._loss: Any = state.activating_loss
        self._is_raw, self.is_activated = is_raw, is_activated

    def __call__(self, outputs: np.ndarray) -> np.ndarray:
        """Return the explained numbers, (rows, outputs)."""
        targets, loss, xp = self._targets, self._loss, _numpy()
        if targets.classes is None:
            return outputs
        if self._is_raw:
            raw = loss.raw_outputs(outputs, xp=xp) if self.is_activated else outputs
            found = targets.margins(raw)
        else:
            found = targets.probabilities(outputs, xp=xp)
            found = found[:, 1] if targets.kind == "binary" else found
        found = np.concatenate(found, axis=1) if isinstance(found, list) else found
        return found.reshape((len(outputs), -1))


def _numpy() -> Any:
    return get_backend("numpy").xp


def _inputs(model: Any, X: Any, method: str) -> list[_Inputs]:
    """Return the inputs of each network of a model; an ensemble encodes a table once."""
    if hasattr(model, "estimators_"):
        X = model._checked(X, method)
    found = []
    for one in getattr(model, "estimators_", [model]):
        x, _, backend, dtype = place(one, X, fitted_state(one).checked(), method)
        rows = to_numpy(take_rows(x, slice(0, x.shape[0])))
        found.append(_Inputs(rows, backend, dtype))
    return found


def _background_inputs(model: Any, background: Any, method: str) -> list[_Inputs]:
    try:
        return _inputs(model, background, method)
    except (TypeError, ValueError) as error:
        raise type(error)(f"`background` must have the columns of X: {error}") from error


def _owners(state: FittedState) -> np.ndarray:
    """Return the position of each input's column."""
    return np.arange(state.n_features) if state.columns is None else state.columns.input_columns


def _choose(n_rows: int, n: int, random_state: Any) -> np.ndarray:
    """Return the positions of random background rows; all if there are no more than ``n``."""
    if n < 1:
        raise ValueError(f"`background` must be rows or a number of at least 1, got {n}.")
    if n_rows < 2:
        raise ValueError(
            f"`background={n}` draws rows of X, but X has only one: pass rows to compare with, "
            "e.g. background=X_train.sample(100)."
        )
    if n >= n_rows:
        return np.arange(n_rows)
    return np.sort(check_random_state(random_state).choice(n_rows, n, replace=False))
