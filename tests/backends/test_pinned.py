"""Batches on their way to a device and back while it computes.

On the stand-in for CuPy copies are late and races are errors, so each wait that is missing shows.
"""

import contextlib
from collections import Counter

import numpy as np
import pytest

from mlp_xp.backends import get_backend
from mlp_xp.backends._cuda import pinned as _pinned

travels = pytest.mark.libraries("cupy", "jax", "torch")


@pytest.fixture
def device(backend):
    """Return a backend whose device has separate memory."""
    if backend.shares_host_memory:
        pytest.skip("nothing travels")
    return backend


def batches(n, rows=5, host=None):
    """Yield batches that are all written into one array of the host's."""
    host = np.empty((rows, 3), np.float32)
    for number in range(n):
        size = rows if number < n - 1 else rows - 2
        host[:size] = number
        yield host[:size], np.full(size, number)


def test_feed_and_collect_preserve_order_and_propagate_errors(backend):
    def failing(batch):
        yield batch
        raise OSError("the disk is gone")

    given = [(np.full((4 if i < 6 else 2, 3), i, np.uint8), np.full(4, i)) for i in range(7)]
    with backend.scope():
        fed = [[backend.get(array).copy() for array in batch] for batch in backend.feed(given)]
        for seen, batch in zip(fed, given, strict=True):
            for mine, array in zip(seen, batch, strict=True):
                np.testing.assert_array_equal(mine, array)
        arrays = (backend.put(np.full((3, 2), i)) * 2 for i in range(5))
        collected = [array.copy() for array in backend.collect(arrays)]
        np.testing.assert_array_equal(collected, [np.full((3, 2), 2 * i) for i in range(5)])
        assert list(backend.collect([])) == []
        for travel, batch in (("feed", (np.ones(2),)), ("collect", backend.put(np.ones(2)))):
            with pytest.raises(OSError, match="the disk is gone"):
                list(getattr(backend, travel)(failing(batch)))


@travels
@pytest.mark.parametrize("n", [0, 1, 2, 3, 8])
def test_transferred_batches_arrive_unchanged(device, n):
    xp = device.xp
    with device.scope():
        # Results are read at the end, when the batch's buffers have been reused.
        results = [(x + 1.0, xp.sum(y)) for x, y in device.feed(batches(n))]
        expected = [number * (5 if number < n - 1 else 3) for number in range(n)]
        assert [float(total) for _, total in results] == expected
        for number, (x, _) in enumerate(results):
            np.testing.assert_array_equal(device.get(x), np.full(x.shape, number + 1))
        assert len(list(device.feed(batches(n)))) == n  # Copies that nothing computed waits for.
        doubled = (x * 2.0 for x, _ in device.feed(batches(n)))  # There and back at once.
        for number, array in enumerate(device.collect(doubled)):
            np.testing.assert_array_equal(array, np.full(array.shape, 2.0 * number))


@travels
def test_a_feed_can_be_closed_early(device):
    with device.scope():
        feed = device.feed(batches(9))
        x, _ = next(feed)
        total = device.xp.sum(x)
        feed.close()
        # The memory of its buffers is free, and serves another feed.
        again = [device.xp.sum(x) for x, _ in device.feed(batches(4))]
    assert float(total) == 0.0
    assert [float(number) for number in again] == [0.0, 15.0, 30.0, 27.0]


@travels
def test_a_feed_waits_only_for_pinned_memory(device, monkeypatch):
    """The host waits for the copy's event, not for the computation."""
    copiers, feed = [], _pinned.feed
    for name in ("synchronize", "get"):
        fail = lambda *_: pytest.fail("it waits for the device")  # noqa: E731
        monkeypatch.setattr(type(device), name, fail)
    pinned = lambda copier, given: feed(copiers.append(copier) or copier, given)  # noqa: E731
    monkeypatch.setattr(_pinned, "feed", pinned)
    with device.scope():
        assert len([x + 1.0 for x, _ in device.feed(batches(5))]) == 5
    assert len(copiers) == 1


