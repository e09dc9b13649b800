"""Captures and graphs of the stand-in: each rule, and what breaks it."""

import contextlib

import cupy as cp
import cupyx
import numpy as np
import pytest
from cupy import _launch, cuda
from cupy._launch import RaceError
from cupy.cuda.runtime import CUDARuntimeError


def ones(n=4):
    return cp.ones(n, dtype=np.float32)


def captured(stream, work):
    """Return the graph of some work, which is not run."""
    cuda.Device(0).synchronize()
    with stream:
        stream.begin_capture()
        work()
        return stream.end_capture()


@pytest.fixture
def capturing():
    stream = cuda.Stream(non_blocking=True)
    cuda.Device(0).synchronize()
    with stream:
        stream.begin_capture()
        yield stream
        with contextlib.suppress(CUDARuntimeError):
            stream.end_capture()


@pytest.fixture
def square():
    x = cp.ones((3, 3), dtype=np.float32)
    cuda.Device(0).synchronize()
    return x


def test_graph_replays_follow_stream_ordering(copying):
    x = ones()
    graph = captured(copying, lambda: cp.add(x, 1, out=x))
    graph.launch(copying)
    with pytest.raises(RaceError):
        x + 1
    with pytest.raises(RaceError):
        graph.launch(cuda.Stream.null)
    copying.synchronize()
    graph.launch(cuda.Stream.null)
    assert x.get().tolist() == [3] * 4


@pytest.mark.parametrize(
    "wait",
    [
        lambda x, stream: stream.synchronize(),
        lambda x, stream: x.device.synchronize(),
        lambda x, stream: stream.record().synchronize(),
        lambda x, stream: stream.done,
        lambda x, stream: stream.record().done,
        lambda x, stream: cuda.runtime.deviceSynchronize(),
    ],
)
def test_synchronizing_invalidates_a_capture(wait):
    x, stream = ones(), cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(CUDARuntimeError, match="not permitted"):
            wait(x, stream)
        with pytest.raises(CUDARuntimeError, match="previous error during capture"):
            cp.add(x, x, out=x)
        with pytest.raises(RuntimeError, match="invalidated the capture"):
            stream.is_capturing()
        with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureInvalidated"):
            stream.end_capture()
        assert not stream.is_capturing()


@pytest.mark.parametrize(
    "forbidden",
    [
        lambda x: x.get(),
        lambda x: float(x[0, 0]),
        lambda x: bool(x.any()),
        lambda x: x.set(np.zeros((3, 3), np.float32)),
        lambda x: cp.asarray(np.zeros(4, np.float32)),
        lambda x: cp.asnumpy(x),
        lambda x: x[[0, 1]],
        lambda x: x[x > 0],  # The size of the result must be known to the host.
        lambda x: x.__setitem__(x > 0, 0.0),
        lambda x: cp.nonzero(x),
        lambda x: x[0].set(cupyx.empty_pinned(3, np.float32)),
    ],
)
def test_synchronization_and_host_copies_cannot_be_captured(square, capturing, forbidden):
    with pytest.raises(RuntimeError, match=r"disallowed|not permitted"):
        forbidden(square)


def test_cublas_is_rejected_in_a_capture_without_invalidating_it(square, copying):
    with copying:
        copying.begin_capture()
        with pytest.raises(NotImplementedError, match="cuBLAS API during stream capture"):
            square @ square
        copying.end_capture()


def test_using_the_legacy_default_stream_invalidates_a_capture():
    x, stream = ones(), cuda.Stream()
    with stream:
        stream.begin_capture()
    with pytest.raises(CUDARuntimeError, match="legacy stream depend on a capturing"):
        cp.add(x, x)
    with pytest.raises(CUDARuntimeError):
        stream.end_capture()
    with pytest.raises(RuntimeError, match="cannot capture on the default"):
        cuda.Stream.null.begin_capture()


