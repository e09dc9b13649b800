"""What ``model.safetensors`` holds: ``layers.0.W``, ``norms.0.scale``, ``scaling.shift`` and so on.

An entry is a `Dense`, `Norm`, `Moments` or `Scaling`, of arrays or of their shapes; its name and
that of a field make the name of a tensor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp._optional import optional
from mlp_xp.backends import to_numpy
from mlp_xp.kernels import Scaling, Whitening
from mlp_xp.layers import Dense, Moments, Norm
from mlp_xp.network import Network, denses, draw_params, init_moments, norms
from mlp_xp.saving._files import SPEC, SavingError, expect
from mlp_xp.scaling import Whiten


def _entries(
    layers: Iterable[Dense],
    norms: Iterable[Norm],
    moments: Iterable[Moments],
    scaling: Scaling | Whitening | None,
) -> dict[str, Any]:
    groups: dict[str, Iterable[Any]] = {"layers": layers, "norms": norms, "moments": moments}
    numbered = {
        f"{name}.{i}": entry for name, group in groups.items() for i, entry in enumerate(group)
    }
    return numbered if scaling is None else numbered | {"scaling": scaling}


def _by_tensor(entries: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{name}.{field}": value
        for name, entry in entries.items()
        for field, value in entry._asdict().items()
    }


def shapes(model: Any) -> dict[str, Any]:
    """Give the entries that a model without arrays must get, with a shape for each array."""
    network: Network = model._network
    # One number, repeated without memory, stands for random ones.
    params = draw_params(network, lambda low, high, shape: np.broadcast_to(low, shape))

    def shape(entry: Any) -> Any:
        return type(entry)(*map(np.shape, entry))

    return _entries(
        map(shape, denses(params)),
        map(shape, norms(params)),
        map(shape, init_moments(network)),
        _scaling_shapes(model._scaled_by, model.n_features_in_, network.sizes[0]),
    )


def _scaling_shapes(setting: str | Whiten | None, n_features: int, n_inputs: int) -> Any:
    if setting is None:
        return None
    each = ((n_features,), (n_features,))
    if setting == "standardize":
        return Scaling._make(each)
    return Whitening._make((*each, (n_features, n_inputs)))


def dump_arrays(estimator: Any) -> bytes:
    """Give the content of the file."""
    layers = starmap(Dense, zip(estimator.coefs_, estimator.intercepts_, strict=True))
    entries = _entries(layers, estimator.norms_, estimator.moments_, estimator._scaling)
    # safetensors 0.8 writes the memory of an array as it lies, whatever its strides say.
    tensors = {
        name: np.ascontiguousarray(to_numpy(array), dtype=estimator._dtype)
        for name, array in _by_tensor(entries).items()
    }
    content: bytes = optional("safetensors.numpy").save(tensors)
    return content


def load_arrays(model: Any, entries: dict[str, Any], digest: str, path: Path) -> None:
    """Set the learned arrays of a model, after checking that the file holds them and no others."""
    content = path.read_bytes()
    safetensors = optional("safetensors.numpy")
    try:
        tensors = safetensors.load(content)
    except Exception as error:  # Its own errors, and KeyError for dtypes that NumPy lacks.
        raise SavingError(f"no safetensors file: {error}") from error
    found = {name: f"{array.dtype} of shape {array.shape}" for name, array in tensors.items()}
    expected = {
        name: f"{model._dtype} of shape {shape}" for name, shape in _by_tensor(entries).items()
    }
    for name in sorted(found.keys() | expected.keys()):
        given, asked = found.get(name, "absent"), expected.get(name, "absent")
        expect(given == asked, f"tensor {name!r} is {given}, and {SPEC} asks for {asked}")
    expect(
        sha256(content) == digest,
        f"its SHA-256 is not the one in {SPEC}: the two are not from one save",
    )

    def read(kind: Any) -> list[Any]:
        names = [name for name, entry in entries.items() if type(entry) is kind]
        return [kind(*(tensors[f"{name}.{field}"] for field in kind._fields)) for name in names]

    layers = read(Dense)
    model.coefs_, model.intercepts_ = [layer.W for layer in layers], [layer.b for layer in layers]
    model.norms_, model.moments_ = read(Norm), read(Moments)
    model._scaling = next(iter(read(Scaling) + read(Whitening)), None)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
