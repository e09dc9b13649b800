"""Plans of epochs: each sample once, on one rank or several, with the numbers of each step."""

from collections import namedtuple
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from mlp_xp.augmentation import Augmentation, ColorJitter, Flip, Mixture, Mixup
from mlp_xp.distributed.training.plan import rank_plan
from mlp_xp.nn.losses import SoftmaxCrossEntropy
from mlp_xp.nn.network import Network
from mlp_xp.optimizers import SGD, Adam, AdamW, ByKind
from mlp_xp.optimizers.schedules import FlatCosine, Linear
from mlp_xp.training.data.epoch_plan import plan_epoch, with_draws, without_first
from mlp_xp.training.step.step import StepScalars
from mlp_xp.training.step.step_settings import Rules
from mlp_xp.training.step.step_table import SchedulePosition, step_tables

N, SHAPE = 23, (1, 2, 3)
RATES = [[0.1, 0.08, 0.06], [0.04, 0.02, 0.0]]


@pytest.mark.parametrize("pad", [False, True])
def test_an_epoch_plan_contains_every_sample_once(pad):
    for n, batch_size in product([1, 2, 9, 10, 11, 57], [1, 3, 10, 100]):
        weights = np.random.default_rng(0).random(n)
        plan = plan_epoch(n, batch_size, seed=1, weights=weights, pad=pad)
        case = f"{n} samples in batches of {batch_size}"
        assert sum(plan.counts) == n, case
        assert sum(plan.totals) == pytest.approx(weights.sum()), case
        if plan.rows is None:
            assert len(plan.counts) == 1, case
        else:
            sums = np.bincount(plan.rows, weights=plan.weights, minlength=n)
            np.testing.assert_allclose(sums, weights, err_msg=case)
            assert len(plan.rows) == (len(plan.counts) * plan.batch_size if pad else n), case


def test_sample_order_depends_only_on_seed_and_epoch():
    def rows(seed, epoch):
        return plan_epoch(50, 7, seed=seed, epoch=epoch).rows.tolist()

    assert rows(1, 2) == rows(1, 2)
    assert rows(1, 3) != rows(1, 2) != rows(2, 2)
    # The first numbers of a seed are part of the format: a change breaks every reproduction.
    assert rows(1, 0)[:7] == [43, 30, 23, 9, 14, 18, 40]


class RoundRobin(Augmentation):
    """Mixtures in which a sample's partner has another partner: groups of three rows."""

    mixes_targets = True
    Draws = namedtuple("Draws", "partner share")

    def draw(self, epoch):
        there = epoch.positions // 3 * 3 + (epoch.positions + 1) % 3
        partner = np.where(there < epoch.batch_sizes, there, epoch.positions)
        return self.Draws(partner.astype(np.int32), np.full(len(partner), 0.25))

    def mixture(self, draws):
        return Mixture(draws.partner, draws.share[0])


def whole_plan(batch_size, *, weighted=False, pad=False, augmentation=()):
    weights = np.where(np.arange(N) < 4, 0.0, np.random.default_rng(1).random(N))
    plan = plan_epoch(N, batch_size, seed=3, weights=weights if weighted else None, pad=pad)
    return with_draws(plan, augmentation, seed=3, epoch=0) if augmentation else plan


def steps_of(plan):
    """Return for each step the positions of its entries in a plan."""
    n_steps, width = len(plan.counts), plan.batch_size
    n = sum(plan.counts) if plan.rows is None else len(plan.rows)
    return [np.arange(step * width, min((step + 1) * width, n)) for step in range(n_steps)]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 30])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 8, N])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("is_sharded", [False, True])