def test_reading_a_captured_result_before_the_graph_runs_is_an_error(copying):
    x = ones()

    def grow():
        cp.add(x, 1, out=x)
        with cuda.Stream.null, pytest.raises(RaceError, match="being captured, not run"):
            x + 1

    captured(copying, grow)
    x + 1


def test_launching_a_graph_whose_memory_was_reallocated_is_an_error(copying):
    x, results = ones(400), []
    graph = captured(copying, lambda: results.append(x + 1))
    with copying:
        graph.launch()
        address = results.pop().data.ptr
        others = [ones() for _ in range(3)]
        other = others.pop()
        del others
        assert other.data.ptr == address + 1024  # A piece in its middle.
        with pytest.raises(RaceError, match="belongs to someone else"):
            graph.launch()
        del other
        with pytest.raises(RaceError, match="belongs to someone else"):
            graph.launch()


def test_a_graph_with_freed_inputs_computes_garbage(copying):
    xs, y = [ones()], cp.zeros(4, dtype=np.float32)
    graph = captured(copying, lambda: cp.add(xs[0], xs.pop(), out=y))
    with copying:
        graph.launch()
        assert np.isnan(y.get()).all()


def test_separate_memory_pool_protects_arrays_of_a_graph(copying):
    pool, x, results = cuda.MemoryPool(), ones(), []
    with cuda.using_allocator(pool.malloc):
        graph = captured(copying, lambda: results.append((x + 1) * (x + 2)))
    with copying:
        others = [ones() for _ in range(8)]
        graph.launch()
        assert results.pop().get().tolist() == [6] * 4
        assert all(other.get().tolist() == [1] * 4 for other in others)
        pool.free_all_blocks()  # As CuPy does where memory is short.
        with pytest.raises(CUDARuntimeError, match="illegal memory access"):
            graph.launch()


def test_a_capture_can_fork_but_must_join(copying):
    x, other = ones(), cuda.Stream(non_blocking=True)
    y = cp.zeros(4, dtype=np.float32)
    cuda.Device(0).synchronize()
    copying.begin_capture()
    other.wait_event(copying.record())
    assert other.is_capturing()
    with other:
        cp.add(x, x, out=y)
    with copying, pytest.raises(RaceError):
        cp.add(x, y, out=x)
    copying.wait_event(other.record())
    with copying:
        cp.add(x, y, out=x)
    graph = copying.end_capture()
    assert not other.is_capturing()
    graph.launch(copying)
    copying.synchronize()
    assert x.get().tolist() == [3] * 4

    copying.begin_capture()
    other.wait_event(copying.record())
    with other:
        cp.add(x, x, out=y)
    with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureUnjoined"):
        copying.end_capture()


def test_capture_rejects_dependencies_on_uncaptured_work(copying):
    event = cuda.Stream(non_blocking=True).record()
    copying.begin_capture()
    with pytest.raises(CUDARuntimeError, match="dependency created on uncaptured work"):
        copying.wait_event(event)
    with pytest.raises(CUDARuntimeError):
        copying.end_capture()
    with pytest.raises(CUDARuntimeError, match="not initiated in this stream"):
        copying.end_capture()


def test_allocating_memory_during_capture_needs_relaxed_mode():
    stream, pool = cuda.Stream(non_blocking=True), cuda.MemoryPool()
    with stream, cuda.using_allocator(pool.malloc):
        stream.begin_capture(cuda.runtime.streamCaptureModeGlobal)
        with pytest.raises(CUDARuntimeError, match="not permitted when stream is capturing"):
            cp.empty(4)
        with pytest.raises(CUDARuntimeError):
            stream.end_capture()
        stream.begin_capture()
        cp.empty(4)
        stream.end_capture()


def test_operations_must_not_close_over_arrays(capturing):
    x = cp.empty(4, dtype=np.float32)
    with pytest.raises(AssertionError, match="closes over an array"):
        _launch.launch("test", lambda: x, writes=[x._memory])
