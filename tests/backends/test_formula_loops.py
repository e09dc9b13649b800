"""Loops that the compiler prints from formulas, for NumPy's machine code."""

import warnings
from dataclasses import dataclass

import array_api_compat.numpy as xp
import numpy as np
import pytest

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.backends import get_backend
from mlp_xp.backends._numpy.kernels.formulas import (
    Sized,
    activation_loops,
)
from mlp_xp.backends._numpy.runtime.loops import LOOPS
from mlp_xp.backends._numpy.runtime.thread_pool import thread_pool
from mlp_xp.backends._numpy.tracing.compiled_step import CompiledStep
from mlp_xp.backends._numpy.tracing.namespace import xp as traceable
from mlp_xp.backends._numpy.tracing.program import Program
from mlp_xp.compiler.cpu_expressions import EXPRESSIONS
from mlp_xp.compiler.formula import trace_formula
from mlp_xp.compiler.kernel import UnprintableError, make_kernel
from mlp_xp.compiler.primitives import UNARY
from mlp_xp.compiler.print_cpu import print_kernel
from mlp_xp.nn import layers, losses
from mlp_xp.nn.hidden import Blocks
from mlp_xp.nn.layers import ACTIVATIONS
from mlp_xp.optimizers import Lion, RMSprop

pytest.importorskip("llvmlite", reason="loops are compiled with llvmlite")
KERNELS = get_backend("numpy").kernels
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-30, -1e30, 88.5, -88.0, 700.0, -1.0, 0.5]
FUNCTIONS = sorted({*EXPRESSIONS, "astype"})


def numbers(dtype, shape=(40, 12)):
    rng = np.random.default_rng(5)
    x = rng.standard_normal(shape) * np.exp(rng.uniform(-4.0, 2.5, shape))
    x.reshape(-1)[: len(SPECIAL)] = SPECIAL
    return x.astype(dtype)


def run(function, *arrays):
    """Return the result of a function of arrays, computed by a loop."""
    y, inputs = trace_formula(function, *arrays, names=["x", "y"][: len(arrays)])
    found = np.empty(y.shape, arrays[0].dtype)
    with thread_pool(1):
        Sized(*make_kernel(inputs, [y.node])).run(arrays, [found])
    return found


def assert_close(found, expected, ulps, operands):
    """Compare in units in the last place of the result, or of larger operands.

    Subnormal numbers count as 0.
    """
    expected = np.asarray(expected)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    is_finite = np.isfinite(expected)
    np.testing.assert_array_equal(found[~is_finite], expected[~is_finite].astype(found.dtype))
    tiny = np.finfo(found.dtype).tiny
    size = np.maximum(np.abs(expected), np.maximum(operands, tiny))[is_finite]
    bound = ulps * np.spacing(size.astype(found.dtype))
    apart = np.abs(found[is_finite] - expected[is_finite])
    assert np.all(apart <= bound + tiny), np.max(apart / bound)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_expression_matches_the_numpy_function(name, dtype):
    x, y = numbers(dtype), numbers(dtype)[::-1, ::-1].copy()
    formulas = {
        "where": lambda x, y, *, xp: xp.where((x > y) | ~(x < 0.5), x, -y),
        "astype": lambda x, y, *, xp: xp.astype((x >= y) & (x != 1.0), x.dtype),
    }
    is_unary = name in UNARY

    def formula(x, y, *, xp):
        function = getattr(xp, name)
        z = function(x) if is_unary else function(x, y)
        return z if z.dtype == dtype else xp.astype(z, x.dtype)

    formula = formulas.get(name, formula)
    wide = (x.astype(np.float64), y.astype(np.float64))
    with np.errstate(all="ignore"):
        # In higher precision, but with the range of the dtype.
        expected = formula(*wide, xp=Wide(np.float64)).astype(dtype)
    # The larger operand of logaddexp may cancel with the logarithm.
    operands = np.zeros_like(x)
    if name == "logaddexp":
        finite = [np.nan_to_num(np.abs(a), nan=0.0, posinf=0.0) for a in (x, y)]
        operands = np.maximum(*finite)
    assert_close(run(formula, x, y), expected, 3, operands)


