"""Predictions for rows that mix the columns of an explained row and of a background row."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from mlp_xp._utils.array_types import Array
from mlp_xp._utils.signals.forks import cached_property
from mlp_xp.backends import Backend, get_backend, to_numpy
from mlp_xp.estimators.fitted.device_cache import put_leaves
from mlp_xp.estimators.fitted.prediction import place
from mlp_xp.estimators.fitted.state import FittedState, fitted_state
from mlp_xp.training.data.rows import take_rows
from mlp_xp.training.inference.coalitions import compiled_parts, make_slope
from mlp_xp.training.inference.inference import predict

# The mixed rows that a network predicts at once. On a CPU, a layer's activations stay in the cache,
# but are enough for threads to share each product, even with a single output.
_HOST_NUMBERS, _HOST_ROWS, _DEVICE_ROWS = 1 << 18, 1 << 14, 1 << 16
# The most outputs in an array, and the most inputs of the first layer.
_OUTPUTS, _INPUTS = 1 << 20, 1 << 22


class Game:
    """A model's prediction as a function of the columns that come from the explained row.

    The other columns come from a background row. ``columns`` are the positions of the columns that
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
        self.is_sum = is_single or not is_raw  # Over the networks of the explained numbers.
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

    @property
    def rows_at_once(self) -> int:
        """The number of mixed rows that the network predicts at once, a power of 2."""
        if self.backend.fixed_shapes or not self.backend.shares_host_memory:
            return _DEVICE_ROWS
        most = max(1, _HOST_NUMBERS // max(network.width for network in self._networks))
        return min(_HOST_ROWS, 1 << (most.bit_length() - 1))

    def parts(self, n_masks: int) -> list[slice]:
        """Return slices of background rows to mix with an explained row at once."""
        size, n = max(1, self.rows_at_once // n_masks), self.n_background
        return [slice(i, min(i + size, n)) for i in range(0, n, size)]

    def blocks(self, rows: np.ndarray, n_masks: int) -> list[np.ndarray]:
        """Divide explained rows into blocks for calls of `mixed`, to limit the memory."""
        n_mixed = max(n_masks, min(self.rows_at_once, n_masks * self.n_background))
        size = _OUTPUTS // (n_mixed * self.of_rows.shape[-1])
        size = max(1, min(size, *(network.rows_at_once for network in self._networks)))
        return [rows[i : i + size] for i in range(0, len(rows), size)]

    @contextlib.contextmanager
    def computing(self, n_masks: int) -> Iterator[None]:
        """Return the context for calls of `mixed`, with about ``n_masks`` masks in total."""
        n_mixed = self.n_rows * self.n_background * n_masks
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.backend.scope())
            work = n_mixed * max(network.work for network in self._networks)
            is_long = self.backend.returns_results and self.backend.is_long(work, 1)
            for network in self._networks:
                stack.enter_context(network.looping(is_long=is_long))
            if is_long:
                stack.enter_context(self.backend.predicting(work))
            elif n_mixed > self.rows_at_once:  # Blocks of rows run in threads.
                stack.enter_context(self.backend.sharing(1))
            yield

    def mixed(self, rows: np.ndarray, masks: np.ndarray, part: slice) -> np.ndarray:
        """Return the outputs of mixed rows, (rows, background rows, masks, outputs).

        ``rows`` are positions of explained rows, and ``part`` are background rows. ``masks : (1 or
        background rows, masks, columns)`` are true for the columns of the explained row.
        """
        found = [network.mixed(rows, masks, part, self.rows_at_once) for network in self._networks]
        n = part.stop - part.start
        return self._predict(found).reshape((len(rows), n, masks.shape[1], -1))

    def slopes(self, rows: np.ndarray, at: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the weighted sum of each column's slopes, (rows, columns, outputs).

        A slope is the derivative of the output along a straight line from a background row to an
        explained row, as far as the column moves it, at the positions ``at`` from 0 to 1. It is
        averaged over the background rows.
        """
        total = np.zeros((len(rows), len(self.columns), self.of_rows.shape[-1]))
        size = max(1, self.rows_at_once // self.n_background)
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            for weight, network in zip(self._weights, self._networks, strict=True):
                found = network.slopes(part, at, weights, self.of_rows.shape[-1])
                total[start : start + size] += weight * found
        return total


class _Inputs(NamedTuple):
    """The inputs of a network on the host, and the backend and dtype of predictions."""

    rows: np.ndarray
    backend: Backend
    dtype: str


class _Network:
    """A network of the model, with the inputs of the explained rows and of the background.

    ``belongs : (columns, inputs)`` tells which inputs each column has; ``rows_at_once`` is the
    largest number of rows for `terms`.
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
            size = self.rows_at_once = max(1, _INPUTS // belongs.size)
            blocks = range(0, len(self.background), size)
            terms = [self.terms(self.background[i : i + size]) for i in blocks]
            self._terms = backend.xp.concat(terms, axis=0)
        # The operations for a mixed row, and the activations of its widest layer.
        network = state.network
        self.work = sum(block.work for block in network.other_blocks)
        self.width = network.n_members * max(network.sizes[1:])

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

        It is the change of the sums if this column's value replaces the first background row's.
        """
        mixed = np.where(self._belongs, rows[:, None, :], self.background[0])
        sums = self._first(mixed.reshape((-1, mixed.shape[-1]))) - self._reference
        return self.backend.xp.reshape(sums, (*mixed.shape[:2], -1))

    @cached_property
    def _slope(self) -> Callable[..., list[Array]]:
        """The gradient of the explained numbers, compiled once for all steps along the lines."""
        backend, explain = self.backend, _Explained(self._state, is_raw=self._loss is None)
        return backend.compile(
            make_slope(self._state.network, explain, backend.kernels, xp=backend.xp)
        )

    def slopes(
        self, rows: np.ndarray, at: np.ndarray, weights: np.ndarray, n_outputs: int
    ) -> np.ndarray:
        """Return what `Game.slopes` does, for this network."""
        backend, xp, (params, batch_stats, _) = self.backend, self.backend.xp, self._weights
        with backend.scope():
            basis = backend.put(np.eye(n_outputs), self._dtype)
            own, others = self.terms(self.x[rows]), self._terms
            n, n_others, n_columns = own.shape[0], others.shape[0], own.shape[1]
            first = self._reference + xp.sum(others, axis=1)  # (background rows, sums)
            change = (self._reference + xp.sum(own, axis=1))[:, None, :] - first
            found = np.zeros((n, n_columns, n_outputs))
            for position, weight in zip(at.tolist(), weights.tolist(), strict=True):
                sums = xp.reshape(first + position * change, (n * n_others, -1))
                for i, gradient in enumerate(self._slope(params, batch_stats, sums, basis)):
                    g = xp.reshape(gradient, (n, n_others, -1)) * (weight / n_others)
                    mine = xp.matmul(own, xp.sum(g, axis=1)[..., None])[..., 0]
                    theirs = xp.matmul(
                        xp.reshape(g, (n, -1)),
                        xp.reshape(xp.permute_dims(others, (0, 2, 1)), (-1, n_columns)),
                    )
                    found[..., i] += backend.get(mine - theirs)
        return found

    @contextlib.contextmanager
    def looping(self, *, is_long: bool) -> Iterator[None]:
        """Return a context in which `mixed` runs in a loop if the computation is long."""
        self._loop: Any = self.backend.loop(self._parts.step) if is_long else None
        self._state_of_loop: Any = ()
        try:
            yield
        finally:
            if self._loop is not None:
                self.backend.release(self._loop, self._state_of_loop)
            self._loop, self._state_of_loop = None, ()

    def mixed(
        self, rows: np.ndarray, masks: np.ndarray, part: slice, rows_at_once: int
    ) -> np.ndarray:
        """Return the outputs of `Game.mixed` in float64, (mixed rows, outputs)."""
        backend, xp, (params, batch_stats, _) = self.backend, self.backend.xp, self._weights
        others = xp.matmul(backend.put(~masks, self._dtype), self._terms[part, ...])
        others = others + self._reference
        shared = backend.put(masks, self._dtype), others, params, batch_stats
        terms, n = self.terms(self.x[rows]), len(rows)
        if self._loop is None:
            size = max(1, rows_at_once // (others.shape[0] * others.shape[1]))

            def run(start: int) -> Any:
                with backend.scope():
                    own = terms[start : min(start + size, n), ...]
                    return backend.get(self._parts.mix(own, *shared))

            found: list[Any] = [*backend.map(run, range(0, n, size))]
            return self._restore(np.concatenate(found))
        last = self._parts.mix(terms[0, ...], *shared)
        outputs = self._state_of_loop[0] if self._state_of_loop else None
        if outputs is None or outputs.shape != (n, *last.shape):
            outputs = xp.empty((n, *last.shape), dtype=last.dtype)
        if n > 1:
            state = outputs, last
            outputs, last = self._loop(0, n - 1, state, terms[1:, ...], *shared)
            self._state_of_loop = outputs, last
        outputs[n - 1, ...] = last
        return self._restore(outputs.reshape((-1, outputs.shape[-1])))

    def _restore(self, outputs: Any) -> Any:
        found: Any = to_numpy(outputs).astype(np.float64)
        if self._loss is None:
            return found
        targets: Any = self._state.targets
        found = targets.restore(self._loss, found, np.asarray, xp=_numpy())
        # Networks of an ensemble may have different losses, which predict a value differently.
        return self._loss.point(found, xp=_numpy()) if targets.classes is None else found


class _Explained:
    """The explained numbers as a function of a network's raw outputs, for `derive`."""

    def __init__(self, state: FittedState, *, is_raw: bool) -> None:
        self._targets: Any = state.targets
        self._loss: Any = state.activating_loss
        self._is_raw = is_raw

    def __call__(self, logits: Any, *, xp: Any) -> Any:
        """Return the explained numbers, (rows, outputs)."""
        targets, loss = self._targets, self._loss
        if self._is_raw and targets.classes is not None:
            found = targets.margins(logits)
        else:
            outputs = loss.activate(logits, xp=xp)
            outputs = targets.restore(loss, outputs, xp.asarray, xp=xp)
            if targets.classes is None:
                return loss.point(outputs, xp=xp)
            found = targets.probabilities(outputs, xp=xp)
            found = found[:, 1:] if targets.kind == "binary" else found
        found = xp.concat(list(found), axis=1) if isinstance(found, list | tuple) else found
        return xp.reshape(found, (logits.shape[0], -1))


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
