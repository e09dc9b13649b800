"""A compiled step on NumPy gives what the function gives, or runs it as it is."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from helpers import tolerance

from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends import get_backend
from mlp_xp.backends._numpy.compiled_step import CompiledLoop, CompiledStep
from mlp_xp.backends.kernels import Kernels, Scaling
from mlp_xp.nn.layers import ACTIVATIONS
from mlp_xp.nn.losses import BinaryCrossEntropy, SoftmaxCrossEntropy, SquaredError
from mlp_xp.nn.network import Network, init_batch_stats, init_params
from mlp_xp.optimizers import SGD, Adam, AdamW, BetaLasso, ByKind, Lion, Muon, RMSprop
from mlp_xp.training.inputs import Batch
from mlp_xp.training.step import Steps, init_state, make_nth, make_step

N, FEATURES, CLASSES = 40, 9, 4
NETWORKS = {
    "plain": Network((FEATURES, 16, CLASSES)),
    "everything": Network((FEATURES, 8, 8, CLASSES), "gelu", "batch", 0.2, 0.1, residual=True),
    "layer norm": Network((FEATURES, 48, 32, CLASSES), "logistic", "layer"),
}
# Batch normalization takes the bias before it out again: its gradient is rounding errors, and Adam
# gives those any sign at full length.
CASES = [("everything", SGD()), ("everything", SGD(momentum=0.0))] + [
    (name, rule) for name in ("plain", "layer norm") for rule in (SGD(), Adam(), AdamW())
]
XP = get_backend("numpy").xp


def steps(network, loss, rule, *, dtype="float32", compiled=None, kernels=None, n=6, **options):
    """Run a few steps on changing rows, the last ones fewer; return the state."""
    kernels = kernels or get_backend("numpy").kernels
    step = make_step(network, loss, rule, kernels, with_penalty=True, xp=XP, **options)
    step = compiled(step) if compiled else step
    rng = np.random.default_rng(0)
    own = [map_leaves(lambda a: np.array(a, dtype), init_params(network, 1)) for _ in range(2)]
    batch_stats = map_leaves(lambda a: np.array(a, dtype), init_batch_stats(network))
    state = init_state(
        own[0], rule, batch_stats=batch_stats, average=own[1], with_accuracy=False, xp=XP
    )
    x = rng.integers(0, 256, (N, FEATURES), dtype=np.uint8)
    scaling = Scaling(np.full(FEATURES, 128.0, dtype), np.full(FEATURES, 1 / 64, dtype))
    y = rng.integers(0, CLASSES, N).astype(np.int32)
    if not isinstance(loss, SoftmaxCrossEntropy):
        y = np.eye(CLASSES, dtype=dtype)[y]
    for t in range(1, n + 1):
        size = 12 if t < n - 1 else 7
        rows = rng.permutation(N)[:size].astype(np.int32)
        weights = rng.random(size).astype(dtype) if t % 2 else None
        coefs = np.asarray([0.3, 0.01, 0.2, 0.1, *rule.coefficients(0.05, t)], dtype)
        keys = rng.integers(-(2**31), 2**31, network.n_keys).astype(np.int32)
        keys = keys if network.n_keys else None
        state = step(state, Batch(x, y, rows, weights), scaling, coefs, keys)
    return state


def assert_same(found, expected, dtype="float32"):
    for mine, plain in zip(leaves(found), leaves(expected), strict=True):
        scale = max(1.0, np.abs(plain).max())
        np.testing.assert_allclose(mine, plain, rtol=0, atol=200 * scale * tolerance(dtype, 16))


class Kept:
    """Make compiled steps, and keep the last one."""

    def __call__(self, step):
        self.step = CompiledStep(step)
        return self.step


@pytest.mark.parametrize("parts", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "rule"), CASES, ids=repr)
def test_a_compiled_step_does_what_the_step_does(name, rule, dtype, parts, pool_of):
    network, kept = NETWORKS[name], Kept()
    with pool_of(parts):
        found = steps(network, SoftmaxCrossEntropy(0.1), rule, dtype=dtype, compiled=kept)
    assert kept.step.is_traceable
    assert len(kept.step.programs) == 4  # with and without weights, of two sizes
    plain = steps(network, SoftmaxCrossEntropy(0.1), rule, dtype=dtype, kernels=Kernels())
    assert_same(found, plain, dtype)


PLAIN, CROSS_ENTROPY = NETWORKS["plain"], SoftmaxCrossEntropy()
RULES = [RMSprop(), Lion(), Muon(), BetaLasso(), ByKind()]


@pytest.mark.parametrize(
    ("network", "loss", "rule"),
    [
        *[
            pytest.param(PLAIN, loss, rule, id=f"{loss}-{rule!r:.6}")
            for loss in (SquaredError(), BinaryCrossEntropy())
            for rule in RULES
        ],
        *[
            pytest.param(Network((FEATURES, 6, CLASSES), name), CROSS_ENTROPY, SGD(), id=name)
            for name in ACTIVATIONS
        ],
    ],
)
def test_other_losses_rules_and_activations_are_compiled_too(network, loss, rule, pool_of):
    kept = Kept()
    with pool_of(1):
        found = steps(network, loss, rule, compiled=kept, max_grad_norm=0.5)
    assert kept.step.is_traceable
    assert_same(found, steps(network, loss, rule, kernels=Kernels(), max_grad_norm=0.5))


def test_a_steady_step_allocates_nothing():
    network, rule = Network((FEATURES, 2000, CLASSES)), Adam()
    step = make_step(network, SoftmaxCrossEntropy(), rule, Kernels(), with_penalty=True, xp=XP)
    step = CompiledStep(step)
    state = init_state(init_params(network, 0), rule, with_accuracy=False, xp=XP)
    batch = Batch(np.ones((50, FEATURES)), np.zeros(50, np.int32), None, None)
    coefs = np.asarray([1.0, 0.0, 0.0, 0.0, 0.01])
    for _ in range(3):
        state = step(state, batch, None, coefs, None)
    tracemalloc.start()
    step(state, batch, None, coefs, None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # A hidden layer's output has 800,000 bytes; NumPy's own loops hold up to 8192 numbers.
    assert peak < 80_000


def test_larger_arguments_may_move():
    def step(total, x, part):
        return (total[0] + XP.sum(x * x[::-1]) + XP.sum(part),)

    compiled = CompiledStep(step)
    state, expected = (np.zeros(()),), 0.0
    for i in range(4):
        x, part = np.arange(20_000.0) + i, np.arange(3.0) * i
        state = compiled(state, x, part)
        expected += np.sum(x * x[::-1]) + np.sum(part)
        assert float(state[0]) == expected
    assert compiled.is_traceable
    assert len(compiled.programs) == 1


def test_small_arguments_may_be_written_to_and_come_back():
    compiled = CompiledStep(lambda state, x: (state[0] + x,))
    first, second = np.ones(2), np.full(2, 5.0)
    state = (np.zeros(2),)
    for x in (first, second, first):
        state = compiled(state, x)
    assert state[0].tolist() == [7.0, 7.0]
    first += 1.0
    assert compiled(state, first)[0].tolist() == [9.0, 9.0]
    # Another state, of these shapes or of others, is begun with.
    assert compiled((np.asarray([5.0, 6.0]),), first)[0].tolist() == [7.0, 8.0]
    assert compiled((np.zeros(3),), np.ones(3))[0].tolist() == [1.0, 1.0, 1.0]


def test_what_does_not_fit_leaves_a_compiled_step_as_it_was():
    compiled = CompiledStep(lambda state, x, part: (state[0] + XP.sum(x) + XP.sum(part),))
    first, second, state = np.zeros(20_000), np.ones(20_000), (np.zeros(()),)
    for x, n in ((first, 3), (second, 4), (second, 3), (first, 3)):
        state = compiled(state, x, np.ones(n))
    assert float(state[0]) == 40_000 + 3 + 4 + 3 + 3
    assert len(compiled.programs) == 2


def test_what_asks_for_values_is_run_as_it_is():
    for ask in (float, bool, int, len, np.asarray, lambda x: x[x > 0], lambda x: np.frexp(x)[0]):

        def step(state, x, ask=ask):
            (total,) = state
            total += 1.0
            ask(XP.sum(x) if ask in (float, bool, int) else x)
            return (total,)

        compiled = CompiledStep(step)
        state = (np.zeros(2),)
        for _ in range(3):
            state = compiled(state, np.ones(2))
        assert not compiled.is_traceable, ask
        assert state[0].tolist() == [3.0, 3.0]


@pytest.mark.parametrize("rule", [SGD(), SGD(momentum=0.0), Adam()], ids=repr)
@pytest.mark.parametrize("parts", [0, 2])
def test_a_compiled_step_that_ends_late_leaves_no_update(rule, parts, pool_of):
    """A loss of one axis does not fit into the state, which shows after the update."""
    plain = Kernels()

    def of_one_axis(*args, **kwargs):
        value, pullback = plain.loss(*args, **kwargs)
        return value[None], pullback

    kept = Kept()
    kernels = get_backend("numpy").kernels._replace(loss=of_one_axis)
    with pool_of(parts):
        found = steps(PLAIN, CROSS_ENTROPY, rule, compiled=kept, kernels=kernels)
    assert not kept.step.is_traceable
    expected = steps(PLAIN, CROSS_ENTROPY, rule, kernels=plain)
    assert_same(found[:2], expected[:2])


def test_a_state_may_be_written_to_in_parts():
    def step(state, x):
        (total,) = state
        row = total[0]
        row += x
        return (total,)

    compiled = CompiledStep(step)
    state = (np.zeros((2, 2)),)
    for _ in range(3):
        state = compiled(state, np.ones(2))
    assert compiled.is_traceable
    assert state[0].tolist() == [[3.0, 3.0], [0.0, 0.0]]


def test_an_error_is_the_functions_own():
    def step(state, x):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        CompiledStep(step)((np.zeros(2),), np.ones(2))


# --- many steps -----------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [0, 1, 2])
@pytest.mark.parametrize("n_rows", [N, 30_000], ids=["small", "large"])  # Copied, or looked up.
@pytest.mark.parametrize("name", NETWORKS)
def test_a_loop_does_what_its_steps_do(name, n_rows, parts, pool_of):
    network, n, size = NETWORKS[name], 7, 12
    rule = SGD() if name == "everything" else Adam()  # As in CASES.
    rng = np.random.default_rng(0)
    x = rng.random((n_rows, FEATURES), dtype=np.float32)
    y = rng.integers(0, CLASSES, n_rows).astype(np.int32)
    results = []
    for kernels, make in ((Kernels(), None), (get_backend("numpy").kernels, CompiledLoop)):
        step = make_step(network, SoftmaxCrossEntropy(), rule, kernels, with_penalty=True, xp=XP)
        loop = CompiledLoop(make_nth(step)) if make else None
        params, batch_stats = (
            map_leaves(lambda a: np.array(a, "float32"), tree)
            for tree in (init_params(network, 1), init_batch_stats(network))
        )
        state = init_state(params, rule, batch_stats=batch_stats, with_accuracy=False, xp=XP)
        rng = np.random.default_rng(1)
        for epoch in range(2):
            rows = rng.integers(0, n_rows, (n, size)).astype(np.int32)
            keys = rng.integers(-(2**31), 2**31, (n, network.n_keys)).astype(np.int32)
            keys = keys if network.n_keys else None
            times = range(n * epoch + 1, n * (epoch + 1) + 1)
            table = [(0.3, 0.01, 0.2, 0.1, *rule.coefficients(0.05, t)) for t in times]
            coefs = np.asarray(table, "float32")
            with pool_of(parts):
                if loop is None:
                    for i in range(n):
                        key = None if keys is None else keys[i]
                        state = step(state, Batch(x, y, rows[i], None), None, coefs[i], key)
                else:
                    given = Steps(rows, None, None, coefs, keys), x, y, None
                    for start, stop in ((0, 1), (1, 5), (5, 7)):
                        state = loop(start, stop, state, *given)
        results.append(state)
    assert loop.is_traceable
    (program,) = loop.programs
    if name == "plain" and parts:  # Else each step costs several microseconds of Python.
        assert len(program._lines) == 1
    assert_same(results[1], results[0])


@pytest.mark.parametrize("rule", [Adam(), SGD(), SGD(momentum=0.0)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_small_arrays_are_updated_as_one_with_the_same_bits(rule, dtype):
    kept, network = Kept(), NETWORKS["layer norm"]
    found, expected = (
        steps(network, CROSS_ENTROPY, rule, dtype=dtype, compiled=how) for how in (kept, None)
    )
    for mine, plain in zip(leaves(found), leaves(expected), strict=True):
        np.testing.assert_array_equal(mine, plain)
    assert kept.step.programs
    for program in kept.step.programs:
        name = program._known[id(np.subtract)]
        results = [
            program._names[line.split("out=")[1][:-1]].shape
            for line in program._lines
            if line.startswith(f"{name}(")
        ]
        n_weights = sum(leaf.size for leaf in leaves(found.params))
        assert results.count((n_weights,)) == 1 + (rule == SGD())


@pytest.mark.parametrize("parts", [0, 1])
def test_a_loop_that_cannot_be_compiled_is_run_as_it_is(parts, pool_of):
    def body(i, state, given):
        (total,) = state
        total += float(given[i, ...])
        return (total,)

    loop = CompiledLoop(body)
    with pool_of(parts):
        state = loop(1, 4, (np.zeros(2),), np.arange(5.0))
        state = loop(0, 2, state, np.arange(5.0))
    assert not loop.is_traceable
    assert state[0].tolist() == [7.0, 7.0]


def test_what_a_step_is_given_need_not_lie_in_one_piece():
    loop = CompiledLoop(lambda i, state, given: (state[0] + given[i, ...],))
    given = np.arange(12.0).reshape(3, 4).T
    assert loop(0, 4, (np.zeros(3),), given)[0].tolist() == [6.0, 22.0, 38.0]
