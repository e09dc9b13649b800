"""Learning-rate schedules against formulas and against those of scikit-learn and torch."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neural_network._stochastic_optimizers import SGDOptimizer

from mlp_xp.optimizers.schedules import (
    SCHEDULES,
    Cosine,
    InvScaling,
    Linear,
    LinearWarmup,
    OneCycle,
)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OneCycle(start_div=0.5), "start_div is 0.5"),
        (lambda: Cosine(final=2.0), "final is 2.0, and must be from 0 to 1"),
        (lambda: Linear(final=-0.1), "final is -0.1, and must be from 0 to 1"),
        (lambda: LinearWarmup(fraction=-1.0), "fraction is -1.0"),
    ],
)
def test_bad_settings_say_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_schedules_can_be_static_under_a_compiler():
    for kind in SCHEDULES.values():
        assert hash(kind()) == hash(kind())
        assert kind() == kind()


def test_onecycle_is_torchs(torch):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    peer = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=20, cycle_momentum=False, final_div_factor=1e4
    )
    factors = []
    for _ in range(20):
        factors.append(peer.get_last_lr()[0])
        optimizer.step()
        if len(factors) < 20:
            peer.step()
    # torch ends the rise on step 0.3 * 20 - 1, counted from 0: 5 of 19.
    ours = [OneCycle(rise=5 / 19, final_div=25 * 1e4)(step, 20, 0) for step in range(20)]
    np.testing.assert_allclose(ours, factors, rtol=1e-12)


@pytest.mark.parametrize("final", [0.0, 0.25])
def test_linear_is_torchs(final, torch):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    peer = torch.optim.lr_scheduler.LinearLR(
        optimizer, start_factor=1.0, end_factor=final, total_iters=9
    )
    factors = []
    for _ in range(10):
        factors.append(peer.get_last_lr()[0])
        optimizer.step()
        peer.step()
    ours = [Linear(final)(step, 10, 0) for step in range(10)]
    np.testing.assert_allclose(ours, factors, atol=1e-12)


def test_invscaling_is_scikit_learns():
    peer = SGDOptimizer([np.zeros(1)], 0.1, lr_schedule="invscaling", power_t=0.4)
    for seen in (100, 200):
        peer.iteration_ends(seen)
        ours = 0.1 * InvScaling(power_t=0.4)(0, 1, n_samples=seen)
        assert ours == pytest.approx(peer.learning_rate)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_of_a_single_step(name):
    assert 0.0 <= SCHEDULES[name]()(step=0, n_steps=1, n_samples=0) <= 1.0
