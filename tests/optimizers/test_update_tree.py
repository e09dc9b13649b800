"""Operations on whole trees: kinds, clipping, averages, and an update that compiles once."""

import numpy as np
import pytest
from helpers import tolerance
from rules import RATE, RULES, nested, params_and_gradients, run

from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.optimizers import averaged, clip, init_opt_state, kinds, update_tree


def put(backend, tree):
    return map_leaves(lambda leaf: backend.put(leaf.copy()), tree)


def test_the_last_matrix_of_the_tree_is_the_head(rng):
    matrix, vector = "matrix", "vector"
    block = [matrix, vector]
    assert kinds(nested(rng)) == [*block, vector, *block, *block, "head", vector]
    assert kinds((np.ones(2), np.ones(2))) == [vector, vector]
    assert kinds(np.ones((2, 2))) == ["head"]


@pytest.mark.matrix
@pytest.mark.parametrize("name", RULES)
def test_an_update_compiles_once(name, rng):
    jax = pytest.importorskip("jax")
    import jax.numpy as jnp

    rule, compiled = RULES[name], []

    def update(params, grads, opt_state, coefs):
        compiled.append(coefs)
        return update_tree(rule, params, grads, opt_state, coefs, xp=jnp)[:2]

    (params, steps), once = params_and_gradients(rng, "float32"), jax.jit(update)
    new = map_leaves(jnp.asarray, params)
    opt_state = init_opt_state(rule, new, xp=jnp)
    for t, grads in enumerate(steps, start=1):
        coefs = tuple(jnp.asarray(c, dtype=jnp.float32) for c in rule.coefficients(RATE / t, t))
        new, opt_state = once(new, map_leaves(jnp.asarray, grads), opt_state, coefs)
    assert len(compiled) == 1
    assert {leaf.dtype for leaf in leaves((new, opt_state))} == {jnp.dtype("float32")}
    assert all(np.abs(a - b).max() > 0 for a, b in zip(new, params, strict=True))


@pytest.mark.parametrize("l2", [None, 0.1])
def test_low_precision_gradients_are_converted_to_the_parameter_dtype(backend, l2, rng):
    """The results equal those for converted gradients, but Muon's products use low precision."""
    params, steps = params_and_gradients(rng)
    rounded = [map_leaves(lambda leaf: leaf.astype("float32"), grads) for grads in steps[:3]]
    exact = [map_leaves(lambda leaf: leaf.astype("float64"), grads) for grads in rounded]
    for name, rule in RULES.items():
        plain, expected = run(backend, update_tree, rule, params, exact, l2)
        low = l2 is not None or "muon" in name or name == "by kind"
        tiny = 1e-4 if low else 4 * tolerance("float64", 7)
        for update in (update_tree, backend.kernels.update):
            ours, penalties = run(backend, update, rule, params, rounded, l2)
            for mine, yours in zip(ours, plain, strict=True):
                assert mine.dtype == "float64"
                np.testing.assert_allclose(mine, yours, rtol=0, atol=tiny, err_msg=name)
            np.testing.assert_allclose(penalties, expected, rtol=tiny, err_msg=name)


@pytest.mark.libraries("torch", "jax")
def test_norm_of_bfloat16_gradients_is_computed_in_higher_precision(backend, rng):
    xp = backend.xp
    with backend.scope():
        grads = [backend.put(rng.standard_normal(shape)) for shape in ((50, 40), (40,))]
        grads = tuple(xp.astype(grad, xp.bfloat16) for grad in grads)
        exact = [backend.get(g).astype("float64") for g in grads]
        expected = np.sqrt(sum(np.sum(g * g) for g in exact))
        clipped, norm = clip(grads, 1.0, xp=xp)
        assert float(norm) == pytest.approx(expected, rel=1e-5)
        for mine, plain in zip(clipped, exact, strict=True):
            assert mine.dtype == xp.bfloat16
            np.testing.assert_allclose(backend.get(mine), plain / expected, rtol=2**-8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 1e4])
def test_clip_scales_long_gradients_to_the_maximum_norm_and_keeps_shorter_ones(
    backend, max_norm, dtype, rng
):
    some = nested(rng, dtype)
    for grads in (some, map_leaves(np.zeros_like, some)):
        expected = np.sqrt(sum(np.sum(leaf.astype("float64") ** 2) for leaf in leaves(grads)))
        factor = 1.0 if max_norm > expected else max_norm / expected
        with backend.scope():
            clipped, norm = clip(put(backend, grads), max_norm, xp=backend.xp)
            assert backend.get(norm).dtype == dtype
            assert float(norm) == pytest.approx(expected, rel=tolerance(dtype, 60))
            for mine, plain in zip(map(backend.get, leaves(clipped)), leaves(grads), strict=True):
                assert mine.dtype == dtype
                rtol = 0 if factor == 1.0 else tolerance(dtype, 60)  # Otherwise, equal bits.
                np.testing.assert_allclose(mine, plain * factor, rtol=rtol)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_clip_keeps_non_finite_gradients_visible(backend, value):
    grads = (np.asarray([[1.0, value]]), np.ones(2))
    # inf times 0 is the very thing that shows it.
    with backend.scope(), np.errstate(invalid="ignore"):
        clipped, norm = clip(put(backend, grads), 1.0, xp=backend.xp)
    first, others = map(backend.get, clipped)
    assert np.isnan(first[0, 1])
    assert not np.isfinite(float(norm))
    assert np.all(np.isnan(others) if np.isnan(value) else others == 0.0)


@pytest.mark.parametrize("max_norm", [0.0, -1.0, np.inf, np.nan])
def test_clip_rejects_invalid_norms(max_norm):
    said = f"`max_norm` must be above 0 and finite, got {max_norm!r}"
    with pytest.raises(ValueError, match=said):
        clip((np.ones(2),), max_norm, xp=np)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("as_array", [False, True])
def test_the_average_moves_toward_the_parameters(backend, as_array, dtype, rng):
    old, new = nested(rng, dtype), nested(rng, dtype)
    for rate in (0.0, 0.25, 1.0):
        with backend.scope():
            here = put(backend, new)
            given = backend.put(np.asarray(rate), dtype) if as_array else rate
            mean = averaged(put(backend, old), here, given, xp=backend.xp)
            mean, here = map_leaves(backend.get, (mean, here))
        for mine, before, p, kept in zip(*map(leaves, (mean, old, new, here)), strict=True):
            assert mine.dtype == dtype
            expected = (1 - rate) * before + rate * p
            np.testing.assert_allclose(mine, expected, rtol=0, atol=tolerance(dtype))
            np.testing.assert_array_equal(kept, p)
