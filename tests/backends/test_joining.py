"""Neighboring loops of a traced step are joined, which changes neither a bit nor what is read."""

import warnings

import numpy as np
import pytest
from helpers import tolerance

from mlp_xp import MLPClassifier
from mlp_xp.backends import get_backend
from mlp_xp.backends._numpy.runtime.tasks import FormulaLoop, GradientLoop
from mlp_xp.backends._numpy.runtime.thread_pool import find_tile
from mlp_xp.backends._numpy.tracing import fusion, joining
from mlp_xp.backends._numpy.tracing.compiled_step import CompiledLoop, CompiledStep
from mlp_xp.backends.kernels import Kernels
from mlp_xp.compiler.kernel import MOST_OPERATIONS
from mlp_xp.nn.layers import Dense
from mlp_xp.optimizers import SGD, Lion

pytest.importorskip("llvmlite", reason="loops are compiled with llvmlite")
XP, KERNELS = get_backend("numpy").xp, get_backend("numpy").kernels
SHAPE = (6, 8)


@pytest.fixture
def joined(monkeypatch):
    """Return the loops of each traced step, before and after they are joined."""
    found, join = [], joining.joined

    def spy(tasks, **options):
        new = join(tasks, **options)
        loops = [[task for task in x if isinstance(task.fields, FormulaLoop)] for x in (tasks, new)]
        found.append(loops)
        return new

    monkeypatch.setattr(joining, "joined", spy)
    return found


