"""Gradients against finite differences and torch's autograd, and the check of a user's gradient."""

import array_api_compat.numpy as np_xp
import network_cases as cases
import numpy as np
import pytest
from gradient import check_gradient
from helpers import tolerance
from loss_cases import KINDS, LOSSES, PLAIN_ACTIVATIONS, away_from_0, case, in_columns, plain_losses

from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.nn import layers
from mlp_xp.nn.gradient_check import check_activation, check_loss
from mlp_xp.nn.layers import ACTIVATIONS, BatchStats, relu
from mlp_xp.nn.losses import OUTPUTS, Custom, mean_loss
from mlp_xp.nn.network import Network, forward, init_params

SIZES = [(1, 1), (5, 3)]  # Samples, and features or outputs.
# Libraries that compile are compared with torch's autograd, which is more exact.
differences = pytest.mark.libraries("numpy", "array_api_strict", "cupy")
LAYERS = ["dense", "layer norm", "batch norm", "weighted batch norm", "applied norm"]


def apply_layer(name, p, x, w, xp):
    if how := cases.ARRANGEMENTS.get(name):
        return layers.block_dense(p, x, how, xp=xp)
    if name == "dense":
        return layers.dense(p, x, xp=xp)
    options = {"epsilon": cases.EPSILON, "xp": xp}
    if name == "layer norm":
        return layers.layer_norm(p, x, **options)
    if name == "applied norm":
        return layers.apply_norm(p, BatchStats(0 * p[0] + 2, 0 * p[0] + 3), x, **options)
    return layers.batch_norm(p, x, w if name.startswith("weighted") else None, **options)


@differences
@pytest.mark.parametrize("name", [*LAYERS, *cases.ARRANGEMENTS])
def test_layer_gradients_match_finite_differences(backend, name, rng):
    how = cases.ARRANGEMENTS.get(name)
    for batch, width in [(5, int(np.prod(how.shape)))] if how else SIZES:
        make = cases.dense_params if name == "dense" else cases.norm_params
        params = cases.block_params(how, rng) if how else make(rng, width)
        x = 3 + 2 * rng.standard_normal((batch, width))
        weights, direction = rng.random(batch) + 0.1, rng.standard_normal((batch, len(params[1])))
        weights[3:4] = 0.0
        for array in (*params, x, weights, direction):
            array.flags.writeable = backend.name == "torch"  # Torch warns of read-only memory.

        def function(point, weights=weights, direction=direction):
            w, dy = backend.put(weights), backend.put(direction)
            y, pullback, *_ = apply_layer(name, *point, w, backend.xp)
            dx, grads = pullback(dy, need_dx=True)
            none, again = pullback(dy, need_dx=False)
            assert none is None
            for mine, other in zip(grads, again, strict=True):
                np.testing.assert_array_equal(backend.get(mine), backend.get(other))
            return backend.xp.sum(y * dy), (grads, dx)

        check_gradient(backend, function, (params, x), rng)


@differences
@pytest.mark.parametrize("name", [*ACTIVATIONS, "exp"])
def test_activation_gradients_match_finite_differences(backend, name, rng):
    activation = (ACTIVATIONS | {"exp": layers.exp})[name]
    x, direction = away_from_0(rng.standard_normal((5, 3))), rng.standard_normal((5, 3))

    def function(point):
        dy = backend.put(direction)
        y, pullback = activation(point[0], xp=backend.xp)
        return backend.xp.sum(y * dy), (pullback(dy),)

    check_gradient(backend, function, (x,), rng)


@differences
@pytest.mark.parametrize("name", LOSSES)
def test_loss_gradients_match_finite_differences(backend, name, rng):
    for n, outputs in SIZES:
        for is_hard in KINDS[name]:
            logits, targets, weights = case(name, n=n, outputs=outputs, is_hard=is_hard)
            for used in (None, weights):

                def function(point, targets=targets, used=used):
                    given = None if used is None else backend.put(used)
                    loss, target = LOSSES[name], backend.put(targets)
                    value, pullback = mean_loss(loss, point[0], target, given, xp=backend.xp)
                    return value, (pullback(),)

                check_gradient(backend, function, (logits,), rng)


