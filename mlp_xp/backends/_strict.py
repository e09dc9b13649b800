"""The array-api-strict backend for tests: only the standard's functions, on simulated devices."""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np

from mlp_xp._utils.array_types import Array
from mlp_xp.backends._base import Backend

_CPU = array_api_strict.Device("CPU_DEVICE")


class StrictBackend(Backend):
    """A backend that rejects anything outside the Array API standard."""

    name = "array_api_strict"
    xp = array_api_strict

    def __init__(self, device: Any) -> None:
        self.device = device

    def owns(self, array: object) -> bool:
        return type(array) is type(self.xp.empty(0))

    def get(self, array: Any) -> np.ndarray:
        return np.from_dlpack(array.to_device(_CPU))

    def _move(self, array: Any) -> Array:
        return array.to_device(self.device)

    @property
    def has_float64(self) -> bool:
        info = self.xp.__array_namespace_info__()
        return "float64" in info.dtypes(device=self.device)


def create(device: Any) -> StrictBackend:
    """Return the backend on a device (an object or a name), by default ``"CPU_DEVICE"``."""
    if device is None or isinstance(device, str):
        try:
            device = array_api_strict.Device(device or "CPU_DEVICE")
        except ValueError as error:
            raise ValueError(f"`device` is not valid: {error}") from error
    return StrictBackend(device)
