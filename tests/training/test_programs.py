"""Stacks of models: the numbers of the models one by one, and models that end leave theirs."""

import numpy as np
import pytest
from helpers import problem, small, tolerance
from sklearn.base import clone

from mlp_xp._utils.tree import leaves, map_leaves, rebuild
from mlp_xp.backends.kernels import Scaling
from mlp_xp.estimators.many import FitTask, fit_many
from mlp_xp.nn import losses
from mlp_xp.nn.hidden import Blocks, Branch
from mlp_xp.nn.network import Network, init_batch_stats, init_params
from mlp_xp.optimizers import SGD, Adam, AdamW, Lion, Muon
from mlp_xp.training import stack
from mlp_xp.training.inputs import Batch
from mlp_xp.training.step import TrainState, init_state, make_step

stacks = pytest.mark.libraries("torch", "jax")

X, Y = problem()
EPOCHS = [1, 2, 2, 3, 5, 8, 8, 8]
LIVE = [8, 7, 5, 4, 4, 3, 3, 3]  # Models that train, epoch after epoch.
# Where a size costs a compilation, half of the places are empty before the others are given up.
PLACES = {"torch": LIVE, "jax": [8, 8, 8, 4, 4, 4, 4, 4]}


def fit_together(models):
    """Fit models in one thread: of two threads JAX would train a model in each."""
    results = list(fit_many([FitTask(model, X, Y) for model in models], n_jobs=1))
    assert [result.error for result in results] == [None] * len(models)


@stacks
def test_models_that_have_ended_leave_their_program(backend, where, monkeypatch):
    compiled = type(backend).loop_of_models
    sizes = []

    def loop_of_models(self, body):
        run = compiled(self, body)

        def recorded(start, stops, state, *arguments):
            ended = stops == start
            before = [self.get(leaf)[ended].copy() for leaf in leaves(state)]
            new = run(start, stops, state, *arguments)
            for leaf, expected in zip(leaves(new), before, strict=True):
                np.testing.assert_array_equal(self.get(leaf)[ended], expected)
                assert len(leaf) == len(stops)
            sizes.append((len(stops), np.count_nonzero(~ended)))
            return new

        return recorded

    monkeypatch.setattr(type(backend), "loop_of_models", loop_of_models)
    settings = where | {"learning_rate": "cosine"}
    models = [small(random_state=i, max_iter=n, **settings) for i, n in enumerate(EPOCHS)]
    own = [clone(model).fit(X, Y) for model in models]
    fit_together(models)
    assert sizes == list(zip(PLACES[backend.name], LIVE, strict=True))
    for model, expected in zip(models, own, strict=True):
        assert model.n_iter_ == expected.n_iter_
        np.testing.assert_allclose(model.coefs_[0], expected.coefs_[0], rtol=1e-6, atol=1e-9)


@stacks
def test_fits_go_on_after_as_many_epochs_as_none_of_them_can_end_before(where, monkeypatch):
    rounds, train = [], stack.ModelStack.run

    def run(self, requests, size, n_epochs, is_stopped):
        assert n_epochs <= min(request.n_epochs for request in requests)
        rounds.append(n_epochs)
        train(self, requests, size, n_epochs, is_stopped)

    monkeypatch.setattr(stack.ModelStack, "run", run)

    def fits(most_seconds):
        monkeypatch.setattr(stack, "_MOST_SECONDS", most_seconds)
        rounds.clear()
        settings = where | {"learning_rate_init": 0.3, "n_iter_no_change": 3}
        models = [small(random_state=i, max_iter=n, **settings) for i, n in enumerate([12, 12, 30])]
        fit_together(models)
        return models, list(rounds)

    one_by_one, each = fits(0.0)
    assert set(each) == {1}
    together, several = fits(1e9)
    assert several[0] == 1  # How long an epoch takes is not known yet.
    assert max(several) == 4  # Three epochs without progress are fine.
    assert len(several) < len(each)
    for model, expected in zip(together, one_by_one, strict=True):
        assert model.loss_curve_ == expected.loss_curve_
        np.testing.assert_array_equal(model.coefs_[0], expected.coefs_[0])


@pytest.mark.libraries("jax")
def test_no_more_is_compiled_than_a_program_and_a_step(where, caplog):
    import jax

    def compiled(function):
        jax.clear_caches()
        caplog.clear()
        function()
        return [m.split()[4] for m in caplog.messages if m.startswith("Finished XLA compilation")]

    jax.config.update("jax_log_compiles", True)  # Its context is that of one thread.
    try:
        models = [small(random_state=i, max_iter=3, **where) for i in range(3)]
        assert compiled(lambda: fit_together(models)) == ["jit(run)"]
        streamed = small(placement="streamed", batch_size=5, **where)
        names = compiled(lambda: streamed.fit(X, Y))
    finally:
        jax.config.update("jax_log_compiles", False)
    assert "jit(step)" in names
    assert "jit(unstack)" not in names  # It would grow with the number of steps.


