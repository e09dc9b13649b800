"""The tensors of ``model.safetensors``: ``layers.0.W``, ``norms.0.scale``, ``scaling.shift`` etc.

An entry is a `Dense`, `Norm`, `BatchStats` or `Scaling` that contains arrays or their shapes. A
tensor is named after its entry and its field, e.g. ``layers.0`` and ``W``. In an ensemble, the name
begins with the number of the network. Other block parameters are named ``others.0.table`` etc.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlp_xp._utils.optional import optional
from mlp_xp._utils.storage.files import open_file, parse_json
from mlp_xp.backends import to_numpy
from mlp_xp.backends.kernels import Scaling, Whitening
from mlp_xp.estimators.fitted.state import FittedState
from mlp_xp.nn.entries import entries
from mlp_xp.nn.layers import BatchStats, Dense, Norm
from mlp_xp.nn.network import Params, draw_params, with_layers
from mlp_xp.saving._files import SPEC, SavingError, expect
from mlp_xp.training.data.input_scaling import Whiten

_DTYPES = {"F32": "float32", "F64": "float64"}  # The names of dtypes in a safetensors header.
_HEADER_LIMIT = 4 << 20  # The maximum size in bytes, enough for about 30,000 tensors.


_GROUPS: dict[type, str] = {Dense: "layers", Norm: "norms"}


def _entries(params: Params, batch_stats: Iterable[BatchStats], **single: Any) -> dict[str, Any]:
    groups: dict[str, list[Any]] = {"layers": [], "norms": [], "others": []}
    for entry in entries(params):
        groups[_GROUPS.get(type(entry), "others")].append(entry)
    groups["moments"] = list(batch_stats)
    numbered = {
        f"{name}.{i}": entry for name, group in groups.items() for i, entry in enumerate(group)
    }
    return numbered | {name: entry for name, entry in single.items() if entry is not None}


def _by_tensor(found: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{name}.{field}": value
        for name, entry in found.items()
        for field, value in entry._asdict().items()
        if value is not None
    }


def shapes(state: FittedState) -> dict[str, Any]:
    """Return the entries that a state needs, with shapes instead of arrays."""
    network = state.network
    params = draw_params(network, lambda low, high, shape: shape, lambda value, shape: shape)
    stats = [BatchStats._make(((width,), (width,))) for width in network.batch_stats_widths]
    scaling = _scaling_shapes(state.step_scaling, state.n_features, network.sizes[0])
    return _entries(params, stats, scaling=scaling, calibration=state.calibration)


def _scaling_shapes(setting: str | Whiten | None, n_features: int, n_inputs: int) -> Any:
    if setting is None:
        return None
    mean_and_std = ((n_features,), (n_features,))
    if setting == "standardize":
        return Scaling._make(mean_and_std)
    return Whitening._make((*mean_and_std, (n_features, n_inputs)))


def dump_arrays(states: Mapping[str, FittedState]) -> bytes:
    """Return the content of the weights file; tensor names begin with the keys of ``states``."""
    tensors: dict[str, np.ndarray] = {}
    for prefix, state in states.items():
        single = {"scaling": state.scaling, "calibration": state.calibration}
        found = _entries(state.params, state.batch_stats, **single)
        # safetensors 0.8 ignores strides, so arrays must be contiguous.
        tensors |= {
            prefix + name: np.ascontiguousarray(to_numpy(array), dtype=state.dtype)
            for name, array in _by_tensor(found).items()
        }
    _check_finite(tensors)
    content: bytes = optional("safetensors.numpy").save(tensors)
    return content


def _check_finite(tensors: dict[str, np.ndarray]) -> None:
    for name, array in tensors.items():
        expect(
            bool(np.isfinite(array.min()) and np.isfinite(array.max())),
            f"tensor {name!r} has NaN or infinity, so the training diverged: train again, e.g. "
            "with a smaller learning_rate_init",
        )


class Header(NamedTuple):
    """The header of a file: tensors by name, file size, and the total size of all tensors."""

    tensors: dict[str, str]
    file_size: int
    n_bytes: int


def read_header(path: Path) -> Header:
    """Read the header of a file without its tensors."""
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        expect(length <= min(size - 8, _HEADER_LIMIT), "invalid safetensors file: damaged header")
        header = parse_json(file.read(length))
    header.pop("__metadata__", None)
    tensors = {name: _described(entry["dtype"], entry["shape"]) for name, entry in header.items()}
    return Header(tensors, size, size - 8 - length)


def check_header(header: Header, states: Mapping[str, FittedState]) -> None:
    """Raise SavingError unless a file contains exactly the tensors that the states need."""
    expected: dict[str, str] = {}
    n_bytes = 0
    for prefix, state in states.items():
        needed = _by_tensor(shapes(state))
        expected |= {prefix + name: _described(state.dtype, size) for name, size in needed.items()}
        n_bytes += np.dtype(state.dtype).itemsize * sum(map(math.prod, needed.values()))
    for name in sorted(header.tensors.keys() | expected.keys()):
        given, asked = header.tensors.get(name, "absent"), expected.get(name, "absent")
        expect(given == asked, f"tensor {name!r} is {given}, but {SPEC} says {asked}")
    said = f"invalid safetensors file: its tensors must take {n_bytes} bytes, got {header.n_bytes}"
    expect(header.n_bytes == n_bytes, said)


def _described(dtype: str, shape: Iterable[int]) -> str:
    return f"{_DTYPES.get(dtype, dtype)} of shape {tuple(shape)}"


def load_arrays(states: Mapping[str, FittedState], content: bytes) -> list[FittedState]:
    """Return the states with their arrays; call `check_header` first."""
    safetensors = optional("safetensors.numpy")
    try:
        tensors = safetensors.load(content)
    except Exception as error:  # safetensors raises errors of several types.
        raise SavingError(f"invalid safetensors file: {error}") from error
    _check_finite(tensors)
    return [_with_arrays(state, tensors, prefix) for prefix, state in states.items()]


def _with_arrays(state: FittedState, tensors: dict[str, np.ndarray], prefix: str) -> FittedState:
    found = {
        name: entry._make(tensors.get(f"{prefix}{name}.{field}") for field in entry._fields)
        for name, entry in shapes(state).items()
    }
    params = with_layers(state.network, found.values())
    stats = tuple(entry for entry in found.values() if type(entry) is BatchStats)
    others: Any = {name: found.get(name) for name in ("scaling", "calibration")}
    return replace(state, params=params, batch_stats=stats, is_checked=True, **others)
