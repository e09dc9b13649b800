"""C headers: compiled programs predict like the estimators."""

import ctypes
import re
import subprocess

import numpy as np
import pandas
import pytest
from c_compiler import C99, WARNINGS, build_library, build_program, predict_csv
from problems import TARGETS, X, Y, fitted

from mlp_xp import MLPClassifier, MLPEnsembleClassifier, MLPRegressor
from mlp_xp.export import to_c
from mlp_xp.nn.hidden import Blocks

TOLERANCES = {"float32": 2e-5, "float64": 1e-12, "int8": 0.05}


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8"])
@pytest.mark.parametrize("what", ["text", "value"])
def test_c_header_predicts_like_the_estimator(what, dtype, tmp_path):
    model, rows = fitted(what, input_scaling="standardize")
    expected = model.predict_proba(rows) if what == "text" else model.predict(rows)[:, None]
    path = tmp_path / "my-net.h"
    header = to_c(model, path, dtype=dtype, calibration_X=rows)
    assert path.read_text() == header
    found = predict_csv(build_program(path, "MY_NET_MAIN"), rows)
    np.testing.assert_allclose(found, expected, atol=TOLERANCES[dtype])
    test = build_program(path, "MY_NET_TEST", language="c++")
    done = subprocess.run([test], capture_output=True, text=True, check=False)
    n = 8 * expected.shape[1]
    assert (done.returncode, done.stdout) == (0, f"my_net: {n} of {n} outputs are right.\n")


def test_int8_header_is_a_quarter_as_large_without_floats_in_inner_loops():
    model = MLPClassifier((100, 100), max_iter=1, learning_rate="cosine").fit(X, TARGETS["text"])
    headers = {d: to_c(model, dtype=d, calibration_X=X) for d in ("float32", "int8")}
    sizes = {d: int(text.split(";")[1].split()[0].replace(",", "")) for d, text in headers.items()}
    assert sizes["int8"] < 0.35 * sizes["float32"]
    loop = r"k < (\d+); \+\+k\) \{ const (\w+) r = .*; t0 \+= r \* w\[k\];"
    loops = re.findall(loop, headers["int8"])
    # 100 inputs are padded, since vectors have 16 numbers; 12 inputs would take a third more.
    assert loops == [("12", "short"), *[("112", "short")] * 2]
    assert "static const signed char model_c5[11200] = {" in headers["int8"]
    assert "r0" not in headers["int8"]


def test_float32_code_uses_no_double_and_no_global_state(tmp_path):
    model, rows = fitted("text", activation="gelu", input_scaling="standardize", n_members=2)
    for dtype in ("float32", "int8"):
        header = to_c(model, path := tmp_path / "net.h", dtype=dtype, calibration_X=rows)
        build_program(path, "NET_TEST", flags=("-O0", "-std=c99", *WARNINGS, "-Wdouble-promotion"))
        code, _, _ = header.partition("#ifdef NET_MAIN")
        assert "double" not in code
        assert not [
            line
            for line in code.splitlines()
            if line.lstrip().startswith("static ")
            and "(" not in line.partition("=")[0]
            and "const" not in line
        ]
        assert "alloc" not in code


# Text that could end a comment, a line, a string or the program, and non-ASCII characters.
HOSTILE = ["*/ #error", "a\\", "??/", "/* x", 'q"', "'", "line\nbreak", "größe", "\u202e", "\\n%s"]


def test_malicious_names_and_labels_cannot_break_the_c_code(tmp_path):
    frame = pandas.DataFrame(X[:, :10], columns=HOSTILE)
    labels = np.asarray(['"*/', "a\\\n??/", "日" * 2000])
    model = MLPClassifier((), max_iter=1, learning_rate="cosine").fit(frame, labels[Y])
    # Names of variables in functions that the name of the header begins.
    for name in ("network", "x", "out", "work"):
        to_c(model, path := tmp_path / f"{name}.h")
        found = predict_csv(build_program(path, f"{name.upper()}_MAIN"), frame.to_numpy())
        np.testing.assert_allclose(found, model.predict_proba(frame), atol=1e-6)
    source = f"{path.read_text()}\nconst char *label(int i);\n"
    source += "const char *label(int i) { return work_label(i); }\n"
    library = build_library(source, tmp_path)
    library.label.restype = ctypes.c_char_p
    assert [library.label(i).decode() for i in range(3)] == model.classes_.tolist()


