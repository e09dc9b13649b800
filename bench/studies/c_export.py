"""A row at a time: networks exported to C, beside onnxruntime, on one thread.

A turn trains a network on random pixels, exports it, and predicts one row after another in a new
process. The fastest of many repetitions counts, because other programs only add time.
"""

import ctypes
import subprocess
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bench.suite.records import Result
from bench.suite.tables import Table, reasons, seconds
from bench.suite.turns import Announce, Options, Part, call, in_turns

NETWORKS = ("64-13-10", "64-100-32-10", "64-280-280-10")
ONNX, C, NATIVE = "onnxruntime", "C", "C, native"
INT8, INT8_NATIVE = "C, int8", "C, int8, native"
# The dtype and the options of the compiler.
HEADERS = {
    C: ("float32", ["-O2"]),
    NATIVE: ("float32", ["-O3", "-march=native"]),
    INT8: ("int8", ["-O2"]),
    INT8_NATIVE: ("int8", ["-O3", "-march=native"]),
}
SECONDS, CALL = 0.3, 20e-6  # The time of a turn, and about the time of a repetition.
N_ROWS = 16
LOOP = """
#include "net.h"
void predict_rows(const float *x, float *out, long n)
{
    long i;
    for (i = 0; i < n; i++)
        net_predict(x + (i % ROWS) * COLUMNS, out);
}
"""


def row_time(name: str, network: str, folder: str) -> Result:
    """Return the seconds that a row takes, and the bytes of the export."""
    from mlp_xp import MLPClassifier

    rng, widths = np.random.default_rng(0), _widths(network)
    X = rng.integers(0, 17, (512, widths[0])).astype(np.float32)
    settings: Any = {"max_iter": 2, "learning_rate": "cosine", "random_state": 0}
    model = MLPClassifier(widths[1:-1], input_scaling="standardize", **settings)
    model.fit(X, np.arange(len(X)) % widths[-1])
    prepare = _onnx if name == ONNX else partial(_c, *HEADERS[name])
    run, n_bytes = prepare(model, X, Path(folder))
    n = 1
    while _time(run, n) < CALL:  # Long enough for the clock.
        n *= 2
    best, end = np.inf, time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        best = min(best, _time(run, n) / n)
    return {"seconds": best, "bytes": n_bytes}


def _time(run: Callable[[int], object], n: int) -> float:
    start = time.perf_counter()
    run(n)
    return time.perf_counter() - start


def _onnx(model: Any, X: np.ndarray, folder: Path) -> tuple[Callable[[int], object], int]:
    import onnxruntime

    from mlp_xp.export import to_onnx

    file = folder / "net.onnx"
    to_onnx(model, file, precision="float32")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options)
    binding = session.io_binding()  # The fastest way to predict from Python.
    binding.bind_cpu_input("X", X[:1])
    probabilities = np.empty((1, len(model.classes_)), np.float32)
    place = {"device_type": "cpu", "device_id": 0, "element_type": np.float32}
    address = {"shape": probabilities.shape, "buffer_ptr": probabilities.ctypes.data}
    binding.bind_output("probabilities", **place, **address)

    def run(n: int) -> None:
        for _ in range(n):
            session.run_with_iobinding(binding)

    run(1)
    np.testing.assert_allclose(probabilities, model.predict_proba(X[:1]), atol=1e-5)
    return run, file.stat().st_size


def _c(
    dtype: str, options: list[str], model: Any, X: np.ndarray, folder: Path
) -> tuple[Callable[[int], object], int]:
    from mlp_xp.export import to_c

    to_c(model, folder / "net.h", dtype=dtype, calibration_X=X if dtype == "int8" else None)
    source = LOOP.replace("ROWS", str(N_ROWS)).replace("COLUMNS", str(X.shape[1]))
    (folder / "net.c").write_text(source)
    library = folder / "net.so"
    command = ["cc", *options, "-shared", "-fPIC", "-s", folder / "net.c", "-o", library, "-lm"]
    subprocess.run(command, check=True)
    predict = ctypes.CDLL(str(library)).predict_rows
    rows = np.ascontiguousarray(X[:N_ROWS])
    out = np.empty(len(model.classes_), np.float32)
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (rows, out)]
    predict(*pointers, ctypes.c_long(1))
    expected = model.predict_proba(rows[:1])[0]
    np.testing.assert_allclose(out, expected, atol=0.05 if dtype == "int8" else 1e-5)
    return lambda n: predict(*pointers, ctypes.c_long(n)), library.stat().st_size


def measure(options: Options, announce: Announce) -> Result:
    """Return the time of each export and network, one entry for each round."""
    found: Result = {}
    for network in options.chosen(NETWORKS):
        turns = {}
        for name in options.listed([ONNX, *HEADERS]):
            folder = options.scratch / f"{network} {name}"
            folder.mkdir(exist_ok=True)
            turns[name] = partial(call, row_time, name, network, str(folder))
        found[network] = in_turns(turns, options.rounds, announce)
    return found


def _widths(network: str) -> list[int]:
    return [*map(int, network.split("-"))]


def tables(found: Result) -> list[Table]:
    rows, missing = [], {}
    for network, runs in found.items():
        missing |= reasons({name: run for name, run in runs.items() if isinstance(run, dict)})
        n_weights = sum(a * b for a, b in pairwise(_widths(network)))
        ran = {name: run for name, run in runs.items() if isinstance(run, list)}
        times = {name: min(turn["seconds"] for turn in turns) for name, turns in ran.items()}
        best = min(times.values(), default=None)
        for name, taken in times.items():
            text = f"**{seconds(taken)}**" if taken == best else seconds(taken)
            against = f"{times[ONNX] / taken:.1f}" if ONNX in times else ""
            size = f"{ran[name][0]['bytes'] / 1e3:,.0f}"
            rows.append([f"{n_weights:,}", name, text, against, size])
    columns = ["weights", "export", "one row", f"{ONNX} / it", "kB"]
    return [Table(PART.title, columns, rows, missing, terms=TERMS)]


TERMS = (
    f"The networks are {', '.join(NETWORKS)}, and a prediction is one row, on one thread. The "
    f"fastest of all repetitions counts. *{ONNX}* is called from Python, with inputs and outputs "
    "bound in advance. *C* is compiled with `cc -O2`, and *native* with `cc -O3 -march=native`. "
    "kB: the ONNX file, which also needs the runtime of 35 MB, or the whole compiled "
    "library."
)
PART = Part("A row at a time in C", measure, tables)
