"""Muon: its orthogonal updates, its scales, and what AdamW does in its place."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import tolerance
from rules import RATE, problem, run

from mlp_xp.optimizers import AdamW, Muon, update_tree

pytestmark = pytest.mark.maths

SHAPES = {"tall": (40, 6), "wide": (6, 40), "square": (16, 16), "row": (1, 5), "column": (5, 1)}
PLAIN = Muon(scale="original")
HEAD = np.ones((1, 1))


def move(backend, rule, dW):
    """Give what one step subtracts from a hidden matrix, in units of the rate."""
    (W, _), _ = run(backend, update_tree, rule, (np.zeros_like(dW), HEAD), [(dW, HEAD)])
    return -W / RATE


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e6])
def test_an_update_is_near_the_orthogonal_matrix(backend, name, size, rng):
    fan_in, fan_out = SHAPES[name]
    dW = size * rng.standard_normal((fan_in, fan_out))
    found = move(backend, PLAIN, dW) / math.sqrt(max(1.0, fan_out / fan_in))
    values = np.linalg.svd(found, compute_uv=False)
    assert values.min() > 0.6
    assert values.max() < 1.3
    # The singular vectors are those of the gradient: U^T (update) V is diagonal and positive.
    U, _, Vt = np.linalg.svd(dW, full_matrices=False)
    turned = U.T @ found @ Vt.T
    np.testing.assert_allclose(turned, np.diag(np.diag(turned)), atol=1e-9)
    assert np.diag(turned).min() > 0.6


@pytest.mark.parametrize("shape", [(40, 6), (6, 40), (8, 8)])
def test_a_gradient_of_rank_one_gives_an_update_of_rank_one(backend, shape, rng):
    dW = np.outer(rng.standard_normal(shape[0]), rng.standard_normal(shape[1]))
    found = move(backend, PLAIN, dW) / math.sqrt(max(1.0, shape[1] / shape[0]))
    values = np.linalg.svd(found, compute_uv=False)
    assert 0.6 < values[0] < 1.3
    assert values[1:].max() < 1e-9


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_gradient_of_zero_or_nearly_so_moves_nothing(backend, dtype):
    for size in (0.0, 1e-30):
        found = move(backend, PLAIN, np.full((3, 2), size, dtype))
        assert found.dtype == dtype
        assert np.abs(found).max() < 1e-9


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_the_gram_matrix_is_the_small_one(shape):
    jax = pytest.importorskip("jax")
    import jax.numpy as jnp

    W = jnp.zeros(shape, dtype=jnp.float32)
    coefs = tuple(jnp.zeros(4, dtype=jnp.float32))
    program = jax.make_jaxpr(lambda W: Muon().update(W, W, (W, W), coefs, xp=jnp))(W)
    assert "f32[6,6]" in str(program)
    assert "f32[40,40]" not in str(program)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("scale", ["original", "match_rms_adamw"])
def test_the_same_as_torch(backend, nesterov, scale, rng, torch, monkeypatch):
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    # torch's products are in bfloat16, of which nothing could be concluded.
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda tensor: tensor.clone())
    shapes = [(9, 4), (4, 9), (5, 5)]
    params = [rng.standard_normal(shape) for shape in shapes]
    # The length of a gradient does not matter, but for torch's other way to avoid 0 / 0.
    steps = [[1e7 * rng.standard_normal(shape) for shape in shapes] for _ in range(5)]
    rule = Muon(0.9, nesterov, weight_decay=0.3, scale=scale, adam_rate=0.5)
    ours, _ = run(backend, update_tree, rule, (*params, HEAD), [(*grads, HEAD) for grads in steps])
    # torch's matrices are (fan_out, fan_in).
    theirs = [torch.tensor(W.T) for W in params]
    peer = torch.optim.Muon(
        theirs, RATE, 0.3, 0.9, nesterov, adjust_lr_fn=None if scale == "original" else scale
    )
    for grads in steps:
        for W, dW in zip(theirs, grads, strict=True):
            W.grad = torch.tensor(dW.T)
        peer.step()
    for mine, yours in zip(ours[:-1], theirs, strict=True):
        np.testing.assert_allclose(mine, yours.numpy().T, rtol=0, atol=1e-11)


def test_vectors_and_the_head_follow_adamw(backend, rng):
    params, steps = problem(rng)
    rule = Muon(weight_decay=0.2, adam_rate=0.25, beta_1=0.8, beta_2=0.9, epsilon=1e-3)
    adamw = AdamW(beta_1=0.8, beta_2=0.9, epsilon=1e-3, weight_decay=0.2)

    class Slower:
        """AdamW at a quarter of the rate."""

        n_slots, update = adamw.n_slots, adamw.update

        def coefficients(self, learning_rate, t):
            return adamw.coefficients(0.25 * learning_rate, t)

    ours, _ = run(backend, update_tree, rule, params, steps)
    theirs, _ = run(backend, update_tree, Slower(), params, steps)
    for mine, yours in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(mine, yours, rtol=0, atol=tolerance("float64", 7))
    assert np.abs(ours[0] - theirs[0]).max() > 0.01


def test_the_scale_of_adamw_moves_a_matrix_by_a_fifth_of_the_rate(backend, rng):
    for shape in ((64, 16), (16, 64)):
        found = move(backend, Muon(), rng.standard_normal(shape))
        assert 0.6 * 0.2 < np.sqrt(np.mean(found**2)) < 1.3 * 0.2
