"""Muon: its orthogonal updates, its scales, and what AdamW does in its place."""

import math

import numpy as np
import pytest
from helpers import tolerance
from rules import RATE, params_and_gradients, run

from mlp_xp.optimizers import AdamW, Muon, init_opt_state, update_tree
from mlp_xp.optimizers._muon import _best_quintic, _minimax, _value

PLAIN = Muon(scale="original")
JORDAN = Muon(scale="original", ns_steps=5, ns_polynomial="jordan")
HEAD = np.ones((1, 1))


def train(backend, rule, W, steps):
    (W, _), _ = run(backend, update_tree, rule, (W, HEAD), [(dW, HEAD) for dW in steps])
    return W


def move(backend, rule, dW):
    """Return what one step subtracts from a hidden matrix, in units of the rate."""
    return -train(backend, rule, np.zeros_like(dW), [dW]) / RATE


def original_scale(shape):
    return math.sqrt(max(1.0, shape[-1] / shape[-2]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(48, 12), (12, 48), (16, 16), (1, 5), (5, 1)])
@pytest.mark.parametrize("n_steps", [3, 4, 8, "jordan"])
def test_muon_update_is_nearly_orthogonal(backend, shape, n_steps, dtype, rng):
    """Small singular values grow, for gradients of any norm; zero gradients stay zero."""
    rule = JORDAN if n_steps == "jordan" else Muon(scale="original", ns_steps=n_steps)
    U, _, Vt = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
    lengths = np.geomspace(1.0, 1 / 60, len(Vt))
    for size in (1e-4, 1.0, 1e6):
        found = move(backend, rule, (size * U * lengths @ Vt).astype(dtype))
        values = np.diag(U.T @ found @ Vt.T) / original_scale(shape)
        low, high = (0.66, 1.22) if rule is JORDAN else (0.74, 1.26)
        assert low < values.min() <= values.max() < high
        expected = original_scale(shape) * U * values @ Vt
        np.testing.assert_allclose(found, expected, atol=1e-3 if dtype == "float32" else 1e-9)
    if len(Vt) > 1 and dtype == "float64":
        of_rank_1 = move(backend, rule, U[:, :1] @ Vt[:1, :])
        assert np.linalg.svd(of_rank_1, compute_uv=False)[1:].max() < 1e-9


def test_muon_ignores_zero_or_tiny_gradients(backend):
    for size in (0.0, 1e-30):
        for dtype in ("float32", "float64"):
            assert np.abs(move(backend, PLAIN, np.full((3, 2), size, dtype))).max() < 1e-9


def test_muon_scale_depends_on_the_matrix_shape(backend, rng):
    """Transposing a gradient transposes its orthogonal matrix."""
    dW = rng.standard_normal((8, 2))
    tall, wide = move(backend, PLAIN, dW), move(backend, PLAIN, dW.T).T
    np.testing.assert_allclose(wide, 2.0 * tall, rtol=0, atol=1e-11)
    for given in (dW, dW.T):
        found = move(backend, Muon(), given)
        expected = move(backend, PLAIN, given) / original_scale(given.shape) * 0.2 * 8**0.5
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9, None])
def test_muon_step_follows_the_momentum(backend, nesterov, momentum, rng):
    """Updates follow the formula; without momentum, a step depends only on its own gradient."""
    settings = {} if momentum is None else {"momentum": momentum, "weight_decay": 0.3}
    momentum, decay = settings.get("momentum", 0.95), settings.get("weight_decay", 0.0)
    W, *steps = rng.standard_normal((5, 6, 4))
    found = train(backend, Muon(nesterov=nesterov, **settings), W, steps)
    mean = np.zeros_like(W)
    for dW in steps:
        mean = momentum * mean + (1 - momentum) * dW
        D = momentum * mean + (1 - momentum) * dW if nesterov else mean
        W = (1 - RATE * decay) * W - RATE * move(backend, Muon(momentum=0.0), D)
    np.testing.assert_allclose(found, W, rtol=0, atol=1e-11)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("scale", ["original", "match_rms_adamw"])
def test_muon_matches_torch(backend, nesterov, scale, rng, torch, monkeypatch):
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    settings = {"ns_steps": 5, "ns_polynomial": "jordan"}
    rule = Muon(0.9, nesterov, weight_decay=0.3, scale=scale, adam_rate=0.5, **settings)
    for shape in ((9, 4), (4, 9), (5, 5)):
        # The length of a gradient does not matter, but for torch's other way to avoid 0 / 0.
        W, *steps = 1e7 * rng.standard_normal((6, *shape))
        ours = train(backend, rule, 1e-7 * W, steps)
        theirs = torch.tensor(1e-7 * W.T)  # torch's matrices are (fan_out, fan_in).
        adjust = None if scale == "original" else scale
        peer = torch.optim.Muon([theirs], RATE, 0.3, 0.9, nesterov, adjust_lr_fn=adjust)
        # torch's products are in bfloat16, of which nothing could be concluded.
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "bfloat16", lambda tensor: tensor.clone())
            patch.setattr(torch, "bfloat16", torch.float64)  # What torch 2.15 reads.
            for dW in steps:
                theirs.grad = torch.tensor(dW.T)
                peer.step()
        np.testing.assert_allclose(ours, theirs.numpy().T, rtol=0, atol=1e-11)


