"""JAX: a jitted step for the settings of an estimator, with `jax.grad` and donated state.

Each formula is the usual one of JAX (`jax.nn`) where there is one.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlp_xp.nn.losses import Custom, Quantile

RATE, EPSILON, NORM_EPSILON, MOMENTUM, L1 = 1e-3, 1e-8, 1e-5, 0.9, 1e-5
Weights = Sequence[tuple[np.ndarray, np.ndarray]]
Params = dict[str, jax.Array]  # W0, b0, W1, ...; and scale0, shift0 and slope0 of hidden layers.

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "identity": lambda x: x,
    "logistic": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "mish": jax.nn.mish,
}


# --- losses: (batch, outputs) and the targets to the loss of each sample -------------------------


def log_loss(z: jax.Array, y: jax.Array) -> jax.Array:
    return -_of_class(jax.nn.log_softmax(z), y)


def focal(z: jax.Array, y: jax.Array) -> jax.Array:
    log_p = _of_class(jax.nn.log_softmax(z), y)
    return -((1.0 - jnp.exp(log_p)) ** 2) * log_p


def binary_log_loss(z: jax.Array, y: jax.Array) -> jax.Array:
    return (jax.nn.softplus(z) - z * y).sum(axis=1)


def binary_focal(z: jax.Array, y: jax.Array) -> jax.Array:
    p = jax.nn.sigmoid(z)
    yes = y * (1.0 - p) ** 2 * jax.nn.log_sigmoid(z)
    return -(yes + (1.0 - y) * p**2 * jax.nn.log_sigmoid(-z)).sum(axis=1)


def squared_error(z: jax.Array, y: jax.Array) -> jax.Array:
    return 0.5 * jnp.square(z - y).sum(axis=1)


def absolute_error(z: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.abs(z - y).sum(axis=1)


def huber(z: jax.Array, y: jax.Array) -> jax.Array:
    size = jnp.abs(z - y)
    return jnp.where(size <= 1.0, 0.5 * size * size, size - 0.5).sum(axis=1)


def quantile(z: jax.Array, y: jax.Array, levels: tuple[float, ...] = (0.5,)) -> jax.Array:
    steps = jnp.concat([z[:, :1], jax.nn.softplus(z[:, 1:])], axis=1)
    error = jnp.cumsum(steps, axis=1) - y
    q = jnp.asarray(levels, z.dtype)
    return jnp.maximum((1.0 - q) * error, -q * error).sum(axis=1)


def poisson(z: jax.Array, y: jax.Array) -> jax.Array:
    return (y * (jnp.log(jnp.where(y > 0.0, y, 1.0)) - z) - y + jnp.exp(z)).sum(axis=1)


def gaussian(z: jax.Array, y: jax.Array) -> jax.Array:
    mean, log_variance = z[:, :1], z[:, 1:]
    terms = log_variance + jnp.square(mean - y) * jnp.exp(-log_variance) + jnp.log(2.0 * jnp.pi)
    return 0.5 * terms.sum(axis=1)


def _of_class(x: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.take_along_axis(x, labels[:, None], axis=1)[:, 0]


LOSSES: dict[str, Callable[..., jax.Array]] = {
    **{"log_loss": log_loss, "focal": focal, "squared_error": squared_error},
    **{"absolute_error": absolute_error, "huber": huber, "quantile": quantile},
    **{"poisson": poisson, "gaussian": gaussian},
}
OF_BITS = {"log_loss": binary_log_loss, "focal": binary_focal}


def loss_of(loss: Any, y: jax.Array) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Return a loss, given as for an estimator; targets with several columns are bits."""
    if isinstance(loss, Quantile):
        return partial(quantile, levels=loss.levels)
    if isinstance(loss, Custom):
        own, activate = loss.function, {"softmax": jax.nn.softmax}.get(loss.output, lambda z: z)
        return lambda z, y: value_of(own(activate(z), y, xp=jnp))
    is_bits = y.ndim == 2 and y.shape[1] > 1
    return (OF_BITS if is_bits else LOSSES)[loss]


def value_of(result: Any) -> jax.Array:
    """Return the value of a formula that may return a pullback, too, which JAX does not need."""
    return result[0] if isinstance(result, tuple) else result


# --- update rules: a parameter, its gradient and state, and the step, to parameter and state ------


def adam(
    kind: str, p: Any, g: Any, state: Any, t: Any, beta_2: float = 0.999, decay: float = 0.0
) -> tuple[Any, Any]:
    m, v = state
    m = 0.9 * m + 0.1 * g
    v = beta_2 * v + (1.0 - beta_2) * g * g
    rate = RATE * jnp.sqrt(1.0 - beta_2**t) / (1.0 - 0.9**t)
    p = p * (1.0 - RATE * decay) if decay and kind != "vector" else p
    return p - rate * m / (jnp.sqrt(v) + EPSILON), (m, v)


