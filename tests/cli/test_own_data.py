"""`mlp-xp` with data of one's own: tables, and folders of pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import FILES, RECIPE
from sklearn.datasets import load_iris

from mlp_xp.saving import load_model

SMALL = ["--hidden", "8", "--learning-rate", "0.02", "--out", "run", "--backend", "numpy"]


@pytest.fixture
def iris() -> np.ndarray:
    """The features of iris, which is in iris.csv with the names of its classes."""
    x, y = load_iris(return_X_y=True)
    rows = [
        f"{','.join(map(str, row))},{('setosa', 'versicolor', 'virginica')[k]}\n"
        for row, k in zip(x.tolist(), y.tolist(), strict=True)
    ]
    Path("iris.csv").write_text("a,b,c,d,species\n" + "".join(rows))
    return x


def test_a_table_is_trained_on_with_defaults_for_few_samples(mlp_xp, iris, undrawn):
    done = mlp_xp("train", "--data", "iris.csv", *SMALL)
    assert done.status == 0
    assert "iris.csv: 120 samples to train on, 30 to test" in done.out
    assert "training: 50 epochs, batches of 6\n" in done.out
    assert json.loads(Path("run/config.json").read_text())["result"]["test_accuracy"] >= 0.9
    tested = mlp_xp("evaluate", "run").out.splitlines()
    assert tested[-5:-3] == ["class       samples   right", "setosa           10  100.0 %"]
    assert tested[-1].endswith("% of 30 samples")
    assert " iris.csv " in mlp_xp("runs", ".").out

    # Columns are found by their names, in any order, and the class need not be there.
    Path("new.csv").write_text("d,c,b,a\n0.2,1.4,3.5,5.1\n2.1,5.7,3.0,7.1\n")
    lines = mlp_xp("predict", "run", "new.csv").out.splitlines()
    assert lines[0].startswith("new.csv, row 1: setosa 9")
    assert lines[1].startswith("new.csv, row 2: virginica ")


@pytest.mark.matrix
def test_a_network_for_a_table_is_exported(mlp_xp, iris):
    runtime = pytest.importorskip("onnxruntime")
    assert mlp_xp("train", "--data", "iris.csv", *SMALL).status == 0
    assert {path.name for path in Path("run").iterdir()} == FILES
    assert "4 numbers, a, b, c, d\n" in mlp_xp("export", "run", "--to", "onnx").out
    session = runtime.InferenceSession("run/model.onnx")
    labels = session.run(["label"], {"X": iris[::50]})[0].tolist()
    assert labels == load_model("run").predict(iris[::50]).tolist()
    assert labels[0] == "setosa"


def test_what_is_typed_and_a_recipe_are_left_as_they_are(mlp_xp, iris, recipe, undrawn):
    out = mlp_xp("train", "--data", "iris.csv", *SMALL, "--epochs", 2, "--batch-size", 10).out
    assert "training: 2 epochs, batches of 10\n" in out
    recipe.write_text(RECIPE.replace("batch_size = 128", "batch_size = 64"))
    out = mlp_xp("train", "--data", "iris.csv", "--recipe", recipe, "--out", "other").out
    assert "training: 3 epochs, batches of 64\n" in out


def test_arrays_are_trained_on(mlp_xp, iris, undrawn):
    np.savez("iris.npz", X=iris, kind=np.repeat([3, 4, 5], 50))
    train = ["train", "--data", "iris.npz", "--target", "kind", "--epochs", 2]
    assert mlp_xp(*train, *SMALL).status == 0
    np.savez("new.npz", X=iris[:2])
    done = mlp_xp("predict", "run", "new.npz", "--json")
    found = json.loads(done.out)["predictions"]
    assert [entry["file"] for entry in found] == ["new.npz, row 1", "new.npz, row 2"]
    assert set(found[0]["probabilities"]) == {"3", "4", "5"}


def draw(path: str, value: int, size: tuple[int, int] = (6, 4)) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 9)).save(path)


def test_a_folder_of_pictures_is_trained_on(mlp_xp):
    for i in range(15):
        draw(f"pets/cat/{i}.png", i)
        draw(f"pets/dog/{i}.jpg", 240 + i, (9, 9))
    train = ["train", "--data", "pets", "--image-size", "6x4", "--epochs", 20, *SMALL]
    assert "test accuracy 100.00 %" in mlp_xp(*train).out
    assert "Surest mistakes" in Path("run/report.html").read_text(encoding="utf-8")
    done = mlp_xp("predict", "run", "pets/dog/1.jpg")
    assert done.out.startswith("pets/dog/1.jpg: dog ")
    assert "9x9, resized to 6x4" in done.err
    assert mlp_xp("evaluate", "run").out.endswith("test accuracy 100.00 % of 6 samples\n")


@pytest.mark.matrix
def test_a_network_for_pictures_is_exported(mlp_xp):
    pytest.importorskip("onnx")
    for name in ("cat/1", "cat/2", "dog/1", "dog/2"):
        draw(f"pets/{name}.png", 0)
    assert mlp_xp("train", "--data", "pets", "--epochs", 1, *SMALL).status == 0
    assert "images of 3 x 4 x 6 pixels" in mlp_xp("export", "run", "--to", "onnx").out


def test_wrong_data_are_an_error_of_one_line(fails, iris):
    Path("homes.csv").write_text("rooms,price\n2,1.5\n3,1.5\n")
    Path("gap.csv").write_text("a,kind\n1,x\n,y\n")
    for name in ("pets/cat/1", "alike/cat/1", "alike/dog/1"):
        draw(f"{name}.png", 0)
    draw("pets/dog/1.png", 0, (5, 5))
    for typed, said in (
        ("iris.csv --target kind", "no column 'kind' to predict; it has a, b, c, d, species"),
        ("homes.csv", "'price' is 1.5 in each row: nothing to predict"),
        ("gap.csv", "gap.csv, line 3: 'a' is missing: fill it in"),
        ("pets", "type --image-size 6x4 to resize all of them"),
        ("iris.csv --data-path iris.csv", "leave out --data-path"),
        ("digits --target a", "for data of your own, not for digits"),
        ("digits --image-size 8", "for data of your own, not for digits"),
        ("alike --target kind", "leave out --target kind, which is for tables"),
        ("iris.csv --image-size 8", "leave out --image-size, which is for folders of pictures"),
        ("digits --image-size 0x3", "'0x3', expected a number of pixels"),
        ("iris.csv --validation 0.999", "holds out 120 of 120 samples"),
        (
            "nowhere.csv",
            "expected cifar10, cifar100, fashion-mnist, digits, or a folder or file of",
        ),
    ):
        assert said in fails("train", *SMALL, "--data", *typed.split()), typed
    assert not Path("run").exists()


def test_other_data_than_those_of_the_training_are_an_error(mlp_xp, fails, iris, undrawn):
    assert mlp_xp("train", "--data", "iris.csv", *SMALL, "--epochs", 1).status == 0
    Path("other.csv").write_text("a,b,c,d,species\n" + "1,2,3,4,rose\n1,2,3,4,tulip\n" * 3)
    assert "other classes" in fails("evaluate", "run", "--data-path", "other.csv")
    assert "expected .csv, .npz, .parquet" in fails("predict", "run", "picture.png")
    Path("new.csv").write_text("a,b,c\n1,2,3\n")
    assert "no column 'd', which the network was trained with" in fails("predict", "run", "new.csv")
