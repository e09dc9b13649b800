"""What is done to a whole tree: kinds, clipping, averages, and an update that compiles once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from helpers import tolerance
from rules import RATE, RULES, params_and_gradients, run

from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.optimizers import AdamW, averaged, clip, init_opt_state, kinds, update_tree
from mlp_xp.optimizers._base import Stateless


class Layer(NamedTuple):
    W: object
    b: object


def nested(rng, dtype="float64"):
    """Return parameters as of a network with a gain, a residual block, and a head."""

    def layer(fan_in, fan_out):
        shapes = (fan_in, fan_out), (fan_out,)
        return Layer(*(rng.standard_normal(shape).astype(dtype) for shape in shapes))

    gain = rng.standard_normal(4).astype(dtype)
    return layer(3, 4), (gain, (layer(4, 4), layer(4, 4))), (layer(4, 2), ())


def put(backend, tree):
    return map_leaves(lambda leaf: backend.put(leaf.copy()), tree)


def test_the_head_is_the_last_matrix_of_the_tree(rng):
    matrix, vector = "matrix", "vector"
    assert kinds(nested(rng)) == [
        *(matrix, vector),
        vector,
        *(matrix, vector, matrix, vector),
        *("head", vector),
    ]
    assert kinds((np.ones(2), np.ones(2))) == [vector, vector]
    assert kinds(np.ones((2, 2))) == ["head"]


def test_update_tree_tells_a_rule_the_kinds(backend, rng):
    seen = []

    class Spy:
        state_type = Stateless

        def update(self, p, g, opt_state, coefs, *, kind, xp):
            seen.append((kind, p.shape))
            return p, ()

    params = put(backend, nested(rng))
    updated = update_tree(Spy(), params, params, (), (), xp=backend.xp)
    expected = zip(kinds(params), [leaf.shape for leaf in leaves(params)], strict=True)
    assert seen == list(expected)
    assert isinstance(updated.params[1][1][0], Layer)


@pytest.mark.parametrize("l2", [None, 0.1])
@pytest.mark.parametrize("name", RULES)
def test_the_backends_kernel_takes_nested_trees(backend, name, l2, rng):
    params, steps = nested(rng), [nested(rng) for _ in range(3)]
    kernel = run(backend, backend.kernels.update, RULES[name], params, steps, l2)
    default = run(backend, update_tree, RULES[name], params, steps, l2)
    for mine, plain in zip(kernel[0], default[0], strict=True):
        np.testing.assert_allclose(mine, plain, rtol=0, atol=4 * tolerance("float64", 7))
    np.testing.assert_allclose(kernel[1], default[1], rtol=tolerance("float64", 50))


@pytest.mark.parametrize("name", RULES)
def test_an_update_compiles_once(name, rng):
    jax = pytest.importorskip("jax")
    import jax.numpy as jnp

    rule, compiled = RULES[name], []

    def update(params, grads, opt_state, coefs):
        compiled.append(coefs)
        return update_tree(rule, params, grads, opt_state, coefs, xp=jnp)[:2]

    params, steps = params_and_gradients(rng, "float32")
    once = jax.jit(update)
    new = map_leaves(jnp.asarray, params)
    opt_state = init_opt_state(rule, new, xp=jnp)
    for t, grads in enumerate(steps, start=1):
        coefs = tuple(jnp.asarray(c, dtype=jnp.float32) for c in rule.coefficients(RATE / t, t))
        new, opt_state = once(new, map_leaves(jnp.asarray, grads), opt_state, coefs)
    assert len(compiled) == 1
    assert {leaf.dtype for leaf in leaves((new, opt_state))} == {jnp.dtype("float32")}
    assert all(np.abs(a - b).max() > 0 for a, b in zip(new, params, strict=True))


# --- low precision -------------------------------------------------------------------------------


@pytest.mark.parametrize("l2", [None, 0.1])
@pytest.mark.parametrize("name", RULES)
def test_gradients_of_low_precision_are_brought_to_the_parameters(backend, name, l2, rng):
    """As if they had come so; Muon's products are in the lower precision."""
    params, steps = params_and_gradients(rng)
    rounded = [map_leaves(lambda leaf: leaf.astype("float32"), grads) for grads in steps]
    exact = [map_leaves(lambda leaf: leaf.astype("float64"), grads) for grads in rounded]
    for update in (update_tree, backend.kernels.update):
        ours, penalties = run(backend, update, RULES[name], params, rounded, l2)
        plain, expected = run(backend, update_tree, RULES[name], params, exact, l2)
        low = l2 is not None or "muon" in name or name == "by kind"
        tiny = 1e-4 if low else 4 * tolerance("float64", 7)
        for mine, yours in zip(ours, plain, strict=True):
            assert mine.dtype == "float64"
            np.testing.assert_allclose(mine, yours, rtol=0, atol=tiny)
        np.testing.assert_allclose(penalties, expected, rtol=tiny)


