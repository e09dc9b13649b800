"""Read pickled CIFAR batches without executing them.

A pickle is a program for a stack machine that can call any Python function. This module's machine
has only the instructions that a batch needs: they build dictionaries, lists, tuples, numbers and
strings, and record the few names that NumPy's pickled arrays refer to. The number of objects is
limited, and the array is created last, from checked parts.
"""

import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

from mlp_xp.datasets._dataset import DatasetError, Pixels
from mlp_xp.datasets._files import LIMIT

# The CIFAR-100 pickle, rewritten by Python 3, has half a million instructions, ten per file name.
# Each instruction creates an object of at most 100 bytes plus its bytes in the file. Instructions
# that create larger objects count twenty times.
_MAX_INSTRUCTIONS = 600_000
_MAX_ARGUMENTS = 3
_COSTS = dict.fromkeys(("EMPTY_DICT", "EMPTY_LIST", "DICT", "LIST", "GLOBAL", "STACK_GLOBAL"), 20)


class _NotAllowedError(Exception):
    """The error for a forbidden instruction or name in a pickle."""


class Pickled:
    """The arguments and the state of a pickled array or dtype, both unchecked."""

    __slots__ = ("arguments", "state")

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments
        self.state: object = None


def _encode(text: str, *_: object) -> bytes:
    return text.encode("latin1")


_NDARRAY = "ndarray"
_ALLOWED: dict[tuple[str, str], Callable[..., Any] | str] = {
    ("numpy.core.multiarray", "_reconstruct"): Pickled,
    ("numpy._core.multiarray", "_reconstruct"): Pickled,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): Pickled,
    ("_codecs", "encode"): _encode,  # Protocol 2 pickles written by Python 3 call this function.
}

# Instructions of the pickle format, by kind.
_NUMBERS = frozenset(("BININT1", "BININT2", "BININT", "INT", "LONG", "LONG1", "LONG4"))
_VALUES = frozenset(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "FLOAT"))
_VALUES |= {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINFLOAT"}
_STRINGS = frozenset(("SHORT_BINSTRING", "BINSTRING", "STRING"))  # Python 2 strings are bytes.
_EMPTY: dict[str, type] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_PUTS = frozenset(("BINPUT", "LONG_BINPUT", "PUT"))
_GETS = frozenset(("BINGET", "LONG_BINGET", "GET"))
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def load_pickle(raw: bytes, where: str) -> dict[str, Any]:
    """Return the dictionary in a pickled batch, with keys of type str.

    Arrays are returned as `Pickled`, which `pixels_of` decodes. ``where`` names the file in errors.
    """
    try:
        batch = _interpret(raw)
    except Exception as error:  # Hostile bytes can raise any error.
        reason = " ".join(str(error).split()).rstrip(".")[:300] or type(error).__name__
        raise DatasetError(
            f"{where} was not read: {reason}. It is damaged or malicious, and nothing in it was "
            "run: download it again"
        ) from error
    if not isinstance(batch, dict):
        raise DatasetError(f"{where} must contain a dictionary, got {type(batch).__name__}")
    return {
        key.decode("latin1") if isinstance(key, bytes) else key: value
        for key, value in batch.items()
    }


def _interpret(raw: bytes) -> object:
    """Execute a pickle's instructions safely, and return the resulting object."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[object, Any] = {}
    instructions, room = _MAX_INSTRUCTIONS, LIMIT

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    argument: Any
    for opcode, argument, _ in pickletools.genops(raw):
        name = opcode.name
        instructions -= _COSTS.get(name, 1)
        if instructions < 0:
            raise _NotAllowedError("the pickle would exhaust the memory")
        if name in _NUMBERS and not -(2**63) <= argument < 2**63:
            raise _NotAllowedError("the pickle has a number of more than 64 bits")
        if name in _NUMBERS or name in _VALUES:
            stack.append(argument)
        elif name in _STRINGS:
            stack.append(argument.encode("latin1"))
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _PUTS:
            memo[argument] = stack[-1]
        elif name in _GETS:
            stack.append(memo[argument])
        elif name in _TUPLES:
            marks.append(len(stack) - _TUPLES[name])
            stack.append(tuple(since_mark()))
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            if not callable(function):
                raise _NotAllowedError(f"the pickle calls a {type(function).__name__}")
            if not isinstance(arguments, tuple) or len(arguments) > _MAX_ARGUMENTS:
                raise _NotAllowedError("the pickle calls a function with invalid arguments")
            if function is _encode:
                room -= len(arguments[0]) if arguments else 0
                if room < 0:
                    raise _NotAllowedError("the pickle would exhaust the memory")
            stack.append(function(*arguments))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            names = argument.split(" ", 1) if argument else [stack.pop(), stack.pop()][::-1]
            stack.append(_allowed(*names))
        elif name == "BUILD":
            state = stack.pop()
            if not isinstance(stack[-1], Pickled):
                raise _NotAllowedError(f"the pickle sets the state of a {type(stack[-1]).__name__}")
            stack[-1].state = state
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("APPEND", "APPENDS"):
            items = since_mark() if name == "APPENDS" else [stack.pop()]
            stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS", "DICT"):
            if name == "SETITEM":
                marks.append(len(stack) - 2)
            items = since_mark()
            if name == "DICT":
                stack.append({})
            _fill(stack[-1], items)
        elif name in ("LIST", "TUPLE"):
            items = since_mark()
            stack.append(items if name == "LIST" else tuple(items))
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise _NotAllowedError(f"the pickle contains the unexpected instruction {name}")
    raise _NotAllowedError("the pickle is incomplete")


def _allowed(module: object, name: object) -> Callable[..., Any] | str:
    if not (isinstance(module, str) and isinstance(name, str)):
        raise _NotAllowedError("the pickle imports an object without a name")
    if (module, name) not in _ALLOWED:
        raise _NotAllowedError(f"the pickle imports {module}.{name}, but only arrays are allowed")
    return _ALLOWED[module, name]


def _fill(dictionary: dict[str | bytes, Any], items: list[Any]) -> None:
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str | bytes):  # Keys of other types can be crafted to collide.
            raise _NotAllowedError(f"a key is a {type(key).__name__}, but only text is allowed")
        dictionary[key] = value


def pixels_of(value: object, where: str, row: int) -> Pixels:
    """Return a pickled (n_images, row) uint8 array; raise DatasetError if it is anything else."""
    expected = f"uint8 of shape (n_images, {row})"
    if not (isinstance(value, Pickled) and value.arguments[:1] == (_NDARRAY,)):
        kind = "dtype" if isinstance(value, Pickled) else type(value).__name__
        raise DatasetError(f"{where}: 'data' must be {expected}, got a {kind}")
    match value.state:
        case (
            int(),
            (int(n), int(width)),
            Pickled(arguments=(str() | bytes() as name, *_)),
            bool(fortran),
            bytes(data),
        ):
            pass
        case _:
            raise DatasetError(f"{where}: 'data' must be {expected}, got another kind of array")
    if name not in ("u1", b"u1"):
        raise DatasetError(f"{where}: 'data' must be {expected}, got the dtype {name!r:.40}")
    if n < 1 or width != row or len(data) != n * width:
        raise DatasetError(
            f"{where}: 'data' must be {expected}, got shape ({n}, {width}) and {len(data)} bytes"
        )
    pixels = np.frombuffer(data, dtype=np.uint8)
    return np.ascontiguousarray(pixels.reshape((n, width), order="F" if fortran else "C"))
