"""A row of the table of parameters, and its text in a docstring."""

import math
from typing import Any, NamedTuple


class Number(NamedTuple):
    """A number within limits, e.g. "float in [0, 1)" in a docstring."""

    kind: type[int] | type[float] = float
    above: float = -math.inf
    at_least: float = -math.inf
    below: float = math.inf
    at_most: float = math.inf

    def __str__(self) -> str:
        """Return the limits as a type for numpydoc."""
        end = f"{self.below})" if self.at_most == math.inf else f"{self.at_most}]"
        limits = f"in [{self.at_least}, {end}"
        if end == "inf)":
            is_least = self.above == -math.inf
            limits = f"of at least {self.at_least}" if is_least else f"above {self.above}"
        return f"{self.kind.__name__} {limits}"


class Option(NamedTuple):
    """An option of ``mlp-xp train``.

    By default, it has the parameter's name, and its help is the parameter's `summary`.
    """

    metavar: str | None = None
    help: str = ""
    name: str = ""


class Parameter(NamedTuple):
    """A parameter of the estimators.

    ``values`` are scikit-learn's constraints, except that a tuple lists names, and that a string
    "module:Class" stands for a class that is slow to import. ``type`` is the type in the docstring,
    where {} stands for the names or the `Number`; if it is "", the docstring lists the values. If
    ``free_on_resume`` is true, a resumed fit may change the parameter. If ``own_per_rank`` is true,
    each process of a fit may have its own value.
    """

    default: Any
    values: Any
    group: str
    type: str = ""
    option: Option | None = None
    free_on_resume: bool = False
    own_per_rank: bool = False
    text: str = ""

    @property
    def known(self) -> Any:
        """The names to choose from, or the limits of a number, otherwise None."""
        return next((value for value in self.values if isinstance(value, tuple)), None)

    @property
    def summary(self) -> str:
        """The first sentence of the text, without capital letter and period."""
        text = " ".join(self.text.split()).partition(". ")[0].rstrip(".")
        return text[0].lower() + text[1:]

    def described(self, name: str) -> str:
        """Return the parameter's entry in a docstring."""
        kind = self.type.format(_type_text(self.known)) or " or ".join(map(_type_text, self.values))
        default = f'"{self.default}"' if isinstance(self.default, str) else self.default
        text = self.text.strip().replace("\n        ", "\n    ")
        return f"{name} : {kind}, default={default}\n    {text}\n"


def _type_text(value: Any) -> str:
    """Return a constraint as a type for numpydoc."""
    if isinstance(value, Number) or not isinstance(value, tuple):
        return "bool" if value == "boolean" else str(value)
    names = ", ".join(f'"{name}"' for name in value)
    return f"{{{names}}}" if len(value) > 1 else names
