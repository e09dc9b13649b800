"""Update rules against formulas and against those of scikit-learn and torch; one table of all."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import tolerance
from rules import RATE, RULES, params_and_gradients, run
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.optimizers import (
    OPTIMIZERS,
    SGD,
    Adam,
    AdamW,
    BetaLasso,
    ByKind,
    Lion,
    Muon,
    RMSprop,
    family,
    init_opt_state,
    update_tree,
)
from mlp_xp.optimizers import RULES as KINDS_OF_RULES


@pytest.mark.parametrize("name", ["momentum", "nesterov", "adam", "adam, no first moment"])
def test_the_same_as_scikit_learn(backend, name, rng):
    rule = RULES[name]
    params, steps = params_and_gradients(rng)
    ours, _ = run(backend, update_tree, rule, params, steps)
    theirs = [leaf.copy() for leaf in params]
    if isinstance(rule, SGD):
        peer = SGDOptimizer(
            theirs, learning_rate_init=RATE, momentum=rule.momentum, nesterov=rule.nesterov
        )
    else:
        peer = AdamOptimizer(
            theirs, RATE, beta_1=rule.beta_1, beta_2=rule.beta_2, epsilon=rule.epsilon
        )
    for grads in steps:
        peer.update_params(theirs, grads)
    for mine, yours in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, yours, rtol=0, atol=tolerance("float64", 7))


PEERS = {
    "plain SGD": (SGD(momentum=0.0), "SGD", {}),
    "SGD with momentum": (SGD(0.8, nesterov=False), "SGD", {"momentum": 0.8}),
    "SGD with Nesterov": (SGD(0.8), "SGD", {"momentum": 0.8, "nesterov": True}),
    # With epsilon = 0 both forms of Adam are one.
    "Adam": (Adam(epsilon=0.0), "Adam", {"eps": 0.0}),
    "AdamW": (AdamW(epsilon=0.0, weight_decay=0.3), "AdamW", {"eps": 0.0, "weight_decay": 0.3}),
    "RMSprop": (RMSprop(epsilon=0.1), "RMSprop", {"alpha": 0.9, "eps": 0.1}),
    "RMSprop with momentum": (
        RMSprop(rho=0.8, momentum=0.7),
        "RMSprop",
        {"alpha": 0.8, "momentum": 0.7},
    ),
}


@pytest.mark.parametrize("name", PEERS)
def test_the_same_as_torch_where_every_parameter_is_a_matrix(backend, name, rng, torch):
    rule, peer_name, settings = PEERS[name]
    params, steps = params_and_gradients(rng)
    matrices = tuple(leaf for leaf in params if leaf.ndim == 2)
    steps = [tuple(leaf for leaf in grads if leaf.ndim == 2) for grads in steps]
    ours, _ = run(backend, update_tree, rule, matrices, steps)
    theirs = [torch.tensor(leaf) for leaf in matrices]
    peer = getattr(torch.optim, peer_name)(theirs, lr=RATE, **settings)
    for grads in steps:
        for leaf, grad in zip(theirs, grads, strict=True):
            leaf.grad = torch.tensor(grad)
        peer.step()
    for mine, yours in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, yours.numpy(), rtol=0, atol=tolerance("float64", 7))


def test_lion_is_its_formula(backend, rng):
    params, steps = params_and_gradients(rng)
    ours, _ = run(backend, update_tree, Lion(0.8, 0.95, weight_decay=0.3), params, steps)
    for i, p in enumerate(params):
        m = np.zeros_like(p)
        for g in (grads[i] for grads in steps):
            decay = 0.3 * p if p.ndim == 2 else 0.0
            p = p - RATE * (np.sign(0.8 * m + 0.2 * g) + decay)
            m = 0.95 * m + 0.05 * g
        np.testing.assert_allclose(ours[i], p, rtol=0, atol=tolerance("float64", 7))


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_beta_lasso_is_its_formula(backend, momentum, rng):
    params, steps = params_and_gradients(rng)
    rule = BetaLasso(momentum, l1=0.01, beta=30.0)
    ours, _ = run(backend, update_tree, rule, params, steps)
    plain, _ = run(backend, update_tree, SGD(momentum), params, steps)
    p, v = params[0], 0.0
    for g in (grads[0] for grads in steps):
        g = g + 0.01 * np.sign(p)
        v = momentum * v - RATE * g
        p = p + momentum * v - RATE * g
        p = np.where(np.abs(p) < 0.3, 0.0, p)
    np.testing.assert_allclose(ours[0], p, rtol=0, atol=tolerance("float64", 7))
    assert 0 < np.count_nonzero(ours[0] == 0.0) < p.size
    # Vectors and the head are left to SGD.
    for mine, yours in zip(ours[1:], plain[1:], strict=True):
        np.testing.assert_array_equal(mine, yours)


RULES_OF_KINDS = {
    "of two opt_state, one and none": (Muon(weight_decay=0.1), SGD(momentum=0.0), Lion()),
    "of one number, two and four": (SGD(), AdamW(weight_decay=0.3), Muon(adam_rate=0.5)),
    "with other settings": (AdamW(), AdamW(beta_1=0.5), AdamW(weight_decay=0.5)),
}


@pytest.mark.parametrize("name", RULES_OF_KINDS)
def test_each_kind_follows_its_own_rule_at_its_own_rate(backend, name, rng):
    params, steps = params_and_gradients(rng)
    rules, rates = RULES_OF_KINDS[name], (1.0, 2.0, 0.5)
    ours, _ = run(backend, update_tree, ByKind(*rules, *rates), params, steps)
    # The leaves of the problem are a matrix, a vector, the head, and a vector.
    for i, group in enumerate((0, 1, 2, 1)):
        theirs, _ = run(backend, update_tree, rules[group], params, steps, rate=rates[group] * RATE)
        np.testing.assert_allclose(ours[i], theirs[i], rtol=0, atol=tolerance("float64", 7))


@pytest.mark.parametrize("given", [AdamW, "adamw", None])
def test_a_kind_is_given_a_rule(given):
    with pytest.raises(TypeError, match=r"vector is .*, and must be a rule .* e.g. AdamW\(\)"):
        ByKind(vector=given)


def test_a_family_tells_what_slots_mean():
    assert family(Adam()) == family(Adam(beta_1=0.5)) == "Adam"
    assert family(ByKind()) != family(ByKind(vector=SGD())) != family(SGD())


@pytest.mark.parametrize(
    "rule",
    [AdamW(weight_decay=0.5), Lion(weight_decay=0.5), Muon(weight_decay=0.5)],
    ids=lambda rule: type(rule).__name__,
)
def test_matrices_decay_and_vectors_do_not(backend, rule):
    params = tuple(np.full(shape, 2.0) for shape in ((2, 2), (2,), (2, 1), (1,)))
    zero = tuple(np.zeros_like(leaf) for leaf in params)
    ours, _ = run(backend, update_tree, rule, params, [zero])
    for leaf in ours:
        kept = 1 - RATE * 0.5 if leaf.ndim == 2 else 1.0
        np.testing.assert_allclose(leaf, 2.0 * kept, rtol=tolerance("float64"))


def test_matrices_are_penalised_and_vectors_are_not(backend):
    params = (np.full((1, 1), 2.0), np.full(1, 2.0))
    zero = tuple(np.zeros_like(leaf) for leaf in params)
    (W, b), penalties = run(backend, update_tree, SGD(momentum=0.0), params, [zero], l2=0.5)
    assert W[0, 0] == pytest.approx(2 * (1 - RATE * 0.5))
    assert b[0] == 2.0
    assert penalties == [pytest.approx(0.5 * 0.5 * 2.0**2)]


@pytest.mark.parametrize("name", RULES)
def test_a_rule_minimizes_a_quadratic(backend, name, rng):
    """Least squares in a matrix, with a vector and a head that are pulled to a target."""
    rule = RULES[name]
    # Muon's matrices move by a fixed length, of a fifth of the rate by default.
    rate = 0.3 if "muon" in name or name == "by kind" else 0.1
    A = rng.standard_normal((6, 6)) / 6 + np.eye(6)
    shapes = ((6, 4), (4,), (4, 2), (2,))
    targets = [rng.standard_normal(shape) for shape in shapes]
    with backend.scope():
        xp, A = backend.xp, backend.put(A)
        targets = tuple(map(backend.put, targets))
        params = map_leaves(xp.zeros_like, targets)
        opt_state = init_opt_state(rule, params, xp=xp)
        losses = []
        for t in range(1, 151):
            errors = [p - target for p, target in zip(params, targets, strict=True)]
            losses.append(sum(float(xp.sum(e * e)) for e in errors))
            grads = (A.T @ (A @ errors[0]), *(e + 0.0 for e in errors[1:]))
            # Rules that move by a fixed length need the rate to fall.
            coefs = backend.put(np.asarray(rule.coefficients(rate * 0.97**t, t)), "float64")
            coefs = tuple(coefs[i] for i in range(coefs.shape[0]))
            params, opt_state, _ = update_tree(rule, params, grads, opt_state, coefs, xp=xp)
    # A decay of the weights stops short of the targets.
    assert losses[-1] < (0.2 if getattr(rule, "weight_decay", 0.0) else 0.02) * losses[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("l2", [None, 0.1])
@pytest.mark.parametrize("name", RULES)
def test_the_backends_kernel_does_what_the_default_does(backend, name, l2, dtype, rng):
    params, steps = params_and_gradients(rng, dtype)
    kernel = run(backend, backend.kernels.update, RULES[name], params, steps, l2)
    default = run(backend, update_tree, RULES[name], params, steps, l2)
    for mine, plain in zip(kernel[0], default[0], strict=True):
        assert mine.dtype == plain.dtype == dtype
        np.testing.assert_allclose(mine, plain, rtol=0, atol=4 * tolerance(dtype, 7))
    np.testing.assert_allclose(kernel[1], default[1], rtol=tolerance(dtype, 12))


def test_the_backends_kernel_takes_arrays_that_are_not_contiguous(backend, rng):
    params, steps = params_and_gradients(rng)
    turned = [tuple(np.asfortranarray(leaf) for leaf in grads) for grads in steps]
    kernel, _ = run(backend, backend.kernels.update, Adam(), params, turned)
    default, _ = run(backend, update_tree, Adam(), params, steps)
    for mine, plain in zip(kernel, default, strict=True):
        np.testing.assert_allclose(mine, plain, rtol=0, atol=tolerance("float64", 7))


@pytest.mark.parametrize("name", RULES)
def test_float32_stays_float32(backend, name, rng):
    """The opt_state too; the parameters are looked at above."""
    params, (grads, *_) = params_and_gradients(rng, "float32")
    rule = RULES[name]
    with backend.scope():
        params, grads = (map_leaves(backend.put, tree) for tree in (params, grads))
        coefs = backend.put(np.asarray(rule.coefficients(RATE, 1)), "float32")
        coefs = tuple(coefs[i] for i in range(coefs.shape[0]))
        opt_state = init_opt_state(rule, params, xp=backend.xp)
        updated = update_tree(rule, params, grads, opt_state, coefs, xp=backend.xp)
        assert len(updated.opt_state) == len(rule.state_type._fields)
        for old, new in zip(leaves((params, opt_state)), leaves(updated[:2]), strict=True):
            assert new.dtype == backend.xp.float32
            assert new.shape == old.shape
            assert new.device == old.device


@pytest.mark.parametrize("name", RULES)
def test_a_gradient_that_is_not_a_number_is_seen(backend, name, rng):
    params, (grads, *_) = params_and_gradients(rng)
    for grad in grads:
        grad.reshape(-1)[0] = np.nan
    ours, _ = run(backend, update_tree, RULES[name], params, [grads])
    for leaf in ours:
        assert np.isnan(leaf.reshape(-1)[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(momentum=1.0), "momentum is 1.0, and must be at least 0 and below 1"),
        (lambda: Adam(beta_2=-0.1), "beta_2 is -0.1"),
        (lambda: Adam(epsilon=-1e-8), "epsilon is -1e-08"),
        (lambda: AdamW(weight_decay=-1.0), "weight_decay is -1.0"),
        (lambda: RMSprop(rho=1.0), "rho is 1.0, and must be at least 0 and below 1"),
        (lambda: RMSprop(epsilon=float("nan")), "epsilon is nan, and must be at least 0"),
        (lambda: RMSprop(momentum=-0.5), "momentum is -0.5"),
        (lambda: Lion(beta_1=2.0), "beta_1 is 2.0"),
        (lambda: Lion(beta_2=1.0), "beta_2 is 1.0"),
        (lambda: Lion(weight_decay=-1.0), "weight_decay is -1.0"),
        (lambda: Muon(momentum=1.0), "momentum is 1.0"),
        (lambda: Muon(ns_steps=0), "ns_steps is 0, and must be an integer of at least 1"),
        (lambda: Muon(ns_steps=5.0), "ns_steps is 5.0"),
        (lambda: Muon(scale="rms"), "scale is 'rms', and must be 'match_rms_adamw' or 'original'"),
        (lambda: Muon(ns_polynomial="best"), "ns_polynomial is 'best', and must be 'minimax' or"),
        (lambda: BetaLasso(l1=-1.0), "l1 is -1.0, and must be at least 0"),
        (lambda: BetaLasso(beta=-1.0), "beta is -1.0, and must be at least 0"),
        (lambda: BetaLasso(momentum=1.0), "momentum is 1.0"),
        (lambda: ByKind(head_rate=-1.0), "head_rate is -1.0, and must be at least 0"),
        (lambda: Muon(adam_rate=-1.0), "adam_rate is -1.0"),
        (lambda: Muon(beta_2=1.0), "beta_2 is 1.0"),
        (lambda: Muon(weight_decay=-1.0), "weight_decay is -1.0"),
    ],
)
def test_bad_settings_say_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_rules_can_be_static_under_a_compiler():
    for kind in OPTIMIZERS.values():
        assert hash(kind()) == hash(kind())
        assert kind() == kind()


def test_the_table_drives_every_rule():
    assert (*OPTIMIZERS.values(), ByKind) == KINDS_OF_RULES
    assert {type(rule) for rule in RULES.values()} == set(KINDS_OF_RULES)
