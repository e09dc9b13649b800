"""Derived gradients: equal to the hand-written ones, and enough for a user's own formulas."""

import gc
import weakref
from dataclasses import dataclass
from typing import Any, NamedTuple

import array_api_compat.numpy as np_xp
import numpy as np
import pytest
from helpers import problem, small
from loss_cases import KINDS, LOSSES, case
from network_cases import EPSILON

from mlp_xp import MLP, MLPRegressor
from mlp_xp._utils.tree import leaves
from mlp_xp.compiler import FormulaError, derive
from mlp_xp.nn import layers
from mlp_xp.nn.blocks import Activate, Block, Residual
from mlp_xp.nn.gradient_check import check_activation, check_loss
from mlp_xp.nn.hidden import Layer
from mlp_xp.nn.layers import ACTIVATIONS, BatchStats, Norm, Slope
from mlp_xp.nn.losses import OUTPUTS, Custom, Loss


def close(backend, derived, written):
    for mine, expected in zip(leaves(derived), leaves(written), strict=True):
        mine, expected = backend.get(mine), backend.get(expected)
        scale = max(float(np.max(np.abs(expected))), 1e-300)
        np.testing.assert_allclose(mine, expected, rtol=1e-12, atol=1e-12 * scale)


@pytest.mark.parametrize("name", {**ACTIVATIONS, **OUTPUTS})
def test_activation_gradients_match_the_derived_ones(backend, name, rng):
    activation = {**ACTIVATIONS, **OUTPUTS}[name]
    with backend.scope():
        x, dy = (backend.put(rng.standard_normal((5, 7))) for _ in range(2))
        y, written = activation(x, xp=backend.xp)
        value, pullback = derive(lambda x, *, xp: activation(x, xp=xp)[0], x, xp=backend.xp)
        close(backend, (value, *pullback(dy)), (y, written(dy)))


@pytest.mark.parametrize("name", LOSSES)
def test_loss_gradients_match_the_derived_ones(backend, name):
    loss, xp = LOSSES[name], backend.xp
    for is_hard in KINDS[name]:
        with backend.scope():
            logits, targets, dloss = map(backend.put, case(name, is_hard=is_hard))
            dloss = dloss[:, None]
            terms, written = loss.terms(logits, targets, xp=xp)

            def formula(logits, targets, *, xp):
                return loss.terms(logits, targets, xp=xp)[0]

            value, pullback = derive(formula, logits, targets, xp=xp, n_differentiated=1)
            derived = pullback(xp.broadcast_to(dloss, value.shape))
            close(backend, (value, *derived), (terms, written(dloss)))


