"""Backends: array libraries, and how they execute training steps; one folder or file each.

A library is imported only if the user requests it or passes one of its arrays. All formulas are
defined elsewhere (`nn`, `optimizers`, `augmentation`); `kernels` lists the functions that a backend
may replace with faster ones.

To add a backend, add a module with ``create(device)``, which returns an instance of a subclass of
`Backend`, and a row in `BACKENDS` and `_IS_ARRAY`.
"""

import ctypes
import functools
import importlib
import importlib.util
from typing import Any, NamedTuple

import array_api_compat
import numpy as np

from mlp_xp._utils.collection import pause_collection
from mlp_xp._utils.optional import install_command
from mlp_xp.backends._base import Backend, BackendError, to_numpy
from mlp_xp.backends._precision import LOW_PRECISIONS


class Library(NamedTuple):
    """An array library: its module in this folder, package, `pip` extra, devices, and a note."""

    module: str
    package: str
    extra: str
    devices: tuple[str, ...] = ()
    note: str = ""


_NO_DRIVER = "There is no NVIDIA driver on this machine: leave out backend and device"
BACKENDS = {
    "numpy": Library("_numpy.backend", "numpy", "cli", ("cpu",)),
    "cupy": Library(
        "_cupy.backend",
        "cupy",
        "cuda12",
        ("cuda",),
        ", or cuda13 if nvidia-smi shows CUDA Version 13",
    ),
    "torch": Library("_torch.backend", "torch", "torch", ("cpu", "cuda", "xpu", "mps")),
    "jax": Library("_jax.backend", "jax", "jax", ("cpu", "cuda")),
    "array_api_strict": Library("_strict", "array_api_strict", "test"),
}

_IS_ARRAY = {
    "numpy": array_api_compat.is_numpy_array,
    "cupy": array_api_compat.is_cupy_array,
    "torch": array_api_compat.is_torch_array,
    "jax": array_api_compat.is_jax_array,
}


def get_backend(spec: Any = None, device: Any = None) -> Backend:
    """Return a backend by name, or the backend for an array.

    ``spec`` may be a name in `BACKENDS`; ``"auto"``, which selects the first of CuPy, PyTorch and
    JAX that can compute a matrix product on a CUDA device, or NumPy if none can; a backend, which
    is returned unchanged; or an array, whose library and device are used. None and objects that are
    not arrays select NumPy. ``device``, e.g. ``"cuda:1"``, overrides the default device. Raise
    ValueError for an unknown name or device, and BackendError, with the reason, for a backend or
    device that does not work on this machine.

    >>> from mlp_xp.backends import get_backend
    >>> get_backend("numpy")
    <NumpyBackend 'numpy' on cpu>
    """
    if device is None and type(spec) is np.ndarray:
        return _plain_numpy()  # Check the most common case first, to speed up one-row predictions.
    if isinstance(spec, Backend):
        return spec
    if isinstance(spec, str):
        if spec == "auto":
            return _automatic(device)
        if spec not in BACKENDS:
            from mlp_xp._utils.names import error_end

            names = ("auto", *BACKENDS)
            raise ValueError(
                f"`backend` must be one of {', '.join(map(repr, names))}, or None to follow the "
                f"data, got {spec!r}{error_end(spec, names)}"
            )
        return _load(spec, device)
    name = namespace_backend(spec)
    if name is None:
        return _load("numpy", device)
    return _load(name, array_api_compat.device(spec) if device is None else device)


@functools.cache
def _plain_numpy() -> Backend:
    return _load("numpy", None)


def namespace_backend(array: object) -> str | None:
    """Return the name of an array's backend, or None for unknown types."""
    for name, is_array in _IS_ARRAY.items():
        if is_array(array):
            return None if isinstance(array, np.generic) else name
    if type(array).__module__.partition(".")[0] == "array_api_strict":
        return "array_api_strict"
    return None


