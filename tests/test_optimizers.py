"""Update rules and schedules against formulas and against those of scikit-learn and torch."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import tolerance
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from mlp_xp.optimizers import OPTIMIZERS, SGD, Adam, AdamW, init_slots, update_tree
from mlp_xp.schedules import SCHEDULES, Cosine, InvScaling, LinearWarmup, OneCycle
from mlp_xp.tree import leaves, map_leaves

RATE = 0.05
RULES = {
    "plain": SGD(momentum=0.0),
    "momentum": SGD(momentum=0.8, nesterov=False),
    "nesterov": SGD(momentum=0.8),
    "adam": Adam(),
    "adam, no first moment": Adam(beta_1=0.0, epsilon=1e-3),
    "adamw": AdamW(weight_decay=0.3),
}


def problem(rng, dtype="float64"):
    """Give parameters and the gradients of seven steps."""
    shapes = ((4, 3), (3,), (3, 2), (2,))
    params = tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes)
    steps = [tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes) for _ in range(7)]
    return params, steps


def run(backend, update, rule, params, steps, l2=None):
    """Give the parameters after all steps, and the penalties on the way, in NumPy."""
    dtype = str(params[0].dtype)
    penalties = []
    with backend.scope():
        params = map_leaves(lambda leaf: backend.put(leaf.copy()), params)
        slots = init_slots(rule, params, xp=backend.xp)
        for t, grads in enumerate(steps, start=1):
            coefs = backend.put(np.asarray((*rule.coefficients(RATE, t), l2 or 0.0)), dtype)
            coefs = [coefs[i] for i in range(coefs.shape[0])]
            grads = map_leaves(lambda leaf: backend.put(leaf.copy()), grads)
            factor = coefs.pop()
            params, slots, penalty = update(
                rule, params, grads, slots, tuple(coefs), factor if l2 else None, xp=backend.xp
            )
            penalties.append(float(penalty))
        return [backend.get(leaf) for leaf in leaves(params)], penalties


@pytest.mark.parametrize("name", ["momentum", "nesterov", "adam", "adam, no first moment"])
def test_the_same_as_scikit_learn(backend, name, rng):
    rule = RULES[name]
    params, steps = problem(rng)
    ours, _ = run(backend, update_tree, rule, params, steps)
    theirs = [leaf.copy() for leaf in params]
    if isinstance(rule, SGD):
        peer = SGDOptimizer(
            theirs, learning_rate_init=RATE, momentum=rule.momentum, nesterov=rule.nesterov
        )
    else:
        peer = AdamOptimizer(
            theirs, RATE, beta_1=rule.beta_1, beta_2=rule.beta_2, epsilon=rule.epsilon
        )
    for grads in steps:
        peer.update_params(theirs, grads)
    for mine, yours in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, yours, rtol=0, atol=tolerance("float64", 7))


def test_adamw_is_torchs_where_every_parameter_is_a_matrix(backend, rng):
    torch = pytest.importorskip("torch")
    params, steps = problem(rng)
    matrices = [leaf for leaf in params if leaf.ndim == 2]
    steps = [tuple(leaf for leaf in grads if leaf.ndim == 2) for grads in steps]
    # With epsilon = 0 both forms of Adam are one.
    ours, _ = run(
        backend, update_tree, AdamW(epsilon=0.0, weight_decay=0.3), tuple(matrices), steps
    )
    theirs = [torch.tensor(leaf) for leaf in matrices]
    peer = torch.optim.AdamW(theirs, lr=RATE, eps=0.0, weight_decay=0.3)
    for grads in steps:
        for leaf, grad in zip(theirs, grads, strict=True):
            leaf.grad = torch.tensor(grad)
        peer.step()
    for mine, yours in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, yours.numpy(), rtol=0, atol=tolerance("float64", 7))


def test_biases_neither_decay_nor_are_penalised(backend):
    params = (np.full((1, 1), 2.0), np.full(1, 2.0))
    zero = tuple(np.zeros_like(leaf) for leaf in params)
    (W, b), _ = run(backend, update_tree, AdamW(weight_decay=0.5), params, [zero])
    assert W[0, 0] == pytest.approx(2 * (1 - RATE * 0.5))
    assert b[0] == 2.0
    (W, b), penalties = run(backend, update_tree, SGD(momentum=0.0), params, [zero], l2=0.5)
    assert W[0, 0] == pytest.approx(2 * (1 - RATE * 0.5))
    assert b[0] == 2.0
    assert penalties == [pytest.approx(0.5 * 0.5 * 2.0**2)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("l2", [None, 0.1])
@pytest.mark.parametrize("name", RULES)
def test_the_backends_kernel_does_what_the_default_does(backend, name, l2, dtype, rng):
    params, steps = problem(rng, dtype)
    kernel = run(backend, backend.kernels.update, RULES[name], params, steps, l2)
    default = run(backend, update_tree, RULES[name], params, steps, l2)
    for mine, plain in zip(kernel[0], default[0], strict=True):
        assert mine.dtype == plain.dtype == dtype
        np.testing.assert_allclose(mine, plain, rtol=0, atol=4 * tolerance(dtype, 7))
    np.testing.assert_allclose(kernel[1], default[1], rtol=tolerance(dtype, 12))


def test_the_backends_kernel_takes_arrays_that_are_not_contiguous(backend, rng):
    params, steps = problem(rng)
    turned = [tuple(np.asfortranarray(leaf) for leaf in grads) for grads in steps]
    kernel, _ = run(backend, backend.kernels.update, Adam(), params, turned)
    default, _ = run(backend, update_tree, Adam(), params, steps)
    for mine, plain in zip(kernel, default, strict=True):
        np.testing.assert_allclose(mine, plain, rtol=0, atol=tolerance("float64", 7))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(momentum=1.0), "momentum is 1.0, and must be at least 0 and below 1"),
        (lambda: Adam(beta_2=-0.1), "beta_2 is -0.1"),
        (lambda: Adam(epsilon=-1e-8), "epsilon is -1e-08"),
        (lambda: AdamW(weight_decay=-1.0), "weight_decay is -1.0"),
        (lambda: OneCycle(start_div=0.5), "start_div is 0.5"),
        (lambda: Cosine(final=2.0), "final is 2.0, and must be from 0 to 1"),
        (lambda: LinearWarmup(fraction=-1.0), "fraction is -1.0"),
    ],
)
def test_bad_settings_say_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_rules_and_schedules_can_be_static_under_a_compiler():
    for kind in (*OPTIMIZERS.values(), *SCHEDULES.values()):
        assert hash(kind()) == hash(kind())
        assert kind() == kind()


def test_onecycle_is_torchs():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    peer = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=20, cycle_momentum=False, final_div_factor=1e4
    )
    factors = []
    for _ in range(20):
        factors.append(peer.get_last_lr()[0])
        optimizer.step()
        if len(factors) < 20:
            peer.step()
    # torch ends the rise on step 0.3 * 20 - 1, counted from 0: 5 of 19.
    ours = [OneCycle(rise=5 / 19, final_div=25 * 1e4)(step, 20, 0) for step in range(20)]
    np.testing.assert_allclose(ours, factors, rtol=1e-12)


def test_invscaling_is_scikit_learns():
    peer = SGDOptimizer([np.zeros(1)], 0.1, lr_schedule="invscaling", power_t=0.4)
    for seen in (100, 200):
        peer.iteration_ends(seen)
        ours = 0.1 * InvScaling(power_t=0.4)(0, 1, n_samples=seen)
        assert ours == pytest.approx(peer.learning_rate)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_of_a_single_step(name):
    assert 0.0 <= SCHEDULES[name]()(step=0, n_steps=1, n_samples=0) <= 1.0
