"""Update rules, parameter trees, and a function that runs a few steps, for tests."""

import numpy as np

from mlp_xp import optimizers
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.nn.layers import Dense
from mlp_xp.optimizers import SGD, Adam, AdamW, BetaLasso, ByKind, Lion, Muon, RMSprop

RATE = 0.05
ORIGINAL = {"ns_steps": 5, "ns_polynomial": "jordan", "weight_decay": 0.3}
RULES = {
    "plain": SGD(momentum=0.0),
    "momentum": SGD(momentum=0.8, nesterov=False),
    "nesterov": SGD(momentum=0.8),
    "adam": Adam(),
    "adam, no first moment": Adam(beta_1=0.0, epsilon=1e-3),
    "adamw": AdamW(weight_decay=0.3),
    "rmsprop": RMSprop(),
    "rmsprop, momentum": RMSprop(momentum=0.5),
    "lion": Lion(),
    "lion, decay": Lion(weight_decay=0.3),
    "muon": Muon(),
    "muon, original": Muon(nesterov=False, scale="original", adam_rate=0.5, **ORIGINAL),
    "muon, three steps": Muon(scale="original", ns_steps=3),
    "beta-lasso": BetaLasso(l1=1e-3, beta=10.0),
    "by kind": ByKind(
        Muon(scale="original"), SGD(), AdamW(weight_decay=0.0), vector_rate=0.5, head_rate=2.0
    ),
    "by kind, small state": ByKind(Lion(), SGD(momentum=0.0), RMSprop(momentum=0.5), head_rate=0.5),
}


def params_and_gradients(rng, dtype="float64"):
    """Return random parameters and gradients for seven steps."""
    shapes = ((4, 3), (3,), (3, 2), (2,))
    params = tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes)
    steps = [tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes) for _ in range(7)]
    return params, steps


def nested(rng, dtype="float64"):
    """Return nested parameters of a network with a gain, a residual block and a head."""

    def layer(fan_in, fan_out):
        shapes = (fan_in, fan_out), (fan_out,)
        return Dense(*(rng.standard_normal(shape).astype(dtype) for shape in shapes))

    gain = rng.standard_normal(4).astype(dtype)
    return layer(3, 4), (gain, (layer(4, 4), layer(4, 4))), (layer(4, 2), ())


def run(backend, update, rule, params, steps, l2=None, rate=RATE):
    """Return the parameters after all steps, and the penalty of each step, in NumPy."""
    dtype = str(leaves(params)[0].dtype)
    penalties = []
    with backend.scope():
        params = map_leaves(lambda leaf: backend.put(leaf.copy()), params)
        opt_state = optimizers.init_opt_state(rule, params, xp=backend.xp)
        for t, grads in enumerate(steps, start=1):
            coefs = backend.put(np.asarray((*rule.coefficients(rate, t), l2 or 0.0)), dtype)
            coefs = [coefs[i] for i in range(coefs.shape[0])]
            grads = map_leaves(lambda leaf: backend.put(leaf.copy()), grads)
            factor = coefs.pop()
            params, opt_state, penalty = update(
                rule, params, grads, opt_state, tuple(coefs), factor if l2 else None, xp=backend.xp
            )
            penalties.append(float(penalty))
        return [backend.get(leaf) for leaf in leaves(params)], penalties
