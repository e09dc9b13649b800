"""Frozen dataclasses that take a quarter of the usual time to define.

`dataclasses` compiles six methods for each frozen class, which took almost half the time of
``import mlp_xp.estimators``. Here, only ``__init__`` is compiled; all classes share the other
methods.
"""

from __future__ import annotations

import dataclasses
from dataclasses import FrozenInstanceError, fields
from functools import cache
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen: bool, eq: bool = True) -> Any:
        """Return a decorator like ``dataclasses.dataclass(frozen=True)``."""
        assert frozen, "use `dataclasses.dataclass`"
        methods = _METHODS | (_COMPARISON if eq else {})

        def define(kind: type) -> type:
            # A class that inherits from a frozen dataclass must be defined as frozen.
            is_derived = dataclasses.is_dataclass(kind)
            kind = dataclasses.dataclass(frozen=is_derived, eq=False, repr=False)(kind)
            kind.__dataclass_params__.frozen = True
            for name, method in methods.items():
                if name not in vars(kind):
                    setattr(kind, name, method)
            return kind

        return define


@cache
def _compared(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind) if field.compare)


def _values(settings: Any) -> tuple[Any, ...]:
    return tuple([getattr(settings, name) for name in _compared(settings.__class__)])


def _is_equal(self: Any, other: object) -> Any:
    return _values(self) == _values(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


@recursive_repr()
def _repr(self: Any) -> str:
    shown = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _is_fixed(settings: Any, name: str) -> bool:
    """Whether an attribute is frozen: a field, or any attribute of a class that is a dataclass."""
    return name in settings.__dataclass_fields__ or "__dataclass_fields__" in vars(type(settings))


def _set(self: Any, name: str, value: Any) -> None:
    is_new = name in self.__dataclass_fields__ and name not in vars(self)  # in `__init__`
    if not is_new and _is_fixed(self, name):
        raise FrozenInstanceError(f"cannot assign to field {name!r}")
    object.__setattr__(self, name, value)


def _delete(self: Any, name: str) -> None:
    if _is_fixed(self, name):
        raise FrozenInstanceError(f"cannot delete field {name!r}")
    object.__delattr__(self, name)


_COMPARISON = {"__eq__": _is_equal, "__hash__": _hash}
_METHODS = {"__repr__": _repr, "__setattr__": _set, "__delattr__": _delete}
