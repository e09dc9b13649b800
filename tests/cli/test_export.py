"""`mlp-xp export` to C, and what it refuses."""

import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from c_compiler import compilers
from running import draw

from mlp_xp.cli.run_folder.saved_run import read_run

FEW = ["--hidden", "8", "--epochs", "4", "--backend", "numpy", "--out"]
INT8 = ["--to", "c", "--dtype", "int8"]


@pytest.fixture
def mixed(mlp_xp, undrawn):
    """A run on a table with numbers, gaps and text."""
    rows = [f"{i % 5 if i % 7 else ''},{'ab'[i % 2]},{['no', 'yes'][i % 2]}" for i in range(60)]
    Path("mixed.csv").write_text("\n".join(["size,kind: new,y", *rows, ""]))
    assert mlp_xp("train", "mixed.csv", *FEW, "run").status == 0
    return Path("run")


def run_program(command, rows):
    """Compile an exported header as the command says, and return what the program prints."""
    name, *options = shlex.split(command)
    assert name == "cc"
    subprocess.run([*next(iter(compilers().values())), *options], check=True)
    program = Path.cwd() / options[options.index("-o") + 1]
    done = subprocess.run([program], input=rows, capture_output=True, text=True, check=True)
    return np.loadtxt(done.stdout.splitlines(), delimiter=",", ndmin=2)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-7)])
def test_the_printed_command_compiles_a_working_program(mlp_xp, mixed, dtype, tolerance):
    lines = mlp_xp("export", "run", "--to", "c", "--dtype", dtype).out.splitlines()
    size = Path("run/model.h").stat().st_size
    assert lines[:3] == [
        f"wrote {Path('run/model.h')}, {size / 1e3:.0f} kB",
        "input: model_row, a struct with a member for each column: size, kind: new",
        "outputs: probabilities (2)",
    ]
    start = "compile it as a program that reads rows of a CSV file: "
    assert lines[3] == f"{start}cc -O2 -DMODEL_MAIN -x c run/model.h -o model -lm"
    model, _ = read_run(mixed)
    found = run_program(lines[3].removeprefix(start), "3,a\n,b\n")
    np.testing.assert_allclose(
        found, model.predict_proba([[3, "a"], [np.nan, "b"]]), rtol=tolerance
    )
    header = Path("run/model.h").read_text()
    assert '"no"' in header  # The class names.
    assert "kind_new" in header


def test_the_c_prefix_comes_from_the_option_or_the_file_name(mlp_xp, mixed):
    assert "-DA_B_MAIN" in mlp_xp("export", "run", "--to", "c", "--out", "out/a-b.h").out
    assert "void a_b_predict(" in Path("out/a-b.h").read_text()
    assert "-DHOMES_MAIN" in mlp_xp("export", "run", "--to", "c", "--name", "Homes").out
    assert "void Homes_predict(" in Path("run/model.h").read_text()


@pytest.mark.parametrize("typed", [[], ["--calibrate", "new.csv"]])
def test_int8_export_is_calibrated_on_the_training_data_or_a_given_file(mlp_xp, mixed, typed):
    Path("new.csv").write_text("kind: new,size\na,0\nb,4\n")
    lines = mlp_xp("export", "run", *INT8, *typed).out.splitlines()
    found = run_program(lines[-1].partition("file: ")[2], "3,a\n,b\n")
    model, _ = read_run(mixed)
    expected = model.predict_proba([[3, "a"], [np.nan, "b"]])
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert "in int8" in Path("run/model.h").read_text()


def test_image_runs_export_to_c_and_int8(mlp_xp, undrawn):
    for name in ("cat/1", "cat/2", "dog/1", "dog/2"):
        path = Path(f"pets/{name}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(path, np.arange(64) / 4, (6, 4))
    assert mlp_xp("train", "pets", *FEW, "run").status == 0
    done = mlp_xp("export", "run", *INT8, "--calibrate", "pets/cat")
    assert "input: array of 24 numbers, images of 1 x 4 x 6 pixels\n" in done.out


def test_invalid_export_options_are_rejected_without_writing_a_file(fails, mixed):
    Path("folder").mkdir()
    for typed, said in (
        (["--to", "onnx", "--dtype", "int8"], "--dtype is for --to c, not for --to onnx"),
        (["--to", "onnx", "--name", "a"], "--name is for --to c, not for --to onnx: leave it out"),
        (["--to", "c", "--calibrate", "a.csv"], "--calibrate is for 8 bits: add --dtype int8, or"),
        (["--to", "c", "--out", "folder"], "folder is a folder: type --out folder/model.h"),
        (["--to", "onnx", "--out", "folder"], "folder is a folder: type --out folder/model.onnx"),
        (["--to", "c", "--name", "a b"], "--name must be a C identifier, got 'a b': type --name "),
        (["--to", "rust"], "argument --to: invalid choice: 'rust'"),
    ):
        assert said in fails("export", "run", *typed)
    Path("mixed.csv").unlink()
    error = fails("export", "run", *INT8)
    assert "needs rows, but the training data cannot be read (" in error
    assert error.endswith("): type --calibrate and a file of such data\n")
    assert not Path("run/model.h").exists()
