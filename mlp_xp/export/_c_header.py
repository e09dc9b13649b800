"""Names and inputs that all parts of a C header use."""

from __future__ import annotations

from typing import NamedTuple

from mlp_xp.compiler.c_expressions import C_TYPES


class Names(NamedTuple):
    """The name that begins all names of a header, and the dtype of its numbers."""

    name: str
    dtype: str

    @property
    def caps(self) -> str:
        """The name in capitals, for macros."""
        return self.name.upper()

    @property
    def type(self) -> str:
        """The C type of numbers."""
        return C_TYPES[self.dtype]

    @property
    def function(self) -> str:
        """The macro that begins the declaration of each function."""
        return f"{self.caps}_FUNCTION"

    @property
    def placeholders(self) -> dict[str, str]:
        """The values of the placeholders that all files of ``c_parts`` have."""
        return {"name": self.name, "NAME": self.caps, "T": self.type, "F": self.function}


class Output(NamedTuple):
    """An output: its name, how many numbers it has, and the labels of their classes, if any.

    A row belongs to one of the classes if ``is_exclusive`` is true.
    """

    name: str
    size: int
    labels: list[str] | None
    is_exclusive: bool

    @property
    def ending(self) -> str:
        """The end of the names of functions, such as ``_0`` for the first of several targets."""
        return self.name.removeprefix("probabilities")


class Inputs(NamedTuple):
    """The inputs of a header, as C text.

    Attributes
    ----------
    parameter : str
        The parameter of the functions that predict.
    argument : str
        The argument for it, where the row is a variable called ``row``.
    row_type, row_suffix : str
        They declare such a variable: ``{row_type} row{row_suffix}``.
    about : list of str
        Lines that say what a row is.
    declarations : str
        The struct of a row, and the functions that encode it.
    encode : str
        The statement that encodes the parameter as ``x``; "" if the parameter is ``x``.
    includes : tuple of str
        The headers that the declarations need.
    """

    parameter: str
    argument: str
    row_type: str
    row_suffix: str
    about: list[str]
    declarations: str = ""
    encode: str = ""
    includes: tuple[str, ...] = ()
