"""Batches, the step and the training loop: the same numbers everywhere, and nothing wasted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from trainers import (
    BATCH,
    CLASSES,
    FEATURES,
    N,
    byte_data,
    learned,
    make_trainer,
    train,
)

from mlp_xp._utils.tree import leaves
from mlp_xp.backends import get_backend
from mlp_xp.backends.kernels import Kernels
from mlp_xp.nn.network import Network, init_params
from mlp_xp.optimizers import SGD, Adam, AdamW
from mlp_xp.optimizers.schedules import InvScaling
from mlp_xp.training.batches import Resident, Streamed, place
from mlp_xp.training.epochs import plan_epoch

# --- the same on every backend -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float64", "uint8"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "optimizer", [SGD(), SGD(momentum=0.0), Adam(), AdamW()], ids=lambda rule: repr(rule)[:12]
)
def test_the_same_losses_on_every_backend(backend, optimizer, weighted, kind):
    x, y = byte_data(kind)
    weights = np.random.default_rng(1).random(N) if weighted else None
    losses, accuracies, params, steps = [], [], [], []
    # The plain kernels on NumPy are what everything is compared with.
    plain = get_backend("numpy")
    plain.kernels = Kernels()
    for each in (plain, backend):
        trainer = make_trainer(each, optimizer=optimizer, x=x, with_accuracy=True)
        steps.append(getattr(trainer._step, "_function", trainer._step))
        records = train(trainer, place(each, x, y, "float64"), weights=weights)
        losses.append([record.loss for record in records])
        accuracies.append([record.accuracy for record in records])
        params.append(learned(trainer))
    assert (steps[0] is steps[1]) == (backend == plain)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-10)
    np.testing.assert_allclose(accuracies[1], accuracies[0], rtol=1e-10)
    for mine, reference in zip(params[1], params[0], strict=True):
        np.testing.assert_allclose(mine, reference, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["float32", "float64", "uint8"])
def test_resident_and_streamed_are_identical(backend, kind):
    x, y = byte_data(kind)
    results = []
    for placement in ("resident", "streamed"):
        data = place(backend, x, y, "float32", placement)
        assert isinstance(data, Resident if placement == "resident" else Streamed)
        trainer = make_trainer(backend, dtype="float32", x=x)
        losses = [record.loss for record in train(trainer, data)]
        results.append((losses, learned(trainer)))
    assert results[0][0] == results[1][0]
    for resident, streamed in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_array_equal(resident, streamed)


def test_padding_changes_nothing(backend):
    x, y = byte_data()
    results = []
    for pad in (False, True):
        trainer = make_trainer(backend)
        data = place(backend, x, y, "float64")
        plan = plan_epoch(N, BATCH, seed=7, pad=pad)
        assert (plan.weights is not None) == pad
        results.append((trainer.run_epoch(data, plan, n_epochs=1).loss, learned(trainer)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-12)
    for whole, padded in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_allclose(padded, whole, rtol=0, atol=1e-10)


def test_a_weight_counts_like_repetition(backend):
    """Weight 2 for a sample is the sample twice; weight 0 is its absence."""
    x, y = byte_data()
    counts = np.asarray([0, 1, 2] * 5)
    few = slice(0, 15)
    losses = []
    for rows, weights in (
        (np.arange(15), counts.astype(float)),
        (np.repeat(np.arange(15), counts), None),
    ):
        trainer = make_trainer(backend, optimizer=SGD())
        data = place(backend, x[few][rows], y[few][rows], "float64")
        plan = plan_epoch(len(rows), len(rows), weights=weights)
        losses += [[trainer.run_epoch(data, plan, n_epochs=5).loss for _ in range(5)]]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-12)


def test_float32_has_no_float64_anywhere(backend):
    """A float64 scalar would silently widen the parameters."""
    x, y = byte_data("uint8")
    trainer = make_trainer(backend, dtype="float32", x=x, with_accuracy=True, optimizer=AdamW())
    train(trainer, place(backend, x, y, "float32"))
    assert {str(backend.get(leaf).dtype) for leaf in leaves(trainer.state)} == {"float32"}


def test_a_device_without_float64_trains():
    backend = get_backend("array_api_strict", "no_float64")
    assert not backend.has_float64
    x, y = byte_data()
    trainer = make_trainer(backend, dtype="float32", x=x.astype(np.float32))
    assert train(trainer, place(backend, x, y, "float32"))[0].loss > 0


def test_the_data_are_never_written_to(backend):
    for kind in ("uint8", "float64"):
        x, y = byte_data(kind)
        before = x.copy(), y.copy()
        x.flags.writeable = y.flags.writeable = False
        train(make_trainer(backend, x=x), place(backend, x, y, "float64"))
        full = plan_epoch(N, N)
        make_trainer(backend).run_epoch(place(backend, x, y, "float64"), full, n_epochs=1)
        np.testing.assert_array_equal(x, before[0])
        np.testing.assert_array_equal(y, before[1])


def test_initial_parameters_are_not_written_to(backend):
    network = Network((FEATURES, CLASSES))
    params = init_params(network, 3)
    before = [leaf.copy() for leaf in leaves(params)]
    x, y = byte_data()
    train(make_trainer(backend, network=network, params=params), place(backend, x, y, "float64"))
    for leaf, old in zip(leaves(params), before, strict=True):
        np.testing.assert_array_equal(leaf, old)


# --- where it stops, and how it goes on ----------------------------------------------------------


def test_it_stops_after_the_step_that_says_so(backend):
    x, y = byte_data()
    for placement in ("resident", "streamed"):
        trainer = make_trainer(backend)
        data = place(backend, x, y, "float64", placement)
        plan = plan_epoch(N, BATCH, pad=backend.fixed_shapes)
        record = trainer.run_epoch(
            data, plan, n_epochs=1, after_step=lambda done, n_steps: done == 2
        )
        assert (trainer.n_steps, record.n_samples) == (2, 2 * BATCH)
        whole = make_trainer(backend).run_epoch(
            place(backend, x[: 2 * BATCH], y[: 2 * BATCH], "float64"),
            plan_epoch(2 * BATCH, BATCH),
            n_epochs=3,
        )
        assert record.loss == pytest.approx(whole.loss, rel=1e-2)


def test_invscaling_follows_the_samples(backend):
    x, y = byte_data()
    trainer = make_trainer(backend, schedule=InvScaling(0.5), learning_rate=0.1)
    records = train(trainer, place(backend, x, y, "float64"), n_epochs=3)
    expected = [0.1 / (epoch * N + 1) ** 0.5 for epoch in range(3)]
    np.testing.assert_allclose([record.learning_rate for record in records], expected)


def test_progress_is_a_copy(backend):
    x, y = byte_data()
    trainer = make_trainer(backend)
    data = place(backend, x, y, "float64")
    train(trainer, data, n_epochs=1)
    progress = trainer.progress()
    before = [leaf.copy() for leaf in leaves(progress.opt_state)]
    train(trainer, data, n_epochs=1)
    for leaf, old in zip(leaves(progress.opt_state), before, strict=True):
        np.testing.assert_array_equal(leaf, old)


def test_another_rule_starts_with_new_slots(backend):
    x, y = byte_data()
    data = place(backend, x, y, "float64")
    first = make_trainer(backend)
    train(first, data, n_epochs=1)
    second = make_trainer(backend, optimizer=SGD())
    second.resume(first.progress())
    assert np.isfinite(train(second, data, n_epochs=1)[0].loss)


def test_going_on_is_the_same_as_not_having_stopped(backend):
    x, y = byte_data()
    data = place(backend, x, y, "float64")
    whole = make_trainer(backend)
    train(whole, data, n_epochs=2)
    first = make_trainer(backend)
    plans = [plan_epoch(N, BATCH, seed=7, epoch=e, pad=backend.fixed_shapes) for e in (0, 1)]
    first.run_epoch(data, plans[0], n_epochs=2)
    second = make_trainer(backend, params=first.state.params)
    second.resume(first.progress())
    second.run_epoch(data, plans[1], n_epochs=2)
    for mine, reference in zip(learned(second), learned(whole), strict=True):
        np.testing.assert_array_equal(mine, reference)


def test_networks_refuse_what_cannot_be():
    with pytest.raises(ValueError, match=r"widths is \(3,\)"):
        Network((3,))
    with pytest.raises(ValueError, match="activation is 'sigmoid', and must be one of"):
        replace(Network((3, 2)), activation="sigmoid")