@differences
@pytest.mark.parametrize("name", cases.NETWORKS | cases.OBJECTS)
def test_network_gradients_match_finite_differences(backend, name, rng):
    network = (cases.NETWORKS | cases.OBJECTS)[name]
    params, x, labels, weights, keys = cases.network_data(network, rng)
    layer = backend.kernels.dense if name in cases.OBJECTS else layers.dense
    # A normalization bends fast: a difference along a shorter direction has a smaller error, h^4.
    size = 0.25

    def function(point):
        here = map_leaves(backend.put, (x, labels, weights, keys))
        if name in cases.OBJECTS:
            here = (*here[:2], None, here[3])
        point = map_leaves(lambda leaf: leaf * size, point)
        if name in ("pieces", "monotone"):  # Where pieces begin is not learned.
            (first, *inputs), *others = point
            start, per_unit = map_leaves(backend.put, params[0][0][:2])
            first = first._replace(start=start, per_unit=per_unit)
            point = (first, *inputs), *others
        value, grads, *_ = cases.loss_and_gradients(backend, network, point, *here, layer=layer)
        return value, map_leaves(lambda leaf: leaf * size, grads)

    check_gradient(backend, function, map_leaves(lambda leaf: leaf / size, params), rng)


def compare(ours, theirs, terms):
    for mine, reference in zip(ours, theirs, strict=True):
        reference = reference.detach().numpy()
        atol = max(1.0, np.abs(reference).max()) * tolerance("float64", terms)
        np.testing.assert_allclose(mine, reference, rtol=0, atol=atol)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_gradients_match_torch_autograd(torch, backend, name, rng):
    import array_api_compat.torch as torch_xp

    loss = LOSSES[name]
    activation = list(ACTIVATIONS)[list(LOSSES).index(name) % len(ACTIVATIONS)]
    network = Network((4, 6, 3 * loss.outputs_per_target), activation)
    params, x = init_params(network, 1), rng.standard_normal((5, 4))
    for is_hard in KINDS[name]:
        _, targets, weights = case(name, is_hard=is_hard)
        with backend.scope():
            here, *given = map_leaves(backend.put, (params, x, targets, weights))
            logits, pull, _ = forward(network, here, given[0], xp=backend.xp)
            value, pullback = mean_loss(loss, logits, *given[1:], xp=backend.xp)
            ours = [backend.get(a) for a in (value, *leaves(pull(pullback(), need_dx=False)[1]))]
        with torch.enable_grad():
            free = [torch.tensor(leaf, requires_grad=True) for leaf in leaves(params)]
            h = PLAIN_ACTIVATIONS[activation](torch.tensor(x) @ free[0] + free[1], torch_xp)
            z, t = h @ free[2] + free[3], torch.tensor(in_columns(targets))
            w = torch.tensor(weights)
            expected = torch.sum(plain_losses(loss, z, t, torch_xp) * w) / torch.sum(w)
            expected.backward()
        compare(ours, [expected, *(leaf.grad for leaf in free)], 15)


def torch_logits(torch, network, arrays, x, weights, keys):
    """Return the logits, written plainly from the network's settings with torch's functions."""
    import array_api_compat.torch as torch_xp

    remaining, key = iter(arrays), iter(keys)
    share = weights / weights.sum()
    n_hidden = len(network.widths) - 2
    activations = network.activation
    activations = activations if isinstance(activations, tuple) else (activations,) * n_hidden
    rates = network.dropout if isinstance(network.dropout, tuple) else (network.dropout,) * n_hidden

    def dropped(h, rate):
        if not rate:
            return h
        ones = np.ones(tuple(h.shape))
        mask, _ = layers.dropout(ones, np.asarray(next(key)), rate, xp=np_xp)
        assert 0 < np.count_nonzero(mask) < mask.size
        return h * torch.tensor(mask)

    h = dropped(x, network.input_dropout)
    for i in range(n_hidden):
        z = h @ next(remaining) + next(remaining)
        if network.normalization == "layer":
            z = torch.nn.functional.layer_norm(z, z.shape[1:], next(remaining), next(remaining))
        elif network.normalization == "batch":
            z = z - share @ z
            z = z / torch.sqrt(share @ z**2 + 1e-5) * next(remaining) + next(remaining)
        name = activations[i]
        y = z**3 / 10.0 if name is cases.cube else PLAIN_ACTIVATIONS[name](z, torch_xp)
        y = dropped(y, rates[i])
        h = h + y if network.residual and y.shape == h.shape else y
    return h @ next(remaining) + next(remaining)


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_network_gradients_match_torch_autograd(torch, backend, name, rng):
    network = cases.NETWORKS[name]
    params, x, labels, weights, keys = cases.network_data(network, rng)
    weights[-3:] = 0.0  # Rows that pad a batch have weight 0.
    with backend.scope():
        here = map_leaves(backend.put, (params, x, labels, weights, keys))
        value, grads, logits, _ = cases.loss_and_gradients(backend, network, *here)
        ours = [backend.get(array) for array in (value, logits, *leaves(grads))]
    with torch.enable_grad():
        free = [torch.tensor(leaf, requires_grad=True) for leaf in leaves(params)]
        w = torch.tensor(weights)
        z = torch_logits(torch, network, free, torch.tensor(x), w, keys)
        each = torch.nn.functional.cross_entropy(z, torch.tensor(labels).long(), reduction="none")
        loss = (each * w).sum() / w.sum()
        loss.backward()
    compare(ours, [loss, z, *(leaf.grad for leaf in free)], cases.BATCH * max(network.widths))


