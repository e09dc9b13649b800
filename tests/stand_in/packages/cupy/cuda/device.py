"""The two devices."""

from __future__ import annotations

from cupy import _launch
from cupy.cuda import runtime


class Device:
    def __init__(self, device: Device | int | None = None) -> None:
        self.id = runtime.getDevice() if device is None else int(device)

    def __int__(self) -> int:
        return self.id

    def __enter__(self) -> Device:
        previous = runtime.getDevice()
        runtime.setDevice(self.id)
        _launch.state.devices.append(previous)
        return self

    def __exit__(self, *args: object) -> None:
        runtime.setDevice(_launch.state.devices.pop())

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    # The real class defines equality alone, so its objects have no hash.
    __hash__ = None  # type: ignore[assignment]

    def use(self) -> Device:
        runtime.setDevice(self.id)
        return self

    def synchronize(self) -> None:
        _launch.synchronize_device(self.id)

    @property
    def compute_capability(self) -> str:
        return "{major}{minor}".format_map(runtime.getDeviceProperties(self.id))

    @property
    def attributes(self) -> dict[str, int]:
        return {"MultiProcessorCount": 2, "CooperativeLaunch": 1}

    @property
    def mem_info(self) -> tuple[int, int]:
        with self:
            return runtime.memGetInfo()