def test_muon_updates_vectors_and_the_head_with_adamw(backend, rng):
    params, steps = params_and_gradients(rng)
    settings = {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3, "weight_decay": 0.2}
    for rule, adamw, rate in (
        (Muon(adam_rate=0.25, **settings), AdamW(**settings), 0.25),
        (Muon(), AdamW(beta_1=0.9, beta_2=0.95, epsilon=1e-8, weight_decay=0.0), 1.0),
    ):
        ours, _ = run(backend, update_tree, rule, params, steps)
        theirs, _ = run(backend, update_tree, adamw, params, steps, rate=rate * RATE)
        for mine, yours in zip(ours[1:], theirs[1:], strict=True):
            np.testing.assert_allclose(mine, yours, rtol=0, atol=tolerance("float64", 7))
        assert np.abs(ours[0] - theirs[0]).max() > 0.01


@pytest.mark.parametrize(
    ("n_steps", "least"), [(3, 1 / 90), (4, 1 / 380), (5, 1 / 1600), (8, 1 / 90_000)]
)
def test_polynomials_map_a_wide_range_of_singular_values_near_1(n_steps, least):
    values = np.concatenate([np.geomspace(least, 0.02, 5000), np.linspace(0.02, 1.0, 5000)])
    for a, b, c in _minimax(n_steps):
        values = a * values + b * values**3 + c * values**5
    assert 0.745 < values.min() <= values.max() < 1.255


@pytest.mark.parametrize(("low", "high"), [(1e-3, 1.0), (0.1, 1.0), (0.3, 1.7)])
def test_quintic_polynomial_is_the_best_approximation_to_1(low, high):
    """Its error is as large at four points in turn, which only the best one's is (Chebyshev)."""
    values = _value(_best_quintic(low, high), np.linspace(low, high, 9999))
    error = np.abs(values - 1.0).max()
    signs = np.sign(values[np.abs(values - 1.0) > error * (1 - 1e-6)] - 1.0)
    assert signs[np.append(True, np.diff(signs) != 0)].tolist() == [-1.0, 1.0, -1.0, 1.0]


@pytest.mark.parametrize("shape", [(5, 9, 4), (5, 4, 9), (5, 4, 4), (1, 6, 2)])
def test_stacked_matrices_are_updated_independently(backend, shape, rng):
    rule, stack = Muon(weight_decay=0.1), rng.standard_normal(shape)
    # With blocks of very different norms, a joint norm would be noticed.
    sizes = np.geomspace(1e-3, 1e3, shape[0])[:, None, None]
    steps = [sizes * rng.standard_normal(shape) for _ in range(3)]
    ours = train(backend, rule, stack, steps)
    for i in range(shape[0]):
        mine = train(backend, rule, stack[i], [dW[i] for dW in steps])
        np.testing.assert_allclose(ours[i], mine, rtol=0, atol=1e-11)


@pytest.mark.matrix
@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_muon_computes_the_smaller_gram_matrix(shape):
    jax = pytest.importorskip("jax")
    import jax.numpy as jnp

    W, coefs = jnp.zeros(shape, "float32"), tuple(jnp.zeros(4, "float32"))
    state = Muon().state_type(W, W)
    program = jax.make_jaxpr(lambda W: Muon().update(W, W, state, coefs, xp=jnp))(W)
    assert "f32[6,6]" in str(program)
    assert "f32[40,40]" not in str(program)


@pytest.mark.parametrize(
    ("shape", "n_steps"), [((48, 12), 3), ((12, 48), 4), ((16, 16), 4), ((3, 8, 32), 4)]
)
def test_muon_multiplies_in_the_gradient_dtype_and_returns_the_parameter_dtype(
    backend, shape, n_steps, rng
):
    has_bfloat16 = backend.name in ("torch", "jax")
    wide, narrow = ("float32", "bfloat16") if has_bfloat16 else ("float64", "float32")
    xp, rule = backend.xp, Muon(scale="original", ns_steps=n_steps)
    dW = rng.standard_normal(shape)
    with backend.scope():
        grads = tuple(backend.put(leaf, wide) for leaf in (dW, HEAD))
        params = tuple(map(xp.zeros_like, grads))
        grads = tuple(xp.astype(grad, getattr(xp, narrow)) for grad in grads)
        rounded = np.array(backend.get(grads[0]), "float64")
        opt_state = init_opt_state(rule, params, xp=xp)
        coefs = tuple(backend.put(np.asarray(c), wide) for c in rule.coefficients(1.0, 1))
        (W, head), opt_state, _ = update_tree(rule, params, grads, opt_state, coefs, xp=xp)
        for leaf in (W, head, opt_state[0][0], opt_state[1][1]):
            assert leaf.dtype == getattr(xp, wide)
        found, velocity = -backend.get(W) / original_scale(shape), backend.get(opt_state[0][0])
    U, _, Vt = np.linalg.svd(dW, full_matrices=False)
    # Rounding moves a singular value between 0.75 and 1.25; the directions must be the same.
    lengths = np.linalg.norm(found) * np.linalg.norm(U @ Vt)
    assert np.sum(found * (U @ Vt)) > 0.94 * lengths
    exact = move(backend, rule, rounded) / original_scale(shape)
    assert np.linalg.norm(found - exact) > (1e-3 if has_bfloat16 else 1e-9)
    # The gradient is rounded to 8 bits, but not the sum.
    np.testing.assert_allclose(velocity, 0.05 * dW, rtol=2**-8)
    assert np.linalg.svd(found, compute_uv=False).max() < 1.3