def test_each_row_is_on_exactly_one_rank(size, batch_size, weighted, is_sharded):
    whole = whole_plan(batch_size, weighted=weighted)
    owner = np.random.default_rng(0).integers(0, size, N)
    plans = []
    for rank in range(size):
        owned = None
        if is_sharded:  # Reversed, so that positions differ from the whole.
            owned = np.full(N, -1)
            owned[owner == rank] = np.arange(np.sum(owner == rank))[::-1]
        plans.append(rank_plan(whole, rank, size, owned=owned, with_positions=True))
    rows, weights = (
        default if given is None else given
        for given, default in ((whole.rows, np.arange(N)), (whole.weights, np.ones(N)))
    )
    for step, entries in enumerate(steps_of(whole)):
        found = {}
        for rank, plan in enumerate(plans):
            assert (plan.counts, plan.totals) == (whole.counts, whole.totals)
            mine = steps_of(plan)[step]
            assert 1 <= len(mine) <= plan.batch_size
            mine_weights = np.ones(len(mine)) if plan.weights is None else plan.weights[mine]
            assert plan.parts[step] == pytest.approx(mine_weights.sum() / (whole.totals[step] or 1))
            for entry, weight in zip(mine, mine_weights, strict=True):
                if not weight:
                    continue
                position = plan.positions[entry]
                row = rows[entries[position]]
                is_mine = owner == rank
                assert not is_sharded or is_mine[row]
                assert plan.rows[entry] == (np.sum(is_mine[row + 1 :]) if is_sharded else row)
                assert position not in found
                found[position] = weight
        assert found == {i: weights[entry] for i, entry in enumerate(entries) if weights[entry]}
    assert sum(plan.batch_size for plan in plans) >= batch_size


def test_rank_batches_are_contiguous_and_as_even_as_possible():
    plans = [rank_plan(plan_epoch(20, 8), rank, 3) for rank in range(3)]
    assert [plan.batch_size for plan in plans] == [3, 3, 2]
    assert [plan.rows[plan.weights > 0].tolist() for plan in plans] == [
        [0, 1, 2, 8, 9, 10, 16, 17],
        [3, 4, 5, 11, 12, 13, 18],
        [6, 7, 14, 15, 19],
    ]
    assert rank_plan(plan_epoch(16, 8), 0, 2).weights is None  # No rows are padding.


def test_sharded_batches_have_few_shapes():
    rng = np.random.default_rng(0)
    owned = np.where(rng.random(10_000) < 0.5, 0, -1)
    widths = {
        rank_plan(plan_epoch(10_000, 128, seed=0, epoch=epoch), 0, 2, owned=owned).batch_size
        for epoch in range(20)
    }
    assert len(widths) <= 3
    assert all(width % 8 == 0 for width in widths)


@pytest.mark.parametrize("mixing", [Mixup(), RoundRobin()])
@pytest.mark.parametrize(("batch_size", "size"), [(8, 3), (5, 2), (5, 4), (N, 2)])
@pytest.mark.parametrize("pad", [False, True])
def test_augmentation_draws_follow_their_rows_and_mixed_pairs_share_a_rank(
    mixing, batch_size, size, pad
):
    augmentation = Flip(SHAPE), mixing, ColorJitter(SHAPE)
    whole = whole_plan(batch_size, augmentation=augmentation, pad=pad)
    rows = np.arange(N) if whole.rows is None else whole.rows
    n_found = 0
    for rank in range(size):
        plan = rank_plan(whole, rank, size, augmentation=augmentation, with_positions=True)
        for entries, theirs in zip(steps_of(plan), steps_of(whole), strict=True):
            local = mixing.mixture(plan.draws[1]).partners[entries]
            partners = mixing.mixture(whole.draws[1]).partners
            assert np.all(local < len(entries))
            for entry, partner in zip(entries, local, strict=True):
                if plan.weights is not None and plan.weights[entry] == 0:
                    assert entries[partner] == entry  # A filler row is mixed only with itself.
                    continue
                n_found += 1
                there = theirs[plan.positions[entry]]
                assert plan.rows[entry] == rows[there]
                assert plan.rows[entries[partner]] == rows[theirs[partners[there]]]
                for mine, its in ((plan.draws[0], whole.draws[0]), (plan.draws[2], whole.draws[2])):
                    for leaf, other in zip(mine, its, strict=True):
                        np.testing.assert_array_equal(leaf[entry], other[there])
                assert plan.draws[1].share[entry] == whole.draws[1].share[there]
    assert n_found == N


