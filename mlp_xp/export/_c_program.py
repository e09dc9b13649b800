"""The program that a C header contains: it reads rows of a CSV file, and prints predictions."""

from __future__ import annotations

import textwrap

from mlp_xp.estimators.tables.columns import TableColumns
from mlp_xp.estimators.tables.kinds import CategoryColumn, DateColumn, EmptyColumn
from mlp_xp.export._c_header import Names
from mlp_xp.export._c_tables import has_text, members_of, missing_text, takes_struct
from mlp_xp.export._c_text import c_part, string_array

_BYTES_A_FIELD, _MIN_BYTES = 64, 1 << 16

_LARGEST = {"float32": "3.4028234663852886e38", "float64": "1.7976931348623157e308"}
_DIGITS = {"float32": 9, "float64": 17}  # These numbers of digits keep all bits.


def program_text(
    names: Names, columns: TableColumns | None, n_features: int, *, may_be_missing: bool
) -> str:
    """Return the program's source, which is compiled only with ``-DNAME_MAIN``.

    Parameters
    ----------
    names : Names
    columns : TableColumns or None
        The columns of a table; None if the network takes an array.
    n_features : int
        The length of the array.
    may_be_missing : bool
        Whether numbers may be missing.
    """
    n_fields = n_features if columns is None else len(columns.columns)
    longest = max(_MIN_BYTES, _BYTES_A_FIELD * n_fields)
    kind = int(may_be_missing)
    if columns is not None and takes_struct(columns):
        declared = [f"{names.name}_row row;"]
        statements = _fill_struct(names, columns, kind)
        argument, labels = "&row", string_array("columns", [*map(_shown, columns.names)])
    else:
        declared = [f"static {names.type} x[{n_fields}];"]
        statements = [
            f"for (i = 0; i < {n_fields}; i++) {{",
            f"    x[i] = {names.name}_number(number, i, fields[i], {kind});",
            "}",
        ]
        argument, labels = "x", ""
    used = columns.columns if columns is not None else ()
    has_dates = any(isinstance(column, DateColumn) for column in used)
    declared += ["double parts[5];"] if has_dates else []
    values = {
        **names.placeholders,
        "n_fields": n_fields,
        "longest": longest,
        "columns": textwrap.indent(labels, "    "),
        "label": " (%s)" if labels else "",
        "argument": argument,
        "which": ", columns[column]" if labels else "",
        "largest": _LARGEST[names.dtype],
        "digits": _DIGITS[names.dtype],
        "declarations": "\n    ".join(declared),
        "statements": "\n".join(f"        {line}" for line in statements),
    }
    files = ["head", "reader", "number", *(["date"] if has_dates else []), "main"]
    head, *others = (c_part(file, values) for file in files)
    missing = "" if has_text(columns) else missing_text(names)
    return f"{head}{missing}{''.join(others)}#endif /* {names.caps}_MAIN */\n"


def _fill_struct(names: Names, columns: TableColumns, kind: int) -> list[str]:
    """Return the statements that fill the struct of a row from the fields."""
    lines = []
    for i, (column, members) in enumerate(
        zip(columns.columns, members_of(columns, names.type), strict=True)
    ):
        place = f"number, {i}, fields[{i}]"
        targets = [f"row.{member.name}" for member in members]
        match column:
            case EmptyColumn():
                pass
            case DateColumn():
                lines.append(f"{names.name}_date({place}, {kind}, parts);")
                first = 4 if column.direction else 0  # A constrained date is a single number.
                lines += [
                    f"{target} = ({names.type})parts[{j}];"
                    for j, target in enumerate(targets, first)
                ]
            case CategoryColumn(is_text=True):
                lines.append(f"{targets[0]} = *fields[{i}] ? fields[{i}] : NULL;")
            case CategoryColumn():
                kind_of_category = 2 if {*column.values} <= {0.0, 1.0} else 1
                lines.append(f"{targets[0]} = {names.name}_number({place}, {kind_of_category});")
            case _:
                lines.append(f"{targets[0]} = {names.name}_number({place}, {kind});")
    return lines


def _shown(name: str) -> str:
    """Return a column's name for an error in a terminal."""
    return repr(name)[1:-1]