def test_the_norm_of_low_precision_is_not_computed_in_it(backend, rng):
    if backend.name not in ("torch", "jax"):
        pytest.skip("no bfloat16")
    xp = backend.xp
    with backend.scope():
        grads = tuple(
            xp.astype(backend.put(rng.standard_normal(shape)), xp.bfloat16)
            for shape in ((50, 40), (40,))
        )
        exact = [backend.get(g).astype("float64") for g in grads]
        expected = np.sqrt(sum(np.sum(g * g) for g in exact))
        clipped, norm = clip(grads, 1.0, xp=xp)
        assert float(norm) == pytest.approx(expected, rel=1e-5)
        for mine, plain in zip(clipped, exact, strict=True):
            assert mine.dtype == xp.bfloat16
            np.testing.assert_allclose(backend.get(mine), plain / expected, rtol=2**-8)


# --- clipping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 1e4])
def test_clip_is_torchs(backend, max_norm, dtype, rng, torch):
    grads = nested(rng, dtype)
    theirs = [torch.zeros(leaf.shape) for leaf in leaves(grads)]
    for leaf, grad in zip(theirs, leaves(grads), strict=True):
        leaf.grad = torch.tensor(grad.astype("float32"))
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    with backend.scope():
        clipped, norm = clip(put(backend, grads), max_norm, xp=backend.xp)
        assert backend.get(norm).dtype == dtype
        assert float(norm) == pytest.approx(float(expected), rel=tolerance("float32", 60))
        for mine, yours in zip(leaves(clipped), theirs, strict=True):
            assert backend.get(mine).dtype == dtype
            # torch adds 1e-6 to the norm, which is above 1 here.
            np.testing.assert_allclose(backend.get(mine), yours.grad.numpy(), rtol=5e-6)


def test_clip_leaves_short_gradients_bit_for_bit(backend, rng):
    grads = nested(rng)
    with backend.scope():
        clipped, _ = clip(put(backend, grads), 1e3, xp=backend.xp)
    for mine, plain in zip(leaves(clipped), leaves(grads), strict=True):
        np.testing.assert_array_equal(backend.get(mine), plain)


def test_clip_of_zeros_gives_zeros(backend):
    with backend.scope():
        (grad,), norm = clip((backend.put(np.zeros((2, 2), np.float32)),), 1.0, xp=backend.xp)
    np.testing.assert_array_equal(backend.get(grad), np.zeros((2, 2)))
    assert float(norm) == 0.0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_clip_hides_nothing_that_is_not_finite(backend, value):
    grads = (np.asarray([[1.0, value]]), np.ones(2))
    # inf times 0 is the very thing that shows it.
    with backend.scope(), np.errstate(invalid="ignore"):
        clipped, norm = clip(put(backend, grads), 1.0, xp=backend.xp)
    assert np.isnan(backend.get(clipped[0])[0, 1])
    assert not np.isfinite(float(norm))
    others = backend.get(clipped[1])
    assert np.all(np.isnan(others) if np.isnan(value) else others == 0.0)


@pytest.mark.parametrize("max_norm", [0.0, -1.0, np.inf, np.nan])
def test_clip_refuses_norms_that_mean_nothing(max_norm):
    with pytest.raises(ValueError, match=f"max_norm is {max_norm!r}, and must be above 0"):
        clip((np.ones(2),), max_norm, xp=np)


# --- averages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_average_moves_towards_the_parameters(backend, dtype, rng):
    old, seen = nested(rng, dtype), [nested(rng, dtype) for _ in range(4)]
    expected = list(leaves(old))
    with backend.scope():
        mean, rate = put(backend, old), backend.put(np.asarray(0.25), dtype)
        for params in seen:
            here = put(backend, params)
            mean = averaged(mean, here, rate, xp=backend.xp)
            expected = [0.75 * a + 0.25 * p for a, p in zip(expected, leaves(params), strict=True)]
            for mine, plain in zip(leaves(here), leaves(params), strict=True):
                np.testing.assert_array_equal(backend.get(mine), plain)
        for mine, plain in zip(leaves(mean), expected, strict=True):
            assert backend.get(mine).dtype == dtype
            np.testing.assert_allclose(backend.get(mine), plain, atol=tolerance(dtype, 4))


def test_an_average_at_rate_0_stays_and_at_rate_1_follows(backend):
    for rate, expected in ((0.0, 1.0), (1.0, 3.0)):
        with backend.scope():
            old, new = ((backend.put(np.full(2, value)),) for value in (1.0, 3.0))
            (mean,) = averaged(old, new, backend.put(np.asarray(rate)), xp=backend.xp)
        np.testing.assert_array_equal(backend.get(mean), np.full(2, expected))


def test_only_matrices_of_a_nested_tree_decay(backend, rng):
    params = nested(rng)
    zero = map_leaves(np.zeros_like, params)
    ours, _ = run(backend, update_tree, AdamW(weight_decay=0.5), params, [zero])
    for mine, plain in zip(ours, leaves(params), strict=True):
        kept = 1 - RATE * 0.5 if plain.ndim > 1 else 1.0
        np.testing.assert_allclose(mine, kept * plain, rtol=tolerance("float64"))
