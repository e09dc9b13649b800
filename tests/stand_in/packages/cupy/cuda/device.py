"""The two devices."""

from __future__ import annotations

import functools
import threading

from cupy import _launch
from cupy.cuda import runtime


class _Stack(threading.local):
    def __init__(self) -> None:
        self.devices: list[int] = []


_stack = _Stack()


@functools.total_ordering
class Device:
    """A device, and a context in which it is current."""

    def __init__(self, device: Device | int | None = None) -> None:
        self.id = runtime.getDevice() if device is None else int(device)

    def __int__(self) -> int:
        return self.id

    def __enter__(self) -> Device:
        _stack.devices.append(runtime.getDevice())
        if self.id != runtime.getDevice():
            try:
                runtime.setDevice(self.id)
            except runtime.CUDARuntimeError:
                _stack.devices.pop()
                raise
        return self

    def __exit__(self, *args: object) -> None:
        runtime.setDevice(_stack.devices.pop())

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __lt__(self, other: object) -> bool:
        return self.id < other.id if isinstance(other, Device) else NotImplemented

    # The real class defines equality alone, so its objects have no hash.
    __hash__ = None  # type: ignore[assignment]

    def use(self) -> Device:
        runtime.setDevice(self.id)
        return self

    def synchronize(self) -> None:
        _launch.synchronize_device(self.id)

    @property
    def compute_capability(self) -> str:
        major = runtime.deviceGetAttribute(runtime._MAJOR, self.id)
        minor = runtime.deviceGetAttribute(runtime._MINOR, self.id)
        return f"{major}{minor}"

    @property
    def mem_info(self) -> tuple[int, int]:
        with self:
            return runtime.memGetInfo()

    @property
    def attributes(self) -> dict[str, int]:
        prefix = "cudaDevAttr"
        return {
            name.removeprefix(prefix): runtime.deviceGetAttribute(value, self.id)
            for name, value in vars(runtime).items()
            if name.startswith(prefix)
        }

    @property
    def pci_bus_id(self) -> str:
        return runtime.deviceGetPCIBusId(self.id)


def get_device_id() -> int:
    return runtime.getDevice()


def get_compute_capability() -> str:
    return Device().compute_capability
