# ruff: noqa: N816 - CuPy's names
"""The part of the CUDA runtime's API that the library calls."""

from __future__ import annotations

from typing import Any

from cupy import _errors, _launch, _memory
from cupy._errors import CUDARuntimeError

streamDefault, streamNonBlocking = 0, 1
streamLegacy, streamPerThread = 1, 2
streamCaptureModeGlobal, streamCaptureModeThreadLocal, streamCaptureModeRelaxed = 0, 1, 2
streamCaptureStatusNone, streamCaptureStatusActive, streamCaptureStatusInvalidated = 0, 1, 2
eventDefault, eventBlockingSync, eventDisableTiming, eventInterprocess = 0, 1, 2, 4
memcpyHostToHost, memcpyHostToDevice, memcpyDeviceToHost, memcpyDeviceToDevice = 0, 1, 2, 3
memcpyDefault = 4

cudaDevAttrMaxThreadsPerBlock = 1
cudaDevAttrMaxSharedMemoryPerBlock = 8
cudaDevAttrWarpSize = 10
cudaDevAttrMultiProcessorCount = 16
cudaDevAttrL2CacheSize = 38
cudaDevAttrMaxThreadsPerMultiProcessor = 39
cudaDevAttrMaxSharedMemoryPerBlockOptin = 97

_MAJOR, _MINOR = 75, 76
# An H100's.
_ATTRIBUTES = {
    cudaDevAttrMaxThreadsPerBlock: 1024,
    cudaDevAttrMaxSharedMemoryPerBlock: 48 << 10,
    cudaDevAttrWarpSize: 32,
    cudaDevAttrMultiProcessorCount: 132,
    cudaDevAttrL2CacheSize: 50 << 20,
    cudaDevAttrMaxThreadsPerMultiProcessor: 2048,
    _MAJOR: 9,
    _MINOR: 0,
    cudaDevAttrMaxSharedMemoryPerBlockOptin: 227 << 10,
}
_TOTAL_MEMORY = 1 << 30


def getDevice() -> int:
    return _launch.state.device


def setDevice(device: int) -> None:
    _launch.set_device(device)


def getDeviceCount() -> int:
    return _launch.N_DEVICES


def runtimeGetVersion() -> int:
    return 12090


def driverGetVersion() -> int:
    return 13000


def deviceGetAttribute(attrib: int, device: int) -> int:
    _check_device(device)
    if attrib not in _ATTRIBUTES:
        raise CUDARuntimeError(_errors.INVALID_VALUE)
    return _ATTRIBUTES[attrib]


def deviceGetPCIBusId(device: int) -> str:
    _check_device(device)
    return f"0000:{device + 1:02X}:00.0"


def getDeviceProperties(device: int) -> dict[str, Any]:
    _check_device(device)
    return {
        "name": b"Stand-in",
        "totalGlobalMem": _TOTAL_MEMORY,
        "sharedMemPerBlock": _ATTRIBUTES[cudaDevAttrMaxSharedMemoryPerBlock],
        "warpSize": _ATTRIBUTES[cudaDevAttrWarpSize],
        "maxThreadsPerBlock": _ATTRIBUTES[cudaDevAttrMaxThreadsPerBlock],
        "multiProcessorCount": _ATTRIBUTES[cudaDevAttrMultiProcessorCount],
        "l2CacheSize": _ATTRIBUTES[cudaDevAttrL2CacheSize],
        "clockRate": 1_980_000,
        "memoryClockRate": 2_619_000,
        "memoryBusWidth": 5120,
        "major": _ATTRIBUTES[_MAJOR],
        "minor": _ATTRIBUTES[_MINOR],
    }


def memGetInfo() -> tuple[int, int]:
    taken = _memory.bytes_of_device(getDevice())
    return max(_TOTAL_MEMORY - taken, 0), _TOTAL_MEMORY


def deviceSynchronize() -> None:
    _launch.synchronize_device(getDevice())


def deviceCanAccessPeer(device: int, peerDevice: int) -> int:
    _check_device(device)
    _check_device(peerDevice)
    return 0


def streamSynchronize(stream: int) -> None:
    _launch.synchronize(_launch.queue_at(stream))


def streamIsCapturing(stream: int) -> bool:
    capture = _launch.queue_at(stream).capture
    if capture is not None and not capture.is_valid:
        raise RuntimeError(
            "the stream was capturing, but an error has invalidated the capture sequence"
        )
    return capture is not None


def _check_device(device: int) -> None:
    if not 0 <= device < _launch.N_DEVICES:
        raise CUDARuntimeError(_errors.INVALID_DEVICE)
