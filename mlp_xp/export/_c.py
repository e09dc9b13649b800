"""Export to C: a header that predicts without Python."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp import __version__
from mlp_xp.compiler.kernel import UnprintableError
from mlp_xp.compiler.print_c import Function, print_c
from mlp_xp.export._c_check import self_test_program, self_test_rows
from mlp_xp.export._c_header import Inputs, Names, Output
from mlp_xp.export._c_int8 import calibration_rows, find_ranges, quantize
from mlp_xp.export._c_network import NetworkGraph, trace_networks
from mlp_xp.export._c_program import program_text
from mlp_xp.export._c_tables import table_inputs
from mlp_xp.export._c_text import RESERVED, c_part, identifiers, string_array
from mlp_xp.export._files import check_path, write_file
from mlp_xp.export._members import members_of, states_of

_DTYPES = ("float32", "float64", "int8")
_TOLERANCES = {"float32": 1e-4, "float64": 1e-9, "int8": 0.05}
_MOST_NAMES = 20


def to_c(
    model: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    dtype: str = "float32",
    calibration_X: Any = None,
) -> str:
    """Return a fitted classifier, regressor or ensemble as a C header that predicts a row.

    The header is C99 and C++17. It needs only ``math.h``, and ``string.h`` for columns of text. It
    allocates no memory and has no global state, so threads can share it. Encoding of a table's
    columns, input scaling, test-time augmentation, calibration and class labels are part of it.

    Parameters
    ----------
    model : MLPClassifier, MLPRegressor, MLPEnsembleClassifier or MLPEnsembleRegressor
        Fitted, on any backend. An ensemble becomes one header that averages its networks.
    path : str or path-like, optional
        File to write, e.g. ``"iris.h"``; an existing file is replaced as a whole.
    name : str, optional
        A C identifier, with which all names in the header begin. By default, the name of the file,
        or ``"model"``.
    dtype : {"float32", "float64", "int8"}, default "float32"
        The dtype of inputs, weights and outputs. With ``"int8"``, inputs and outputs are float32;
        weights, and the inputs of each layer, have 8 bits. The header then has about a quarter of
        the size of float32, and matrix products consist of integers. Inputs outside of the
        calibrated range become its nearest number, and NaN becomes some number in it.
    calibration_X : frame or array-like of shape (samples, features), optional
        For ``dtype="int8"``: rows, e.g. a few hundred of the training data, that define the range
        of each layer's inputs.

    Returns
    -------
    str
        The header. For a name such as ``iris``, it defines:

        - ``iris_predict(const float *x, float *out)``, which predicts a row of unscaled numbers.
          For a table with categories or dates, the row is a struct ``iris_row`` with a member for
          each column: text (NULL or "" if missing) or numbers (NAN if missing).
        - ``iris_predict_with(x, out, work)``, which uses an array ``work`` of ``IRIS_WORK`` numbers
          instead of the stack. Integers, which networks in 8 bits have, stay on the stack. The head
          of the header says how many bytes of stack ``iris_predict`` needs.
        - ``IRIS_OUTPUTS``, the length of ``out``, and the positions of its parts:
          ``IRIS_PROBABILITIES`` for a classifier (``IRIS_PROBABILITIES_0``, ... for several
          targets), ``IRIS_PREDICTION`` for a regressor, and ``IRIS_STD`` and ``IRIS_QUANTILES``
          like the outputs of `to_onnx`.
        - ``iris_label(i)``, the text of class i, and ``iris_class(out)``, the most probable class.

        Compiled with ``-DIRIS_MAIN``, it is a program that reads rows of a CSV file without a
        header from standard input, and prints predictions. Compiled with ``-DIRIS_TEST``, it is a
        program that tests itself.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    ValueError
        For an unknown dtype, a name that is not an identifier, ``"int8"`` without rows, or columns
        and functions that C cannot represent.
    IsADirectoryError
        If `path` is a folder.
    TypeError
        If `model` is not an estimator of this package.

    Examples
    --------
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.export import to_c
    >>> X, y = [[0.0], [1.0], [2.0]], ["ant", "bee", "cat"]
    >>> model = MLPClassifier(4, max_iter=2, learning_rate="cosine").fit(X, y)
    >>> header = to_c(model, name="insects")
    >>> [line for line in header.splitlines() if line.startswith("#define INSECTS_OUTPUTS")]
    ['#define INSECTS_OUTPUTS 3']
    """
    if dtype not in _DTYPES:
        raise ValueError(f"`dtype` must be 'float32', 'float64' or 'int8', got {dtype!r}.")
    if dtype == "int8" and calibration_X is None:
        raise ValueError(
            "`dtype='int8'` needs rows that define the range of each layer's inputs: pass e.g. "
            "calibration_X=X_train[:500]."
        )
    check_path(path, "model.h")
    names = Names(_name(name, path), "float64" if dtype == "float64" else "float32")
    file = f"{names.name}.h" if path is None else Path(path).name
    text = _header(model, names, dtype, calibration_X, file)
    write_file(path, text.encode())
    return text


def _name(name: str | None, path: Any) -> str:
    """Return the name of a header; raise ValueError if it is not a C identifier."""
    if name is None:
        return identifiers([Path(path).stem])[0] if path is not None else "model"
    text = str(name)
    if text != name or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", text) or text in RESERVED:
        raise ValueError(
            f"`name` must be a C identifier, got {name!r}: pass name={identifiers([text])[0]!r}."
        )
    return name


def _header(model: Any, names: Names, dtype: str, calibration_X: Any, file: str) -> str:
    members = members_of(model)
    states = states_of(members)
    first = states[0]
    graph = trace_networks(model, members, states, names.dtype)
    exact = graph
    if dtype == "int8":
        ranges = find_ranges(graph, calibration_rows(members, states, calibration_X))
        exact, graph = quantize(graph, ranges, is_exact=True), quantize(graph, ranges)
    inputs = (
        table_inputs(graph.tables, names) if graph.tables else _array_inputs(model, first, names)
    )
    try:
        function = print_c(graph.results, {graph.x: "x"}, names.name, names.dtype)
    except UnprintableError as error:
        raise ValueError(
            f"The network has no C form: {error}. Export it with to_onnx or to_torch."
        ) from error
    rows = self_test_rows(first, names.dtype)
    expected = exact.run(exact.encode(rows))
    may_be_missing = all(member.missing_values != "error" for member in members)
    n_features = first.n_features
    # The network's buffers follow the encoded inputs.
    work_size = max(function.work_size, 1) + (graph.x.shape[1] if inputs.encode else 0)
    function = function._replace(work_size=work_size)
    return "".join([
        _about(model, names, inputs, graph.outputs, function, dtype, file),
        c_part("begin", names.placeholders),
        "".join(f"#include <{file}>\n" for file in inputs.includes),
        _sizes(names, graph, function, encodes=bool(inputs.encode)),
        "\n".join(["", *function.constants, ""]) if function.constants else "",
        inputs.declarations,
        _network(names, function),
        _predict(names, inputs),
        *(_classes(names, output) for output in graph.outputs),
        f"\n#endif /* {names.caps}_H */\n",
        program_text(names, first.columns, n_features, may_be_missing=may_be_missing),
        self_test_program(names, inputs, first.columns, rows, expected, _TOLERANCES[dtype]),
    ])  # fmt: skip


def _array_inputs(model: Any, state: Any, names: Names) -> Inputs:
    about = [f"A row is {state.n_features} numbers."]
    known = [str(one) for one in getattr(model, "feature_names_in_", ())]
    if known:
        shown = known if len(known) <= _MOST_NAMES else [*known[:_MOST_NAMES], "..."]
        about = [f"A row is {state.n_features} numbers: {', '.join(shown)}."]
    return Inputs(f"const {names.type} *x", "row", names.type, f"[{state.n_features}]", about)


def _about(
    model: Any,
    names: Names,
    inputs: Inputs,
    outputs: Sequence[Output],
    function: Function,
    dtype: str,
    file: str,
) -> str:
    """Return the comment at the head of the header."""
    stack = function.work_size * np.dtype(names.dtype).itemsize + function.local_bytes
    lines = [
        f"{names.name}: {type(model).__name__} as C, by mlp-xp {__version__}, in {dtype}; "
        f"{function.constant_bytes:,} bytes of weights, {stack:,} bytes of stack.",
        *inputs.about,
        "Example:",
    ]
    out = outputs[0]
    example = [
        f'#include "{file}"',
        f"{inputs.row_type} row{inputs.row_suffix} = {{ ... }};",
        f"{names.type} out[{names.caps}_OUTPUTS];",
        f"{names.name}_predict({inputs.argument}, out);",
    ]
    if out.labels is not None:
        index = f"{names.name}_class{out.ending}(out)" if out.is_exclusive else "0"
        example.append(f"puts({names.name}_label{out.ending}({index}));")
    else:
        example.append(f'printf("%g\\n", out[{names.caps}_PREDICTION]);')
    wrapped = [part for line in lines for part in textwrap.wrap(line, 96)]
    text = "\n   ".join([*wrapped, *(f"    {line}" for line in example)])
    return f"/* {_uncommented(text)}\n*/\n"


def _uncommented(text: str) -> str:
    """Return text without the marks of comments, and without characters that are not ASCII."""
    safe = text.replace("/*", "/ *").replace("*/", "* /")
    return safe.encode("ascii", "backslashreplace").decode()


def _sizes(names: Names, graph: NetworkGraph, function: Function, *, encodes: bool) -> str:
    """Return the macros of sizes and of positions of outputs."""
    n_outputs = sum(output.size for output in graph.outputs)
    sizes = {"OUTPUTS": n_outputs, "WORK": function.work_size}
    if encodes:
        sizes["ENCODED"] = graph.x.shape[1]
    place = 0
    for output in graph.outputs:
        sizes |= {output.name.upper(): place, f"{output.name.upper()}_SIZE": output.size}
        place += output.size
    return "\n" + "".join(f"#define {names.caps}_{size} {n}\n" for size, n in sizes.items())


def _network(names: Names, function: Function) -> str:
    body = "\n".join(f"    {line}" for line in function.body)
    unused = "" if re.search(r"\bwork\b", body) else "    (void)work;\n"
    unused += "" if re.search(r"\bx\[", body) else "    (void)x;\n"
    return (
        f"\n/* Compute the outputs of the networks for encoded inputs. */\n"
        f"{names.function} void {names.name}_network(const {names.type} *x, {names.type} *out, "
        f"{names.type} *work)\n{{\n{body}\n{unused}}}\n"
    )


def _predict(names: Names, inputs: Inputs) -> str:
    call = f"{names.name}_network(x, out, work);"
    given = inputs.parameter.rpartition("*")[2]
    if inputs.encode:
        call = (
            f"{names.type} *const x = work;\n    {inputs.encode}\n"
            f"    {names.name}_network(x, out, work + {names.caps}_ENCODED);"
        )
    values = {
        **names.placeholders,
        "parameter": inputs.parameter,
        "given": given,
        "call": call,
    }
    return c_part("predict", values)


def _classes(names: Names, output: Output) -> str:
    """Return the functions that name the classes of an output."""
    if output.labels is None:
        return ""
    try:
        labels = string_array("labels", output.labels)
    except ValueError as error:
        raise ValueError(
            f"C cannot represent a class: {error}. Replace it in y, and fit again."
        ) from None
    values = {
        **names.placeholders,
        "ending": output.ending,
        "start": f"{names.caps}_{output.name.upper()}",
        "n": len(output.labels),
        "labels": textwrap.indent(labels, "    "),
    }
    return c_part("label", values) + (c_part("class", values) if output.is_exclusive else "")
