"""Learning-rate schedules against formulas and against those of scikit-learn and torch."""

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


def test_bad_settings_say_what_is_wrong():
    for make, message in (
        (lambda: OneCycle(start_div=0.5), "start_div is 0.5, and must be at least 1"),
        (lambda: OneCycle(final_div=0.5), "final_div is 0.5"),
        (lambda: OneCycle(rise=1.5), "rise is 1.5, and must be from 0 to 1"),
        (lambda: Cosine(final=2.0), "final is 2.0, and must be from 0 to 1"),
        (lambda: Linear(final=-0.1), "final is -0.1, and must be from 0 to 1"),
        (lambda: LinearWarmup(fraction=-1.0), "fraction is -1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_can_be_static_under_a_compiler_and_have_a_single_step(name):
    kind = SCHEDULES[name]
    assert (kind(), hash(kind())) == (kind(), hash(kind()))
    assert 0.0 <= kind()(step=0, n_steps=1, n_samples=0) <= 1.0


def factors_of_torch(torch, n, scheduler, **settings):
    """Return the rates of as many steps, the first of them 1 at most."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    peer, factors = getattr(torch.optim.lr_scheduler, scheduler)(optimizer, **settings), []
    for _ in range(n - 1):
        factors.append(peer.get_last_lr()[0])
        optimizer.step()
        peer.step()
    return [*factors, peer.get_last_lr()[0]]


def test_onecycle_is_torchs(torch):
    settings = {"max_lr": 1.0, "total_steps": 20, "cycle_momentum": False, "final_div_factor": 1e4}
    factors = factors_of_torch(torch, 20, "OneCycleLR", **settings)
    # torch ends the rise on step 0.3 * 20 - 1, counted from 0: 5 of 19.
    ours = [OneCycle(rise=5 / 19, final_div=25 * 1e4)(step, 20, 0) for step in range(20)]
    np.testing.assert_allclose(ours, factors, rtol=1e-12)


@pytest.mark.parametrize("final", [0.0, 0.25])
def test_linear_is_torchs(final, torch):
    settings = {"start_factor": 1.0, "end_factor": final, "total_iters": 9}
    factors = factors_of_torch(torch, 10, "LinearLR", **settings)
    ours = [Linear(final)(step, 10, 0) for step in range(10)]
    np.testing.assert_allclose(ours, factors, atol=1e-12)


def test_invscaling_is_scikit_learns():
    peer = SGDOptimizer([np.zeros(1)], 0.1, lr_schedule="invscaling", power_t=0.4)
    for seen in (100, 200):
        peer.iteration_ends(seen)
        ours = 0.1 * InvScaling(power_t=0.4)(0, 1, n_samples=seen)
        assert ours == pytest.approx(peer.learning_rate)
