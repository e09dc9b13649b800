"""Pinned memory, CUDA streams and events in torch."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch


class Copier:
    """Pinned memory, streams and events on one device, for `mlp_xp.backends._cuda.pinned`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def scope(self) -> AbstractContextManager[object]:
        return torch.cuda.device(self._device)

    def compute_stream(self) -> Any:
        return torch.cuda.current_stream(self._device)

    def copy_stream(self) -> Any:
        return torch.cuda.Stream(self._device)

    def event(self) -> Any:
        return torch.cuda.Event()

    def allocate(self, like: np.ndarray) -> tuple[np.ndarray, torch.Tensor]:
        dtype = torch.from_numpy(np.empty(0, like.dtype)).dtype
        pinned = torch.empty(like.shape, dtype=dtype, pin_memory=True)
        # NumPy's view keeps the tensor and its memory alive.
        return pinned.numpy(), torch.empty(like.shape, dtype=dtype, device=self._device)

    def upload(self, source: np.ndarray, target: torch.Tensor, stream: Any) -> None:
        with torch.cuda.stream(stream):
            target.copy_(torch.from_numpy(source), non_blocking=True)

    def download(self, source: torch.Tensor, stream: Any) -> np.ndarray:
        pinned = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
        with torch.cuda.stream(stream):
            pinned.copy_(source, non_blocking=True)
        return pinned.numpy()
