"""`TimeBudget` and `TargetScore` end a fit in time."""

import math

import pytest
from fake_fit import fit, record

from mlp_xp.callbacks import TargetScore, TimeBudget


def steps_within(clock, seconds, durations, *, between=0.0, n_steps=100) -> int:
    ours, done_in_all = TimeBudget(seconds), 0
    ours.on_fit_begin(None)
    for epoch in range(1, 100):
        for done in range(1, n_steps + 1):
            clock.now += durations(done_in_all)
            done_in_all += 1
            if ours.on_step_end(None, done, n_steps):
                return done_in_all
        clock.now += between
        if ours.on_epoch_end(None, record(epoch)):
            return done_in_all or epoch
    raise AssertionError("the budget ended nothing")


def test_the_fit_ends_before_the_step_that_would_be_too_late(clock):
    for n_steps in (1, 3, 100):
        assert steps_within(clock, 10.95, lambda _: 1.0, n_steps=n_steps) == 10
    # The first step may compile, and is no measure of the others.
    assert steps_within(clock, 10.5, lambda step: 6.0 if step == 0 else 1.0) == 5
    # 10 steps and a validation of 40 s: no second epoch fits.
    assert steps_within(clock, 49.5, lambda _: 1.0, between=40.0, n_steps=10) == 10
    # From the second epoch on, its validation of 4 s is foreseen.
    assert steps_within(clock, 20.5, lambda _: 1.0, between=4.0, n_steps=8) == 12
    # An epoch of 10 s: a device queues all of its 10 steps at once, and its end waits for them.
    assert steps_within(clock, 25.5, lambda _: 0.0, between=10.0, n_steps=10) == 20
    # An epoch without steps counts as one.
    assert steps_within(clock, 10.5, None, between=1.0, n_steps=0) == 10


def test_a_budget_starts_anew_with_each_fit(clock):
    ours = TimeBudget(1.0)
    for _ in range(2):
        ours.on_fit_begin(None)
        assert not ours.on_step_end(None, 1, 2)
        clock.now += 5.0
        assert ours.on_step_end(None, 2, 2)


def test_the_fit_ends_at_the_first_score_that_is_enough():
    rows = [record(i + 1, validation_score=s) for i, s in enumerate([0.5, 0.79, 0.8, 0.9])]
    assert fit(TargetScore(0.8), rows) == [4, 4, 4]


def test_a_target_without_a_score_says_what_is_missing():
    with pytest.raises(ValueError, match=r"TargetScore\(0.9\).*X_val.*early_stopping=True"):
        fit(TargetScore(0.9), [record(1)])


def test_budgets_and_targets_must_be_numbers():
    for seconds in (0, -1.0, math.nan, "60", None):
        with pytest.raises(
            ValueError, match=f"`seconds` must be a number above 0, got {seconds!r}"
        ):
            TimeBudget(seconds)
    for score in (math.nan, math.inf, "0.9", None):
        with pytest.raises(ValueError, match=f"`score` must be a finite number, got {score!r}"):
            TargetScore(score)
