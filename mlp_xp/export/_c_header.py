"""What the parts of a C header agree on: its names, and its inputs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

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


class Inputs(NamedTuple):
    """The inputs of a header, as C text: a parameter, and how to encode it as ``x``.

    ``row_type`` and ``row_suffix`` declare an array of rows, such as `rows`, which has the
    initializer and the encoding of each row.
    """

    parameter: str
    declarations: str
    encode: str
    about: list[str]
    example: list[str]
    argument: str
    row_type: str
    rows: list[tuple[str, np.ndarray]]
    includes: tuple[str, ...]
    row_suffix: str = ""
