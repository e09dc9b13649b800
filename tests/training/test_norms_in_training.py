"""Training with all that a network and its rules can have: norms, dropout, clipping, averaging."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import tolerance
from trainers import (
    BATCH,
    CLASSES,
    FEATURES,
    N,
    byte_data,
    learned,
    make_trainer,
    neutral_batch_stats,
    train,
)

from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends import get_backend
from mlp_xp.backends.kernels import Kernels
from mlp_xp.nn.layers import BatchStats
from mlp_xp.nn.network import Network, init_params
from mlp_xp.optimizers import SGD, Muon
from mlp_xp.optimizers.schedules import Constant
from mlp_xp.training.batches import place
from mlp_xp.training.epochs import plan_epoch
from mlp_xp.training.inference import predict
from mlp_xp.training.rules import Rules

EVERYTHING = Network((FEATURES, 9, 9, CLASSES), "gelu", "batch", (0.2, 0.3), 0.1, residual=True)
RULES = {"optimizer": Muon(), "max_grad_norm": 0.3, "ema_decay": 0.9}
N_STEPS = -(-N // BATCH)


def full_trainer(backend, **settings):
    return make_trainer(backend, **({"network": EVERYTHING} | RULES | settings))


def host(backend, tree):
    """Return the leaves, copied: the next step writes to the state."""
    return [np.array(backend.get(leaf)) for leaf in leaves(tree)]


def still(network=EVERYTHING, **settings):
    """Return the settings of a training that changes no weight."""
    rules = {"optimizer": SGD(momentum=0.0), "learning_rate": 0.0, "alpha": 0.0}
    return {"network": network, "schedule": Constant()} | rules | settings


# --- the same on every backend -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float64", "uint8"])
@pytest.mark.parametrize("normalization", ["layer", "batch"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_same_numbers_on_every_backend(backend, weighted, normalization, kind):
    assert N % BATCH  # The last batch is short, or padded where shapes are fixed.
    network = replace(EVERYTHING, normalization=normalization)
    x, y = byte_data(kind)
    weights = np.random.default_rng(1).random(N) if weighted else None
    plain = get_backend("numpy")
    plain.kernels = Kernels()
    found = []
    for each in (plain, backend):
        trainer = full_trainer(each, network=network, x=x, with_accuracy=True)
        records = train(trainer, place(each, x, y, "float64"), weights=weights)
        numbers = [(record.loss, record.accuracy) for record in records]
        found.append([np.asarray(numbers), *host(each, trainer.state)])
    # Muon raises small singular values, and so what was rounded, up to 3.4445^5 times at a step;
    # the errors of the steps add up.
    atol = tolerance("float64", N) * 3.4445**5 * trainer.n_steps
    for mine, reference in zip(found[1], found[0], strict=True):
        np.testing.assert_allclose(
            mine, reference, rtol=0, atol=atol * max(1, abs(reference).max())
        )


def test_float32_has_no_float64_anywhere(backend):
    x, y = byte_data("uint8")
    trainer = full_trainer(backend, dtype="float32", x=x, with_accuracy=True)
    weights = np.random.default_rng(1).random(N)
    train(trainer, place(backend, x, y, "float32"), weights=weights)
    assert {str(backend.get(leaf).dtype) for leaf in leaves(trainer.state)} == {"float32"}


def test_padding_changes_nothing(backend):
    x, y = byte_data()
    results = []
    for pad in (False, True):
        trainer = full_trainer(backend)
        plan = plan_epoch(N, BATCH, seed=7, pad=pad)
        record = trainer.run_epoch(place(backend, x, y, "float64"), plan, n_epochs=1)
        results.append([np.asarray(record.loss), *host(backend, trainer.state)])
    atol = tolerance("float64", N) * 3.4445**5
    for whole, padded in zip(*results, strict=True):
        np.testing.assert_allclose(padded, whole, rtol=0, atol=atol * max(1, abs(whole).max()))


def test_resident_and_streamed_are_identical(backend):
    x, y = byte_data("uint8")
    results = []
    for placement in ("resident", "streamed"):
        trainer = full_trainer(backend, dtype="float32", x=x)
        losses = [r.loss for r in train(trainer, place(backend, x, y, "float32", placement))]
        results.append([np.asarray(losses), *host(backend, trainer.state)])
    for resident, streamed in zip(*results, strict=True):
        np.testing.assert_array_equal(resident, streamed)


# --- dropout -------------------------------------------------------------------------------------


def test_dropout_follows_seed_and_epoch(backend):
    x, y = byte_data()
    data, plan = place(backend, x, y, "float64"), plan_epoch(N, N)

    def losses(**settings):
        trainer = make_trainer(backend, **still(Network((FEATURES, 9, CLASSES), **settings)))
        trainer.seed = seed
        return [trainer.run_epoch(data, plan, n_epochs=3).loss for _ in range(3)]

    seed = 0
    first, again, none = losses(dropout=0.5), losses(dropout=0.5), losses()
    seed = 1
    other = losses(dropout=0.5)
    assert first == again
    assert len({*first, *other}) == 6
    assert len(set(none)) == 1
    assert other[0] != losses(input_dropout=0.5)[0] != none[0]


def test_keys_are_drawn_for_each_dropout_of_each_step(backend):
    seen = []
    trainer = full_trainer(backend)
    step = trainer._step

    def spying(state, batch, scaling, coefs, keys):
        seen.append(backend.get(keys).copy())
        return step(state, batch, scaling, coefs, keys)

    trainer._step, trainer._loop = spying, None
    x, y = byte_data()
    train(trainer, place(backend, x, y, "float64"))
    drawn = np.asarray(seen)
    assert drawn.shape == (2 * N_STEPS, 3)
    assert drawn.dtype == np.int32
    assert len(np.unique(drawn)) == drawn.size
    # The first numbers of a seed are part of the format: a change breaks every reproduction.
    assert drawn[0].tolist() == FIRST_KEYS


FIRST_KEYS = [-806439198, 874717467, 581718748]


# --- batch normalization -------------------------------------------------------------------------


def test_running_moments_follow_those_of_the_batches(backend, rng):
    """A batch counts by its share of the heaviest one, so one without any weight not at all."""
    x, y = byte_data()
    network = Network((FEATURES, 9, CLASSES), "tanh", "batch")
    weights = rng.random(N)
    weights[BATCH : 2 * BATCH] = 0.0
    (W, b), *_ = params = init_params(network, 3)
    mean, variance = np.zeros(9), np.ones(9)
    largest = max(weights[start : start + BATCH].sum() for start in range(0, N, BATCH))
    for start in range(0, N, BATCH):
        rows = slice(start, start + BATCH)
        w = weights[rows]
        if not w.any():
            continue
        rate = 0.1 * w.sum() / largest
        z = x[rows] @ W + b
        new = np.average(z, axis=0, weights=w)
        mean = (1 - rate) * mean + rate * new
        new = np.average((z - new) ** 2, axis=0, weights=w)
        variance = (1 - rate) * variance + rate * new

    trainer = make_trainer(backend, **still(network), params=params)
    plan = plan_epoch(N, BATCH, weights=weights, pad=backend.fixed_shapes)
    trainer.run_epoch(place(backend, x, y, "float64"), plan, n_epochs=1)
    (found,) = trainer.state.batch_stats
    atol = tolerance("float64", FEATURES * BATCH) * max(1.0, np.abs(x).max())
    np.testing.assert_allclose(backend.get(found.mean), mean, rtol=0, atol=atol)
    np.testing.assert_allclose(backend.get(found.variance), variance, rtol=0, atol=4 * atol)


def test_a_batch_without_weight_leaves_the_running_moments(backend, rng):
    x, y = byte_data()
    batch_stats = tuple(
        BatchStats(rng.standard_normal(len(m.mean)), rng.random(len(m.mean)))
        for m in neutral_batch_stats(EVERYTHING)
    )
    trainer = full_trainer(backend, **still(), batch_stats=batch_stats)
    plan = plan_epoch(N, N, weights=np.zeros(N))
    record = trainer.run_epoch(place(backend, x, y, "float64"), plan, n_epochs=1)
    assert record.loss == 0.0
    for mine, before in zip(
        host(backend, trainer.state.batch_stats), leaves(batch_stats), strict=True
    ):
        np.testing.assert_array_equal(mine, before)


def test_moments_given_to_a_trainer_are_not_written_to(backend):
    batch_stats = neutral_batch_stats(EVERYTHING)
    before = [leaf.copy() for leaf in leaves(batch_stats)]
    x, y = byte_data()
    trainer = full_trainer(backend, batch_stats=batch_stats)
    train(trainer, place(backend, x, y, "float64"))
    for mine, old, new in zip(
        leaves(batch_stats), before, host(backend, trainer.state.batch_stats), strict=True
    ):
        np.testing.assert_array_equal(mine, old)
        assert not np.array_equal(new, old)


# --- clipping ------------------------------------------------------------------------------------


def test_clipping_bounds_a_step(backend):
    """With plain SGD the change of all weights together is the rate times the norm, at most."""
    x, y = byte_data()
    network = Network((FEATURES, 9, CLASSES), "tanh")
    data, plan = place(backend, x, y, "float64"), plan_epoch(N, N)
    rules = {"optimizer": SGD(momentum=0.0), "schedule": Constant(), "learning_rate": 1.0}
    changes = []
    for bound in (None, 1e-3, 1e3):
        trainer = make_trainer(backend, network=network, **rules, alpha=0.0, max_grad_norm=bound)
        before = host(backend, trainer.state.params)
        trainer.run_epoch(data, plan, n_epochs=1)
        after = host(backend, trainer.state.params)
        pairs = zip(after, before, strict=True)
        changes.append(np.concatenate([(new - old).ravel() for new, old in pairs]))
    free, bounded, loose = changes
    assert np.linalg.norm(free) > 0.1
    rtol = tolerance("float64", free.size) / 1e-3
    np.testing.assert_allclose(np.linalg.norm(bounded), 1e-3, rtol=rtol)
    np.testing.assert_allclose(bounded, free * 1e-3 / np.linalg.norm(free), rtol=0, atol=rtol)
    np.testing.assert_array_equal(loose, free)


# --- the moving average --------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_the_average_is_what_plain_python_gives(backend, decay):
    x, y = byte_data()
    trainer = full_trainer(backend, ema_decay=decay)
    data = place(backend, x, y, "float64")
    expected = host(backend, trainer.state.params)
    n_steps = 0

    def after_step(done, in_all):
        nonlocal expected, n_steps
        keep = min(decay, (1 + n_steps) / (10 + n_steps))
        now = host(backend, trainer.state.params)
        expected = [keep * a + (1 - keep) * p for a, p in zip(expected, now, strict=True)]
        n_steps += 1
        return False

    for epoch in range(2):
        plan = plan_epoch(N, BATCH, seed=7, epoch=epoch, pad=backend.fixed_shapes)
        trainer.run_epoch(data, plan, n_epochs=2, after_step=after_step)
    assert n_steps == 2 * N_STEPS
    for mine, reference in zip(host(backend, trainer.learned), expected, strict=True):
        np.testing.assert_allclose(mine, reference, rtol=0, atol=tolerance("float64", n_steps))
    is_lagging = not np.allclose(expected[0], learned(trainer)[0], rtol=0, atol=1e-4)
    assert is_lagging == (decay > 0)


def test_without_averaging_the_weights_are_what_is_learned(backend):
    trainer = make_trainer(backend)
    assert trainer.state.average == ()
    assert trainer.learned is trainer.state.params
    assert trainer.progress().params == ()


def test_the_average_does_not_change_the_training(backend):
    x, y = byte_data()
    results = []
    for decay in (None, 0.9):
        trainer = full_trainer(backend, ema_decay=decay)
        train(trainer, place(backend, x, y, "float64"))
        results.append(learned(trainer))
    for without, with_average in zip(*results, strict=True):
        np.testing.assert_allclose(with_average, without, rtol=0, atol=tolerance("float64", N))


def test_set_learned_starts_the_average_anew(backend):
    x, y = byte_data()
    trainer = full_trainer(backend)
    train(trainer, place(backend, x, y, "float64"))
    params, batch_stats = init_params(EVERYTHING, 8), neutral_batch_stats(EVERYTHING)
    trainer.set_learned(params, batch_stats)
    for tree, given in (
        (trainer.state.params, params),
        (trainer.state.average, params),
        (trainer.state.batch_stats, batch_stats),
    ):
        for mine, reference in zip(host(backend, tree), leaves(given), strict=True):
            np.testing.assert_array_equal(mine, reference)
    # Neither is the other, nor what was given: a step writes to both.
    train(trainer, place(backend, x, y, "float64"), n_epochs=1)
    for given, fresh in zip(leaves(params), leaves(init_params(EVERYTHING, 8)), strict=True):
        np.testing.assert_array_equal(given, fresh)


# --- going on ------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [None, 0.9])
def test_going_on_is_the_same_as_not_having_stopped(backend, decay):
    """From the published average, and from the progress, which has the raw weights."""
    x, y = byte_data()
    data = place(backend, x, y, "float64")
    plans = [plan_epoch(N, BATCH, seed=7, epoch=e, pad=backend.fixed_shapes) for e in (0, 1)]
    whole = full_trainer(backend, ema_decay=decay)
    for plan in plans:
        last = whole.run_epoch(data, plan, n_epochs=2)

    first = full_trainer(backend, ema_decay=decay)
    first.run_epoch(data, plans[0], n_epochs=2)
    params = map_leaves(lambda leaf: np.array(backend.get(leaf)), first.learned)
    batch_stats = map_leaves(lambda leaf: np.array(backend.get(leaf)), first.state.batch_stats)
    progress = first.progress()
    assert bool(progress.params) == (decay is not None)
    assert {type(leaf) for leaf in leaves(progress[:2])} == {np.ndarray}
    first.run_epoch(data, plans[1], n_epochs=2)  # What it does now must not reach the second.

    second = full_trainer(backend, ema_decay=decay, params=params, batch_stats=batch_stats)
    second.resume(progress)
    record = second.run_epoch(data, plans[1], n_epochs=2)
    assert record[:5] == last[:5]
    assert second.n_steps == whole.n_steps == 2 * N_STEPS
    mine, reference = host(backend, second.state), host(backend, whole.state)
    for one, other in zip(mine, reference, strict=True):
        np.testing.assert_array_equal(one, other)


# --- rules ---------------------------------------------------------------------------------------


def test_rules_are_settings_that_can_be_compared():
    trainer = full_trainer(get_backend("numpy"))
    assert trainer.rules == replace(trainer.rules)
    assert isinstance(trainer.rules, Rules)
    assert trainer.rules != replace(trainer.rules, ema_decay=0.5)
    assert len({trainer.rules, replace(trainer.rules), replace(trainer.rules, alpha=2.0)}) == 2


def test_all_of_it_learns(backend):
    """Whether the parts work together at all: for classes that can be told apart."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, FEATURES))
    y = np.argmax(x[:, :CLASSES], axis=1).astype(np.int32)
    trainer = full_trainer(backend, learning_rate=0.05, alpha=0.0)
    train(trainer, place(backend, x, y, "float64"), n_epochs=30)
    logits = predict(
        backend,
        EVERYTHING,
        None,
        trainer.learned,
        x,
        batch_stats=trainer.state.batch_stats,
        dtype="float64",
    )
    assert np.mean(np.argmax(backend.get(logits), axis=1) == y) > 0.9
