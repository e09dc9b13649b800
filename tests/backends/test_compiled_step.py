"""A compiled step on NumPy gives what the function gives, or runs it as it is."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import peak, tolerance

from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends import get_backend
from mlp_xp.backends._numpy.runtime.memory import aligned, empty, in_one_piece, joined
from mlp_xp.backends._numpy.tracing.compiled_step import CompiledLoop, CompiledStep
from mlp_xp.backends.kernels import Kernels, Scaling
from mlp_xp.nn.layers import ACTIVATIONS
from mlp_xp.nn.losses import BinaryCrossEntropy, SoftmaxCrossEntropy, SquaredError
from mlp_xp.nn.network import Network, init_batch_stats, init_params
from mlp_xp.optimizers import SGD, Adam, AdamW, BetaLasso, ByKind, Lion, Muon, RMSprop
from mlp_xp.training.step.inputs import Batch, Selection
from mlp_xp.training.step.step import Steps, init_state, make_indexed_step, make_step

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
XP, KERNELS = get_backend("numpy").xp, get_backend("numpy").kernels
PLAIN, CROSS_ENTROPY = NETWORKS["plain"], SoftmaxCrossEntropy()


def copies(tree, dtype):
    return map_leaves(lambda a: np.array(a, dtype), tree)


def begin(network, rule, dtype="float32", **options):
    options["batch_stats"] = copies(init_batch_stats(network), dtype)
    params = copies(init_params(network, 1), dtype)
    return init_state(params, rule, with_accuracy=False, xp=XP, **options)


def steps(network, loss, rule, *, dtype="float32", made=None, kernels=KERNELS, n=6, **options):
    """Run a few steps on changing rows, the last ones fewer; add the compiled step to `made`."""
    step = make_step(network, loss, rule, kernels, with_penalty=True, xp=XP, **options)
    if made is not None:
        made.append(CompiledStep(step))
        step = made[0]
    rng = np.random.default_rng(0)
    state = begin(network, rule, dtype, average=copies(init_params(network, 1), dtype))
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
        state = step(state, Batch(x, y, Selection(rows, weights)), scaling, coefs, keys)
    return state


def assert_same(found, expected, dtype="float32"):
    for mine, plain in zip(leaves(found), leaves(expected), strict=True):
        scale = max(1.0, np.abs(plain).max())
        np.testing.assert_allclose(mine, plain, rtol=0, atol=200 * scale * tolerance(dtype, 16))


@pytest.mark.parametrize("parts", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "rule"), CASES, ids=repr)
def test_compiled_step_matches_the_plain_step(name, rule, dtype, parts, pool_of):
    given, made = (NETWORKS[name], SoftmaxCrossEntropy(0.1), rule), []
    with pool_of(parts):
        found = steps(*given, dtype=dtype, made=made)
    assert made[0].is_traceable
    assert len(made[0].programs) == 4  # with and without weights, of two sizes
    plain = steps(*given, dtype=dtype, kernels=Kernels())
    assert_same(found, plain, dtype)


RULES = [RMSprop(), Lion(), Muon(), BetaLasso(), ByKind()]
OTHERS = [(PLAIN, loss, rule) for loss in (SquaredError(), BinaryCrossEntropy()) for rule in RULES]
OTHERS += [(Network((FEATURES, 6, CLASSES), n), CROSS_ENTROPY, SGD()) for n in ACTIVATIONS]


@pytest.mark.parametrize(("network", "loss", "rule"), OTHERS)
def test_other_losses_optimizers_and_activations_are_compiled(network, loss, rule, pool_of):
    made = []
    with pool_of(1):
        found = steps(network, loss, rule, made=made, max_grad_norm=0.5)
    assert made[0].is_traceable
    assert_same(found, steps(network, loss, rule, kernels=Kernels(), max_grad_norm=0.5))


def test_compiled_step_allocates_nothing_after_warmup():
    network, rule = Network((FEATURES, 2000, CLASSES)), Adam()
    step = make_step(network, CROSS_ENTROPY, rule, Kernels(), with_penalty=True, xp=XP)
    step = CompiledStep(step)
    state = init_state(init_params(network, 0), rule, with_accuracy=False, xp=XP)
    batch = Batch(np.ones((50, FEATURES)), np.zeros(50, np.int32))
    coefs = np.asarray([1.0, 0.0, 0.0, 0.0, 0.01])
    for _ in range(3):
        state = step(state, batch, None, coefs, None)
    # A hidden layer's output has 800,000 bytes; NumPy's own loops hold up to 8192 numbers.
    assert peak(lambda: step(state, batch, None, coefs, None)) < 80_000


def test_compiled_step_handles_moved_arguments_and_other_shapes():
    def step(total, x, part):
        return (total[0] + XP.sum(x * x[::-1]) + XP.sum(part),)

    compiled = CompiledStep(step)
    state, expected = (np.zeros(()),), 0.0
    given = [np.arange(20_000.0) + i for i in range(3)]
    for i, n in ((0, 3), (1, 3), (2, 4), (2, 3), (0, 3)):
        x, part = given[i], np.arange(float(n)) * i
        state = compiled(state, x, part)
        expected += np.sum(x * x[::-1]) + np.sum(part)
        assert float(state[0]) == expected
    assert compiled.is_traceable
    assert len(compiled.programs) == 2


def test_compiled_step_does_not_reuse_an_omitted_argument():
    compiled = CompiledStep(lambda total, x: (total[0] + (1.0 if x is None else XP.sum(x)),))
    state = compiled((np.zeros(()),), np.ones(20_000))
    assert float(compiled(state, None)[0]) == 20_001.0


def test_small_arguments_can_be_modified_and_reused_between_calls():
    compiled, state = CompiledStep(lambda state, x: (state[0] + x,)), (np.zeros(2),)
    first, second = np.ones(2), np.full(2, 5.0)
    for x in (first, second, first):
        state = compiled(state, x)
    assert state[0].tolist() == [7.0, 7.0]
    first += 1.0
    assert compiled(state, first)[0].tolist() == [9.0, 9.0]
    # A new state may have the same shapes or others.
    assert compiled((np.asarray([5.0, 6.0]),), first)[0].tolist() == [7.0, 8.0]
    assert compiled((np.zeros(3),), np.ones(3))[0].tolist() == [1.0, 1.0, 1.0]


def test_a_step_can_update_part_of_a_state_array_in_place():
    def step(state, x):
        row = state[0][0]
        row += x
        return state

    compiled, state = CompiledStep(step), (np.zeros((2, 2)),)
    for _ in range(3):
        state = compiled(state, np.ones(2))
    assert compiled.is_traceable
    assert state[0].tolist() == [[3.0, 3.0], [0.0, 0.0]]


def test_a_state_that_is_a_view_of_the_old_one_is_not_overwritten_too_early():
    compiled = CompiledStep(lambda s: (s[0] + 1.0, np.flip(s[0])))
    state = compiled(compiled((np.arange(2.0), np.zeros(2))))
    assert [array.tolist() for array in state] == [[2.0, 3.0], [2.0, 1.0]]
    assert not compiled.is_traceable

    def step(state):
        counter, total = np.zeros(2), state[0]
        for _ in range(3):
            total = total + state[1] * counter
            counter += 1.0  # Outside of the trace.
        flat = np.reshape(state[1], (-1,))
        flat += 1.0
        return total, np.reshape(flat, (2,))

    compiled, state = CompiledStep(step), (np.zeros(2), np.ones(2))
    state = compiled(compiled(state))
    assert compiled.is_traceable
    assert [array.tolist() for array in state] == [[9.0, 9.0], [3.0, 3.0]]


@pytest.mark.parametrize(
    "ask", [float, bool, int, np.asarray, lambda x: x[x > 0], lambda x: np.frexp(x)[0]]
)
def test_step_that_reads_values_runs_uncompiled(ask):
    def step(state, x):
        (total,) = state
        total += 1.0
        ask(XP.sum(x) if ask in (float, bool, int) else x)
        return (total,)

    compiled, state = CompiledStep(step), (np.zeros(2),)
    for _ in range(3):
        state = compiled(state, np.ones(2))
    assert not compiled.is_traceable
    assert state[0].tolist() == [3.0, 3.0]


@pytest.mark.parametrize("parts", [0, 2])
def test_results_that_numpy_allocates_are_not_compiled_as_constants(parts, pool_of):
    """`xp.clip` writes to a new array."""
    compiled = CompiledStep(lambda state, x: (state[0] + XP.clip(x + 1.0, 0.0, 5.0),))
    state = (np.zeros(2),)
    with pool_of(parts):
        for x in (1.0, 2.0, 7.0):
            state = compiled(state, np.full(2, x))
    assert state[0].tolist() == [10.0, 10.0]


@pytest.mark.parametrize("rule", [SGD(), SGD(momentum=0.0), Adam()], ids=repr)
@pytest.mark.parametrize("parts", [0, 2])
def test_a_compiled_step_that_fails_late_leaves_no_update(rule, parts, pool_of):
    """A loss of one axis does not fit into the state, which shows after the update."""
    plain = Kernels()

    def of_one_axis(*args, **kwargs):
        value, pullback = plain.loss(*args, **kwargs)
        return value[None], pullback

    made = []
    with pool_of(parts):
        kernels = replace(KERNELS, loss=of_one_axis)
        found = steps(PLAIN, CROSS_ENTROPY, rule, made=made, kernels=kernels)
    assert not made[0].is_traceable
    expected = steps(PLAIN, CROSS_ENTROPY, rule, kernels=plain)
    assert_same(found[:2], expected[:2])


@pytest.mark.parametrize("parts", [0, 1, 2])
@pytest.mark.parametrize("n_rows", [N, 30_000], ids=["small", "large"])  # Copied, or looked up.
@pytest.mark.parametrize("name", NETWORKS)
def test_compiled_loop_matches_its_separate_steps(name, n_rows, parts, pool_of):
    network, n, size = NETWORKS[name], 7, 12
    rule = SGD() if name == "everything" else Adam()  # The same rule as in CASES.
    rng = np.random.default_rng(0)
    x = rng.random((n_rows, FEATURES), dtype=np.float32)
    y = rng.integers(0, CLASSES, n_rows).astype(np.int32)
    results = []
    for kernels in (Kernels(), KERNELS):
        step = make_step(network, CROSS_ENTROPY, rule, kernels, with_penalty=True, xp=XP)
        loop = CompiledLoop(make_indexed_step(step))
        state, rng = begin(network, rule), np.random.default_rng(1)
        for epoch in range(2):
            rows = rng.integers(0, n_rows, (n, size)).astype(np.int32)
            keys = rng.integers(-(2**31), 2**31, (n, network.n_keys)).astype(np.int32)
            keys = keys if network.n_keys else None
            times = range(n * epoch + 1, n * (epoch + 1) + 1)
            table = [(0.3, 0.01, 0.2, 0.1, *rule.coefficients(0.05, t)) for t in times]
            coefs = np.asarray(table, "float32")
            with pool_of(parts):
                if kernels is KERNELS:
                    given = Steps(Selection(rows), coefs, keys), x, y, None
                    for start, stop in ((0, 1), (1, 5), (5, 7)):
                        state = loop(start, stop, state, *given)
                    continue
                for i in range(n):
                    key = None if keys is None else keys[i]
                    state = step(state, Batch(x, y, Selection(rows[i])), None, coefs[i], key)
        results.append(state)
    assert loop.is_traceable
    (program,) = loop.programs
    if name == "plain" and parts:  # More lines would cost several microseconds of Python per step.
        assert len(program._lines) == 1
    assert_same(results[1], results[0])


@pytest.mark.parametrize("rule", [Adam(), SGD(), SGD(momentum=0.0)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_updating_small_arrays_together_gives_bitwise_identical_results(rule, dtype):
    given, made = (NETWORKS["layer norm"], CROSS_ENTROPY, rule), []
    found = steps(*given, dtype=dtype, made=made)
    for mine, plain in zip(leaves(found), leaves(steps(*given, dtype=dtype)), strict=True):
        np.testing.assert_array_equal(mine, plain)
    assert made[0].programs


@pytest.mark.parametrize("parts", [0, 1])
def test_untraceable_loop_runs_uncompiled(parts, pool_of):
    loop = CompiledLoop(lambda i, state, given: (state[0] + float(given[i, ...]),))
    with pool_of(parts):
        state = loop(1, 4, (np.zeros(2),), np.arange(5.0))
        state = loop(0, 2, state, np.arange(5.0))
    assert not loop.is_traceable
    assert state[0].tolist() == [7.0, 7.0]
    # A step's arguments need not be contiguous.
    loop, given = CompiledLoop(lambda i, s, g: (s[0] + g[i, ...],)), np.arange(12.0).reshape(3, 4).T
    assert loop(0, 4, (np.zeros(3),), given)[0].tolist() == [6.0, 22.0, 38.0]


def assert_same_bits(function, state, *arguments):
    """Compare a function with its compiled step on two sets of arguments."""
    expected = tuple(array.copy() for array in state)
    compiled = CompiledStep(function)
    for given in (arguments, tuple(2 * array for array in arguments)):
        expected = tuple(array.copy() for array in function(expected, *given))
        state = compiled(state, *given)
        for mine, plain in zip(state, expected, strict=True):
            np.testing.assert_array_equal(mine, plain, strict=True)
            is_number = ~np.isnan(plain)
            np.testing.assert_array_equal(np.signbit(mine[is_number]), np.signbit(plain[is_number]))
    assert compiled.is_traceable
    assert len(compiled.programs) == 1


@pytest.mark.parametrize("keepdims", [True, False])
@pytest.mark.parametrize("axis", [0, -1, (0, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compiled_reductions_are_bitwise_identical_to_numpy(dtype, axis, keepdims, rng):
    x = rng.standard_normal((108, 14)).astype(dtype)
    x[0, -2] = np.nan
    how = {"axis": axis, "keepdims": keepdims}
    state = tuple(np.zeros(np.max(x[:, ::2], **how).shape, dtype) for _ in range(3))

    def reduced(state, x):
        (a, b, c), x = state, x[:, ::2]
        return a + XP.max(x, **how), b + XP.min(x + x, **how), c + XP.sum(x, **how)

    assert_same_bits(reduced, state, x)


@pytest.mark.parametrize("shape", [(1,), (5, 3), (200, 700)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_maximum_and_minimum_are_bitwise_identical_to_numpy(dtype, shape, rng):
    x = rng.standard_normal(shape).astype(dtype)
    x[..., :1] = np.nan

    def compared(state, x):
        return state[0] + XP.maximum(x, 0.1), XP.minimum(state[1] + x, 0.3)

    assert_same_bits(compared, (np.zeros_like(x), np.zeros_like(x)), x)


def starts_at_line(array):
    return array.ctypes.data % 64 == 0


def test_small_arrays_are_packed_into_one_contiguous_vector():
    small = [np.full((2, 3), 1.0), np.full(4, 2.0, np.float32), np.full((), 3.0), np.ones(5).T]
    large = np.full((100, 100), 4.0)
    copies = joined([small[0], small[1], large, *small[2:]])
    assert copies[2] is large
    for copy, array in zip(copies, (*small[:2], large, *small[2:]), strict=True):
        np.testing.assert_array_equal(copy, array, strict=True)
        assert copy.flags.c_contiguous
    whole = in_one_piece([copies[0], *copies[3:]])
    np.testing.assert_array_equal(whole, [1.0] * 6 + [3.0] + [1.0] * 5)
    copies[3][...] = 9.0
    assert whole[6] == 9.0
    assert in_one_piece([copies[0], copies[4]]) is None  # There is a number between them.
    assert in_one_piece([copies[3], copies[0]]) is None
    assert in_one_piece(copies[:2]) is None
    assert in_one_piece(small[:1]) is None
    assert in_one_piece(joined([np.ones(3), np.ones((2, 2))])).tolist() == [1.0] * 7
    memory = np.zeros((3, 4), order="F")
    assert in_one_piece([memory.T[0], memory.T[1]]) is None  # Its vector would be a copy.


def test_only_arrays_not_aligned_to_a_cache_line_are_copied():
    array = empty((200, 160), np.dtype("float32"))
    assert aligned(array) is array
    small = array[:3, 1:]
    assert aligned(small) is small
    array[...] = np.arange(32_000.0).reshape(200, 160)
    for part in (array[:, 1:], array.T[1:]):
        copy = aligned(part)
        assert starts_at_line(copy)
        np.testing.assert_array_equal(copy, part)


def test_state_and_step_results_are_aligned_to_cache_lines(pool_of):
    pytest.importorskip("numba")
    backend, found = get_backend("numpy"), []
    memory = empty((4 + 600 * 32,), np.dtype("float32"))
    memory[...] = 1.0
    params = (memory[4:].reshape(600, 32),)

    def step(state, x):
        y = state[0] * x
        found.append(y.value)
        return (y + state[0], *state[1:])

    with pool_of(2):
        state = backend.place_state(Adam(), params, (params,))
        again = backend.place_state(Adam(), *state)
        CompiledStep(step)(state[0], np.ones((600, 32), "f4"))
    assert all(map(starts_at_line, (*leaves(state), *found)))
    assert all(a is b for a, b in zip(leaves(state), leaves(again), strict=True))
    # Without machine code, they keep their memory.
    assert backend.place_state(Adam(), params, ())[0] is params