PAIRS = ("atan2", "floor_divide", "hypot", "pow", "remainder")
# Pairs of these are special for powers.
EXTREME = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -0.5, 1.5, 1e30, -1e30]
EXTREME += [2.0**24 - 1.0, 2.0**53 - 1.0, 1.0 + 2.0**-20, 1e-30, -1e-30, 1e300, 5e-324]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted({*UNARY, *PAIRS} & {*EXPRESSIONS}))
def test_special_values_match_numpy(name, dtype):
    with np.errstate(all="ignore"):
        values = np.asarray(EXTREME).astype(dtype)
        x, y = (a.copy() for a in np.meshgrid(values, values))

        def formula(x, y, *, xp):
            z = getattr(xp, name)(*((x, y) if name in PAIRS else (x,)))
            return xp.astype(z, x.dtype)

        found, expected = run(formula, x, y), formula(x, y, xp=xp)
    assert_close(found, expected, 3, np.zeros_like(x))
    is_zero = expected == 0.0
    np.testing.assert_array_equal(np.signbit(found[is_zero]), np.signbit(expected[is_zero]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_large_angles_are_as_accurate_as_small_ones(name, dtype):
    n = np.rint(np.geomspace(1.0, 2.0**60, 1000))
    x = np.append(n * (np.pi / 2), [1e22, 1.5e300, 6381956970095103 * 2.0**797])
    with np.errstate(all="ignore"):
        x = np.stack([x, -x, x * 1.1]).astype(dtype)
        sin, cos = (function(x.astype(np.float64)) for function in (np.sin, np.cos))
        # Not NumPy's tangent: near the pole in `x`, the C library's cosine is off by 13 units.
        expected = {"sin": sin, "cos": cos, "tan": sin / cos}[name].astype(dtype)
    found = run(lambda x, *, xp: getattr(xp, name)(x), x)
    assert_close(found, expected, 3, np.zeros_like(x))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["sinh", "asinh", "acosh", "atanh"])
def test_hyperbolic_functions_are_accurate(name, dtype):
    wide = np.float64 if dtype == "float32" else np.longdouble
    if np.finfo(wide).nmant <= np.finfo(dtype).nmant:
        pytest.skip("NumPy has no wider dtype here")
    x = np.concatenate([np.linspace(1e-3, 4.0, 40_000), np.geomspace(1e-8, 80.0, 40_000)])
    x = {"acosh": 1.0 + x, "atanh": x / (1.0 + x)}.get(name, x).astype(dtype)[None, :]
    expected = getattr(np, name)(x.astype(wide))
    found = run(lambda x, *, xp: getattr(xp, name)(x), x)
    apart = np.abs(found - expected) / np.spacing(expected.astype(dtype))
    assert apart.max() < (1.75 if name == "atanh" else 1.55)


def test_powers_of_half_and_minus_one_are_exact():
    x = np.exp(np.random.default_rng(3).standard_normal(1000))
    for exponent in (0.5, -1, -1.0, 2):
        found = run(lambda x, *, xp, exponent=exponent: x**exponent, x)
        np.testing.assert_array_equal(found, x**exponent)


class Wide:
    """NumPy's namespace, in which all formulas are computed in one dtype."""

    def __init__(self, dtype):
        self.dtype = dtype

    def __getattr__(self, name):
        return getattr(xp, name)

    def astype(self, x, dtype):
        return x.astype(self.dtype)


def test_operands_are_broadcast():
    x = numbers("float64")
    row, column, one = x[:, :1].copy(), x[0, :].copy(), np.full((1, 1), 3.0)
    for other in (row, column, one):
        for array in (x, x[:, :1].copy()):
            if np.broadcast_shapes(array.shape, other.shape) == array.shape:
                found = run(lambda a, b, *, xp: a * b + 1.0, array, other)
                with np.errstate(all="ignore"):
                    np.testing.assert_array_equal(found, array * other + 1.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "identity"])
def test_activations_have_loops(name, dtype):
    x = (3.0 * np.random.default_rng(1).standard_normal((300, 128))).astype(dtype)
    x[0, :4] = np.nan, np.inf, -np.inf, 0.0
    dy = np.cos(x, where=np.isfinite(x), out=np.ones_like(x))
    assert activation_loops(name, x.shape, dtype) is not None
    with np.errstate(all="ignore"):
        expected, pull = layers.activate(name, x, xp=xp)
        expected_dx = pull(dy)
        found = []
        for n_threads in (1, 2, 3):
            with thread_pool(n_threads):
                y, pullback = KERNELS.activate(name, x, xp=xp)
                found.append((y, pullback(dy)))
    for y, dx in found[1:]:
        np.testing.assert_array_equal(y, found[0][0])
        np.testing.assert_array_equal(dx, found[0][1])
    rtol, atol = 64 * np.finfo(dtype).eps, 16 * np.finfo(dtype).eps
    np.testing.assert_allclose(found[0][0], expected, rtol=rtol, atol=atol)
    np.testing.assert_allclose(found[0][1], expected_dx, rtol=rtol, atol=atol * 8)


