"""Headers of C for many kinds of models and targets: 10,000 rows, compilers, 32 bits and WASM."""

import itertools
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas
import pytest
from c_compiler import C99, CPP17, build_program, compilers, predict_csv

from mlp_xp import MLPClassifier, MLPEnsembleClassifier, MLPRegressor
from mlp_xp.augmentation import Flip, Shift
from mlp_xp.export import to_c
from mlp_xp.nn.losses import Quantile

pytestmark = pytest.mark.matrix

RNG = np.random.default_rng(0)
N = 10_000
X = RNG.normal(size=(N, 12))
WORDS = [f"{i}. street" for i in range(30)]
LEVELS = (0.1, 0.5, 0.9)


def table(n):
    frame = pandas.DataFrame(
        {
            "age": RNG.integers(18, 80, n).astype(float),
            "born": pandas.Timestamp("1990-01-01")
            + pandas.to_timedelta(RNG.integers(0, 9**9, n), "s"),
            "city": RNG.choice(np.array(["Bern", "Oslo", "日本", None], object), n),
            "price": np.exp(RNG.normal(size=n)),
            "street": RNG.choice(WORDS, n),
            "zip": RNG.choice([1000.0, 2000.5, np.nan], n),
        }
    )
    frame.loc[RNG.random(n) < 0.2, ["age", "street"]] = np.nan
    frame.loc[RNG.random(n) < 0.1, "born"] = pandas.NaT
    return frame


TRAINING = 200
FRAME = table(N)
FRAME.loc[TRAINING::7, "city"] = "unknown"
FRAME.loc[TRAINING::9, "street"] = " N/A"
Y = (np.nan_to_num(FRAME["age"], nan=30.0) > 40).astype(int) + (X[:, 0] > 0)
SETTINGS = {"max_iter": 5, "learning_rate": "cosine", "learning_rate_init": 0.01}
SETTINGS |= {"batch_size": 32, "random_state": 0}
COLUMNS = {
    "categorical_features": ["city", "street", "zip"],
    "missing_values": "impute",
    "input_scaling": "robust",
}


def classifier(sizes, **settings):
    return MLPClassifier(sizes, **SETTINGS | settings)


def regressor(sizes, **settings):
    return MLPRegressor(hidden_layer_sizes=sizes, **SETTINGS | settings)


def ensemble():
    settings = [{"max_one_hot": 2}, {"max_one_hot": 99}, {"input_scaling": "quantile"}]
    single = classifier((16,), calibration="temperature", early_stopping=True, **COLUMNS)
    return MLPEnsembleClassifier(single, 3, settings=settings, random_state=0)


IMAGES = [Flip((1, 3, 4)), Shift((1, 3, 4), pixels=1)]
# For each kind: an unfitted estimator, its rows, and its targets.
KINDS = {
    "binary": (classifier((16, 16)), X, Y > 0),
    "residual": (classifier((16, 16), activation="gelu", normalization="layer", residual=True),
                 X, Y),
    "multilabel": (classifier((16,), input_scaling="zca", normalization="batch"), X,
                   np.stack([Y > 0, Y > 1], axis=1).astype(int)),
    "several": (classifier((16,), activation="tanh"), X, np.stack([Y, Y > 1], axis=1)),
    "images": (classifier((16,), tta=IMAGES), X, Y),
    "values": (regressor((16, 16), target_scaling="standardize", clip_predictions=True), X,
               1000.0 + 50.0 * X[:, :2]),
    "gaussian": (regressor((16,), loss="gaussian", target_scaling="standardize"), X, X[:, 0]),
    "quantiles": (regressor((16,), loss=Quantile(LEVELS)), X, X[:, 0] + X[:, 1] ** 2),
    "members": (classifier((16, 16), n_members=4, numeric_embedding="pbld", embedding_dim=3,
                           **COLUMNS), FRAME, Y),
    "table": (classifier((16,), max_one_hot=5, **COLUMNS), FRAME, Y),
    "ensemble": (ensemble(), FRAME, Y),
}  # fmt: skip
# Differences may be as large as this part of a number's size: of the number itself, or of the
# largest in its row, or of the root mean square of the output, if that is more. So a probability
# near 0 and a value that is nearly 0 by chance may have a larger error in relation to themselves.
TOLERANCES = {"float32": 2e-5, "float64": 1e-6}


def fitted(kind, dtype):
    """Return a fitted estimator, and 10,000 rows of which it knows the first 200."""
    model, rows, targets = KINDS[kind]
    names = model.get_params()
    prefix = "estimator__" if "estimator" in names else ""
    model.set_params(**{f"{prefix}precision": dtype})
    model.fit(rows[:TRAINING], targets[:TRAINING])
    if kind == "quantiles":
        model.calibrate_intervals(rows[TRAINING : 2 * TRAINING], targets[TRAINING : 2 * TRAINING])
    return model, rows