def test_overflowing_inputs_match_the_estimator(tmp_path):
    model, rows = fitted("text", "float32", activation="tanh")
    rows = rows.copy()
    rows[:4, 0] = 1e38, -1e38, 1e30, -1e25
    to_c(model, path := tmp_path / "net.h")
    found = predict_csv(build_program(path, "NET_MAIN"), rows)
    np.testing.assert_allclose(found, model.predict_proba(rows), atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"dtype": "int4"}, ValueError, r"`dtype` must be 'float32', 'float64' or 'int8', got"),
        ({"dtype": "int8"}, ValueError, r"pass e\.g\. calibration_X=X_train\[:500\]"),
        ({"name": "my net"}, ValueError, r"got 'my net': pass name='my_net'"),
        ({"name": 1}, ValueError, r"got 1: pass name='x_1'"),
        ({"name": "float"}, ValueError, r"got 'float': pass name='float_'"),
        ({"path": "."}, IsADirectoryError, r"is a folder: pass a file, e\.g\. model\.h"),
        ({"path": "no/net.h"}, FileNotFoundError, r"does not exist: create no first\."),
    ],
)
def test_invalid_export_settings_are_rejected(settings, error, message):
    model, _ = fitted()
    with pytest.raises(error, match=message):
        to_c(model, **settings)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (X[:, :5], r"`calibration_X` must be rows like the training data: X has 5 features, but"),
        (X[:0], r"`calibration_X` must be .*: Found array with 0 sample\(s\)"),
        (np.where(X > 2.0, np.nan, X), r"`calibration_X` must be .*: Input X contains NaN"),
        (X[0], r"`calibration_X` must be .*: Expected 2D array, got 1D array"),
    ],
    ids=["columns", "no rows", "NaN", "one row"],
)
def test_invalid_calibration_rows_are_rejected(rows, message):
    with pytest.raises(ValueError, match=message):
        to_c(fitted()[0], dtype="int8", calibration_X=rows)


def test_calibration_ignores_overflowing_rows(tmp_path):
    """One row is enough, and so are rows of zeros."""
    model, rows = fitted("text", "float32", activation="relu")
    huge = np.concatenate([rows, np.full((1, 12), 3e38, np.float32)])
    for given in (huge, rows[:1], np.zeros_like(rows)):
        to_c(model, path := tmp_path / "net.h", dtype="int8", calibration_X=given)
        found = predict_csv(build_program(path, "NET_MAIN", flags=("-std=c99", "-O0")), given)
        assert np.all(np.isfinite(found))
        if given is not huge:
            np.testing.assert_allclose(found, model.predict_proba(given), atol=0.05)


def branches(x, *, xp):
    y = x if bool(xp.any(x > 0.0)) else 2.0 * x
    return y, lambda dy: dy


def test_no_file_is_written_for_a_model_that_c_does_not_support(tmp_path):
    path = tmp_path / "net.h"
    text = np.asarray(["a\0z", "b", "c"])
    single = MLPClassifier((4,), max_iter=1, learning_rate="cosine", random_state=0)
    settings = [{"input_scaling": "robust"}, {"input_scaling": "standardize"}]
    mixed = MLPEnsembleClassifier(single, 2, settings=settings, random_state=0).fit(X, Y)
    for model, message in (
        (MLPRegressor(), "not fitted yet"),
        (X, "must be an estimator or ensemble of mlp_xp"),
        (fitted(activation=branches)[0], r"(?s)no C form.*branches fails in line .*where"),
        (single.fit(X, text[Y].astype(object)), "C cannot represent a class: .* Replace it in y"),
        (mixed, "have different inputs: .* Export each of its estimators_ alone"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            to_c(model, path)
    assert not list(tmp_path.iterdir())


def test_block_layers_are_exported_and_stack_size_is_documented(tmp_path):
    """The head names the bytes of stack: the work space, and integers of networks in 8 bits."""
    layers = Blocks((3, 4), (0,), 2), Blocks((4, 2), (1,))
    model, rows = fitted("value", hidden_layer_sizes=layers)
    for dtype, size in (("float32", 4), ("float64", 8), ("int8", 4)):
        header = to_c(model, path := tmp_path / "net.h", dtype=dtype, calibration_X=rows)
        work = int(header.partition("#define NET_WORK ")[2].split()[0])
        stack = int(header.partition(" bytes of stack")[0].split()[-1].replace(",", ""))
        assert (stack == size * work) == (dtype != "int8")
        assert stack >= size * work
        found = predict_csv(build_program(path, "NET_MAIN", flags=C99), rows)
        np.testing.assert_allclose(found[:, 0], model.predict(rows), atol=TOLERANCES[dtype])
