"""Streams, events and memory of the stand-in: each rule, and what breaks it."""

import cupy as cp
import cupyx
import numpy as np
import pytest
from cupy import cuda
from cupy._launch import RaceError
from cupy.cuda.runtime import CUDARuntimeError


def ones(n=4):
    return cp.ones(n, dtype=np.float32)


@pytest.fixture
def copied(pinned, copying):
    """Return an array that another stream may still copy to."""
    x = cp.empty(4, dtype=np.float32)
    x.set(pinned, stream=copying)
    return x


def test_a_kernel_that_does_not_wait_for_a_copy_is_a_race_error(copied):
    with pytest.raises(RaceError, match="no wait between"):
        copied + 1


def test_an_event_recorded_too_early_does_not_prevent_a_race(pinned, copying):
    x = cp.empty(4, dtype=np.float32)
    event = copying.record()
    x.set(pinned, stream=copying)
    cuda.get_current_stream().wait_event(event)
    with pytest.raises(RaceError):
        x + 1


def test_overwriting_pinned_memory_during_a_copy_is_an_error(copied, pinned, copying):
    cuda.get_current_stream().wait_event(copying.record())  # Orders streams, not the host.
    pinned[:] = 0
    with pytest.raises(RaceError, match="pinned memory was changed"):
        copying.synchronize()


def test_freeing_pinned_memory_during_a_copy_is_an_error(pinned, copying):
    x = cp.empty(4, dtype=np.float32)
    buffer = cupyx.empty_pinned(4, np.float32)
    buffer[:] = 1
    x.set(buffer, stream=copying)
    del buffer
    cupyx.empty_pinned(4, np.float32)
    with pytest.raises(RaceError, match="pinned memory was changed"):
        copying.synchronize()


def test_pageable_memory_is_copied_synchronously(copying):
    x, host = cp.empty(4, dtype=np.float32), np.ones(4, np.float32)
    x.set(host, stream=copying)
    host[:] = 0
    x.get(stream=copying, out=host, blocking=False)
    assert host.tolist() == [1, 1, 1, 1]


def test_results_in_pinned_memory_are_garbage_until_synchronized(pinned, copying):
    x = ones()
    copying.wait_event(cuda.get_current_stream().record())
    x.get(stream=copying, out=pinned, blocking=False)
    assert np.isnan(pinned).all()
    with pytest.raises(RaceError):  # It is still copied from.
        x += 1
    copying.synchronize()
    assert pinned.tolist() == [1, 1, 1, 1]


def test_kernels_on_two_streams_need_an_event_between_them():
    first, second = cuda.Stream(non_blocking=True), cuda.Stream(non_blocking=True)
    with first:
        x = ones()
    with second, pytest.raises(RaceError):
        x + 1
    second.wait_event(first.record())
    with second:
        x + 1


def test_querying_a_stream_does_not_synchronize(copied, copying):
    event = copying.record()
    assert not event.done
    assert event.done
    assert copying.done


def test_current_streams_belong_to_a_device_and_nest(copying):
    assert cuda.get_current_stream() == cuda.Stream.null
    with copying:
        assert cuda.get_current_stream() == copying
        with cuda.Device(1):
            assert cuda.get_current_stream() == cuda.Stream.null
            with pytest.raises(RuntimeError, match="does not match with the current device"):
                copying.use()
    assert cuda.get_current_stream() == cuda.Stream.null


def test_new_memory_is_garbage():
    ones()
    assert np.isnan(cp.empty(4, dtype=np.float32).get()).all()
    assert cp.empty(4, dtype=np.int32).get().tolist() == [-1] * 4


def test_pool_can_reuse_memory_still_read_by_another_stream(pinned, copying):
    def read_elsewhere():
        x = ones()
        copying.wait_event(cuda.get_current_stream().record())
        x.get(stream=copying, out=pinned, blocking=False)
        return x.data.ptr

    address = read_elsewhere()  # Freed here, and free for the default stream at once.
    y = cp.empty(4, dtype=np.float32)
    assert y.data.ptr == address
    with pytest.raises(RaceError):
        y.fill(0)
    copying.synchronize()
    y.fill(0)
    assert pinned.tolist() == [1, 1, 1, 1]


def test_a_pool_keeps_memory_for_the_stream_it_was_allocated_on(copying):
    with copying:
        x = ones()
    address = x.data.ptr
    del x
    assert ones().data.ptr != address
    with copying:
        assert ones().data.ptr == address


def test_pools_count_and_release_their_memory():
    pool = cuda.MemoryPool()
    with cuda.using_allocator(pool.malloc):
        x = cp.zeros(1000, dtype=np.float32)
        free = cuda.Device(0).mem_info[0]
        assert (pool.used_bytes(), pool.free_bytes()) == (4096, 0)
        del x
        assert (pool.used_bytes(), pool.free_bytes()) == (0, 4096)
        pool.free_all_blocks()
        assert pool.total_bytes() == 0
        assert cuda.Device(0).mem_info[0] == free + 4096
        with pytest.raises(cuda.memory.OutOfMemoryError):
            cp.empty(1 << 30, np.uint8)


def test_a_pool_splits_oversized_blocks_and_merges_the_pieces():
    pool = cuda.MemoryPool()
    with cuda.using_allocator(pool.malloc):
        address = cp.empty(4096, np.uint8).data.ptr
        first, second = (cp.zeros(600, np.uint8) for _ in range(2))
        assert [first.data.ptr, second.data.ptr] == [address, address + 1024]
        assert (pool.used_bytes(), pool.free_bytes()) == (2048, 2048)
        pool.free_all_blocks()  # What is split stays.
        assert pool.total_bytes() == 4096
        code = """extern "C" __global__ void fill(char* x, int n) {
          for (int i = 0; i < n; i++) x[i] = 7;
        }"""
        cp.RawKernel(code, "fill")((1,), (1,), (first, np.int32(1025)))
        assert second[:2].get().tolist() == [7, 0]  # It is the neighbor.
        del first, second
        assert cp.empty(4096, np.uint8).data.ptr == address
        pool.free_all_blocks()
        assert pool.total_bytes() == 0


def test_arrays_belong_to_one_of_two_devices():
    with cuda.Device(1) as device:
        x = ones()
        assert x.device == device == cuda.Device(1)
        assert cuda.runtime.getDevice() == 1
    with pytest.raises(CUDARuntimeError, match="invalid device ordinal"), cuda.Device(2):
        pass
    assert cuda.runtime.getDevice() == 0
