"""The kernels of torch: the cases in which they run, and the memory that they use again."""

from __future__ import annotations

import gc
import sys

import numpy as np
import pytest
from helpers import tolerance
from rules import RULES, run

from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends import get_backend
from mlp_xp.backends.kernels import Scaling, gather
from mlp_xp.nn import layers
from mlp_xp.nn.layers import ACTIVATIONS, Arrangement, Dense
from mlp_xp.nn.losses import SoftmaxCrossEntropy
from mlp_xp.nn.network import Network, init_params
from mlp_xp.optimizers import SGD, Adam, AdamW, init_opt_state, update_tree
from mlp_xp.training.inputs import Batch
from mlp_xp.training.step import init_state, make_step

torch = pytest.importorskip("torch")

from mlp_xp.backends._torch import buffers as _torch_buffers  # noqa: E402
from mlp_xp.backends._torch import kernels as _torch_kernels  # noqa: E402


@pytest.fixture
def backend():
    return get_backend("torch", "cpu")


# --- memory --------------------------------------------------------------------------------------


def test_memory_that_nobody_uses_is_used_again():
    owner = torch.zeros(1)
    first = _torch_buffers.empty(owner, "a", (300, 300), torch.float32)
    place = first.data_ptr()
    assert first.shape == (300, 300)
    assert place % 64 == 0
    del first
    assert _torch_buffers.empty(owner, "a", (200, 300), torch.float32).data_ptr() == place


@pytest.mark.parametrize("hold", [lambda t: t, lambda t: t[1:], lambda t: t.T, lambda t: t.numpy()])
def test_memory_that_somebody_uses_is_left_alone(hold):
    owner = torch.zeros(1)
    held = hold(_torch_buffers.empty(owner, "a", (300, 300), torch.float32).fill_(1.0))
    second = _torch_buffers.empty(owner, "a", (300, 300), torch.float32).fill_(2.0)
    assert bool((held == 1.0).all())
    assert bool((second == 2.0).all())


@pytest.mark.parametrize("more", [-1, 0, 5])
def test_who_holds_memory_is_counted_as_this_python_counts(more, monkeypatch):
    real = sys.getrefcount
    monkeypatch.setattr(sys, "getrefcount", lambda array: real(array) - 1 + more)
    monkeypatch.setattr(_torch_buffers, "_UNUSED", _torch_buffers._count_of_unused())
    test_memory_that_nobody_uses_is_used_again()
    test_memory_that_somebody_uses_is_left_alone(lambda tensor: tensor[1:])


def test_memory_is_not_used_again_where_no_count_tells_who_holds_it(monkeypatch):
    monkeypatch.setattr(sys, "getrefcount", lambda _: 2)
    assert _torch_buffers._count_of_unused() == 0
    monkeypatch.setattr(_torch_buffers, "_UNUSED", _torch_buffers._count_of_unused())
    test_memory_that_somebody_uses_is_left_alone(lambda tensor: tensor[1:])


def test_memory_goes_with_its_owner():
    owner = torch.zeros(1)
    number = id(owner)
    _torch_buffers.empty(owner, "a", (300, 300), torch.bfloat16)
    assert number in _torch_buffers._kept
    del owner
    gc.collect()
    assert number not in _torch_buffers._kept


# --- against the defaults ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("rows", "fan_in", "fan_out"), [(3, 4, 2), (700, 300, 10), (700, 300, 70)])
def test_dense_does_what_the_default_does(backend, rows, fan_in, fan_out, dtype, rng):
    shapes = (rows, fan_in), (fan_in, fan_out), (fan_out,), (rows, fan_out)
    with backend.scope():
        x, W, b, dy = (backend.put(rng.standard_normal(s).astype(dtype)) for s in shapes)
        results = []
        for dense in (backend.kernels.dense, layers.affine):
            y, pullback = dense(Dense(W, b), x, xp=backend.xp)
            dx, grads = pullback(dy, need_dx=True)
            assert pullback(dy, need_dx=False)[0] is None
            results.append([backend.get(array) for array in (y, dx, *grads)])
    for mine, plain in zip(*results, strict=True):
        assert mine.dtype == plain.dtype == dtype
        scale = np.abs(plain).max()
        np.testing.assert_allclose(mine, plain, rtol=0, atol=scale * tolerance(dtype, rows))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "how",
    [
        Arrangement((3, 16, 2, 16, 2), (0, 2, 4), 8),  # Two numbers in a row stay together.
        Arrangement((3, 8, 4, 8, 4), (0, 2, 4)),
        Arrangement((16, 16, 8), (1, 2)),
        Arrangement((16, 16, 8), (0, 2)),
        Arrangement((16, 16, 8), (0,), 24),
    ],
)
def test_block_dense_does_what_the_default_does(backend, how, dtype, rng):
    n, features = 300, int(np.prod(how.shape))
    n_outputs = how.blocks * how.fan_out
    shapes = (n, features), (how.blocks, how.fan_in, how.fan_out), (n_outputs,), (n, n_outputs)
    with backend.scope():
        x, W, b, dy = (backend.put(rng.standard_normal(s).astype(dtype)) for s in shapes)
        results = []
        for dense in (backend.kernels.dense, layers.affine):
            y, pullback = dense(Dense(W, b), x, how, xp=backend.xp)
            dx, grads = pullback(dy, need_dx=True)
            assert pullback(dy, need_dx=False)[0] is None
            results.append([backend.get(array) for array in (y, dx, *grads)])
    for mine, plain in zip(*results, strict=True):
        assert mine.dtype == plain.dtype == dtype
        scale = np.abs(plain).max()
        np.testing.assert_allclose(mine, plain, rtol=0, atol=scale * tolerance(dtype, n))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_do_what_the_defaults_do(backend, name, dtype, rng):
    values = np.concatenate([rng.standard_normal(400) * 4, [0.0, -0.0, 90.0, -90.0]]).astype(dtype)
    with backend.scope():
        x, dy = backend.put(values), backend.put(rng.standard_normal(404).astype(dtype))
        results = []
        for activate in (backend.kernels.activate, layers.activate):
            y, pullback = activate(name, x, xp=backend.xp)
            results.append([backend.get(y), backend.get(pullback(dy)), backend.get(pullback(dy))])
        np.testing.assert_array_equal(backend.get(x), values)
    for mine, plain in zip(*results, strict=True):
        assert mine.dtype == plain.dtype == dtype
        np.testing.assert_allclose(mine, plain, rtol=tolerance(dtype, 8), atol=tolerance(dtype, 8))


