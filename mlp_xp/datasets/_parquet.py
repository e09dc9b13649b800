"""Parquet files read by polars in another process.

A damaged file makes polars panic, with Rust's backtrace on stderr and an exception that is no
`Exception`, or abort the process.
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Numbers travel as `.npy` files and other values as JSON: nothing is unpickled.
_CODE = """
import json, pathlib, sys

out = pathlib.Path(sys.argv[2])
try:
    import numpy as np
    import polars

    frame = polars.read_parquet(sys.argv[1])
    for i, name in enumerate(frame.columns):
        values = frame[name].to_numpy()
        if values.dtype.kind in "biuf":
            np.save(out / f"{i}.npy", values)
        else:
            (out / f"{i}.json").write_text(json.dumps(frame[name].to_list(), default=str))
    (out / "names.json").write_text(json.dumps(frame.columns))
except BaseException as error:
    (out / "error.txt").write_text(str(error), encoding="utf-8")
    sys.exit(1)
"""


def read_polars(path: Path) -> dict[str, NDArray[Any]]:
    """Read the columns of a Parquet file by polars.

    Raises
    ------
    ImportError
        polars is not installed.
    ValueError
        The file is damaged.
    """
    if importlib.util.find_spec("polars") is None:
        raise ImportError("polars")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-P", "-c", _CODE, str(path), name]
        if subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).returncode:
            reason = folder / "error.txt"
            raise ValueError(
                reason.read_text(encoding="utf-8") if reason.exists() else "polars aborts"
            )
        names = json.loads((folder / "names.json").read_text())
        return {name: _column(folder / str(i)) for i, name in enumerate(names)}


def _column(path: Path) -> NDArray[Any]:
    if (numbers := path.with_suffix(".npy")).exists():
        array: NDArray[Any] = np.load(numbers)
        return array
    values = json.loads(path.with_suffix(".json").read_text())
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
