"""Headers of C: predictions of compiled programs are those of the estimators."""

import io
import subprocess

import numpy as np
import pytest
from c_compiler import C99, CPP17, build, compilers
from problems import TARGETS, X, fitted

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.export import to_c

TOLERANCES = {"float32": 2e-5, "float64": 1e-12, "int8": 0.05}


def run(program, rows):
    """Return the predictions of a program for rows."""
    text = "\n".join(",".join(map(repr, row)) for row in np.asarray(rows, float).tolist())
    done = subprocess.run([program], input=text, capture_output=True, text=True, check=True)
    return np.loadtxt(io.StringIO(done.stdout), delimiter=",", ndmin=2)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8"])
@pytest.mark.parametrize("what", ["text", "value"])
def test_a_header_predicts_like_the_estimator(what, dtype, tmp_path):
    model, rows = fitted(what, input_scaling="standardize")
    expected = model.predict_proba(rows) if what == "text" else model.predict(rows)[:, None]
    path = tmp_path / "my-net.h"
    header = to_c(model, path, dtype=dtype, calibration_X=rows)
    assert path.read_text() == header
    command = next(iter(compilers().values()))
    program = build((*command, "-x", "c"), path, tmp_path / "main", "-x", "none",
                    flags=(*C99, "-DMY_NET_MAIN"))  # fmt: skip
    np.testing.assert_allclose(run(program, rows), expected, atol=TOLERANCES[dtype])
    command = next(iter(compilers("c++").values()))
    test = build((*command, "-x", "c++"), path, tmp_path / "test", "-x", "none",
                 flags=(*CPP17, "-DMY_NET_TEST"))  # fmt: skip
    done = subprocess.run([test], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (
        0, f"my_net: {8 * expected.shape[1]} of {8 * expected.shape[1]} outputs are right.\n"
    )  # fmt: skip


def test_int8_has_a_quarter_of_the_bytes_and_no_float_in_inner_loops():
    model = MLPClassifier((100, 100), max_iter=1, learning_rate="cosine").fit(X, TARGETS["text"])
    headers = {d: to_c(model, dtype=d, calibration_X=X) for d in ("float32", "int8")}
    sizes = {d: int(text.split(";")[1].split()[0].replace(",", "")) for d, text in headers.items()}
    assert sizes["int8"] < 0.35 * sizes["float32"]
    loops = [line for line in headers["int8"].splitlines() if "+= (r0 *" in line]
    assert loops
    assert "const signed char r0 = " in headers["int8"]
    assert "const float r0" not in headers["int8"]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"dtype": "int4"}, ValueError, r"`dtype` must be 'float32', 'float64' or 'int8', got"),
        ({"dtype": "int8"}, ValueError, r"pass e\.g\. calibration_X=X_train\[:500\]"),
        ({"name": "my net"}, ValueError, r"got 'my net': pass name='my_net'"),
        ({"name": "float"}, ValueError, r"got 'float': pass name='float_'"),
        ({"path": "."}, IsADirectoryError, r"is a folder: pass a file, e\.g\. model\.h"),
    ],
)
def test_bad_input_is_refused(settings, error, message):
    model, _ = fitted()
    with pytest.raises(error, match=message):
        to_c(model, **settings)


def test_no_file_is_written_for_a_model_without_c_form(tmp_path):
    path = tmp_path / "net.h"
    for model in (MLPRegressor(), X):
        with pytest.raises((ValueError, TypeError)):
            to_c(model, path)
    assert not list(tmp_path.iterdir())
