"""The numbers of each step are those of its formulas, also where they are known already."""

from __future__ import annotations

import numpy as np
import pytest

from mlp_xp.nn.losses import SoftmaxCrossEntropy
from mlp_xp.nn.network import Network
from mlp_xp.optimizers import SGD, Adam, AdamW, ByKind, varied
from mlp_xp.training.epochs import plan_epoch
from mlp_xp.training.rules import Rules
from mlp_xp.training.scalars import StepScalars, scalar_table

RATES = [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]


def rules_with(optimizer, **settings):
    network = Network((2, 3, 2))
    return Rules(network, SoftmaxCrossEntropy(), optimizer, learning_rate=0.1, **settings)


def table_of(rule, plan, n_steps=2, **settings):
    rates = [[0.1] * n_steps]
    return scalar_table(rules_with(rule, **settings), [plan], range(n_steps), rates, 0, 0)


@pytest.mark.parametrize("ema_decay", [None, 0.9])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("optimizer", [SGD(), AdamW(), varied(Adam()), ByKind()])
def test_a_row_has_the_numbers_of_its_step(optimizer, weighted, ema_decay):
    weights = np.asarray([1.0, 2.0, 0.5, 3.0, 1.0]) if weighted else None
    plans = [plan_epoch(5, 2, seed=0, epoch=i, weights=weights) for i in range(2)]
    rules = rules_with(optimizer, alpha=0.5, ema_decay=ema_decay)
    for _ in range(2):  # The second time they are known.
        table = scalar_table(rules, plans, range(3), RATES, n_steps=7, rule_start=4)
        assert table.shape[0] == 6
        for i, row in enumerate(table):
            plan, step = plans[i // 3], i % 3
            found, total = StepScalars.unpack(row), plan.totals[step]
            assert found.share == plan.counts[step] / 5
            assert found.l2 == 0.5 / total
            assert found.batch_stats_rate == 0.1 * total / max(plan.totals)
            decay = 0.0 if ema_decay is None else 1 - min(0.9, (8 + i) / (17 + i))
            assert found.average_rate == decay
            assert found.rule == optimizer.coefficients(RATES[i // 3][step], 7 + i + 1 - 4)
        table[:] = -1.0  # It is the caller's.


def test_a_batch_without_any_weight_has_no_penalty():
    plan = plan_epoch(4, 2, weights=np.asarray([0.0, 0.0, 1.0, 1.0]))
    np.testing.assert_array_equal(table_of(Adam(), plan, alpha=0.5)[:, 1], [0.0, 0.25])


def test_a_rule_of_the_users_own_is_asked_each_time():
    class Own:
        momentum = 0.9

        def coefficients(self, learning_rate, t):
            return learning_rate, self.momentum

    rule = Own()
    for momentum in (0.9, 0.5):
        rule.momentum = momentum
        table = table_of(rule, plan_epoch(4, 2))
        np.testing.assert_array_equal(table[:, -1], [momentum] * 2)


@pytest.mark.parametrize(("n_steps", "n_times"), [(4_096, 1), (4_097, 2)])
def test_the_numbers_of_short_epochs_are_kept(n_steps, n_times, monkeypatch):
    asked, coefficients = [], Adam.coefficients

    def counted(self, learning_rate, t):
        asked.append(t)
        return coefficients(self, learning_rate, t)

    monkeypatch.setattr(Adam, "coefficients", counted)
    for _ in range(2):
        table_of(Adam(0.123), plan_epoch(n_steps, 1), n_steps)
    assert len(asked) == n_times * n_steps