def squared(outputs, targets, *, xp):
    error = outputs - targets
    return 0.5 * xp.sum(error * error, axis=-1), lambda dlosses: error * dlosses[..., None]


@pytest.mark.libraries("numpy", "array_api_strict", "cupy")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_correct_losses_and_activations_pass_the_gradient_check(backend, dtype):
    x = np.asarray([[-2.0, -0.5, 0.4], [0.7, 1.5, 3.0]], dtype=dtype)
    with backend.scope():
        for name, loss in LOSSES.items():
            for is_hard in KINDS[name]:
                logits, targets, _ = map(backend.put, case(name, dtype, is_hard=is_hard))
                check_loss(loss, logits, targets, xp=backend.xp)
        logits, targets, _ = map(backend.put, case("squared", dtype))
        check_loss(squared, logits, targets, xp=backend.xp)
        for name, activation in {**ACTIVATIONS, **OUTPUTS}.items():
            check_activation(activation, backend.put(x), xp=backend.xp, name=name)


def forgets_what_it_is_given(outputs, targets, *, xp):
    losses, _ = squared(outputs, targets, xp=xp)
    return losses, lambda dlosses: outputs - targets


def writes(outputs, targets, *, xp):
    losses, pullback = squared(outputs + 0.0, targets, xp=xp)
    outputs[:, :] = 0.0
    return losses, pullback


def writes_dlosses(outputs, targets, *, xp):
    losses, pullback = squared(outputs, targets, xp=xp)

    def write(dlosses):
        dlosses *= 2.0
        return pullback(dlosses)

    return losses, write


def changed(value=lambda v, xp: v, pullback=lambda g, xp: g):
    """Return the squared error with something wrong in what it returns."""

    def my_loss(outputs, targets, *, xp):
        losses, back = squared(outputs, targets, xp=xp)
        return value(losses, xp), lambda dlosses: pullback(back(dlosses), xp)

    return my_loss


WRONG_LOSSES = [
    (changed(pullback=lambda g, xp: 5.0 * g), "my_loss must match .* is 5 times .* by 0.2"),
    (changed(pullback=lambda g, xp: -g), "is -1 times the derivative everywhere; .* by -1"),
    (changed(lambda v, xp: xp.mean(v)), r"value .* shape \(5,\) \(one number per sample\).* \(\)"),
    (forgets_what_it_is_given, "must return the derivative of the value, multiplied by its arg"),
    (changed(pullback=lambda g, xp: xp.tanh(g)), "of loss my_loss must match .* it must ret"),
    (lambda o, t: None, r"<lambda> must accept \(outputs, targets, \*, xp\), .* unexpected .*'xp'"),
    (lambda o, t, *, xp: [o], r"must return one array, or \(value, pullback\), got list"),
    (lambda o, t, *, xp: (1, 2, 3), r"one array, or \(losses, pullback\), got a tuple of 3"),
    (lambda o, t, *, xp: (o[:, 0], o), r"the pullback .* must be a callable \(dlosses\), got"),
    (lambda o, t, *, xp: (o[:, 0], lambda: o), r"must accept \(dlosses\), got an error: too many"),
    (changed(lambda v, xp: 1.0), "value of loss my_loss must be an array .*sample.*got float"),
    (changed(lambda v, xp: v * xp.nan), "value of loss my_loss is not finite; look for"),
    (changed(lambda v, xp: xp.astype(v, xp.float32)), "value .* dtype of the input, .*float64"),
    (changed(pullback=lambda g, xp: None), "pullback of loss my_loss must be an array .*NoneType"),
    (changed(pullback=lambda g, xp: g[:, :1]), r"have the shape \(5, 3\) .*, got \(5, 1\)"),
    (changed(pullback=lambda g, xp: xp.astype(g, xp.float32)), "pullback .* dtype of the input"),
    (changed(pullback=lambda g, xp: g / 0.0), "the pullback of loss my_loss is not finite"),
]  # fmt: skip


