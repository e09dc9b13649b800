# ruff: noqa: N816 - CuPy's names
"""The part of the CUDA runtime's API that the library calls."""

from typing import Any

from cupy import _errors, _launch, _memory
from cupy._errors import CUDARuntimeError

streamCaptureModeGlobal, streamCaptureModeThreadLocal, streamCaptureModeRelaxed = 0, 1, 2
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


def getDeviceProperties(device: int) -> dict[str, Any]:
    if not 0 <= device < _launch.N_DEVICES:
        raise CUDARuntimeError(_errors.INVALID_DEVICE)
    return {"name": b"Stand-in", "totalGlobalMem": _TOTAL_MEMORY, "major": 9, "minor": 0}


def memGetInfo() -> tuple[int, int]:
    taken = _memory.bytes_of_device(getDevice())
    return max(_TOTAL_MEMORY - taken, 0), _TOTAL_MEMORY


def deviceSynchronize() -> None:
    _launch.synchronize_device(getDevice())


def streamIsCapturing(stream: int) -> bool:
    capture = _launch.queue_at(stream).capture
    if capture is not None and not capture.is_valid:
        raise RuntimeError("an error has invalidated the capture")
    return capture is not None