def random_step(seed, n_kinds=9):
    """Return a step of random operations on whole numbers, which are exact in any order.

    The operations from the tenth on are of views.
    """
    choices = np.random.default_rng(seed).integers(0, 1 << 30, (25, 3))

    def pick(arrays, number):
        return arrays[number % len(arrays)]

    def bounded(x):
        return XP.minimum(XP.maximum(x, -9.0), 9.0)

    def step(state, start, *, xp=XP):
        full, narrow = [*state[:2], start + 0.0], [state[2]]
        for kind, i, j in choices.tolist():
            a, b, row = pick(full, i), pick(full, j), pick(narrow, j)
            match kind % n_kinds:
                case 0:
                    full.append(bounded(a * b - 3.0))
                case 1:
                    a += b
                    full.append(bounded(a))
                case 2:
                    full.append(XP.where(a > b, a, row))
                case 3:  # A row of a whole array, which may change later.
                    full.append(bounded(a + b[1]))
                case 4:
                    narrow.append(XP.sum(bounded(a), axis=-1, keepdims=True))
                case 5:
                    full.append(bounded(a - row))
                case 6:
                    narrow.append(bounded(row + b[0, 3]))
                case 7:
                    total = XP.sum(bounded(a) * 1.0)
                    full.append(bounded(b + total))
                case 8:
                    full = full[-6:]  # Others end here.
                    narrow = narrow[-3:]
                case 9:
                    full.append(XP.concat([a[:, 3:], b[:, :3]], axis=-1))
                case 10:
                    full.append(bounded(XP.flip(a, axis=0) + b[:, 5:6]))
                case 11:
                    full.append(bounded(XP.matrix_transpose(XP.reshape(a, (8, 6))) - b))
                case 12:  # A part of an array changes, and perhaps what reads it.
                    part = a[:, 2:7]
                    part += bounded(b[:, ::-1][:, :5])
                    full.append(bounded(a))
                case 13:
                    part = a[::2, ::3]
                    part *= -1.0
                    narrow.append(a[:, 3:4])
                case 14:
                    narrow.append(XP.max(a - b, axis=-1, keepdims=True))
                case 15:
                    stacks = [XP.reshape(x, (2, 3, 8)) for x in (a, b)]
                    full.append(bounded(XP.reshape(stacks[0][:, :1] - stacks[1], SHAPE)))
                case 16:
                    sums = XP.sum(bounded(XP.reshape(a, (2, 3, 8))), axis=1)
                    full.append(bounded(b - sums[1, :]))
        return bounded(full[-1]), bounded(full[len(full) // 2]), bounded(narrow[-1])

    return step


@pytest.mark.parametrize(
    ("first", "n_kinds", "share"), [(0, 9, 0.6), (3, 9, 0.6), (0, 17, 0.8), (3, 17, 0.8)]
)
def test_joining_loops_of_random_steps_does_not_change_results(
    first, n_kinds, share, joined, pool_of, rng
):
    n_before = n_after = 0
    for seed in range(first, first + 3):
        step = random_step(seed, n_kinds)
        given = rng.integers(-4, 5, (3, *SHAPE)).astype("f8")
        state = given[0], given[1], np.asarray(given[2][:, :1])
        expected = step([array.copy() for array in state], given[2].copy())
        compiled = CompiledStep(step)
        with pool_of(2):
            found = compiled(tuple(array.copy() for array in state), given[2])
        assert compiled.is_traceable
        for mine, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(mine, other, err_msg=f"seed {seed}")
        n_before += sum(len(before) for before, _ in joined)
        n_after += sum(len(after) for _, after in joined)
        joined.clear()
    assert n_after < share * n_before


def test_a_chain_of_operations_becomes_one_loop(joined, pool_of, rng):
    a, b = rng.standard_normal((2, 300, 40)).astype("f4")

    def step(state, a, b):
        x = XP.exp(a) * b[0]
        return (XP.where(x > 1.0, x * x, x) + state[0],)

    with pool_of(2):
        (found,) = CompiledStep(step)((np.ones_like(a),), a, b)
    np.testing.assert_allclose(found, step((np.ones_like(a),), a, b)[0], rtol=1e-5, atol=1e-5)
    ((_, (task,)),) = joined
    assert len(task.fields.loop.results) == 1
    assert [place >= 0 for place in task.fields.loop.overwritten] == [True]


def test_formulas_with_many_arrays_are_split_into_several_loops(joined, pool_of, rng):
    arrays = tuple(rng.standard_normal((40, 50, 8)))

    def step(state, *given):
        return (sum(given, start=state[0] * 1.0),)

    with pool_of(2):
        (found,) = CompiledStep(step)((np.zeros((50, 8)),), *arrays)
    np.testing.assert_array_equal(found, sum(arrays, start=np.zeros((50, 8))))
    ((_, loops),) = joined
    assert 2 < len(loops) < 6


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_joined_loops_give_bitwise_identical_results(dtype, joined, monkeypatch, rng):
    monkeypatch.setattr("mlp_xp.backends._numpy.backend._LONG", 0)
    X = rng.standard_normal((150, 7)).astype(dtype)
    y = (X[:, 0] > X[:, 1]).astype(int) + (X[:, 2] > 0.5)
    settings = {"solver": Lion(), "normalization": "layer", "dropout": 0.2, "ema_decay": 0.9}
    settings |= {"max_grad_norm": 0.5, "activation": "mish", "alpha": 0.1, "random_state": 0}

    def fit():
        model = MLPClassifier((20, 12), max_iter=3, batch_size=50, **settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return model.fit(X, y)

    together = fit()
    assert sum(len(after) for _, after in joined) < 0.6 * sum(len(before) for before, _ in joined)
    monkeypatch.setattr(joining, "joined", lambda tasks, **_: list(tasks))
    apart = fit()
    for mine, other in zip(together.coefs_, apart.coefs_, strict=True):
        np.testing.assert_array_equal(mine, other)
    assert together.loss_curve_ == apart.loss_curve_


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", [7, 300])
def test_sums_joined_to_loops_over_views_are_bitwise_identical(
    width, dtype, pool_of, monkeypatch, rng
):
    x = rng.standard_normal((64, 2 * width)).astype(dtype)

    def step(state, x):
        a = x[:, :width] * 1.5
        b = x[:, ::2] + a
        part = state[1][:, ::2]
        part += b
        return XP.sum(b, axis=-1), state[1], XP.sum(a * a)

    def run(n_threads):
        compiled = CompiledStep(step)
        with pool_of(n_threads):
            found = compiled((np.zeros(64, dtype), x.copy(), np.zeros((), dtype)), x)
        assert compiled.is_traceable
        return [array.copy() for array in found]

    together = run(1)
    expected = step((None, x.copy()), x)
    for mine, other in zip(together, expected, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-3)
    others = [run(2), run(3)]
    monkeypatch.setattr(joining, "joined", lambda tasks, **_: list(tasks))
    for found in (*others, run(1), run(2)):
        for mine, other in zip(together, found, strict=True):
            np.testing.assert_array_equal(mine, other)


def test_arguments_that_share_an_array_may_differ_in_later_calls(pool_of, rng):
    arrays = rng.standard_normal((3, 300, 400))

    def step(state, a, b):
        return (state[0] + a * 2.0 + b[:] - b * 0.5,)

    compiled = CompiledStep(step)
    with pool_of(2):
        for i, j in ((0, 0), (0, 1), (1, 2)):
            (found,) = compiled((np.zeros((300, 400)),), arrays[i], arrays[j])
            np.testing.assert_allclose(found, arrays[i] * 2.0 + arrays[j] * 0.5, rtol=1e-12)
    assert len(compiled.programs) == 1


def test_a_sum_joined_with_a_row_loop_is_bitwise_identical(pool_of, monkeypatch, rng):
    x = rng.standard_normal((300, 7)).astype("f4")

    def step(state, x, row):
        y = x * row
        return (XP.sum(y * y), state[1] + y)

    def total():
        with pool_of(2):
            return CompiledStep(step)((np.zeros((), "f4"), np.zeros_like(x)), x, x[0])[0].copy()

    together = total()
    monkeypatch.setattr(joining, "joined", lambda tasks, **_: list(tasks))
    assert together == total()


def test_large_results_reuse_memory_within_a_step(pool_of):
    side = 1024

    def step(state, a):
        (x,) = state
        for _ in range(30):
            x = x * 0.5 + XP.sum(x, axis=0, keepdims=True) * 1e-3
            x = x + XP.sum(x, axis=-1, keepdims=True) * 1e-3 + a
        return (x,)

    compiled, a = CompiledStep(step), np.ones((side, side), "f4")
    with pool_of(2):
        (found,) = compiled((a.copy(),), a)
        (program,) = compiled.programs
    np.testing.assert_allclose(found, step((a.copy(),), a)[0], rtol=1e-4)
    assert program.step_range(0, 1) is not None
    assert sum(array.nbytes for array in program.pool) < 1 << 26


@pytest.mark.parametrize(
    "function",
    [
        lambda x, whole: np.where(whole > -0.5, x, 1.0),
        lambda x, whole: np.where(whole, x, -x),
        lambda x, whole: np.where(whole > 0, x, x.astype("f4")),
        lambda x, whole: x - np.sum(x, 0),
        lambda x, whole: np.take(x, whole[:, 0], 0) + x,
    ],
)
def test_operations_that_cannot_be_loops_are_still_traced(function, pool_of, rng):
    x, whole = rng.standard_normal((6, 8)), rng.integers(-2, 3, (6, 8)).astype("i4")
    compiled = CompiledStep(lambda state, whole: (function(state[0], whole),))
    with pool_of(2):
        (found,) = compiled((x.copy(),), whole)
    assert compiled.is_traceable
    np.testing.assert_allclose(found, function(x, whole), rtol=1e-6)


def test_an_update_overwrites_an_input_only_after_it_was_multiplied(pool_of, rng):
    kernels, rule = get_backend("numpy").kernels, SGD(momentum=0.9)

    def step(state):  # The input x is learned, too.
        x, W, b, *velocities = state
        y, pullback = kernels.dense(Dense(W, b), x, xp=XP)
        dx, (dW, db) = pullback(y * 0.5, need_dx=True)
        new = kernels.update(rule, (x, W, b), (dx, dW, db), (tuple(velocities),), (0.1,), xp=XP)
        return (*new.params, *new.opt_state[0])

    def state():
        arrays = rng.standard_normal((50, 64)), rng.standard_normal((64, 48)) * 0.1, np.zeros(48)
        return (*arrays, *map(np.zeros_like, arrays))

    given = state()
    compiled = CompiledStep(step)
    with pool_of(2):
        found = compiled(tuple(array.copy() for array in given))
    assert compiled.is_traceable
    for mine, other in zip(found, step(given), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-9)


def test_a_loop_is_correct_if_its_step_allocates_a_large_unused_array(pool_of, rng):
    x = rng.standard_normal(5)

    def step(i, state, x):
        total = x + 1.0
        np.empty_like(x, shape=(1 << 22,))
        state[0][i, ...] = total
        return state

    loop = CompiledLoop(step)
    with pool_of(2):
        (found,) = loop(0, 2, (np.zeros((2, 5)),), x)
    np.testing.assert_array_equal(found, [x + 1.0] * 2)


@pytest.mark.parametrize("shape", [(520, 100), (999, 32), (75, 500)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradient_products_are_fused_into_the_update_loop(dtype, shape, monkeypatch, pool_of, rng):
    """The penalty's sum, too, has the same bits for every number of threads."""
    found, fuse = [], fusion.fused

    def spy(*args, **options):
        tasks = fuse(*args, **options)
        found.extend(type(task.fields) for task in tasks)
        return tasks

    monkeypatch.setattr(fusion, "fused", spy)
    kernels, rule = get_backend("numpy").kernels, SGD(momentum=0.9)
    coefs, l2 = (np.asarray(0.1, dtype),), np.asarray(0.01, dtype)

    def step(state, x, dy, *, kernels=kernels):
        W, velocity, _ = state
        x, dy = x * 1.0, dy * 1.0  # An argument's memory could change between calls.
        _, pullback = kernels.dense(Dense(W, W[0] * 0.0), x, xp=XP)
        grad = pullback(dy, need_dx=False)[1].W
        new = kernels.update(rule, (W,), (grad,), ((velocity,),), coefs, l2, xp=XP)
        return new.params[0], new.opt_state[0][0], new.penalty

    x, dy, W = (
        rng.standard_normal(n).astype(dtype) for n in ((90, shape[0]), (90, shape[1]), shape)
    )
    results = []
    for n_threads in (1, 2, 3):
        found.clear()
        with pool_of(n_threads):
            compiled = CompiledStep(step)
            state = W.copy(), np.zeros_like(W), np.zeros((), dtype)
            for _ in range(2):
                state = compiled(state, x, dy)
        assert GradientLoop in found or find_tile() is None
        results.append(state)
    plain = W.copy(), np.zeros_like(W), np.zeros((), dtype)
    for _ in range(2):
        plain = step(plain, x, dy, kernels=Kernels())
    for *mine, expected in zip(*results, plain, strict=True):
        np.testing.assert_array_equal(mine, [mine[0]] * 3)
        atol = np.abs(expected).max() * tolerance(dtype, 90)
        np.testing.assert_allclose(mine[0], expected, rtol=0, atol=atol)


def from_columns(V, W, x, dy):
    return V - 1.0, W - x.T @ dy[:, :192]


def summed_by_groups(V, W, x, dy):
    gradient = x.T @ dy[:, 64:]
    return V + XP.sum(XP.reshape(gradient, (5, -1)), axis=-1)[0], W - gradient


def one_after_the_other(V, W, x, dy):
    W = W - x.T @ dy[:, 64:]
    return V - (dy[:, 64:] * 2.0).T @ dy[:, 64:], W


def of_weights_that_change(V, W, x, dy):
    """The second product is computed before the weights change, which are its operand."""
    first, second = x.T @ (dy[:, 64:] * 2.0), W.T @ (W * 2.0)
    W -= first
    V -= second
    return V, W


@pytest.mark.parametrize(
    "formula", [from_columns, summed_by_groups, one_after_the_other, of_weights_that_change]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_of_views_and_of_several_loops_are_correct(dtype, formula, pool_of, rng):
    def step(state, x, dy):
        return formula(*state, x * 1.0, dy * 1.0)

    x, dy = (rng.integers(-3, 4, (90, n)).astype(dtype) for n in (240, 256))
    state = tuple(rng.integers(-3, 4, (n, 192)).astype(dtype) for n in (192, 240))
    compiled = CompiledStep(step)
    with pool_of(2):
        found = compiled(tuple(array.copy() for array in state), x, dy)
    assert compiled.is_traceable
    for mine, expected in zip(found, step(state, x, dy), strict=True):
        np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize("n_numbers", [1, 300])
def test_long_formulas_are_split_into_several_loops(n_numbers, joined, pool_of, rng):
    """The time to compile a loop grows faster than its length, and it has few numbers."""

    def formula(x, *, xp):
        y = x
        for i in range(300):
            y = xp.abs(y * (0.75 + 1e-3 * (i % n_numbers)) - x)
        return y

    x = rng.standard_normal((20, 8))
    compiled = CompiledStep(lambda state, x: (KERNELS.activate(formula, x * 1.0, xp=XP)[0],))
    with pool_of(2):
        (found,) = compiled((np.zeros_like(x),), x)
    np.testing.assert_array_equal(found, formula(x, xp=XP))
    (_, loops), *_ = joined
    sizes = [task.fields.loop.n_operations for task in loops]
    assert len(sizes) < (10 if n_numbers == 1 else 35)
    assert max(sizes) <= MOST_OPERATIONS