def sgd(
    kind: str, p: Any, g: Any, state: Any, t: Any, momentum: float = MOMENTUM
) -> tuple[Any, Any]:
    if not momentum:
        return p - RATE * g, state
    v = momentum * state[0] - RATE * g
    return p + momentum * v - RATE * g, (v, *state[1:])


def rmsprop(kind: str, p: Any, g: Any, state: Any, t: Any) -> tuple[Any, Any]:
    v = 0.9 * state[0] + 0.1 * g * g
    return p - RATE * g / (jnp.sqrt(v) + EPSILON), (v,)


def lion(kind: str, p: Any, g: Any, state: Any, t: Any) -> tuple[Any, Any]:
    m = state[0]
    return p - RATE * jnp.sign(0.9 * m + 0.1 * g), (0.99 * m + 0.01 * g,)


def beta_lasso(kind: str, p: Any, g: Any, state: Any, t: Any) -> tuple[Any, Any]:
    if kind != "matrix":
        return sgd(kind, p, g, state, t)
    p, state = sgd(kind, p, g + L1 * jnp.sign(p), state, t)
    return jnp.where(jnp.abs(p) >= 50.0 * L1, p, 0.0), state


def muon(kind: str, p: Any, g: Any, state: Any, t: Any) -> tuple[Any, Any]:
    """Return Jordan's Muon with five steps; AdamW for all but hidden matrices."""
    if kind != "matrix":
        return adam(kind, p, g, state, t, beta_2=0.95)
    m, v = state
    m = 0.95 * m + 0.05 * g
    X = 0.95 * m + 0.05 * g
    is_tall = X.shape[0] > X.shape[1]
    X = X.T if is_tall else X
    X = X / (jnp.linalg.norm(X) + 1e-7)
    for _ in range(5):
        G = X @ X.T
        X = 3.4445 * X + (-4.7750 * G + 2.0315 * G @ G) @ X
    move = 0.2 * max(p.shape) ** 0.5 * RATE * (X.T if is_tall else X)
    return p - move, (m, v)


# Each with the number of arrays that it keeps for a parameter.
RULES: dict[str, tuple[Callable[..., tuple[Any, Any]], int]] = {
    "adam": (adam, 2),
    "adamw": (partial(adam, decay=0.01), 2),
    "sgd": (sgd, 1),
    "rmsprop": (rmsprop, 1),
    "lion": (lion, 1),
    "beta_lasso": (beta_lasso, 1),
    "muon": (muon, 2),
}


def rule_of(settings: Mapping[str, Any]) -> tuple[Callable[..., tuple[Any, Any]], int]:
    solver = settings.get("solver", "adam")
    return RULES[solver if isinstance(solver, str) else type(solver).__name__.lower()]


def kind_of(name: str, params: Params) -> str:
    last = sum(key[0] == "W" for key in params) - 1
    return {"W": "head" if name == f"W{last}" else "matrix"}.get(name[0], "vector")


# --- the network ---------------------------------------------------------------------------------


def initial(weights: Weights, settings: Mapping[str, Any]) -> Params:
    """Return initial parameters, with the given matrices and biases."""
    params = {f"W{i}": W for i, (W, _) in enumerate(weights)}
    params |= {f"b{i}": b for i, (_, b) in enumerate(weights)}
    for i, (_, b) in enumerate(weights[:-1]):
        if settings.get("normalization"):
            params |= {f"scale{i}": np.ones_like(b), f"shift{i}": np.zeros_like(b)}
        if settings.get("parametric_activation"):
            params[f"slope{i}"] = np.ones_like(b)
    return {name: jnp.asarray(array, jnp.float32) for name, array in params.items()}