@pytest.mark.parametrize("wrapped", [False, True])
def test_wrong_loss_error_says_what_to_fix(backend, wrapped):
    with backend.scope(), np.errstate(divide="ignore", invalid="ignore"):
        logits, targets, _ = map(backend.put, case("squared"))
        for loss, message in WRONG_LOSSES:
            with pytest.raises(ValueError, match=message):
                check_loss(Custom(loss) if wrapped else loss, logits, targets, xp=backend.xp)


def writes_dy(x, *, xp):
    def pullback(dy):
        dy *= 2.0 * x
        return dy

    return x * x, pullback


def test_loss_that_overwrites_its_inputs_is_detected():
    logits, targets, _ = case("squared")
    with pytest.raises(ValueError, match="loss writes writes to its outputs, which must"):
        check_loss(writes, logits, targets, xp=np_xp)
    with pytest.raises(ValueError, match="loss writes_dlosses writes to its dlosses, which must"):
        check_loss(writes_dlosses, logits, targets, xp=np_xp)
    with pytest.raises(ValueError, match="activation writes_dy writes to its dy"):
        check_activation(writes_dy, np.asarray([0.5, 2.0]), xp=np_xp)


def test_gradient_check_in_float32_finds_errors_of_ten_percent(backend):
    with backend.scope():
        logits, targets, _ = map(backend.put, case("squared", "float32"))
        for slip in (0.9, 1.1):
            wrong = changed(pullback=lambda g, xp, slip=slip: g * slip)
            with pytest.raises(ValueError, match=f"the pullback is {slip} times the derivative"):
                check_loss(wrong, logits, targets, xp=backend.xp)


WRONG_ACTIVATIONS = [
    (lambda x, *, xp: (x * x, lambda dy: x * dy), "square must match .* 0.5 times .* returns by 2"),
    (lambda x, *, xp: (x * x, lambda dy: 2.0 * x), "must return the derivative of the"),
    (lambda x: x, r"activation square must accept \(x, \*, xp\), got an error: got an unexp"),
    (lambda x, *, xp: None, r"must return one array, or \(value, pullback\), got NoneType"),
    (lambda x, *, xp: (xp.sum(x), lambda dy: dy), r"the value of .* shape \(4,\) .*, got \(\)"),
    (lambda x, *, xp: (x / 0.0, lambda dy: dy), "the value of activation square is not finite"),
    (lambda x, *, xp: (x * x, lambda: x), r"activation square must accept \(dy\), got an error"),
    (lambda x, *, xp: (x * x, lambda dy: dy[:2]), r"the pullback of .* shape \(4,\) .*\(2,\)"),
    (4, "activation square must be a callable .*got int"),
]  # fmt: skip


def test_wrong_activation_error_says_what_to_fix(backend):
    with backend.scope(), np.errstate(divide="ignore"):
        x = backend.put(np.asarray([-1.0, 0.5, 2.0, 3.0]))
        for activation, message in WRONG_ACTIVATIONS:
            with pytest.raises(ValueError, match=message):
                check_activation(activation, x, xp=backend.xp, name="square")


def test_gradient_check_error_mentions_a_possible_kink():
    with pytest.raises(ValueError, match=r"the pullback of activation relu .*at a kink"):
        check_activation(relu, np.asarray([0.0, 2.0, -1.0]), xp=np_xp)
