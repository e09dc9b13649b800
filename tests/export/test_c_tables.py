"""Tables in C: the struct of a row, its encoding, and the program that reads CSV files."""

import io
import subprocess

import numpy as np
import pandas
import pytest
from c_compiler import C99, CPP17, build, build_program, compilers

from mlp_xp import MLPClassifier
from mlp_xp.export import to_c
from mlp_xp.export._c_header import Names
from mlp_xp.export._c_program import program_text
from mlp_xp.export._c_tables import table_inputs

RNG = np.random.default_rng(0)
N = 400
TEXT = ["Bern", "Zürich", 'O"slo, N', "日本", "??/x", " NA-x", "a\nb", None]
X = pandas.DataFrame(
    {
        "Age": np.where(RNG.random(N) < 0.1, np.nan, RNG.integers(18, 80, N)),
        "born": pandas.Timestamp("1990-01-01") + pandas.to_timedelta(RNG.integers(0, 9**9, N), "s"),
        "city": RNG.choice(np.array(TEXT, object), N),
        "int": RNG.random(N) > 0.5,
        "größe": RNG.normal(2019.0, 1000.0, N).astype(np.float32).astype(float),
        "zip": RNG.choice([1000.0, 2000.5, np.nan], N),
        "street": RNG.choice([f"{i}. street" for i in range(30)], N),
    }
)
X.loc[::9, "born"] = pandas.NaT


def header_of(model, dtype):
    """Return a header without a network, which predicts the encoded row."""
    names, columns = Names("net", dtype), model.columns_
    inputs = table_inputs([columns], names)
    return f"""#include <math.h>
#include <string.h>
#define NET_FUNCTION static __attribute__((unused))
#define NET_OUTPUTS {len(columns.input_names)}
{inputs.declarations}
NET_FUNCTION void net_predict({inputs.parameter}, {names.type} *out) {{ net_encode(row, out); }}
{program_text(names, columns, 0, may_be_missing=True)}"""


def fitted(scaling):
    model = MLPClassifier(
        (4,), max_iter=1, learning_rate="cosine", missing_values="impute", input_scaling=scaling
    )
    model.set_params(categorical_features=["city", "int", "zip", "street"], max_one_hot=12)
    return model.fit(X, np.arange(N) % 3)


def run(program, text):
    return subprocess.run([program], input=text.encode(), capture_output=True, check=False)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scaling", ["robust", "quantile", None])
def test_c_program_encodes_rows_like_the_estimator(scaling, dtype, tmp_path):
    model = fitted(scaling)
    (file := tmp_path / "net.h").write_text(header_of(model, dtype))
    for language, flags in (("c", C99), ("c++", CPP17)):
        command = next(iter(compilers(language).values()))
        program = build(
            (*command, "-x", language), file, tmp_path / "net", "-x", "none",
            flags=(*flags, "-DNET_MAIN"),
        )  # fmt: skip
    rows = X.assign(city=["nowhere", "N/A ", *X["city"][2:]], zip=[4.0, *X["zip"][1:]])
    done = run(program, rows.to_csv(header=False, index=False, float_format="%.17g"))
    assert done.stderr == b""
    found = np.loadtxt(io.StringIO(done.stdout.decode()), delimiter=",")
    expected = model.columns_.transform(rows)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9 if dtype[5:] == "64" else 1e-5)

    good = "1,2020-02-29T23:30:00-01:00,Bern,yes,2.5,1000,x"
    for row, error in (
        ("1,2", "row 2 has 2 fields, but must have 7."),
        (good.replace("2.5", "0x1"), "row 2, column 5 (größe): '0x1' is not a number"),
        (good.replace("02-29", "02-30"), "row 2, column 2 (born): '2020-02-30T23:30:00-01:00' is"),
        (f'"{good}', "row 2 has a quote that is not closed."),
        (f'"1" {good}', "row 2 has text after a closing quote"),
    ):
        done = run(program, f"\ufeff{good}\r\n{row}\n")
        assert error in done.stderr.decode()
        assert (done.returncode, done.stdout.count(b"\n")) == (1, 1)


def test_header_in_another_precision_passes_its_self_test(tmp_path):
    """The numbers of its test are encoded in the precision of the header."""
    model = fitted("robust").set_params(precision="float32").fit(X, np.arange(N) % 3)
    to_c(model, path := tmp_path / "net.h", dtype="float64")
    assert run(build_program(path, "NET_TEST"), "").returncode == 0