def test_an_activation_that_torch_does_not_know_is_done_as_it_is(backend):
    def double(x, *, xp):
        return 2.0 * x, lambda dy: 2.0 * dy

    with backend.scope():
        y, pullback = backend.kernels.activate(double, torch.ones(3), xp=backend.xp)
        assert (y + pullback(y)).tolist() == [6.0, 6.0, 6.0]


@pytest.mark.parametrize("kind", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("scaled", [False, True])
def test_gathering_many_rows_does_what_the_default_does(backend, kind, scaled, rng):
    x = rng.integers(0, 256, (400, 300)).astype(kind)
    with backend.scope():
        here, rows = backend.put(x), backend.put(np.arange(0, 400, 2, dtype=np.int32))
        scaling = Scaling(*(backend.put(rng.random(300), "float32") for _ in range(2)))
        scaling = scaling if scaled else None
        for taken in (rows, None):
            kernel, default = (
                function(here, taken, scaling, dtype=torch.float32, xp=backend.xp)
                for function in (backend.kernels.gather, gather)
            )
            np.testing.assert_array_equal(backend.get(kernel), backend.get(default))
        np.testing.assert_array_equal(backend.get(here), x)


@pytest.mark.parametrize("l2", [None, 0.1])
@pytest.mark.parametrize("name", [n for n, r in RULES.items() if isinstance(r, SGD | Adam | AdamW)])
def test_the_fused_updates_do_what_the_rules_do(backend, name, l2, rng):
    params = tuple(rng.standard_normal(s).astype(np.float32) for s in ((40, 30), (30,), (30, 2)))
    steps = [map_leaves(lambda p: rng.standard_normal(p.shape).astype(p.dtype), params)] * 6
    kernel = run(backend, backend.kernels.update, RULES[name], params, steps, l2)
    default = run(backend, update_tree, RULES[name], params, steps, l2)
    for mine, plain in zip(kernel[0], default[0], strict=True):
        assert mine.dtype == plain.dtype == np.float32
        np.testing.assert_allclose(mine, plain, rtol=0, atol=4 * tolerance("float32", 7))
    np.testing.assert_allclose(kernel[1], default[1], rtol=tolerance("float32", 50))


def test_a_learning_rate_of_0_moves_nothing(backend):
    with backend.scope():
        params, grads = (torch.ones(2, 2),), (torch.ones(2, 2),)
        opt_state, rate = init_opt_state(SGD(), params, xp=backend.xp), (torch.zeros(()),)
        updated = backend.kernels.update(SGD(), params, grads, opt_state, rate, xp=backend.xp)
    assert bool((updated.params[0] == 1.0).all())
    assert bool((updated.opt_state[0][0] == 0.0).all())


def test_what_the_fused_updates_do_not_take_goes_to_the_default(backend, monkeypatch):
    def accepts(rule, p, n_slots):
        return _torch_kernels._accepts(rule, [[p]] * (2 + n_slots))

    matrix = torch.ones(2, 3)
    assert accepts(Adam(), matrix, 2)
    assert accepts(SGD(), matrix, 1)
    assert not accepts(SGD(momentum=0.0), matrix, 0)
    assert not accepts(SGD(), matrix.double(), 1)
    assert not accepts(Adam(), matrix.T, 2)
    assert not accepts(RULES["muon"], matrix, 2)
    monkeypatch.delattr(torch, "_fused_adam_")
    assert not accepts(Adam(), matrix, 2)


# --- a step --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [SGD(), Adam(), AdamW()])
@pytest.mark.parametrize("bf16", [False, True])
def test_no_step_asks_for_a_number_or_builds_a_graph(backend, bf16, rule):
    from torch.utils._python_dispatch import TorchDispatchMode

    asked = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            asked.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    backend = backend.with_precision("bf16") if bf16 else backend
    network = Network((64, 32, 10))
    step = make_step(
        network, SoftmaxCrossEntropy(), rule, backend.kernels, with_penalty=True, xp=backend.xp
    )
    with backend.scope():
        params = map_leaves(lambda p: backend.put(p, "float32"), init_params(network, 0))
        state = init_state(params, rule, with_accuracy=True, xp=backend.xp)
        x, y = torch.ones(50, 64, dtype=torch.uint8), torch.zeros(50, dtype=torch.int32)
        batch = Batch(x, y, torch.arange(20, dtype=torch.int32), None)
        coefs = backend.put(np.asarray((1.0, 0.1, 0.0, 0.0, *rule.coefficients(0.1, 1))), "float32")
        with Watch():
            state = step(state, batch, None, coefs, None)
    assert "_local_scalar_dense" not in asked
    assert ("_fused_sgd_" if isinstance(rule, SGD) else "_fused_adam_") in asked
    assert not any(leaf.requires_grad for leaf in leaves(state.params))
    assert all(leaf.dtype == torch.float32 for leaf in leaves((state.params, state.opt_state)))