STATS = BatchStats(np.asarray([0.1, 0.2, 0.3]), np.asarray([1.0, 2.0, 3.0]))
LAYERS = {
    "dense": lambda p, x, w, xp: layers.dense(
        layers.Dense(p.scale[:, None] * p.shift, p.shift), x, xp=xp
    ),
    "layer norm": lambda p, x, w, xp: layers.layer_norm(p, x, epsilon=EPSILON, xp=xp),
    "batch norm": lambda p, x, w, xp: layers.batch_norm(p, x, None, epsilon=EPSILON, xp=xp),
    "weighted batch norm": lambda p, x, w, xp: layers.batch_norm(p, x, w, epsilon=EPSILON, xp=xp),
    "parametric": lambda p, x, w, xp: layers.parametric(Slope(p.scale), x, "gelu", xp=xp),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layer_gradients_match_the_derived_ones(backend, name, rng):
    apply, xp = LAYERS[name], backend.xp
    with backend.scope():
        params = Norm(*(backend.put(rng.standard_normal(3)) for _ in range(2)))
        x, dy = (backend.put(rng.standard_normal((6, 3))) for _ in range(2))
        weights = backend.put(np.asarray([1.0, 2.0, 0.5, 1.0, 3.0, 0.0]))
        y, written, *_ = apply(params, x, weights, xp)

        def formula(params, x, weights, *, xp):
            return apply(params, x, weights, xp)[0]

        value, pullback = derive(formula, params, x, weights, xp=xp, n_differentiated=2)
        grads, dx = pullback(dy)
        expected_dx, expected = written(dy, need_dx=True)
        if name == "dense":  # Its weights are made of the formula's parameters.
            W, b = expected
            expected = Norm(
                xp.sum(W * params.shift, axis=1), xp.sum(W * params.scale[:, None], axis=0) + b
            )
        if name == "parametric":
            grads = grads[:1]
        close(backend, (value, dx, tuple(grads)), (y, expected_dx, tuple(expected)))


# --- a user's formulas ----------------------------------------------------------------------------


def snake(x, *, xp):
    return x + xp.sin(x) ** 2


def snake_with_pullback(x, *, xp):
    return x + xp.sin(x) ** 2, lambda dy: dy * (1.0 + 2.0 * xp.sin(x) * xp.cos(x))


def log_cosh(outputs, targets, *, xp):
    size = xp.abs(outputs - targets)
    return xp.sum(size + xp.log1p(xp.exp(-2.0 * size)), axis=-1)


def log_cosh_with_pullback(outputs, targets, *, xp):
    error = outputs - targets
    return log_cosh(outputs, targets, xp=xp), lambda d: d[..., None] * xp.tanh(error)


@dataclass(frozen=True)
class Cauchy(Loss):
    """A loss that is derived from `losses`."""

    output = "identity"

    def losses(self, logits, targets, *, xp):
        return xp.sum(xp.log1p((logits - targets) ** 2), axis=-1)

    def activate(self, logits, *, xp):
        return logits


@dataclass(frozen=True)
class CauchyWithPullback(Cauchy):
    def terms(self, logits, targets, *, xp):
        error = logits - targets
        return xp.log1p(error**2), lambda d: 2.0 * error / (1.0 + error**2) * d


class Gain(NamedTuple):
    gain: Any


@dataclass(frozen=True)
class GainBlock(Block):
    width: int

    def init(self, uniform, constant):
        return Gain(constant(1.0, (self.width,)))

    def forward(self, params, x, context):
        return context.xp.tanh(x * params.gain[..., None, :])


@dataclass(frozen=True)
class GainBlockWithPullback(GainBlock):
    def __call__(self, params, x, context):
        gain, xp = params.gain[..., None, :], context.xp
        y = xp.tanh(x * gain)

        def pullback(dy, *, need_dx):
            inner = dy * (1.0 - y * y)
            return inner * gain if need_dx else None, Gain(xp.sum(inner * x, axis=-2))

        return y, pullback, ()


@dataclass(frozen=True)
class FeatureGain(Layer):
    block: type = GainBlock

    def outputs(self, fan_in):
        return fan_in

    def build(self, fan_in, around):
        return self.block(fan_in)


@dataclass(frozen=True)
class InnerGain(FeatureGain):
    """A layer whose block is within another block."""

    def build(self, fan_in, around):
        return Residual((Activate("tanh"), self.block(fan_in)))


@dataclass(frozen=True)
class BranchingBlock(GainBlock):
    def forward(self, params, x, context):
        return x if x[0, 0] > 0 else super().forward(params, x, context)


@pytest.mark.parametrize("layer", [FeatureGain, InnerGain])
def test_a_wrong_inner_block_is_an_error_before_the_first_step(layer, monkeypatch):
    X, y = problem()
    model = small(hidden_layer_sizes=(layer(BranchingBlock), 8))
    monkeypatch.setattr("mlp_xp.training.trainer.Trainer.run_epoch", pytest.fail)
    with pytest.raises(ValueError, match=r"block BranchingBlock.* it needs the value of an array"):
        model.fit(X, y)
    assert not hasattr(model, "coefs_")


OWN = {
    "activation": (snake, snake_with_pullback),
    "loss": (log_cosh, log_cosh_with_pullback),
    "loss class": (Cauchy(), CauchyWithPullback()),
    "hidden_layer_sizes in a block": ((InnerGain(), 8), (InnerGain(GainBlockWithPullback), 8)),
    "hidden_layer_sizes": ((FeatureGain(), 8), (FeatureGain(GainBlockWithPullback), 8)),
}


@pytest.mark.parametrize("name", OWN)
def test_custom_formulas_need_no_gradient_code(backend, name):
    X, _ = problem()
    y = X[:, 0] - X[:, 1]
    parameter = name.partition(" ")[0]
    place = {"backend": backend.name, "device": backend.device, "max_iter": 8}
    derived, written = (
        small(MLPRegressor, **{parameter: own}, **place).fit(X, y).loss_curve_ for own in OWN[name]
    )
    assert derived[-1] < derived[0]
    rtol = 1e-10 if backend.has_float64 else 1e-4
    np.testing.assert_allclose(derived, written, rtol=rtol)


def branches(x, *, xp):
    if x[0, 0] > 0:
        return x
    return xp.tanh(x)


def writes(x, *, xp):
    x *= 2.0
    return x


def random(x, *, xp):
    return x * np.random.default_rng().random()


def random_with_pullback(x, *, xp):
    scale = np.random.default_rng().random()
    return xp.tanh(scale * x), lambda dy: dy * scale / xp.cosh(scale * x) ** 2


def random_pullback(x, *, xp):
    scale = np.random.default_rng().uniform(1.0 - 1e-9, 1.0 + 1e-9)
    return xp.tanh(x), lambda dy: dy * scale / xp.cosh(x) ** 2


def erf(x, *, xp):
    from scipy import special

    return special.erf(x)


BAD_ACTIVATIONS = {
    branches: r"activation branches fails in line \d+ of test_derived.py \(`if x\[0, 0\] > 0:`\): "
    r"it needs the value of an array.*xp.where",
    writes: r"fails in line \d+ of test_derived.py \(`x \*= 2.0`\): it writes to its x",
    random: "activation random has other constants in each call, so it draws random numbers",
    random_with_pullback: "activation random_with_pullback has other constants in each call",
    random_pullback: "activation random_pullback has other constants in each call",
    erf: r"\(`return special.erf\(x\)`\): it calls a function of NumPy or SciPy",
}
BAD_ACTIVATIONS |= {
    lambda x, *, xp: np.tanh(x): "it calls a function of NumPy or SciPy; use .* xp",
    lambda x, *, xp: xp.sum(x, axis=-1): r"value .* must have the shape .* \(one number per input",
    lambda x, *, xp: xp.ones_like(x): "does not depend on its x, so there is nothing to learn",
    lambda x, *, xp: x > 0: "must return floating-point numbers, got bool",
    lambda x, *, xp: x + xp.ones((2, 9)): r"xp.add cannot broadcast the shapes",
    lambda x, *, xp: x[x > 0]: "an index must consist of integers.*xp.where for a mask",
    lambda x, *, xp: xp.erf(x): "a formula cannot use xp.erf, which is not a function of the Array",
    lambda x, *, xp: None: "must return one array, or .*, got NoneType",
    lambda x, *, xp: x * xp.argmax(x, axis=-1)[:, None]: "combines the dtypes float64, int64; con",
    lambda x, *, xp: xp.prod(x, axis=-1, keepdims=True) * x: "xp.prod has no derivative here",
}  # fmt: skip


@pytest.mark.parametrize("activation", BAD_ACTIVATIONS, ids=lambda f: f.__name__)
def test_a_wrong_formula_is_an_error_before_the_first_step(activation):
    X, y = problem()
    model = small(activation=activation)
    with pytest.raises(ValueError, match=BAD_ACTIVATIONS[activation]):
        model.fit(X, y)
    assert not hasattr(model, "coefs_")


BAD_LOSSES = {
    lambda o, t, *, xp: xp.sum((o - t) ** 2): r"value .* shape \(\d+,\) \(one number per sample\)",
    lambda o, t, *, xp: (o - t) ** 2: r"value .* shape \(\d+,\) \(one number per sample\)",
    lambda o, t, *, xp: xp.sum(t * t, axis=-1): "does not depend on its outputs",
    lambda o, t, *, xp: xp.sum(o[:, :5] - t, axis=1) if o.max() else o: (
        r"fails in line \d+ of test_derived.py .* no attribute 'max'; use only operators and the"
    ),
}


@pytest.mark.parametrize("loss", BAD_LOSSES)
def test_a_wrong_loss_is_an_error_before_the_first_step(loss):
    X, _ = problem()
    model = small(MLPRegressor, loss=loss)
    with pytest.raises(ValueError, match=BAD_LOSSES[loss]):
        model.fit(X, X[:, 0])
    assert not hasattr(model, "coefs_")


@dataclass  # Not frozen, so it is not hashable.
class Unhashable:
    scale: float = 1.0

    def __call__(self, x, *, xp):
        return xp.tanh(self.scale * x)


@dataclass(frozen=True)
class Listed(Cauchy):
    scales: list[float]


@pytest.mark.parametrize("name", ["activation", "loss"])
def test_an_unhashable_object_is_an_error_that_says_what_to_type(name):
    X, _ = problem()
    model = small(MLPRegressor, **{name: {"activation": Unhashable(), "loss": Listed([1.0])}[name]})
    told = rf"^`{name}` must be hashable, got .*: make its class a frozen dataclass, @dataclass\("
    with pytest.raises(TypeError, match=told):
        model.fit(X, X[:, 0])
    assert not hasattr(model, "coefs_")


@dataclass(frozen=True)
class Called(Loss):
    """A loss whose formula is a function."""

    function: Any
    output: str = "identity"

    def losses(self, logits, targets, *, xp):
        return self.function(logits, targets, xp=xp)

    def activate(self, logits, *, xp):
        return logits


def writes_targets(outputs, targets, *, xp):
    targets -= 1.0
    return xp.sum((outputs - targets) ** 2, axis=-1)


BAD_LOSSES_OF_A_CLASS = BAD_LOSSES | {
    lambda o, t, *, xp: xp.sum((o - t) ** 2, axis=-1)[:5]: r"must have the shape \(8,\) .* \(5,\)",
    lambda o, t, *, xp: xp.sum(
        xp.astype(o > t, xp.int64), axis=-1
    ): "floating-point numbers, got i",
    lambda o, t, *, xp: xp.sum(o - t, axis=-1) * np.random.random(): "it draws random numbers",  # noqa: NPY002
    lambda o, t, *, xp: np.exp(xp.sum(o - t, axis=-1)): "it calls a function of NumPy or SciPy",
    writes_targets: "it writes to its targets, which must not change",
}


@pytest.mark.parametrize("backend_name", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("function", BAD_LOSSES_OF_A_CLASS)
def test_a_wrong_loss_class_is_an_error_before_the_first_step(function, backend_name):
    pytest.importorskip(backend_name)
    X, _ = problem()
    model = small(MLPRegressor, loss=Called(function), backend=backend_name)
    with pytest.raises(ValueError, match=BAD_LOSSES_OF_A_CLASS[function]):
        model.fit(X, X[:, 0])
    assert not hasattr(model, "coefs_")


@dataclass(frozen=True)
class CalledBlock(Block):
    """A block whose formula is a function."""

    function: Any

    has_params = False

    def forward(self, params, x, context):
        return self.function(x, xp=context.xp)


@dataclass(frozen=True)
class CalledLayer(Layer):
    function: Any

    def outputs(self, fan_in):
        return fan_in

    def build(self, fan_in, around):
        return CalledBlock(self.function)


BAD_BLOCKS = {  # All other messages are tested with activations.
    f: m
    for f, m in BAD_ACTIVATIONS.items()
    if "per input" not in m and "depend on its x" not in m and "pullback has" not in m
}
BAD_BLOCKS |= {
    branches: r"block CalledBlock\(.*\) fails in line \d+ of test_derived.py \(`if x\[0, 0\] > 0",
    random: r"block CalledBlock\(.*\) has another output in each call, so it draws random numbers",
    lambda x, *, xp: xp.sum(
        x, axis=-1
    ): r"output .* must have the shape \(8, 6\) \(one number per i",
    lambda x, *, xp: xp.concat([x, x], axis=-1): r"must have the shape \(8, 6\) .* got \(8, 12\)",
    lambda x, *, xp: xp.ones_like(x): "does not depend on its inputs and parameters, so there is",
}


@pytest.mark.parametrize("backend_name", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("function", BAD_BLOCKS, ids=lambda f: f.__name__)
def test_a_wrong_block_is_an_error_before_the_first_step(function, backend_name):
    pytest.importorskip(backend_name)
    X, y = problem()
    layers = CalledLayer(function), 8
    model = small(hidden_layer_sizes=layers, activation="tanh", backend=backend_name)
    with pytest.raises(ValueError, match=BAD_BLOCKS[function]):
        model.fit(X, y)
    assert not hasattr(model, "coefs_")


def test_a_block_needs_finite_values_only_on_the_data():
    X, y = problem()
    layers = CalledLayer(lambda x, *, xp: xp.log(x)), 8
    assert np.isfinite(small(hidden_layer_sizes=layers).fit(np.abs(X) + 0.1, y).loss_)


@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.parametrize("name", ["activation", "pullback", "loss", "loss class", "block"])
def test_each_fit_rereads_variables_outside_a_formula(name, is_compiled, monkeypatch):
    if is_compiled:
        pytest.importorskip("llvmlite", reason="loops are compiled with llvmlite")
        monkeypatch.setattr("mlp_xp.backends._numpy.backend._LONG", 0)
    slope = 0.0

    def activation(x, *, xp):
        return xp.where(x > 0.0, x, x * slope)

    def pullback(x, *, xp):
        now = slope
        return xp.where(x > 0.0, x, x * now), lambda dy: xp.where(x > 0.0, dy, dy * now)

    def loss(outputs, targets, *, xp):
        apart = outputs - targets
        return xp.sum(xp.where(apart > 0.0, apart * apart, apart * apart * slope), axis=-1)

    X, _ = problem()
    own = {"activation": activation, "pullback": pullback, "loss": loss}
    layers = CalledLayer(activation), 4
    own = (own | {"loss class": Called(loss), "block": layers})[name]
    parameter = "hidden_layer_sizes" if name == "block" else "loss" if "loss" in name else None
    curves = []
    for slope in (0.1, 0.5, 0.1):  # noqa: B007 - the formulas read it.
        model = small(MLPRegressor, **{parameter or "activation": own})
        curves.append(model.fit(X, X[:, 0]).loss_curve_)
    assert curves[0] == curves[2]
    assert curves[0] != curves[1]


def test_an_untraceable_formula_can_supply_its_gradient():
    def relu(x, *, xp):
        if float(xp.max(x)) < -1e30:
            return x, lambda dy: dy
        y = xp.maximum(x, 0.0)
        return y, lambda dy: dy * xp.astype(y > 0.0, dy.dtype)

    X, y = problem()
    model = small(activation=relu).fit(X, y)
    np.testing.assert_array_equal(model.loss_curve_, small(activation="relu").fit(X, y).loss_curve_)


def test_graphs_are_freed_with_their_function():
    def activation(x, *, xp):
        return xp.tanh(x)

    layers.activate(activation, np.ones((2, 3)), xp=np_xp)
    known = weakref.ref(activation)
    del activation
    gc.collect()
    assert known() is None


def test_derived_gradients_are_not_compared_with_finite_differences(backend):
    with backend.scope():
        x = backend.put(np.asarray([[0.0, 1.0, -1.0]]))
        check_activation(lambda x, *, xp: xp.abs(x), x, xp=backend.xp)  # At its kink.
        loss = Custom(log_cosh)
        check_loss(loss, x, x + 1.0, xp=backend.xp)
        with pytest.raises(FormulaError, match=r"loss .* must return one array, got a tuple"):
            derive(snake_with_pullback, x, xp=backend.xp, what="loss snake")


def test_classifier_learns_with_a_derived_loss_gradient():
    def focal(p, labels, *, xp):
        correct = xp.take_along_axis(p, labels[..., None], axis=-1)[..., 0]
        return -((1.0 - correct) ** 2) * xp.log(correct)

    X, y = problem()
    model = small(MLP, loss=Custom(focal, "softmax"), max_iter=60).fit(X, y)
    assert model.loss_curve_[-1] < 0.7 * model.loss_curve_[0]
