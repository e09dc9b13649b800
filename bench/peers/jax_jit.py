"""JAX: a step under `jit`, or an epoch of steps in one `lax.scan`, with a donated state."""

from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.suite.workloads import MOMENTUM, Contender, Task

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


def init(widths: tuple[int, ...]) -> list[tuple[jax.Array, jax.Array]]:
    keys = jax.random.split(jax.random.key(0), len(widths) - 1)
    normal = jax.nn.initializers.glorot_normal()
    pairs = pairwise(widths)
    return [(normal(key, pair), jnp.zeros(pair[1])) for key, pair in zip(keys, pairs, strict=True)]


def adam(grads: Any, slots: Any, params: Any, rate: float) -> tuple[Any, Any]:
    first, second, t = slots
    t += 1
    first = jax.tree.map(lambda m, g: BETA_1 * m + (1 - BETA_1) * g, first, grads)
    second = jax.tree.map(lambda v, g: BETA_2 * v + (1 - BETA_2) * g * g, second, grads)
    scale = rate * jnp.sqrt(1 - BETA_2**t) / (1 - BETA_1**t)
    params = jax.tree.map(
        lambda p, m, v: p - scale * m / (jnp.sqrt(v) + EPSILON), params, first, second
    )
    return params, (first, second, t)


def sgd(grads: Any, velocity: Any, params: Any, rate: float) -> tuple[Any, Any]:
    velocity = jax.tree.map(lambda v, g: MOMENTUM * v - rate * g, velocity, grads)
    params = jax.tree.map(lambda p, v, g: p + MOMENTUM * v - rate * g, params, velocity, grads)
    return params, velocity


def descent(grads: Any, slots: Any, params: Any, rate: float) -> tuple[Any, Any]:
    return jax.tree.map(lambda p, g: p - rate * g, params, grads), slots


def make(task: Task, *, scan: bool = False, precision: str = "float32") -> Contender:
    # On a GPU, the default is TF32; a CPU supports only float32.
    names = {"float32": "float32", "tf32": "tensorfloat32", "bf16": "bfloat16"}
    jax.config.update("jax_default_matmul_precision", names[precision])
    activation = {"relu": jax.nn.relu, "logistic": jax.nn.sigmoid}[task.net.activation]
    rule = {"adam": adam, "sgd": sgd, "descent": descent}[task.net.solver]
    x, y = jax.device_put(task.x), jax.device_put(task.y)
    n, size = len(x), task.net.batch_size
    generator = np.random.default_rng(0)

    def forward(params: Any, x: jax.Array) -> jax.Array:
        *hidden, (W, b) = params
        for V, c in hidden:
            x = activation(x @ V + c)
        return x @ W + b

    def loss_of(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        log_p = jax.nn.log_softmax(forward(params, x))
        return -jnp.take_along_axis(log_p, y[:, None], axis=1).mean()

    # The data are arguments, because JAX compiles closed-over arrays as constants.
    def update(state: Any, x: jax.Array, y: jax.Array, rows: Any = None) -> tuple[Any, jax.Array]:
        params, slots = state
        x, y = (x, y) if rows is None else (x[rows], y[rows])
        loss, grads = jax.value_and_grad(loss_of)(params, x, y)
        return rule(grads, slots, params, task.net.learning_rate), loss

    @partial(jax.jit, donate_argnums=0)
    def steps(state: Any, x: jax.Array, y: jax.Array, plan: jax.Array) -> tuple[Any, jax.Array]:
        state, losses = jax.lax.scan(lambda s, rows: update(s, x, y, rows), state, plan)
        return state, losses[-1]

    step = jax.jit(update, donate_argnums=0)
    params = init(task.net.widths)
    zeros = jax.tree.map(jnp.zeros_like, params)
    slots = {"adam": (zeros, jax.tree.map(jnp.zeros_like, params), jnp.float32(0)), "sgd": zeros}
    state = params, slots.get(task.net.solver)

    def train(epochs: int) -> float:
        nonlocal state
        for _ in range(epochs):
            if size >= n:
                state, loss = step(state, x, y)
                continue
            order = generator.permutation(n).astype(np.int32)
            if scan:
                cut = n - n % size
                state, loss = steps(state, x, y, order[:cut].reshape(-1, size))
                order = order[cut:]
            for start in range(0, len(order), size):
                state, loss = step(state, x, y, order[start : start + size])
        return float(loss)

    classes = jax.jit(lambda params, x: forward(params, x).argmax(1))
    return Contender(train, lambda rows: np.asarray(classes(state[0], rows)))
