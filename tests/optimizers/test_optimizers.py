"""Update rules and schedules against formulas and peers, and what holds for all of them."""

import re

import numpy as np
import pytest
from helpers import problem, small, tolerance
from rules import RATE, RULES, nested, params_and_gradients, run
from sklearn.neural_network._stochastic_optimizers import SGDOptimizer

from mlp_xp import optimizers
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.nn.blocks import PBLD, TableInputs
from mlp_xp.nn.network import Network, init_params
from mlp_xp.optimizers import SGD, Adam, AdamW, BetaLasso, ByKind, Lion, Muon, RMSprop, update_tree
from mlp_xp.optimizers import schedules as rates


def same(mine, theirs):
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance("float64", 7))


# --- formulas: each takes the rate, a parameter, its gradients and its kind, and returns the result

KINDS = ("matrix", "vector", "head", "vector")  # The kinds of the leaves of `params_and_gradients`.


def sgd(momentum, nesterov=True, l1=0.0, beta=0.0):
    def train(p, grads, kind):
        v, is_pulled = 0.0, l1 > 0 and kind == "matrix"
        for g in grads:
            g = g + l1 * np.sign(p) if is_pulled else g
            v = momentum * v - RATE * g
            p = p + (momentum * v - RATE * g if nesterov else v)
            p = np.where(np.abs(p) < beta * l1, 0.0, p) if is_pulled else p
        return p

    return train


def adam(beta_1, beta_2, epsilon, decay=0.0):
    def train(p, grads, kind):
        m = v = 0.0
        for t, g in enumerate(grads, start=1):
            m, v = beta_1 * m + (1 - beta_1) * g, beta_2 * v + (1 - beta_2) * g * g
            rate = RATE * (1 - beta_2**t) ** 0.5 / (1 - beta_1**t)
            p = p * (1 if kind == "vector" else 1 - RATE * decay) - rate * m / (v**0.5 + epsilon)
        return p

    return train


def rmsprop(rho, epsilon, momentum=0.0):
    def train(p, grads, kind):
        v = b = 0.0
        for g in grads:
            v = rho * v + (1 - rho) * g * g
            b = momentum * b + g / (v**0.5 + epsilon)
            p = p - RATE * b
        return p

    return train


def lion(beta_1, beta_2, decay=0.0):
    def train(p, grads, kind):
        m = 0.0
        for g in grads:
            p = p * (1 if kind == "vector" else 1 - RATE * decay)
            p = p - RATE * np.sign(beta_1 * m + (1 - beta_1) * g)
            m = beta_2 * m + (1 - beta_2) * g
        return p

    return train


FORMULAS = [
    (SGD(), sgd(0.9)),
    (SGD(0.0), sgd(0.0)),
    (SGD(0.8, nesterov=False), sgd(0.8, nesterov=False)),
    (Adam(), adam(0.9, 0.999, 1e-8)),
    (Adam(0.0, 0.8, 1e-3), adam(0.0, 0.8, 1e-3)),
    (AdamW(), adam(0.9, 0.999, 1e-8, 0.01)),
    (AdamW(0.8, 0.9, 1e-3, weight_decay=0.3), adam(0.8, 0.9, 1e-3, 0.3)),
    (RMSprop(), rmsprop(0.9, 1e-8)),
    (RMSprop(0.8, 0.1, momentum=0.7), rmsprop(0.8, 0.1, 0.7)),
    (Lion(), lion(0.9, 0.99)),
    (Lion(0.8, 0.95, weight_decay=0.3), lion(0.8, 0.95, 0.3)),
    (BetaLasso(), sgd(0.9, l1=1e-5, beta=50.0)),
    (BetaLasso(0.0, l1=0.01, beta=30.0), sgd(0.0, l1=0.01, beta=30.0)),
    (BetaLasso(0.8, nesterov=False, l1=0.01, beta=30.0), sgd(0.8, False, l1=0.01, beta=30.0)),
]


