"""Torch: its devices, kernels and CUDA graphs, on stand-ins for what needs a GPU."""

import gc
import logging
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import small
from loop_problem import CASES, Problem

from mlp_xp import MLP
from mlp_xp.backends import BACKENDS, get_backend
from mlp_xp.backends._cuda import captured as _captured
from mlp_xp.optimizers import SGD, init_opt_state

MEMORY = {"memory_reserved": 300, "memory_allocated": 100, "mem_get_info": (1000, 5000)}
CARD = {"get_device_name": "the card", **MEMORY}
APPLE = {"synchronize": None, "recommended_max_memory": 1000, "driver_allocated_memory": 400}


@pytest.fixture
def on(torch):
    """Return the function that makes a backend on a device, which is not asked for."""
    return lambda name: type(get_backend("torch", "cpu"))(torch.device(name))


def test_recipe_uses_float32_on_cpus_without_bfloat16_instructions(on, torch, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    for given in {}, {"device": "cpu"}:
        with pytest.warns(UserWarning, match="torch, which the recipe hour uses, is very slow"):
            assert MLP.from_recipe("hour", **given).precision == "float32"
    with pytest.warns(RuntimeWarning, match="use precision='float32', or backend='jax'"):
        on("cpu").with_precision("bf16")
    for given in {"precision": "bf16"}, {"device": "cuda"}, {"backend": "jax"}:
        assert MLP.from_recipe("hour", **given).precision == "bf16"


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mps"])
def test_memory_and_synchronization_use_the_backends_device(kind, on, torch, monkeypatch):
    calls, is_apples = [], kind == "mps"  # Apple has one device.
    stream = SimpleNamespace(synchronize=lambda: calls.append(("waited",)))
    for name, value in (APPLE if is_apples else CARD | {"current_stream": stream}).items():
        function = lambda *args, name=name, value=value: calls.append((name, *args)) or value  # noqa: E731
        monkeypatch.setattr(getattr(torch, kind), name, function)
    backend = on(kind if is_apples else f"{kind}:1")
    own = () if is_apples else (backend.device,)
    backend.synchronize()
    assert calls == ([("synchronize",)] if is_apples else [("current_stream", *own), ("waited",)])
    calls.clear()
    # Memory that torch has reserved but does not use is free.
    assert backend.free_memory() == (600 if is_apples else 1200)
    assert backend.describe()["device"] == ("mps" if is_apples else f"{kind}:1, the card")
    assert len(calls) == (2 if is_apples else 4)
    assert all(call[1:] == own for call in calls)
    assert kind in BACKENDS["torch"].devices


def test_which_devices_have_double_precision(on, torch, monkeypatch):
    for name, expected in {"mps": False, "cuda:0": True, "cpu": True}.items():
        assert on(name).has_float64 is expected
    for has_fp64 in (True, False):  # An Intel card is asked.
        properties = SimpleNamespace(has_fp64=has_fp64)
        monkeypatch.setattr(torch.xpu, "get_device_properties", lambda _, p=properties: p)
        assert on("xpu:0").has_float64 is has_fp64


def test_buffers_in_use_are_not_reused(torch, monkeypatch):
    from mlp_xp.backends._torch import buffers

    def new(value=0.0, n_rows=300):
        return buffers.empty(owner, "a", (n_rows, 300), owner.dtype).fill_(value)

    monkeypatch.setattr(buffers, "_MIN_BYTES", 1 << 17)
    owner = torch.zeros(1)
    number, first = id(owner), new()
    address = first.data_ptr()
    assert (first.shape, address % 64) == ((300, 300), 0)
    del first
    assert new(n_rows=200).data_ptr() == address
    # If no count tells who holds the memory, it is not reused.
    for count in (None, lambda _: 2):
        if count is not None:
            monkeypatch.setattr(sys, "getrefcount", count)
            monkeypatch.setattr(buffers, "_UNUSED", buffers._count_of_unused())
        for hold in (lambda t: t, lambda t: t[1:], lambda t: t.T, lambda t: t.numpy()):
            held = hold(new(1.0))
            second = new(2.0)
            assert bool((held == 1.0).all())
            assert bool((second == 2.0).all())
            del held, second
    assert number in buffers._kept
    owner = None
    gc.collect()
    assert number not in buffers._kept


def test_a_learning_rate_of_0_changes_no_parameter(torch):
    backend = get_backend("torch", "cpu")
    with backend.scope():
        params, grads = (torch.ones(2, 2),), (torch.ones(2, 2),)
        opt_state, rate = init_opt_state(SGD(), params, xp=backend.xp), (torch.zeros(()),)
        updated = backend.kernels.update(SGD(), params, grads, opt_state, rate, xp=backend.xp)
    assert bool((updated.params[0] == 1.0).all())
    assert bool((updated.opt_state[0][0] == 0.0).all())


@pytest.fixture
def cuda(torch, monkeypatch):
    """Make torch's backend on a CPU capture its steps from the third on."""
    import stand_in_torch_cuda

    from mlp_xp.backends._torch import captured

    def loop(self, body):
        return _captured.CapturedLoop(body, captured.TorchGraphs(self.xp, self.device))

    streams = _captured.Streams(lambda device: torch.cuda.Stream(device))
    monkeypatch.setattr(_captured, "_STEPS_BEFORE_CAPTURE", 2)
    monkeypatch.setattr(captured, "_streams", streams)
    monkeypatch.setattr(type(get_backend("torch", "cpu")), "loop", loop)
    _captured.report.cache_clear()
    return stand_in_torch_cuda.install(monkeypatch)


def data(n=75):
    X = np.random.default_rng(3).standard_normal((n, 16)).astype(np.float32)
    return X, np.argmax(X[:, :3], axis=1)


@pytest.mark.parametrize("name", [*CASES, "bf16", "float16"])
def test_captured_torch_steps_match_eager_steps(name, cuda, monkeypatch, caplog):
    backend, settings = get_backend("torch", "cpu"), CASES.get(name, {"dtype": "float32"})
    problem = Problem(**settings)
    backend = backend if name in CASES else backend.with_precision(name)
    problem.check(backend, monkeypatch)
    assert cuda.counts["replays"] > 0, caplog.text


def test_a_short_last_batch_has_its_own_graph_and_streams_are_synchronized(cuda):
    small(backend="torch", max_iter=4).fit(*data(16 * 4 + 5))
    assert len(cuda.pools) == 2
    pairs = [("side", "waits for", "default"), ("default", "waits for", "side")]
    assert cuda.order[: len(pairs)] == pairs
    assert cuda.order == pairs * (len(cuda.order) // 2)


def test_functions_that_read_a_value_run_step_by_step_and_are_logged_once(
    cuda, monkeypatch, caplog
):
    def asking(x, *, xp):
        if float(xp.max(x)) < 1e30:
            x = x * 1.0
        return x, lambda dy: dy

    with caplog.at_level(logging.WARNING):
        found = small(backend="torch", activation=asking).fit(*data())
    (record,) = (r for r in caplog.records if "CUDA graph" in r.getMessage())
    assert "_local_scalar_dense: operation not permitted" in record.getMessage()
    assert cuda.counts["replays"] == 0
    monkeypatch.undo()
    expected = small(backend="torch", activation=asking).fit(*data())
    np.testing.assert_array_equal(found.coefs_[0], expected.coefs_[0])


def test_steps_are_captured_on_cuda_but_not_on_a_cpu(on):
    assert on("cpu").loop(lambda i, state: state) is None
    # No GPU is asked.
    assert isinstance(on("cuda:1").loop(lambda i, state: state), _captured.CapturedLoop)