def predictions(model, rows):
    """Return all outputs of a header, side by side."""
    if hasattr(model, "classes_"):
        found = model.predict_proba(rows)
        return np.concatenate(found if isinstance(found, list) else [found], axis=1)
    if model.loss == "gaussian":
        return np.stack(model.predict(rows, return_std=True), axis=1)
    values = [model.predict(rows)]
    if isinstance(model.loss, Quantile):
        values.append(model.predict(rows, quantiles=LEVELS))
    return np.concatenate([part.reshape(len(rows), -1) for part in values], axis=1)


@pytest.mark.parametrize("kind", KINDS)
def test_c_program_matches_predictions_for_ten_thousand_rows(kind, tmp_path):
    for dtype, tolerance in TOLERANCES.items():
        model, rows = fitted(kind, dtype)
        to_c(model, path := tmp_path / "net.h", dtype=dtype)
        text = rows
        if isinstance(rows, pandas.DataFrame):
            text = rows.to_csv(header=False, index=False, float_format="%.17g")
        found = predict_csv(build_program(path, "NET_MAIN"), text)
        expected = predictions(model, rows)
        size = np.sqrt(np.mean(expected**2, axis=0))
        size = np.maximum(size, np.max(np.abs(expected), axis=1, keepdims=True))
        assert found.shape == expected.shape
        assert np.max(np.abs(found - expected) / size) < tolerance


def run_wasm(path):
    """Run a WASM program; return its exit code and what it printed."""
    if shutil.which("node"):
        script = (
            "const { WASI } = require('wasi'), { readFileSync } = require('fs');"
            "const wasi = new WASI({ version: 'preview1' });"
            "const bytes = readFileSync(process.argv[1]), imports = wasi.getImportObject();"
            "WebAssembly.instantiate(bytes, imports).then(made => process.exit("
            "wasi.start(made.instance)));"
        )
        command = ["node", "--no-warnings", "-e", script, path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr
    wasmtime = pytest.importorskip("wasmtime")
    engine, config = wasmtime.Engine(), wasmtime.WasiConfig()
    config.stdout_file = str(path.with_suffix(".txt"))
    store, linker = wasmtime.Store(engine), wasmtime.Linker(engine)
    store.set_wasi(config)
    linker.define_wasi()
    instance = linker.instantiate(store, wasmtime.Module.from_file(engine, str(path)))
    code = 0
    try:
        instance.exports(store)["_start"](store)
    except wasmtime.ExitTrap as trap:
        code = trap.code
    return code, path.with_suffix(".txt").read_text()


def run(path):
    done = subprocess.run([path], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("kind", "dtype"), [*zip(KINDS, itertools.cycle(["float32", "float64", "int8"]), strict=False)]
)
def test_self_test_passes_with_every_compiler_and_target(kind, dtype, tmp_path):
    """Compilers are silent, and the program that compares itself with Python finds no error."""
    pytest.importorskip("ziglang")
    model, rows = fitted(kind, "float32")
    to_c(model, path := tmp_path / "net.h", dtype=dtype, calibration_X=rows[:TRAINING])
    for language, target in (
        *(("c", ""), ("c++", ""), ("c", "x86_64-linux-musl"), ("c++", "x86_64-linux-musl")),
        *(("c", "x86-linux-musl"), ("c", "wasm32-wasi")),
    ):
        program = build_program(path, "NET_TEST", language=language, target=target)
        code, text = (run_wasm if target.startswith("wasm") else run)(program)
        assert (code, text[-19:]) == (0, "outputs are right.\n"), text


def usage(command):
    """Return the processor time in seconds and the memory in MB of a command."""
    # A process that starts as a copy of this one would count this one's memory.
    script = (
        "import os, sys\n"
        "process = os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:])\n"
        "_, status, used = os.wait4(process, 0)\n"
        "print(status, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script, *command], capture_output=True, text=True, check=True
    )
    status, seconds, size = done.stdout.split()
    assert (status, done.stderr) == ("0", "")
    return float(seconds), float(size)


def test_a_header_with_100_000_weights_compiles_fast(tmp_path):
    """The compiler takes 0.2 to 0.3 s and 50 to 100 MB; the limits are 10 and 5 times larger."""
    model = classifier((260, 260), max_iter=1).fit(RNG.normal(size=(60, 116)), np.arange(60) % 10)
    assert sum(weights.size for weights in model.coefs_) > 100_000
    to_c(model, tmp_path / "net.h")
    source = tmp_path / "source.c"
    source.write_text(
        '#include "net.h"\nvoid run(const float *x, float *out);\n'
        "void run(const float *x, float *out) { net_predict(x, out); }\n"
    )
    for language, flags in (("c", C99), ("c++", CPP17)):
        for command in compilers(language).values():
            target = str(tmp_path / "source.o")
            names = [*command, "-x", language, *flags, "-c", str(source), "-o", target]
            seconds, size = usage(names)
            assert seconds < 3.0
            assert size < 500.0
            os.remove(target)