def test_optimizers_match_their_formulas(backend, rng):
    params, steps = params_and_gradients(rng)
    for rule, formula in FORMULAS:
        ours, _ = run(backend, update_tree, rule, params, steps)
        for i, (mine, p, kind) in enumerate(zip(ours, params, KINDS, strict=True)):
            same(mine, formula(p, [grads[i] for grads in steps], kind))
        if isinstance(rule, BetaLasso) and rule.l1 == 0.01:
            assert 0 < np.count_nonzero(ours[0] == 0.0) < ours[0].size


def test_by_kind_updates_each_kind_with_its_own_optimizer_and_rate(backend, rng):
    (params, steps), factors = params_and_gradients(rng), (1.0, 2.0, 0.5)
    for rules in (  # With states of different lengths, with coefficients of different numbers.
        (Muon(weight_decay=0.1), SGD(momentum=0.0), Lion()),
        (SGD(), AdamW(weight_decay=0.3), Muon(adam_rate=0.5)),
        (AdamW(), AdamW(beta_1=0.5), AdamW(weight_decay=0.5)),
    ):
        ours, _ = run(backend, update_tree, ByKind(*rules, *factors), params, steps)
        for i, group in enumerate((0, 1, 2, 1)):
            rate = factors[group] * RATE
            same(ours[i], run(backend, update_tree, rules[group], params, steps, rate=rate)[0][i])
    default, _ = run(backend, update_tree, ByKind(), params, steps)
    for i, rule in enumerate((Muon(), AdamW(), AdamW(), AdamW())):
        same(default[i], run(backend, update_tree, rule, params, steps)[0][i])


def test_embeddings_scales_and_slopes_can_have_their_own_optimizers_and_rates(backend, rng):
    inputs = TableInputs(2, 0, (4,), 3, PBLD(2, 3), scale=True)
    network = Network((3, 4, 2), inputs=inputs, parametric_activation=True)
    params = init_params(network, 0)
    names = ["numeric"] * 4 + ["embedding", "scale", "matrix", "vector", "slope", "head", "vector"]
    assert optimizers.kinds(params) == names
    steps = [map_leaves(lambda leaf: rng.standard_normal(leaf.shape), params)] * 2
    decaying = AdamW(weight_decay=0.3)
    rule = ByKind(AdamW(), SGD(), AdamW(), slope=decaying, slope_rate=2.0, scale_rate=0.0)
    ours, _ = run(backend, update_tree, rule, params, steps)
    alone = {"numeric": SGD(), "embedding": SGD(), "slope": decaying, "vector": SGD()}
    for name, mine, p, *own in zip(names, ours, leaves(params), *map(leaves, steps), strict=True):
        if name == "scale":
            same(mine, p)
        elif name in alone:
            # Weight decay applies to all kinds except vectors, e.g. to a matrix.
            given = (p if name == "vector" else p.reshape(1, -1),)
            steps_of = [(g.reshape(given[0].shape),) for g in own]
            rate = RATE * (2.0 if name == "slope" else 1.0)
            [expected], _ = run(backend, update_tree, alone[name], given, steps_of, rate=rate)
            same(mine, expected.reshape(p.shape))


def test_l2_penalty_applies_to_matrices_but_not_vectors(backend):
    params = (np.full((1, 1), 2.0), np.full(1, 2.0))
    zero = tuple(np.zeros_like(leaf) for leaf in params)
    (W, b), penalties = run(backend, update_tree, SGD(momentum=0.0), params, [zero], l2=0.5)
    assert W[0, 0] == pytest.approx(2 * (1 - RATE * 0.5))
    assert b[0] == 2.0
    assert penalties == [pytest.approx(0.5 * 0.5 * 2.0**2)]