class Stream:
    """Work that runs when something waits for it."""

    def __init__(self):
        self.pending = []

    def synchronize(self):
        while self.pending:
            self.pending.pop(0)()

    def wait_event(self, event):
        self.pending.append(event.wait)


class Event:
    def record(self, stream):
        done = []

        def wait():
            while not done:
                stream.pending.pop(0)()

        stream.pending.append(lambda: done.append(True))
        self.wait = self.synchronize = wait


def test_torch_copies_are_asynchronous_from_pinned_memory(torch, monkeypatch):
    from mlp_xp.backends._torch.copier import Copier

    calls, current, empty = Counter(), [], torch.empty
    copier = Copier(torch.device("cuda"))

    def fake_empty(shape, *, dtype, pin_memory=False, device="cpu"):
        calls["pinned" if pin_memory else str(device)] += 1
        return empty(shape, dtype=dtype).fill_(-1)

    @contextlib.contextmanager
    def use(stream):
        current.append(stream)
        yield
        current.pop()

    def late_copy(target, source, non_blocking=False):
        assert non_blocking
        calls["copies"] += 1
        current[-1].pending.append(lambda: copy(target, source))

    compute, copy = Stream(), torch.Tensor.copy_
    monkeypatch.setattr(torch, "empty", fake_empty)
    monkeypatch.setattr(torch.Tensor, "copy_", late_copy)
    for name, function in {
        **{"device": contextlib.nullcontext, "Event": Event, "stream": use},
        **{"current_stream": lambda device: compute, "Stream": lambda device: Stream()},
    }.items():
        monkeypatch.setattr(torch.cuda, name, function)

    def computed():
        for x, _ in _pinned.feed(copier, batches(4)):
            compute.synchronize()
            yield x * 2

    for number, host in enumerate(_pinned.collect(copier, computed())):
        np.testing.assert_array_equal(host, np.full(host.shape, 2 * number))
    # Two sets of two buffers, and memory for each result; each batch goes there and comes back.
    assert calls == {"pinned": 2 * 2 + 4, "cuda": 2 * 2, "copies": 2 * 4 + 4}


def test_contiguous_returns_row_major_arrays(backend):
    with backend.scope():
        columns = np.asfortranarray(np.arange(12.0).reshape(3, 4))
        turned = backend.xp.matrix_transpose(backend.put(np.arange(12.0).reshape(3, 4)))
        for here in (backend.put(columns), turned):
            rows = backend.contiguous(here)
            np.testing.assert_array_equal(backend.get(rows), backend.get(here))
            if backend.name in ("numpy", "cupy"):
                assert rows.flags.c_contiguous
            elif backend.name == "torch":
                assert rows.is_contiguous()
        assert backend.contiguous(rows) is rows or backend.name == "torch"
        if backend.name == "cupy":  # The host turns them, so that the device has one copy.
            assert backend.put(columns).flags.c_contiguous


def test_block_size_is_a_fraction_of_device_memory(monkeypatch):
    backend = get_backend("array_api_strict", "device1")
    for free, expected in ((None, 2**28), (2**34, 2**31), (2**20, 3 * 2**23)):
        monkeypatch.setattr(type(backend), "free_memory", lambda self, free=free: free)
        assert backend.block_bytes() == expected
    assert get_backend("numpy").block_bytes() == 3 * 2**23


def test_no_batch_is_larger_than_the_first(backend):
    """The contract that buffers rely on, where it is written: a plan and a prediction keep it."""
    from mlp_xp.training.data.epoch_plan import plan_epoch
    from mlp_xp.training.data.placement import Streamed

    data = Streamed(backend, np.ones((23, 3), np.float32), np.zeros(23, np.int32), "float32")
    with backend.scope():
        for plan in (plan_epoch(23, 7, seed=0), plan_epoch(23, 7, pad=backend.fixed_shapes)):
            sizes = [batch.y.shape[0] for batch in data.epoch(plan)]
            assert sizes == sorted(sizes, reverse=True)