def host(values: Any) -> Any:
    """Convert other libraries' arrays to NumPy arrays; return lists and data frames unchanged."""
    return to_numpy(values) if namespace_backend(values) not in (None, "numpy") else values


def installed(name: str) -> bool:
    """Whether a backend's library is installed; this does not import the library."""
    return importlib.util.find_spec(BACKENDS[name].package) is not None


def how_to_install(name: str) -> str:
    """Return the command that installs a backend's library."""
    return install_command(BACKENDS[name].extra) + BACKENDS[name].note


def compile_ahead() -> str:
    """Compile the machine code for NumPy, and return its cache folder."""
    from mlp_xp.backends._numpy.backend import compile_ahead as compile_numpy

    return compile_numpy()


def has_cuda_driver() -> bool:
    """Whether a CUDA driver is installed. This is much faster than importing an array library."""
    for library in ("libcuda.so.1", "nvcuda.dll"):
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        return True
    return False


def _load(name: str, device: Any) -> Backend:
    library = BACKENDS[name]
    if not installed(name):
        needs = f"Backend {name!r} needs {library.package}, which is not installed"
        if library.devices == ("cuda",) and not has_cuda_driver():
            needs = f"{needs}. {_NO_DRIVER}. With a driver"
        raise BackendError(f"{needs}: type {how_to_install(name)}")
    _check_kind(name, device)
    try:
        # A collection would examine every object of the process: 60 ms once scikit-learn is loaded.
        with pause_collection():
            create = importlib.import_module(f"mlp_xp.backends.{library.module}").create
    except (ImportError, OSError) as error:
        raise BackendError(
            f"Backend {name!r}: {library.package} cannot be loaded: {error}"
        ) from error
    try:
        backend: Backend = create(device)
    except BackendError as error:
        if not str(device or library.devices[0]).startswith("cuda") or has_cuda_driver():
            raise
        raise BackendError(f"{_NO_DRIVER}. {error}") from error
    return backend


def _check_kind(name: str, device: Any) -> None:
    """Raise ValueError if only other libraries support the device."""
    kind = str(device).partition(":")[0]
    others = [other for other in BACKENDS if kind in BACKENDS[other].devices]
    devices = BACKENDS[name].devices
    if not devices or kind in devices or not others:
        return
    here = ", ".join(filter(installed, others))
    able = " or ".join(map(repr, devices))
    only = f"`device` must be {able} for backend {name!r}, got {device!r}"
    if kind == "cuda" and not has_cuda_driver():
        raise ValueError(f"{only}. {_NO_DRIVER}.")
    raise ValueError(
        f"{only}: use backend={' or '.join(map(repr, others))} "
        # Suggest only CuPy's command, since other libraries' extras may install CPU-only builds.
        + (f"(installed: {here})" if here else f"(none is installed: {how_to_install(others[0])})")
    )


def _automatic(device: Any) -> Backend:
    """Return the first backend with a working GPU, or NumPy if there is none.

    Raise BackendError if ``device`` requests a GPU and there is none.
    """
    asked = str(device).startswith("cuda")
    able = [name for name in BACKENDS if "cuda" in BACKENDS[name].devices]
    reasons = []
    if asked or (device is None and has_cuda_driver()):
        for name in filter(installed, able):
            try:
                backend = _load(name, device or "cuda")
                backend.prove()
            except Exception as error:  # A broken installation or driver can raise any exception.
                reason = str(error).removeprefix(f"{_NO_DRIVER}. ")
                reasons.append(f"{name}: {reason}".rstrip("."))
            else:
                return backend
    if asked and not has_cuda_driver():
        sentences = f"Device {device!r} cannot be used", _NO_DRIVER, *reasons
        raise BackendError(". ".join(sentences) + ".")
    if asked:
        raise BackendError(
            f"No installed library can use device {device!r}: {'; '.join(reasons)}"
            if reasons
            else f"Device {device!r} needs {', '.join(able[:-1])} or {able[-1]}, and none is "
            f"installed: type {how_to_install('cupy')}"
        )
    return _load("numpy", device)
