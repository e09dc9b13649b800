"""Read pickled CIFAR batches without running anything that they say.

A pickle is a program. Ours may build dictionaries, lists, numbers and strings, and may name the
few functions by which NumPy pickles an array. Even those are not NumPy's own: each name leads to a
stand-in that keeps its arguments, and the array is made from them here, after they were checked.
"""

import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mlp_xp.datasets._types import DatasetError, Pixels

# Hashing a tuple nested 200,000 deep overflows the C stack; a memo index of 2**31 allocates 32 GB.
# Official files have ten tuples; one written again by Python 3 has one more a file name.
_MAX_TUPLES = 60_000
_MAX_MEMO = 1_000_000


class _RefusedError(Exception):
    """What a pickle asks for is not admitted."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, encoding="bytes")
        self._admitted = _stand_ins()

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._admitted[module, name]
        except KeyError:
            raise _RefusedError(
                f"it asks for {module}.{name}, and only arrays are admitted"
            ) from None


class PickledArray:
    """The state of one pickled array, not yet trusted."""

    state: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _stand_ins() -> Mapping[tuple[str, str], Callable[..., Any]]:
    # Made anew for each pickle: one that sets attributes on a stand-in changes only its own.
    class Array(PickledArray):
        pass

    class Dtype:
        def __init__(self, name: Any = None, *_: Any) -> None:
            self.name = name

        def __setstate__(self, state: Any) -> None:
            """Byte order and alignment mean nothing for single bytes."""

    def reconstruct(*_: Any) -> Array:
        return Array()

    def encode(text: str, *_: Any) -> bytes:
        return text.encode("latin1")

    return {
        ("numpy.core.multiarray", "_reconstruct"): reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): reconstruct,
        ("numpy", "ndarray"): Array,
        ("numpy", "dtype"): Dtype,
        ("_codecs", "encode"): encode,  # how Python 3 writes bytes into a protocol 2 pickle
    }


def load_pickle(raw: bytes, where: str) -> dict[str, Any]:
    """Return the dictionary in a pickled batch, with its keys as str.

    Arrays come as `PickledArray`; pass them to `pixels_of`.

    Parameters
    ----------
    raw : bytes
        The whole pickle.
    where : str
        Names the file in errors.

    Raises
    ------
    DatasetError
        The pickle is damaged, is no dictionary, or asks for anything but arrays.
    """
    try:
        _refuse_bombs(raw)
        batch = _Unpickler(io.BytesIO(raw)).load()
    except Exception as error:  # hostile bytes can raise anything
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise DatasetError(
            f"{where} was not read: {reason}. It is damaged or was made to do harm; nothing in it "
            "was run. Delete it and fetch it again"
        ) from error
    if not isinstance(batch, dict):
        raise DatasetError(f"{where} holds a {type(batch).__name__}, expected a dictionary")
    return {
        key.decode("latin1") if isinstance(key, bytes) else str(key): value
        for key, value in batch.items()
    }


def _refuse_bombs(raw: bytes) -> None:
    tuples = 0
    for opcode, argument, _ in pickletools.genops(raw):
        tuples += opcode.name.startswith("TUPLE")
        if tuples > _MAX_TUPLES or (
            opcode.name.endswith("PUT") and isinstance(argument, int) and argument > _MAX_MEMO
        ):
            raise _RefusedError("it is made to exhaust the memory")


def pixels_of(value: object, where: str, row: int) -> Pixels:
    """Return the (n_images, row) uint8 array of a `PickledArray`; DatasetError if it is none."""
    expected = f"expected uint8 of shape (n_images, {row})"
    if not isinstance(value, PickledArray):
        raise DatasetError(f"{where}: 'data' is a {type(value).__name__}, {expected}")
    match value.state:
        case (int(), (int(n), int(width)), dtype, bool(fortran), bytes(data)):
            name = getattr(dtype, "name", None)
        case _:
            raise DatasetError(f"{where}: 'data' is not a plain array of two axes, {expected}")
    if name not in ("u1", b"u1"):
        raise DatasetError(f"{where}: 'data' has the dtype {name!r}, {expected}")
    if n < 1 or width != row or len(data) != n * width:
        raise DatasetError(
            f"{where}: 'data' has shape ({n}, {width}) and {len(data)} bytes, {expected}"
        )
    pixels = np.frombuffer(data, dtype=np.uint8)
    return np.ascontiguousarray(pixels.reshape((n, width), order="F" if fortran else "C"))