MODELS, N, FEATURES, OUTPUTS = 3, 12, 5, 4
NETWORKS = {
    "plain": Network((FEATURES, 7, 6, OUTPUTS), "tanh"),
    "no hidden layer": Network((FEATURES, OUTPUTS)),
    "layer": Network((FEATURES, 7, 7, OUTPUTS), "gelu", "layer", residual=True),
    "batch": Network((FEATURES, 7, OUTPUTS), "logistic", "batch"),
    "dropout": Network((FEATURES, 7, 6, OUTPUTS), "tanh", None, 0.4, 0.2),
    "hidden objects": Network((6, Blocks((2, 3), (1,), width=4), Branch((5, 8)), OUTPUTS), "tanh"),
}
REAL = losses.SquaredError | losses.Poisson | losses.Through
LOSSES = [losses.SoftmaxFocal(), losses.BinaryCrossEntropy(0.1), losses.SquaredError()]
LOSSES += [losses.Poisson(), losses.Through(losses.Huber(), "softplus")]


def map_given(function, tree):
    return map_leaves(lambda leaf: None if leaf is None else function(leaf), tree)


def of_model(tree, i):
    return map_given(lambda leaf: leaf[i], tree)


def train(backend, network, loss, rule, params, batches, keys, scaling, factors, **options):
    """Return the state after a step for each batch, on the host."""
    xp = backend.xp
    stats = init_batch_stats(network)
    if list(leaves(params))[-1].ndim > 1:  # A stack.
        stats = map_leaves(lambda leaf: np.stack([leaf] * MODELS), stats)
    step = make_step(network, loss, rule, backend.kernels, with_penalty=True, xp=xp, **options)
    with backend.scope():
        start, average, stats = (map_leaves(backend.put_copy, t) for t in (params, params, stats))
        given = {"batch_stats": stats, "average": average, "xp": xp}
        state = init_state(start, rule, with_accuracy=not isinstance(loss, REAL), **given)
        for number, (batch, key) in enumerate(zip(batches, keys, strict=True), 1):
            f = np.asarray(factors)
            coefs = [0.5 * f, 0.3 * f, 0.25 * f, 0.1 * f, *rule.coefficients(0.1 * f, number)]
            coefs = np.stack(np.broadcast_arrays(*coefs), axis=-1)
            own = backend.put(key) if network.n_keys else None
            state = step(state, *map_given(backend.put, (batch, scaling)), backend.put(coefs), own)
        return map_leaves(backend.get, state)


def check(backend, name="plain", loss=None, rule=None, given="own", weighted=True, **options):
    """Compare two steps of a stack with those of its models one by one."""
    network, loss, rule = NETWORKS[name], loss or losses.SoftmaxCrossEntropy(), rule or Adam()
    rng = np.random.default_rng(3)
    n_inputs = network.widths[0]
    models = [init_params(network, seed) for seed in range(MODELS)]
    stack = rebuild(models[0], map(np.stack, zip(*map(leaves, models), strict=True)))
    lead = () if given == "shared" else (MODELS,)
    batches = []
    for _ in range(2):
        weights = rng.integers(0, 3, (*lead, N)).astype(float) if weighted else None
        rows = rng.integers(0, 20, (*lead, N)).astype(np.int32) if given == "rows" else None
        shape = (20,) if given == "rows" else (*lead, N)
        x = rng.standard_normal((*shape, n_inputs))
        y = rng.integers(0, OUTPUTS, shape).astype(np.int32)
        if not isinstance(loss, losses.SoftmaxCrossEntropy | losses.SoftmaxFocal):
            y = rng.integers(0, 2, (*shape, OUTPUTS)).astype(float)
        batches.append(Batch(x, y, rows, weights))
    keys = rng.integers(-(2**31), 2**31, (2, MODELS, network.n_keys), dtype=np.int32)
    # What rows share of the data, they share of the numbers of a step.
    scaling = Scaling(rng.random((*lead, n_inputs)), rng.random((*lead, n_inputs)) + 0.5)
    factors = np.asarray([1.0, 0.3, 2.0] if lead else 1.0)
    settings = backend, network, loss, rule
    found = train(*settings, stack, batches, keys, scaling, factors, **options)
    for i in range(MODELS):
        own, own_scaling, factor = batches, scaling, factors
        if lead:
            own_scaling, factor = of_model(scaling, i), factors[i]
            start = 2 if given == "rows" else 0  # Models share the data.
            own = [Batch(*b[:start], *of_model(tuple(b[start:]), i)) for b in batches]
        alone = train(*settings, models[i], own, keys[:, i], own_scaling, factor, **options)
        for part, mine, theirs in zip(TrainState._fields, of_model(found, i), alone, strict=True):
            for ours, expected in zip(leaves(mine), leaves(theirs), strict=True):
                assert ours.shape == expected.shape, part
                atol = tolerance("float64", 100)
                np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=atol, err_msg=part)
    assert not np.allclose(found.params[-1].W[0], found.params[-1].W[1])


@pytest.mark.parametrize("given", ["own", "shared", "rows"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_stack_trains_as_its_models(backend, name, given):
    # Normalization makes steps of Adam follow the rounding of gradients of zero.
    check(backend, name, rule=SGD() if name == "batch" else Adam(), given=given)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_a_stack_trains_by_each_loss(backend, loss):
    check(backend, loss=loss)


@pytest.mark.parametrize("rule", [SGD(), AdamW(weight_decay=0.5), Lion(), Muon()], ids=repr)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_stack_is_clipped_by_each_models_norm(backend, rule, weighted):
    check(backend, rule=rule, weighted=weighted, max_grad_norm=0.1)