LOSSES = {
    "squared": losses.SquaredError(),
    "absolute": losses.AbsoluteError(),
    "huber": losses.Huber(0.7),
    "quantile": losses.Quantile(0.3),
    "poisson": losses.Poisson(),
    "binary": losses.BinaryCrossEntropy(),
    "binary smoothed": losses.BinaryCrossEntropy(0.1),
    "binary focal": losses.BinaryFocal(),
    "through": losses.Through(losses.SquaredError(), "softplus"),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_have_loops(name, dtype, rng):
    loss = LOSSES[name]
    for shape in ((50, 1), (33, 3)):
        logits = rng.standard_normal(shape).astype(dtype)
        targets = (rng.random(shape) > 0.5).astype(dtype)
        value, pullback = losses.mean_loss(loss, logits, targets, xp=xp)

        def step(state, logits, targets, loss=loss):
            value, pullback = KERNELS.loss(loss, logits, targets, xp=traceable)
            return value, pullback()

        compiled = CompiledStep(step)
        with thread_pool(2):
            found = compiled((np.zeros((), dtype), np.zeros_like(logits)), logits, targets)
            assert compiled.programs[0].step_range(0, 1) is not None
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(found[0], value, rtol=64 * eps)
        np.testing.assert_allclose(found[1], pullback(), rtol=64 * eps, atol=eps / 8)


def test_formulas_without_a_compiled_loop_still_run():
    x = numbers("float64")[2:, :]
    with thread_pool(2), np.errstate(all="ignore"):
        for own in (
            lambda x, *, xp: (xp.sort(x, axis=-1), lambda dy: dy),
            lambda x, *, xp: x + xp.cumulative_sum(x, axis=-1),
            lambda x, *, xp: x - xp.mean(x, axis=-1, keepdims=True),
            lambda x, *, xp: x * xp.arange(1, 13, dtype=x.dtype),
        ):
            assert activation_loops(own, x.shape, "float64") is None
            y, pullback = KERNELS.activate(own, x, xp=xp)
            expected, pull = layers.activate(own, x, xp=xp)
            np.testing.assert_array_equal(y, expected)
            np.testing.assert_array_equal(pullback(x), pull(x))


def test_rows_are_not_mistaken_for_columns():
    x, column = (numbers("float64", shape) for shape in ((12, 12), (12, 1)))
    for formula in (
        lambda x, y, *, xp: x + xp.reshape(y, (1, -1)),
        lambda x, y, *, xp: x + y[:, 0],
        lambda x, y, *, xp: x + xp.sum(y, axis=-1),
    ):
        y, inputs = trace_formula(formula, x, column, names=["x", "y"])
        with pytest.raises(UnprintableError, match="moves elements"):
            make_kernel(inputs, [y.node])


def test_a_sum_next_to_results_of_a_different_shape_is_rejected():
    x, column = np.ones((5, 3)), np.ones((5, 1))
    found, inputs = trace_formula(lambda x, y, *, xp: (x * 2.0, y * y), x, column, names=["x", "y"])
    doubled, squared = (array.node for array in found)
    with pytest.raises(UnprintableError, match="different shapes"):
        make_kernel(inputs, [doubled], squared)


def test_booleans_can_be_used_as_numbers():
    x = np.asarray([[1.0, -2.0, 0.0]])
    np.testing.assert_array_equal(run(lambda x, *, xp: x * True + False, x), x)
    chosen = run(lambda x, *, xp: xp.where(x > 0.0, True, x), x)
    np.testing.assert_array_equal(chosen, [[1.0, -2.0, 0.0]])


def test_unhashable_activations_are_compiled():
    @dataclass
    class Slope:
        slope: float

        def __call__(self, x, *, xp):
            return xp.maximum(x, x * self.slope)

    x = numbers("float64")
    with thread_pool(1):
        for slope in (0.1, 0.5):
            y, _ = KERNELS.activate(Slope(slope), x, xp=xp)
            np.testing.assert_array_equal(y, np.maximum(x, x * slope))


def test_identical_loops_are_compiled_once():
    def loop(function, shape):
        loops = activation_loops(function, shape, "float32")
        return [print_kernel(sized.kernel).name for sized in loops[:2]]

    first = loop(lambda x, *, xp: xp.tanh(x) * 0.5, (7, 3))
    n_before = len(LOOPS)
    assert loop(lambda y, *, xp: xp.tanh(y) * 0.5, (20, 9)) == first
    assert len(LOOPS) == n_before


def halves(x, *, xp):
    n = x.shape[-1] // 2
    return xp.concat([x[..., :n] * x[..., n:], x[..., n:]], axis=-1)


def clipped(outputs, targets, *, xp):
    return xp.sum(xp.clip(outputs - targets, -1.0, 1.0) ** 2, axis=-1)


def clipped_with_pullback(outputs, targets, *, xp):
    apart = outputs - targets
    bounded = xp.clip(apart, -1.0, 1.0)
    slope = xp.where(bounded == apart, 2.0 * bounded, 0.0)
    return xp.sum(bounded**2, axis=-1), lambda dlosses: dlosses[:, None] * slope


def cumulative(outputs, targets, *, xp):
    """Compute a loss like the ranked probability score, from a vector of differences."""
    apart = xp.concat([outputs - targets, outputs * 0.1], axis=-1)
    return xp.sum(xp.cumulative_sum(apart, axis=-1) ** 2, axis=-1)


SETTINGS = {
    "regression": (MLPRegressor, {}),
    "huber": (MLPRegressor, {"loss": "huber"}),
    "binary": (MLPClassifier, {}),
    "mish": (MLPClassifier, {"activation": "mish"}),
    "own": (MLPRegressor, {"activation": lambda x, *, xp: x * xp.tanh(x)}),
    "sine": (MLPRegressor, {"activation": lambda x, *, xp: x + xp.sin(x) ** 2}),
    "power": (MLPRegressor, {"activation": lambda x, *, xp: xp.maximum(x, 0.0) ** 1.5}),
    "log-cosh": (
        MLPRegressor,
        {"loss": lambda z, t, *, xp: xp.sum(xp.log(xp.cosh(z - t)), axis=-1)},
    ),
    "two targets": (MLPRegressor, {}),
    "gaussian": (MLPRegressor, {"loss": losses.Gaussian()}),
    "two targets, gaussian": (MLPRegressor, {"loss": losses.Gaussian()}),
    "quantiles": (MLPRegressor, {"loss": losses.Quantile((0.1, 0.5, 0.9))}),
    "two targets, quantiles": (MLPRegressor, {"loss": losses.Quantile((0.1, 0.5, 0.9))}),
    "pieces": (MLPRegressor, {"numeric_embedding": "ple"}),
    "periodic": (MLPRegressor, {"numeric_embedding": "pbld"}),
    "members": (MLPRegressor, {"n_members": 3}),
    "focal": (
        MLPClassifier,
        {"loss": losses.SoftmaxFocal(), "output_activation": "softmax"},
    ),
    "largest of a row": (
        MLPClassifier,
        {"activation": lambda x, *, xp: x - xp.max(x, axis=-1, keepdims=True)},
    ),
    "parts of a row": (MLPClassifier, {"activation": halves}),
    "dropout schedule": (MLPClassifier, {"dropout": 0.3, "dropout_schedule": "linear"}),
    "dropout": (MLPClassifier, {"dropout": 0.3, "input_dropout": 0.1}),
    "layer norm": (MLPClassifier, {"normalization": "layer"}),
    "batch norm": (MLPClassifier, {"normalization": "batch"}),
    "parametric": (MLPClassifier, {"parametric_activation": True}),
    "residual": (MLPClassifier, {"residual": True, "hidden_layer_sizes": (8, 8)}),
    "average": (MLPClassifier, {"ema_decay": 0.9}),
    "clip": (MLPClassifier, {"max_grad_norm": 0.1}),
    "clipped loss": (MLPRegressor, {"loss": clipped}),
    "clipped loss with a pullback": (MLPRegressor, {"loss": clipped_with_pullback}),
    "cumulative loss": (MLPRegressor, {"loss": cumulative}),
    "cumulative": (MLPClassifier, {"activation": lambda x, *, xp: xp.cumulative_sum(x, axis=-1)}),
    "mixed leading axis": (MLPClassifier, {"hidden_layer_sizes": (Blocks((5, 1), mixed=(0,)), 8)}),
    "mixed outer axes": (
        MLPClassifier,
        {"hidden_layer_sizes": (24, Blocks((2, 3, 4), mixed=(0, 1)), Blocks((6, 4), (0,)))},
    ),
    "accuracy": (MLPClassifier, {"verbose": True}),
    "Lion": (MLPClassifier, {"solver": Lion()}),
    "RMSprop": (MLPClassifier, {"solver": RMSprop()}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_an_epoch_runs_in_one_compiled_call(name, monkeypatch, rng):
    kind, settings = SETTINGS[name]
    X = rng.standard_normal((120, 5))
    y = X[:, 0] + X[:, 1] ** 2
    y = (y > 0.5).astype(int) if kind is MLPClassifier else y
    y = np.stack([y, -y], axis=1) if name.startswith("two targets") else y
    programs, finish = [], Program.finish
    monkeypatch.setattr(
        Program, "finish", lambda self, *state: programs.append(self) or finish(self, *state)
    )

    def fit():
        options = {"max_iter": 4, "batch_size": 40, "random_state": 0}
        options |= {"hidden_layer_sizes": (16,)} | settings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return kind(**options).fit(X, y)

    plain = fit()
    programs.clear()
    monkeypatch.setattr("mlp_xp.backends._numpy.backend._LONG", 0)
    compiled = fit()
    assert programs
    assert all(program.step_range(0, 1) is not None for program in programs)
    np.testing.assert_allclose(compiled.loss_curve_, plain.loss_curve_, rtol=1e-10)