@pytest.mark.libraries("numpy", "torch", "jax", "cupy")  # These libraries have a kernel.
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("l2", [None, 0.1])
@pytest.mark.parametrize("tree", ["flat", "nested", "not contiguous"])
def test_backend_update_kernels_match_the_default(backend, tree, l2, dtype, rng):
    params, steps = params_and_gradients(rng, dtype)
    if tree == "nested":
        params, steps = nested(rng, dtype), [nested(rng, dtype) for _ in range(3)]
    order = np.asfortranarray if tree == "not contiguous" else np.asarray
    given = [map_leaves(order, grads) for grads in steps]
    for name, rule in RULES.items():
        kernel = run(backend, backend.kernels.update, rule, params, given, l2)
        default = run(backend, update_tree, rule, params, steps, l2)
        for mine, plain in zip(kernel[0], default[0], strict=True):
            assert mine.dtype == plain.dtype == dtype
            atol, rtol = 4 * tolerance(dtype, 7), tolerance(dtype, 50)
            np.testing.assert_allclose(mine, plain, rtol=0, atol=atol, err_msg=name)
        np.testing.assert_allclose(kernel[1], default[1], rtol=rtol, err_msg=name)


@pytest.mark.parametrize("name", RULES)
def test_updates_keep_float32_parameters_and_state(backend, name, rng):
    """The state too; the parameters are looked at above."""
    params, (grads, *_) = params_and_gradients(rng, "float32")
    rule = RULES[name]
    with backend.scope():
        params, grads = (map_leaves(backend.put, tree) for tree in (params, grads))
        coefs = backend.put(np.asarray(rule.coefficients(RATE, 1)), "float32")
        coefs = tuple(coefs[i] for i in range(coefs.shape[0]))
        opt_state = optimizers.init_opt_state(rule, params, xp=backend.xp)
        updated = update_tree(rule, params, grads, opt_state, coefs, xp=backend.xp)
        assert len(updated.opt_state) == len(rule.state_type._fields)
        for old, new in zip(leaves((params, opt_state)), leaves(updated[:2]), strict=True):
            assert (new.dtype, new.shape) == (backend.xp.float32, old.shape)
            assert new.device == old.device


def test_nan_gradients_propagate_to_the_parameters(backend, rng):
    params, (grads, *_) = params_and_gradients(rng)
    for grad in grads:
        grad.reshape(-1)[0] = np.nan
    for name, rule in RULES.items():
        ours, _ = run(backend, update_tree, rule, params, [grads])
        assert all(np.isnan(leaf.reshape(-1)[0]) for leaf in ours), name


BELOW_1, AT_LEAST_0 = "at least 0 and below 1", "at least 0"
WRONG_SETTINGS = [
    (SGD, {"momentum": 1.5}, "from 0 to 1"),
    (Adam, {"beta_1": 1.5, "beta_2": -0.1}, BELOW_1),
    (RMSprop, {"rho": 1.0, "momentum": -0.5}, BELOW_1),
    (Lion, {"beta_1": 2.0, "beta_2": 1.0}, BELOW_1),
    (Muon, {"momentum": 1.0, "beta_2": 1.0}, BELOW_1),
    (BetaLasso, {"momentum": -0.5}, "from 0 to 1"),
    (Adam, {"epsilon": -1e-8}, AT_LEAST_0),
    (AdamW, {"weight_decay": -1.0}, AT_LEAST_0),
    (RMSprop, {"epsilon": float("nan")}, AT_LEAST_0),
    (Lion, {"weight_decay": -1.0}, AT_LEAST_0),
    (Muon, {"weight_decay": -1.0, "adam_rate": -1.0}, AT_LEAST_0),
    (BetaLasso, {"l1": -1.0, "beta": -1.0}, AT_LEAST_0),
    (ByKind, {"matrix_rate": -1.0, "vector_rate": -1.0, "head_rate": -1.0}, AT_LEAST_0),
    (Muon, {"ns_steps": 0}, "an integer of at least 1"),
    (Muon, {"ns_steps": 5.0}, "an integer of at least 1"),
    (Muon, {"scale": "rms"}, "'match_rms_adamw' or 'original'"),
    (Muon, {"ns_polynomial": "best"}, "'minimax' or 'jordan'"),
    (rates.OneCycle, {"start_div": 0.5, "final_div": 0.5}, "at least 1"),
    (rates.OneCycle, {"rise": 1.5}, "from 0 to 1"),
    (rates.Cosine, {"final": 2.0}, "from 0 to 1"),
    (rates.Linear, {"final": -0.1}, "from 0 to 1"),
    (rates.LinearWarmup, {"fraction": -1.0}, "from 0 to 1"),
]


