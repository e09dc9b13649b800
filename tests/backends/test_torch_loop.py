"""Torch's steps as CUDA graphs, on a stand-in for its streams and graphs that needs no GPU."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from helpers import small
from rules import RULES

from mlp_xp import MLPRegressor
from mlp_xp.augmentation import Cutout, Flip, Mixup
from mlp_xp.backends import _captured, get_backend

IMAGE = (1, 4, 4)


@pytest.fixture
def cuda(torch, monkeypatch):
    """Make torch's backend on a CPU capture its steps from the third on."""
    import stand_in_torch_cuda

    from mlp_xp.backends._torch import captured
    from mlp_xp.backends._torch.backend import TorchBackend

    monkeypatch.setattr(_captured, "_STEPS_BEFORE_CAPTURE", 2)
    monkeypatch.setattr(captured, "_streams", captured._Streams())
    monkeypatch.setattr(
        TorchBackend,
        "loop",
        lambda self, body: _captured.CapturedLoop(body, captured.TorchGraphs(self.xp, self.device)),
    )
    _captured.report.cache_clear()
    return stand_in_torch_cuda.install(monkeypatch)


def data(n=75):
    rng = np.random.default_rng(3)
    X = rng.standard_normal((n, 16)).astype(np.float32)
    return X, np.argmax(X[:, :3], axis=1)


SETTINGS = {
    **{f"rule {name}": {"solver": rule} for name, rule in RULES.items()},
    "penalty, clipping, average": {"alpha": 0.1, "max_grad_norm": 0.1, "ema_decay": 0.9},
    "batch normalization": {"normalization": "batch"},
    "layer normalization": {"normalization": "layer", "activation": "gelu"},
    "dropout": {"dropout": 0.3, "input_dropout": 0.1},
    "residual": {"hidden_layer_sizes": (8, 8), "residual": True},
    "augmentation": {"augmentation": [Flip(IMAGE), Cutout(IMAGE, size=2), Mixup(0.4)]},
    "standardized": {"input_scaling": "standardize"},
    "whitened": {"input_scaling": "zca"},
    "bfloat16": {"precision": "bf16"},
    "float16": {"precision": "float16"},
    **{name: {"loss": name} for name in ("absolute_error", "huber", "poisson")},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_captured_steps_compute_what_steps_compute(name, cuda, monkeypatch, caplog):
    X, y = data()
    settings = {"backend": "torch", "max_iter": 3} | SETTINGS[name]
    kind = (MLPRegressor,) if "loss" in settings else ()
    y = y.astype(np.float32) if kind else y
    found = small(*kind, **settings).fit(X, y)
    assert cuda.counts["replays"] > 0, caplog.text
    monkeypatch.undo()
    expected = small(*kind, **settings).fit(X, y)
    assert found.loss_curve_ == expected.loss_curve_
    for mine, theirs in zip(found.coefs_, expected.coefs_, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_an_epoch_is_few_launches_and_captures_happen_once(cuda):
    X, y = data(16 * 40)
    model = small(backend="torch", max_iter=1).fit(X, y)
    # 40 steps: 2 before, 1 to warm up; then 37 = 32 + 4 + 1.
    assert (cuda.counts["captures"], cuda.counts["replays"]) == (3, 3)
    model.set_params(max_iter=3, warm_start=True).fit(X, y)
    # 40 = 32 + 8: one graph more.
    assert cuda.counts["captures"] <= 3 + 4


def test_a_short_last_batch_has_its_own_graph(cuda):
    X, y = data(16 * 4 + 5)
    small(backend="torch", max_iter=4).fit(X, y)
    assert len(cuda.pools) == 2


def test_the_streams_wait_for_each_other(cuda):
    X, y = data()
    small(backend="torch", max_iter=2).fit(X, y)
    pairs = [("side", "waits for", "default"), ("default", "waits for", "side")]
    assert cuda.order[: len(pairs)] == pairs
    assert cuda.order == pairs * (len(cuda.order) // 2)


def test_what_asks_for_a_number_runs_step_by_step_and_is_logged_once(cuda, monkeypatch, caplog):
    def asking(x, *, xp):
        if float(xp.max(x)) < 1e30:
            x = x * 1.0
        return x, lambda dy: dy

    X, y = data()
    with caplog.at_level(logging.WARNING):
        found = small(backend="torch", activation=asking).fit(X, y)
    (record,) = (r for r in caplog.records if "CUDA graph" in r.getMessage())
    assert "_local_scalar_dense: operation not permitted" in record.getMessage()
    assert cuda.counts["replays"] == 0
    monkeypatch.undo()
    expected = small(backend="torch", activation=asking).fit(X, y)
    np.testing.assert_array_equal(found.coefs_[0], expected.coefs_[0])


def test_a_cuda_device_captures_and_a_processor_does_not(torch):
    cpu = get_backend("torch", "cpu")
    assert cpu.loop(lambda i, state: state) is None
    cuda = type(cpu)(torch.device("cuda:1"))  # No GPU is asked.
    assert isinstance(cuda.loop(lambda i, state: state), _captured.CapturedLoop)
