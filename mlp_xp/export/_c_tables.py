"""The columns of a table as a C struct, and their encoding as the network's inputs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mlp_xp._utils.columns.categories import MISSING
from mlp_xp.compiler.c_expressions import c_literal
from mlp_xp.estimators.tables.columns import TableColumns
from mlp_xp.estimators.tables.kinds import CategoryColumn, Column, EmptyColumn, NumberColumn
from mlp_xp.estimators.tables.scaling import Affine, Quantile
from mlp_xp.export._c_header import Inputs, Names
from mlp_xp.export._c_text import c_part, comment, identifiers, in_lines, number_array, string_array
from mlp_xp.export._normal_scores import (
    EDGE,
    MIDDLE_BOTTOM,
    MIDDLE_TOP,
    TAIL_BOTTOM,
    TAIL_TOP,
    round_jumps,
)

_SPACES = [chr(code) for code in range(0x3001) if chr(code).isspace()]

_COEFFICIENTS = {
    "middle_top": MIDDLE_TOP,
    "middle_bottom": MIDDLE_BOTTOM,
    "tail_top": TAIL_TOP,
    "tail_bottom": TAIL_BOTTOM,
}


class Member(NamedTuple):
    """A member of the struct: its name and type in C, and what it holds."""

    name: str
    type: str
    held: str


def takes_struct(columns: TableColumns | None) -> bool:
    """Whether a row is a struct; a row of numbers only is an array, as in other exports."""
    if columns is None:
        return False
    return not all(isinstance(column, NumberColumn) for column in columns.columns)


def members_of(columns: TableColumns, number: str) -> list[list[Member]]:
    """Return the members of each column; columns that were empty in the fit have none.

    ``number`` is the C type of numbers.
    """
    held = [_held(column) for column in columns.columns]
    names = iter(identifiers([name for parts in held for name in parts]))
    types = ["const char *" if _is_text(column) else f"{number} " for column in columns.columns]
    return [
        [Member(next(names), type_, part) for part in parts]
        for parts, type_ in zip(held, types, strict=True)
    ]


def _held(column: Column) -> tuple[str, ...]:
    if isinstance(column, EmptyColumn):
        return ()
    return column.number_names or (column.name,)


def _is_text(column: Column) -> bool:
    return isinstance(column, CategoryColumn) and column.is_text


def missing_text(names: Names) -> str:
    """Return the C function that recognizes words for missing values."""
    words = sorted(MISSING)
    values = {
        "spaces": _indent(string_array("spaces", _SPACES)),
        "words": _indent(string_array("words", words)),
        "n_spaces": len(_SPACES),
        "n_words": len(words),
        "n_chars": max(map(len, words)) + 1,
    }
    return c_part("is_missing", names.placeholders | values)


def has_text(columns: TableColumns | None) -> bool:
    """Whether the header contains the function of `missing_text` for a table."""
    return columns is not None and any(map(_is_text, columns.columns))


def table_inputs(tables: Sequence[TableColumns], names: Names) -> Inputs:
    """Return the inputs of a header for a table.

    Parameters
    ----------
    tables : sequence of TableColumns
        The different encodings of the networks of an ensemble, mostly one. The encoded inputs of
        all of them stand one after the other.
    names : Names

    Raises
    ------
    ValueError
        If C cannot represent a column.
    """
    first = tables[0]
    is_struct = takes_struct(first)
    row = f"{names.name}_row" if is_struct else names.type
    body = ""
    for i, table in enumerate(tables):
        block = "".join(_encode(table, names))
        block = f"int i;\n{block}" if "(i = 0;" in block else block
        body += f"{{\n{_indent(block)}}}\n" if len(tables) > 1 else block
        body += f"x += {len(table.input_names)};\n" if i + 1 < len(tables) else ""
    encode = (
        f"\n/* Encode a row of the table as the network's inputs. */\n"
        f"{names.function} void {names.name}_encode(const {row} *row, {names.type} *x)\n"
        f"{{\n{_indent(body)}}}\n"
    )
    struct = _struct(first, names) if is_struct else ""
    return Inputs(
        parameter=f"const {row} *row",
        argument="&row" if is_struct else "row",
        row_type=row,
        row_suffix="" if is_struct else f"[{len(first.columns)}]",
        about=_about(first, is_struct=is_struct),
        declarations=struct + _helpers(tables, names) + encode,
        encode=f"{names.name}_encode(row, x);",
        includes=("string.h",) if has_text(first) else (),
    )


def _about(columns: TableColumns, *, is_struct: bool) -> list[str]:
    """Return lines that say what a row is."""
    if is_struct:
        return ["A row is a struct with a member for each column."]
    return [
        f"A row is {len(columns.columns)} numbers, in the order of the columns; NAN is missing."
    ]


def _struct(columns: TableColumns, names: Names) -> str:
    """Return the definition of the struct of a row."""
    lines = [
        f"    {member.type}{member.name}; {comment(member.held)}\n"
        for members in members_of(columns, names.type)
        for member in members
    ]
    return (
        "\n/* A row of the table. NAN is a missing number; NULL or empty text is missing text. */\n"
        f"typedef struct {names.name}_row {{\n{''.join(lines)}}} {names.name}_row;\n"
    )


def _helpers(tables: Sequence[TableColumns], names: Names) -> str:
    """Return the C functions that the encodings of tables call."""
    columns = [column for table in tables for column in table.columns]
    categories = [column for column in columns if isinstance(column, CategoryColumn)]
    values: dict[str, Any] = {**names.placeholders}
    parts = []
    if any(map(_is_text, categories)):
        parts += [missing_text(names), c_part("find_text", values)]
    if not all(map(_is_text, categories)):
        parts.append(c_part("find_number", values))
    if any(isinstance(table.scaling, Quantile) for table in tables):
        arrays = (
            number_array(variable, np.asarray(numbers), "float64")
            for variable, numbers in _COEFFICIENTS.items()
        )
        values |= {"coefficients": _indent("".join(arrays)), "edge": EDGE}
        parts.append(c_part("normal_score", values))
    return "".join(parts)


def _encode(columns: TableColumns, names: Names) -> Iterator[str]:
    """Yield the statements that encode a row."""
    n_numbers, kind = len(columns.medians), names.type
    members = members_of(columns, kind)
    if n_numbers:
        yield from _encode_numbers(columns, names, members)
    place, first_code = n_numbers + len(columns.indicators), 0
    code_place = len(columns.input_names) - len(columns.categories)
    for column, found in zip(columns.columns, members, strict=True):
        if not isinstance(column, CategoryColumn):
            continue
        if column.is_embedded:
            use = f"x[{code_place}] = ({kind})({first_code} + code);\n"
            code_place, first_code = code_place + 1, first_code + column.n_codes
        else:
            use = _one_hot(column, place, kind)
            place += len(column.category_names)
        yield f"{{\n{_indent(_find_code(column, names, found[0].name) + use)}}}\n"


def _encode_numbers(
    columns: TableColumns, names: Names, members: list[list[Member]]
) -> Iterator[str]:
    """Yield the statements that impute and scale the numbers, and show which are missing."""
    n, kind, scaling = len(columns.medians), names.type, columns.scaling
    dtype = names.dtype
    held = [c.name for c in columns.columns for _ in c.number_names]
    medians = columns.medians
    if takes_struct(columns):
        pairs = zip(columns.columns, members, strict=True)
        values = [f"row->{m.name}" for column, found in pairs if column.number_names for m in found]
        yield f"const {kind} numbers[{n}] = {in_lines(values)};\n"
    else:
        yield f"const {kind} *numbers = row;\n"
    if scaling is not None:
        medians = scaling.apply(medians[None, :].copy())[0]
    arrays = {"medians": medians}
    scaled = "numbers[i]"
    if isinstance(scaling, Affine):
        # Subtract the rounded shift, then its rounding error, which matters e.g. for years.
        shift = scaling.shift.astype(dtype).astype(np.float64)
        arrays |= {"shift": shift, "rest": scaling.shift - shift, "scale": scaling.scale}
        scaled = "(numbers[i] - shift[i] - rest[i]) * scale[i]"
    elif scaling is not None:
        quantiles = round_jumps(scaling.quantiles, dtype)
        yield number_array("quantiles", quantiles.T.ravel(), "float64")
        given = f"(double)numbers[i], quantiles + i * {len(quantiles)}, {len(quantiles)}"
        scaled = f"({kind}){names.name}_normal_score({given})"
    for variable, array in arrays.items():
        _check_range(held, array, dtype)
        yield number_array(variable, array, dtype)
    yield f"for (i = 0; i < {n}; i++) {{\n    const {kind} z = {scaled};\n"
    if isinstance(scaling, Affine) and scaling.is_clipped:
        # The square root of 1 + (z / bound)^2, without overflow.
        bound = c_literal(Affine.bound, dtype)
        one, suffix = c_literal(1.0, dtype), "f" if dtype == "float32" else ""
        clipped = f"z / hypot{suffix}({one}, z / {bound})"
        yield f"    x[i] = isnan(numbers[i]) ? medians[i] : {clipped};\n}}\n"
    else:
        yield "    x[i] = isnan(numbers[i]) ? medians[i] : z;\n}\n"
    for place, number in enumerate(columns.indicators, n):
        yield f"x[{place}] = ({kind})(isnan(numbers[{number}]) != 0);\n"


def _check_range(names: list[str], values: np.ndarray, dtype: str) -> None:
    """Raise ValueError if a constant of a column is too large for a dtype."""
    with np.errstate(over="ignore"):
        is_large = np.isinf(values.astype(dtype))
    if np.any(is_large):
        raise ValueError(
            f"{names[int(np.argmax(is_large))]!r} has values that {dtype} cannot scale: export "
            "with dtype='float64'."
        )


def _find_code(column: CategoryColumn, names: Names, member: str) -> str:
    """Return the declarations of a column's categories, and of the code of a row."""
    n, dtype = len(column.values), names.dtype
    if column.is_text:
        try:
            values = string_array("values", [*map(str, column.values)])
        except ValueError as error:
            raise ValueError(
                f"C cannot represent a category of {column.name!r}: {error}. Replace it, and fit "
                "again."
            ) from None
    else:
        levels = np.asarray(column.values, np.float64)
        if len(np.unique(levels.astype(dtype))) < n:
            raise ValueError(
                f"{column.name!r} has categories that are equal in {dtype}: export with "
                "dtype='float64', or fit on text."
            )
        values = number_array("values", levels, dtype)
    function = f"{names.name}_find_{'text' if column.is_text else 'number'}"
    rest = "" if column.has_missing or column.is_embedded else f"code = code > {n} ? 0 : code;\n"
    const = "" if rest else "const "
    return f"{values}{const}int code = {function}(row->{member}, values, {n});\n{rest}"


def _one_hot(column: CategoryColumn, place: int, kind: str) -> str:
    """Return the statement that writes the one-hot inputs of a category."""
    rows, n = column.rows, len(column.category_names)
    if n == 1 and rows.min() < 0.0:
        return f"x[{place}] = ({kind})((code == 2) - (code == 1));\n"
    first = 0 if column.has_rare else 1
    return (
        f"for (i = 0; i < {n}; i++) {{\n    x[{place} + i] = ({kind})(code == {first} + i);\n}}\n"
    )


def _indent(text: str) -> str:
    return textwrap.indent(text, "    ")
