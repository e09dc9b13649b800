"""The kernels of torch: the cases in which they run, and the memory that they use again."""

from __future__ import annotations

import gc
import sys

import numpy as np
import pytest
from rules import RULES

from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends import get_backend
from mlp_xp.nn.losses import SoftmaxCrossEntropy
from mlp_xp.nn.network import Network, init_params
from mlp_xp.optimizers import SGD, Adam, AdamW, init_opt_state
from mlp_xp.training.inputs import Batch
from mlp_xp.training.step import init_state, make_step


@pytest.fixture
def backend(torch):
    return get_backend("torch", "cpu")


@pytest.fixture
def memory(torch):
    """Return the module that keeps memory."""
    from mlp_xp.backends._torch import buffers

    return buffers


@pytest.fixture
def owner(torch):
    return torch.zeros(1)


def new(memory, owner, value=0.0, n_rows=300):
    """Return an array from the memory that an owner has for it."""
    return memory.empty(owner, "a", (n_rows, 300), owner.dtype).fill_(value)


def check_used_again(memory, owner):
    first = new(memory, owner)
    address = first.data_ptr()
    assert first.shape == (300, 300)
    assert address % 64 == 0
    del first
    assert new(memory, owner, n_rows=200).data_ptr() == address


HOLDERS = [lambda t: t, lambda t: t[1:], lambda t: t.T, lambda t: t.numpy()]


def check_left_alone(memory, owner):
    for hold in HOLDERS:
        held = hold(new(memory, owner, 1.0))
        second = new(memory, owner, 2.0)
        assert bool((held == 1.0).all())
        assert bool((second == 2.0).all())
        del held, second


def test_only_memory_that_nobody_uses_is_used_again(memory, owner):
    check_used_again(memory, owner)
    check_left_alone(memory, owner)


@pytest.mark.parametrize("more", [-1, 0, 5])
def test_who_holds_memory_is_counted_as_this_python_counts(more, memory, owner, monkeypatch):
    real = sys.getrefcount
    monkeypatch.setattr(sys, "getrefcount", lambda array: real(array) - 1 + more)
    monkeypatch.setattr(memory, "_UNUSED", memory._count_of_unused())
    check_used_again(memory, owner)
    check_left_alone(memory, owner)


def test_memory_is_not_used_again_where_no_count_tells_who_holds_it(memory, owner, monkeypatch):
    monkeypatch.setattr(sys, "getrefcount", lambda _: 2)
    assert memory._count_of_unused() == 0
    monkeypatch.setattr(memory, "_UNUSED", memory._count_of_unused())
    check_left_alone(memory, owner)


def test_memory_goes_with_its_owner(torch, memory):
    owner = torch.zeros(1)
    number = id(owner)
    memory.empty(owner, "a", (300, 300), torch.bfloat16)
    assert number in memory._kept
    del owner
    gc.collect()
    assert number not in memory._kept


def test_a_learning_rate_of_0_moves_nothing(backend, torch):
    with backend.scope():
        params, grads = (torch.ones(2, 2),), (torch.ones(2, 2),)
        opt_state, rate = init_opt_state(SGD(), params, xp=backend.xp), (torch.zeros(()),)
        updated = backend.kernels.update(SGD(), params, grads, opt_state, rate, xp=backend.xp)
    assert bool((updated.params[0] == 1.0).all())
    assert bool((updated.opt_state[0][0] == 0.0).all())


def test_what_the_fused_updates_do_not_take_goes_to_the_default(torch, monkeypatch):
    from mlp_xp.backends._torch.kernels import _accepts

    def accepts(rule, p, n_slots):
        return _accepts(rule, [[p]] * (2 + n_slots))

    matrix = torch.ones(2, 3)
    assert accepts(Adam(), matrix, 2)
    assert accepts(SGD(), matrix, 1)
    assert not accepts(SGD(momentum=0.0), matrix, 0)
    assert not accepts(SGD(), matrix.double(), 1)
    assert not accepts(Adam(), matrix.T, 2)
    assert not accepts(RULES["muon"], matrix, 2)
    monkeypatch.delattr(torch, "_fused_adam_")
    assert not accepts(Adam(), matrix, 2)


@pytest.mark.parametrize("rule", [SGD(), Adam(), AdamW()])
@pytest.mark.parametrize("bf16", [False, True])
def test_no_step_asks_for_a_number_or_builds_a_graph(backend, torch, bf16, rule):
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