def drop(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    return jnp.where(jax.random.bernoulli(key, 1.0 - rate, x.shape), x / (1.0 - rate), 0.0)


def normalize(x: jax.Array, axis: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    mean, variance = x.mean(axis, keepdims=True), x.var(axis, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + NORM_EPSILON), (mean[0], variance[0])


def forward(
    params: Params, x: jax.Array, key: jax.Array, settings: Mapping[str, Any]
) -> tuple[jax.Array, list[Any]]:
    """Return the raw outputs, and the statistics of batch normalization."""
    name, norm = settings.get("activation", "relu"), settings.get("normalization")
    own = (lambda x: value_of(name(x, xp=jnp))) if callable(name) else ACTIVATIONS[name]
    n_layers, measured = sum(key[0] == "W" for key in params), []
    keys = jax.random.split(key, n_layers)
    if rate := settings.get("input_dropout"):
        x = drop(x, rate, keys[-1])
    for i in range(n_layers - 1):
        y = x @ params[f"W{i}"] + params[f"b{i}"]
        if norm:
            y, stats = normalize(y, {"layer": 1, "batch": 0}[norm])
            y = y * params[f"scale{i}"] + params[f"shift{i}"]
            measured += [stats] if norm == "batch" else []
        bent = own(y)
        y = y + params[f"slope{i}"] * (bent - y) if settings.get("parametric_activation") else bent
        if rate := settings.get("dropout"):
            y = drop(y, rate, keys[i])
        x = x + y if settings.get("residual") and x.shape == y.shape else y
    return x @ params[f"W{n_layers - 1}"] + params[f"b{n_layers - 1}"], measured


class Training:
    """A network in training, with the settings of an estimator.

    ``weights`` are the initial matrix and biases of each layer.
    """

    def __init__(
        self, settings: Mapping[str, Any], weights: Weights, x: np.ndarray, y: np.ndarray
    ) -> None:
        jax.config.update("jax_default_matmul_precision", "float32")
        if y.ndim == 2 or y.dtype.kind == "f":  # Not class labels.
            y = y.reshape(len(y), -1).astype(np.float32)
        self._x, self._y = jax.device_put(x), jax.device_put(y)
        self._batch, self._rng = settings["batch_size"], np.random.default_rng(0)
        self._step = jax.jit(make_step(settings, loss_of(settings["loss"], y)), donate_argnums=0)
        params = initial(weights, settings)
        _, n_slots = rule_of(settings)
        slots = {
            name: tuple(jnp.zeros_like(p) for _ in range(n_slots)) for name, p in params.items()
        }
        is_batch = settings.get("normalization") == "batch"
        stats = [(jnp.zeros(b.size), jnp.ones(b.size)) for _, b in weights[:-1] if is_batch]
        average = jax.tree.map(jnp.copy, params) if "ema_decay" in settings else {}
        self._state: Any = params, slots, stats, average, jnp.float32(0.0)

    def train(self, epochs: int) -> None:
        """Train for more epochs, and wait for the last step."""
        for _ in range(epochs):
            order = self._rng.permutation(len(self._x)).astype(np.int32)
            for start in range(0, len(order), self._batch):
                loss = self._run(order[start : start + self._batch])
        jax.block_until_ready((self._state, loss))

    def losses(self, steps: int) -> list[float]:
        """Return the losses of steps that all train on the first batch."""
        rows = np.arange(self._batch, dtype=np.int32)
        return [float(self._run(rows)) for _ in range(steps)]

    def _run(self, rows: np.ndarray) -> jax.Array:
        self._state, loss = self._step(self._state, self._x, self._y, rows)
        return loss


def make_step(settings: Mapping[str, Any], loss: Callable[..., jax.Array]) -> Callable[..., Any]:
    """Return the function of a step: the state, all data and the batch's rows to the next state."""
    rule, _ = rule_of(settings)
    rule = partial(rule, momentum=settings["momentum"]) if "momentum" in settings else rule
    alpha, limit = settings.get("alpha", 0.0), settings.get("max_grad_norm")
    decay = settings.get("ema_decay")

    def penalty(params: Params, n: int) -> jax.Array | float:
        return sum(0.5 * alpha / n * jnp.vdot(params[k], params[k]) for k in params if k[0] == "W")

    def step(state: Any, x: jax.Array, y: jax.Array, rows: jax.Array) -> tuple[Any, jax.Array]:
        params, slots, stats, average, t = state
        x, y, t = x[rows], y[rows], t + 1.0
        key = jax.random.fold_in(jax.random.key(0), t.astype(jnp.int32))

        def objective(params: Params) -> tuple[jax.Array, Any]:
            z, measured = forward(params, x, key, settings)
            return loss(z, y).mean(), measured

        (value, measured), grads = jax.value_and_grad(objective, has_aux=True)(params)
        if limit is not None:
            norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in grads.values()))
            grads = {name: g * (limit / jnp.maximum(norm, limit)) for name, g in grads.items()}
        if alpha:  # As in mlp_xp, the penalty is not clipped.
            own, pulled = jax.value_and_grad(penalty)(params, len(x))
            value, grads = value + own, {name: g + pulled[name] for name, g in grads.items()}
        pairs = {n: rule(kind_of(n, params), p, grads[n], slots[n], t) for n, p in params.items()}
        params, slots = ({name: pair[i] for name, pair in pairs.items()} for i in (0, 1))
        pick = jax.tree.map(lambda old, new: old + 0.1 * (new - old), stats, measured)
        average = {n: decay * a + (1.0 - decay) * params[n] for n, a in average.items()}
        return (params, slots, pick, average, t), value

    return step