def test_samples_on_several_ranks_are_not_mixed():
    augmentation = (Mixup(),)
    whole = whole_plan(8, augmentation=augmentation)
    with pytest.raises(ValueError, match=r"has Mixup, which mixes .* data='replicated'"):
        rank_plan(whole, 0, 2, owned=np.arange(N), augmentation=augmentation)


def test_the_first_steps_of_a_plan_can_be_skipped():
    plan = rank_plan(whole_plan(8, weighted=True), 0, 2, with_positions=True)
    parts, positions, width = plan.parts.copy(), plan.positions.copy(), plan.batch_size
    left = without_first(plan, 1)
    np.testing.assert_array_equal(left.parts, parts[1:])
    np.testing.assert_array_equal(left.positions, positions[width:])


def tables_of(optimizer, plans, n_steps=0, rule_start=0, dropout=0.0, **settings):
    network = Network((2, 3, 2), dropout=dropout)
    rules = Rules(network, SoftmaxCrossEntropy(), optimizer, learning_rate=0.1, **settings)
    trainer = SimpleNamespace(
        rules=rules,
        n_samples=0,
        n_steps=n_steps,
        rule_start=rule_start,
        dtype="float64",
        takes_dropout_rates=rules.dropout_schedule is not None,
    )
    return step_tables(trainer, plans, SchedulePosition(0, len(plans), 1.0))


@pytest.mark.parametrize("ema_decay", [None, 0.9])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("optimizer", [SGD(), AdamW(), Adam(), ByKind()])
def test_coefficient_table_rows_match_their_step(optimizer, weighted, ema_decay):
    weights = np.asarray([1.0, 2.0, 0.5, 3.0, 1.0]) if weighted else None
    plans = [plan_epoch(5, 2, seed=0, epoch=i, weights=weights) for i in range(2)]
    settings = {"alpha": 0.5, "ema_decay": ema_decay, "schedule": Linear()}
    tables = tables_of(optimizer, plans, n_steps=7, rule_start=4, **settings)
    np.testing.assert_allclose([table.rates for table in tables], RATES)
    for i, (plan, table) in enumerate(zip(plans, tables, strict=True)):
        for step, (row, rate) in enumerate(zip(table.coefs, table.rates, strict=True)):
            found, total, n = StepScalars.unpack(row), plan.totals[step], 3 * i + step
            assert found.fraction == plan.counts[step] / 5
            assert found.l2 == 0.5 / total
            assert found.batch_stats_rate == 0.1 * total / max(plan.totals)
            decay = 0.0 if ema_decay is None else 1 - min(0.9, (8 + n) / (17 + n))
            assert found.average_rate == decay
            assert found.rule == optimizer.coefficients(rate, 7 + n + 1 - 4)


def test_dropout_and_weight_decay_follow_their_schedules():
    schedules = {"dropout_schedule": Linear(), "weight_decay_schedule": FlatCosine()}
    for rule in (ByKind(AdamW(weight_decay=0.5)), AdamW(weight_decay=0.5)):
        [table] = tables_of(rule, [plan_epoch(10, 2)], dropout=0.4, **schedules)
        np.testing.assert_allclose(table.coefs[:, -1], [0.4, 0.3, 0.2, 0.1, 0.0], atol=1e-12)
        decays = np.asarray([1.0, 1.0, 1.0, 0.5, 0.0])
        np.testing.assert_allclose(table.coefs[:, 5], 1.0 - 0.1 * 0.5 * decays, atol=1e-12)


def test_a_batch_with_zero_weights_has_no_penalty():
    plan = plan_epoch(4, 2, weights=np.asarray([0.0, 0.0, 1.0, 1.0]))
    [table] = tables_of(Adam(), [plan], alpha=0.5)
    np.testing.assert_array_equal(table.coefs[:, 1], [0.0, 0.25])