@pytest.mark.parametrize(("kind", "settings", "message"), WRONG_SETTINGS)
def test_invalid_optimizer_settings_say_what_is_wrong(kind, settings, message):
    for name, value in settings.items():
        said = re.escape(f"`{name}` must be {message}, got {value!r}.")
        with pytest.raises(ValueError, match=said):
            kind(**{name: value})


@pytest.mark.parametrize("given", [AdamW, "adamw", None])
def test_by_kind_entries_must_be_optimizers(given):
    with pytest.raises(TypeError, match=r"`vector` must be a rule .* e.g. AdamW\(\), got"):
        ByKind(vector=given)


def test_equal_optimizers_compare_equal_and_all_are_tested():
    for kind in (*optimizers.OPTIMIZERS.values(), *rates.SCHEDULES.values()):
        assert (kind(), hash(kind())) == (kind(), hash(kind()))  # Keys of compiled code.
    assert (*optimizers.OPTIMIZERS.values(), ByKind) == optimizers.RULES
    assert {type(rule) for rule in RULES.values()} == set(optimizers.RULES)
    family = optimizers.family  # A family tells what slots mean.
    assert family(Adam()) == family(Adam(beta_1=0.5)) == "Adam"
    assert family(ByKind()) != family(ByKind(vector=SGD())) != family(SGD())


@pytest.mark.parametrize("name", rates.SCHEDULES)
def test_a_schedule_can_have_a_single_step(name):
    assert 0.0 <= rates.SCHEDULES[name]()(step=0, n_steps=1, n_samples=0) <= 1.0


ONECYCLE = {"max_lr": 1.0, "total_steps": 20, "cycle_momentum": False, "final_div_factor": 1e4}
LINEAR = {"start_factor": 1.0, "total_iters": 19}
OF_TORCH = [
    # torch ends the rise on step 0.3 * 20 - 1, counted from 0: 5 of 19.
    (rates.OneCycle(rise=5 / 19, final_div=25 * 1e4), "OneCycleLR", ONECYCLE),
    (rates.Linear(0.0), "LinearLR", LINEAR | {"end_factor": 0.0}),
    (rates.Linear(0.25), "LinearLR", LINEAR | {"end_factor": 0.25}),
]


@pytest.mark.parametrize(("ours", "name", "settings"), OF_TORCH)
def test_schedules_match_torch(ours, name, settings, torch):
    optimizer, factors = torch.optim.SGD([torch.zeros(1)], lr=1.0), []
    peer = getattr(torch.optim.lr_scheduler, name)(optimizer, **settings)
    for step in range(20):
        factors.append(peer.get_last_lr()[0])
        optimizer.step()
        if step < 19:
            peer.step()
    found = [ours(step, 20, 0) for step in range(20)]
    np.testing.assert_allclose(found, factors, rtol=1e-12, atol=1e-12)


def test_power_t_applies_to_every_schedule():
    names = dict.fromkeys(("dropout_schedule", "weight_decay_schedule"), "invscaling")
    model = small(dropout=0.1, power_t=0.1, solver="adamw", max_iter=1, **names)
    rules = model.fit(*problem())._training.trainer.rules
    assert rules.dropout_schedule == rules.weight_decay_schedule == rates.InvScaling(0.1)


def test_invscaling_matches_scikit_learn():
    peer = SGDOptimizer([np.zeros(1)], 0.1, lr_schedule="invscaling", power_t=0.4)
    for seen in (100, 200):
        peer.iteration_ends(seen)
        ours = 0.1 * rates.InvScaling(power_t=0.4)(0, 1, n_samples=seen)
        assert ours == pytest.approx(peer.learning_rate)
