"""Predictions for tables that are read in parts, written to Parquet part by part."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp._utils.columns.streams import is_table_stream
from mlp_xp._utils.names import error_end, list_names
from mlp_xp._utils.optional import optional
from mlp_xp._utils.storage.durable import make_folder, replacing
from mlp_xp.datasets._arrow import open_blocks, write_tables
from mlp_xp.datasets._dataset import DatasetError
from mlp_xp.datasets.parquet import Parquet


def write_predictions(
    model: Any, X: Any, out: str | os.PathLike[str], *, columns: Sequence[str] = ()
) -> int:
    """Predict a table that does not fit into memory, and write the predictions to a Parquet file.

    The rows are in the order of X. Only a few row groups are in memory at a time. The file appears
    under its name when it is complete; if it exists, it is replaced.

    Parameters
    ----------
    model : estimator
        A fitted classifier, regressor or ensemble.
    X : Parquet, str, path-like, polars LazyFrame or function
        A table that is read in parts, as in `fit`, or the path or pattern of Parquet files.
    out : str or path-like
        The file to write. Classifiers write ``label`` and a column ``probability_<class>`` for each
        class; regressors write ``prediction``. For several targets, the names have the target's
        position, e.g. ``label_0`` and ``probability_0_<class>``.
    columns : sequence of str, default=()
        Columns of X to copy to the file, such as the rows' numbers.

    Returns
    -------
    int
        The number of rows.

    Raises
    ------
    DatasetError
        A ValueError, if files are missing, damaged or change, if a column is missing, or if `out`
        is one of the files to read. The error names the file, and no file is written.

    Examples
    --------
    >>> from mlp_xp.datasets import write_predictions
    >>> write_predictions(model, "new/*.parquet", "p.parquet", columns=["id"])  # doctest: +SKIP
    100000000
    """
    if isinstance(columns, str):
        raise TypeError(f"`columns` must be a list of names, got the text {columns!r}.")
    from sklearn.utils.validation import check_is_fitted  # Import only if needed.

    check_is_fitted(model)
    X = Parquet(X) if isinstance(X, str | os.PathLike) else X
    if not is_table_stream(X):
        raise TypeError(
            "X must be a Parquet, a path, a polars LazyFrame or a function that returns an Arrow "
            f"reader, got a {type(X).__name__}: call predict for data in memory."
        )
    path = Path(out)
    if path.suffix.lower() != ".parquet":
        raise ValueError(f"`out` must end in .parquet, got {os.fspath(out)!r}.")
    if isinstance(X, Parquet) and path.resolve() in {Path(f).resolve() for f in X.find_files()}:
        raise DatasetError(f"{path} is one of the files to predict: choose another name for `out`.")
    make_folder(path.parent)
    with replacing(path) as temporary:
        n_rows = write_tables(temporary, _predict(model, X, list(columns)))
        if not n_rows:
            raise DatasetError("X has no rows: choose files that have rows, or change the filters.")
    return n_rows


def _predict(model: Any, X: Any, columns: list[str]) -> Iterator[Any]:
    """Yield the copied columns and the predictions of each part of X, as tables of pyarrow."""
    arrow = optional("pyarrow", "parquet")
    names = getattr(model, "feature_names_in_", None)
    inputs = None if names is None else names.tolist()
    for block in open_blocks(X, inputs=None if inputs is None else [*inputs, *columns])[0]:
        for frame in block.read():
            known = frame.column_names
            if missing := [name for name in columns if name not in known]:
                end, shown = error_end(missing[0], known), list_names(known)
                raise DatasetError(
                    f"{block.where} has no column {missing[0]!r} to copy{end} It has {shown}."
                )
            given = [name for name in known if inputs is None or name in inputs]
            found = {name: frame[name] for name in columns}
            with block.naming():
                predicted = _columns(model, frame.select(given))
            if both := found.keys() & predicted.keys():
                raise DatasetError(
                    f"`columns` has {min(both)!r}, which is also the name of a column of the "
                    "predictions: rename it in X."
                )
            yield arrow.table(found | predicted)


def _columns(model: Any, frame: Any) -> dict[str, np.ndarray]:
    """Return the predictions for a frame as columns of a file."""
    if not hasattr(model, "classes_"):
        return _by_target("prediction", model.predict(frame))
    p, classes = model.predict_proba(frame), model.classes_
    are_several = isinstance(classes, list)
    if are_several or np.ndim(model.predict(frame.slice(0, 1))) > 1:
        columns = _by_target("label", model.predict(frame))
    else:
        columns = {"label": classes[np.argmax(p, axis=1)]}
    pairs = zip(classes, p, strict=True) if are_several else [(classes, p)]
    for i, (names, one) in enumerate(pairs):
        start = f"probability_{i}_" if are_several else "probability_"
        columns |= {f"{start}{name}": one[:, k] for k, name in enumerate(names)}
    return columns


def _by_target(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    if values.ndim == 1:
        return {name: values}
    return {f"{name}_{i}": column for i, column in enumerate(values.T)}
