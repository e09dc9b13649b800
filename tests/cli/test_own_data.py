"""`mlp-xp` with data of one's own: tables of classes or numbers, and folders of pictures."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from running import FILES, RECIPE, complete, history_of
from sklearn.datasets import load_iris
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.cli.report import Evaluation
from mlp_xp.cli.run_folder.run_summary import CURVES, history_rows
from mlp_xp.cli.training.tasks import score_of, task_of
from mlp_xp.datasets import load_files
from mlp_xp.nn.losses import Quantile
from mlp_xp.plotting import training_panels
from mlp_xp.saving import load_model
from mlp_xp.training.loop.records import Record

FEW = ["--hidden", "8", "--learning-rate", "0.02", "--out", "run", "--backend", "numpy"]
SETTINGS = ["--hidden", "16", "--batch-size", "12", "--epochs", "20", "--backend", "numpy"]
TRAIN = ["train", "--data", "homes.csv", *SETTINGS, "--out", "run"]


@pytest.fixture
def iris():
    """The features of iris, which is in iris.csv with the names of its classes."""
    x, y = load_iris(return_X_y=True)
    names = np.asarray(["setosa", "versicolor", "virginica"])[y]
    rows = [",".join(map(str, (*row, name))) for row, name in zip(x.tolist(), names, strict=True)]
    Path("iris.csv").write_text("\n".join(["a,b,c,d,species", *rows, ""]))
    return x


@pytest.fixture
def homes():
    """Rooms, area and price, which are in homes.csv; prices are whole numbers."""
    rng = np.random.default_rng(0)
    rooms, area = rng.integers(1, 6, 300), rng.uniform(30, 200, 300).round(1)
    price = (40_000 * rooms + 3_000 * area + rng.normal(0, 20_000, 300)).round()
    rows = np.stack([rooms, area, price], axis=1)
    lines = [f"{a:.0f},{b},{c:.0f}\n" for a, b, c in rows]
    Path("homes.csv").write_text("rooms,area,price\n" + "".join(lines))
    return rows


def test_a_table_trains_with_the_table_recipe(mlp_xp, iris, undrawn):
    done = mlp_xp("train", "--data", "iris.csv", *FEW)
    assert done.status == 0
    assert "iris.csv: 120 samples to train on, 30 to test" in done.out
    assert re.search(r"recipe table, 64 epochs, batches of 120\n.*\nepoch .* val loss \d", done.out)
    assert json.loads(Path("run/config.json").read_text())["result"]["test_accuracy"] >= 0.9
    tested = mlp_xp("evaluate", "run").out.splitlines()
    assert tested[-5:-3] == ["class       samples   right", "setosa           10  100.0 %"]
    assert tested[-1].endswith(" % (most frequent class 33.33 %) of 30 samples")
    assert " iris.csv " in mlp_xp("runs", ".").out
    # Columns are found by their names, in any order, and the class need not be there.
    Path("new.csv").write_text("d,c,b,a\n0.2,1.4,3.5,5.1\n2.1,5.7,3.0,7.1\n")
    lines = mlp_xp("predict", "run", "new.csv").out.splitlines()
    assert lines[0].split() == ["row", "label", "probability", "next"]
    assert [line.split()[:2] for line in lines[1:]] == [["1", "setosa"], ["2", "virginica"]]


def test_a_table_with_text_booleans_and_missing_values_needs_no_preparation(
    mlp_xp, undrawn, monkeypatch
):
    monkeypatch.setattr("mlp_xp.training.data.rows._COPIED_BYTES", 0)  # A large table.
    rng = np.random.default_rng(0)
    age, port = rng.integers(1, 80, 200), rng.choice(["C", "Q", "S", ""], 200)
    lines = [
        f"{p},{'' if a % 9 == 0 else a},{a < 50},{['no', 'yes'][int(a < 50)]},m{i},{i % 4}.5 kg"
        for i, (a, p) in enumerate(zip(age.tolist(), port, strict=True))
    ]
    Path("ship.csv").write_text("\n".join(["port,age,child,survived,name,load", *lines, ""]))
    options = "--epochs", 20, "--validation", 0.1, "ship.csv", "--target", "survived", *FEW[2:]
    done = mlp_xp("train", *options)
    for line in (
        "columns: 2 numeric, 2 text, 2 with missing values\n",
        "load has '0.5 kg' among its numbers, but is used as 4 categories\n",
        "left out: name (text, with 200 values in 200 rows)\n",
        "network: 128-128-2, relu, adamw, dropout 0.15\n",
        "target: survived, 2 classes (classification)\n",
    ):
        assert line in done.out
    assert "kg" not in done.err  # The estimator does not repeat the note.
    result = json.loads(Path("run/config.json").read_text())["result"]
    assert result["test_accuracy"] > 0.9 > 0.75 > result["baseline_accuracy"] > 0.5
    baseline = f"(most frequent class {100 * result['baseline_accuracy']:.2f} %)"
    said = f"test accuracy {100 * result['test_accuracy']:.2f} % {baseline}"
    assert said in done.out
    assert f"{said} of 40 " in mlp_xp("evaluate", "run").out

    head, *lines = Path("ship.csv").read_text().splitlines()
    others = [line for line in lines if line.startswith("C,") and ",," not in line]
    Path("other.csv").write_text("\n".join([head, *others, ""]))
    assert mlp_xp("evaluate", "run", "--data-path", "other.csv").status == 0

    Path("new").mkdir()
    Path("new/a.csv").write_text("port,age,child,load\nMars,,yes,0.5 kg\nMars,,perhaps,1 kg\n")
    Path("new/b.csv").write_text("child,load,port,age\n,,C,70\n")
    head, *lines = mlp_xp("predict", "run", "new").out.splitlines()
    assert head.split() == ["file", "row", "label", "probability"]
    rows = [line.split() for line in lines]
    assert [row[:2] for row in rows] == [["new/a.csv", "1"], ["new/a.csv", "2"], ["new/b.csv", "1"]]
    assert rows[0][2] == "yes"

    config = json.loads(Path("run/config.json").read_text())
    config["data"]["columns"][0]["kind"] = "word"
    Path("run/config.json").write_text(json.dumps(config))
    assert "columns contains an invalid column: Column(" in mlp_xp("evaluate", "run").err


@pytest.mark.parametrize("name", ["homes.csv", "homes.npz"])
def test_evaluate_remembers_the_target_and_dropped_columns(mlp_xp, homes, undrawn, name):
    Path("homes.csv").write_text(Path("homes.csv").read_text().replace("area,price", "price,y"))
    np.savez("homes.npz", X=homes[:, :2], y=homes[:, 2])
    dropped = "y" if name == "homes.csv" else "1"  # `y` would be the target.
    done = mlp_xp("train", name, "--epochs", 1, "--drop", dropped, *FEW[2:])
    score = re.search(r"test R2 \S+ RMSE \S+", done.out)[0]
    assert score in mlp_xp("evaluate", "run").out


def test_predict_accepts_years_as_column_names_and_quotes_invalid_numbers(mlp_xp, homes, undrawn):
    Path("homes.csv").write_text(Path("homes.csv").read_text().replace("rooms,area", "2019,2020"))
    mlp_xp("train", "homes.csv", "--target", "price", "--epochs", 1, *FEW[2:])
    Path("new.csv").write_text("2019,2020\n3,50\n")
    assert mlp_xp("predict", "run", "new.csv").out.startswith("row  prediction\n  1  ")
    Path("new.csv").write_text("2019,2020\nyes,50\n")
    assert "'2019' has 'yes', but" in mlp_xp("predict", "run", "new.csv").err


@pytest.mark.matrix
def test_networks_for_tables_and_images_can_be_exported(mlp_xp, iris, homes):
    runtime = pytest.importorskip("onnxruntime")
    assert mlp_xp("train", "--data", "iris.csv", *FEW).status == 0
    assert {re.sub(r"-\w{16}", "", path.name) for path in Path("run").iterdir()} == FILES
    lines = mlp_xp("export", "run", "--to", "onnx", "--out", "a.onnx").out.splitlines()
    assert lines[0] == f"wrote a.onnx, {Path('a.onnx').stat().st_size / 1e3:.0f} kB"
    assert lines[1].endswith("4 numbers, a, b, c, d")
    assert lines[2:] == ["outputs: label, probabilities"]
    session = runtime.InferenceSession("a.onnx")
    labels = session.run(["label"], {"X": iris[::50]})[0].tolist()
    frame = pd.DataFrame(iris[::50], columns=[*"abcd"])
    assert labels == load_model("run").predict(frame).tolist() == ["setosa", *labels[1:]]

    rows = [f"{i % 5 if i % 7 else ''},{'ab'[i % 2]},{i % 3}.5" for i in range(60)]
    Path("mixed.csv").write_text("\n".join(["n,m,y", *rows, ""]))
    for name in ("default", "table"):
        settings = ["--epochs", 1, *FEW[:-4], "--recipe", name, "--out", name]
        assert mlp_xp("train", "mixed.csv", *settings).status == 0
        lines = mlp_xp("export", name, "--to", "onnx").out.splitlines()
        assert lines[1] == "2 inputs for the columns: n, m"

    assert mlp_xp(*TRAIN[:-1], "numbers").status == 0
    assert mlp_xp("export", "numbers", "--to", "onnx").out.endswith("outputs: prediction\n")

    for name in ("cat/1", "cat/2", "dog/1", "dog/2"):
        draw(f"pets/{name}.png", 0)
    assert mlp_xp("train", "--data", "pets", "--epochs", 1, *FEW, "--out", "pictures").status == 0
    assert "images of 3 x 4 x 6 pixels" in mlp_xp("export", "pictures", "--to", "onnx").out


def test_typed_options_and_recipes_override_defaults_for_tables(mlp_xp, iris, recipe, undrawn):
    out = mlp_xp("train", "--data", "iris.csv", *FEW, "--epochs", 2, "--batch-size", 10).out
    assert "training: recipe table, 2 epochs, batches of 10\n" in out
    recipe.write_text(RECIPE.replace("batch_size = 128", "batch_size = 64"))
    out = mlp_xp("train", "--data", "iris.csv", "--recipe", recipe, "--out", "other").out
    assert f"training: recipe {recipe}, 3 epochs, batches of 64\n" in out


def test_npz_arrays_can_be_used_for_training(mlp_xp, iris, undrawn):
    np.savez("iris.npz", X=iris, kind=np.repeat([3, 4, 5], 50))
    train = ["train", "--data", "iris.npz", "--target", "kind", "--epochs", 2]
    assert mlp_xp(*train, *FEW).status == 0
    np.savez("new.npz", X=iris[:2])
    found = json.loads(mlp_xp("predict", "run", "new.npz", "--json").out)["predictions"]
    assert [entry["file"] for entry in found] == ["new.npz, row 1", "new.npz, row 2"]
    assert set(found[0]["probabilities"]) == {"3", "4", "5"}
    iris[1, 2] = np.nan
    np.savez("new.npz", X=iris[:2])
    assert "row 2 has no value in column '3', but" in mlp_xp("predict", "run", "new.npz").err


@pytest.mark.parametrize(
    ("shape", "dtype", "recipe"),
    [((40, 8, 8), float, "default"), ((40, 64), np.uint8, "default"), ((40, 64), float, "table")],
)
def test_arrays_of_images_get_the_recipe_for_images(shape, dtype, recipe):
    np.savez("a.npz", X=np.zeros(shape, dtype), y=np.arange(40) % 2)
    assert complete("a.npz").recipe == recipe


def test_file_with_the_name_of_a_built_in_data_set_prints_a_note(capsys, fails):
    Path("digits").write_text("a,b\n1,2\n")
    settings = complete("digits")
    assert (settings.data, settings.recipe) == ("digits", "default")
    said = "digits means the built-in data set; for your file or folder, type ./digits\n"
    assert capsys.readouterr().err == f"note: {said}"
    assert complete("./digits").data_path == str(Path("digits").resolve())
    assert "for your file or folder, type ./digits" in fails("train", "digits", "--target", "b")


def test_a_loss_used_for_scoring_is_plotted_as_a_loss():
    records, kept = [Record(1, 0.5, None, 0.1, 9, 0.1, 0.4, -0.3)], {"training": [0.5]}
    kept["validation"] = [0.4]
    for scoring, more in ("loss", {}), ("refinement", {"refinement": [0.3]}):
        panels = training_panels(history_rows(records, scoring), CURVES)
        assert panels == {"loss": kept | more, "learning rate": {"": [0.1]}}
    quantiles = MLPRegressor(loss=Quantile((0.1, 0.9)), max_iter=1).fit(np.eye(3), [0, 1, 2])
    assert score_of(quantiles, task_of([])) == "loss"


def draw(path, value, size=(6, 4)):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 9)).save(path)


def test_a_folder_of_images_can_be_used_for_training(mlp_xp):
    for i in range(15):
        draw(f"pets/cat/{i}.png", i)
        draw(f"pets/dog/{i}.jpg", 240 + i, (9, 9))
    train = ["train", "--data", "pets", "--image-size", "6x4", "--epochs", 20, *FEW, "--members", 3]
    assert "test accuracy 100.00 %" in mlp_xp(*train).out
    assert "Surest mistakes" in Path("run/report.html").read_text(encoding="utf-8")
    done = mlp_xp("predict", "run", "pets")
    cure = "to write a row for each, type --out predictions.csv"
    assert done.out == f"30 images: cat 15, dog 15; {cure}\n"
    assert done.err == "note: 15 of 30 images were resized to 6x4\n"
    done = mlp_xp("predict", "run", "pets/dog/1.jpg")
    assert done.out.splitlines()[1].startswith("pets/dog/1.jpg  dog ")
    assert "9x9, resized to 6x4" in done.err
    assert mlp_xp("evaluate", "run").out.endswith("(most frequent class 50.00 %) of 6 samples\n")


def test_invalid_data_give_a_one_line_error(fails, iris):
    Path("homes.csv").write_text("rooms,price\n2,1.5\n3,1.5\n")
    Path("rare.csv").write_text("i,j,y\n" + "0,,a\n2,,b\n" * 20 + "5,z,a\n")
    for name in ("pets/cat/1", "alike/cat/1", "alike/dog/1"):
        draw(f"{name}.png", 0)
    draw("pets/dog/1.png", 0, (5, 5))
    for typed, said in (
        ("iris.csv --target specie", "predict: did you mean 'species'? It has a, b, c, d, species"),
        ("homes.csv", "'price' is 1.5 in every row: nothing to predict"),
        ("iris.csv --drop e,a", "no column 'e' to drop. It has a, b, c, d, species"),
        ("alike --drop a", "leave out --drop a, which is for tables"),
        ("pets", "type --image-size 6x4 to resize all images"),
        ("iris.csv --data-path iris.csv", "leave out --data-path"),
        ("digits --target a", "for your own data, not for digits"),
        ("digits --image-size 8", "for your own data, not for digits"),
        ("alike --target kind", "leave out --target kind, which is for tables"),
        ("iris.csv --image-size 8", "leave out --image-size, which is for folders of images"),
        ("digits --image-size 0x3", "must be a size in pixels, e.g. 32 or 32x24, got '0x3'"),
        ("iris.csv --validation 0.999", "holds out 120 of 120 samples"),
        ("rare.csv --validation 0.8", "from j: hold out a smaller fraction, or type --drop j"),
        ("nowhere.csv", "choose cifar10, cifar100, fashion-mnist, digits, or an existing file"),
    ):
        assert said in fails("train", *FEW, "--data", *typed.split()), typed
    assert not Path("run").exists()


def test_numeric_classes_are_sorted_and_training_rows_are_not_tested(mlp_xp, fails, undrawn):
    head, rows = "a,b,month\n", [f"{i % 12},{i}.5,{i % 12 + 1}\n" for i in range(120)]
    Path("months.csv").write_text(head + "".join(rows))
    assert mlp_xp("train", "months.csv", "--epochs", 1, *FEW[2:]).status == 0
    assert load_model("run").classes_.tolist() == list(range(1, 13))
    assert " of 24 samples" in mlp_xp("evaluate", "run").out
    Path("other.csv").write_text(head + "".join(rows[:60]))
    done = mlp_xp("evaluate", "run", "--data-path", "other.csv")
    assert " of 60 samples" in done.out
    assert "other.csv differs from the training data, so all of its samples are tested" in done.err
    Path("months.csv").write_text(head + "".join(rows + rows[:12]))
    assert "months.csv has changed since the training" in fails("evaluate", "run")


def test_data_that_does_not_match_the_training_data_is_an_error(mlp_xp, fails, iris, undrawn):
    assert mlp_xp("train", "--data", "iris.csv", *FEW, "--epochs", 1).status == 0
    Path("other.csv").write_text("a,b,c,d,species\n" + "1,2,3,4,rose\n1,2,3,4,tulip\n" * 3)
    said = "other.csv: 'species' has 'rose', but the network was trained with the classes setosa, v"
    assert said in fails("evaluate", "run", "--data-path", "other.csv")
    assert "type a .csv, .npz, .parquet file" in fails("predict", "run", "picture.png")
    Path("new.csv").write_text("a,b,c\n1,2,3\n")
    assert "no column 'd', which the network was trained with" in fails("predict", "run", "new.csv")


def test_regression_on_a_numeric_target(mlp_xp, homes):
    out = mlp_xp(*TRAIN, "--validation", 0.2, "--scoring", "r2").out
    assert re.search(r"target: price, numbers from \d+,\d+ to \d+,\d+ \(regression\)\n", out)
    assert re.search(r"epoch 20/20  loss 0.\d+  val R2 0.9\d+  RMSE \d+,\d+  ", out)
    drawn = FILES - {"confusion.png"} | {"predictions.png"}
    assert {re.sub(r"-\w{16}", "", path.name) for path in Path("run").iterdir()} == drawn
    page = Path("run/report.html").read_text(encoding="utf-8")
    shown = ["<figcaption>R² by epoch<", "<figcaption>test samples: residuals<", "trained on homes"]
    for text in (*shown, "<span>test R2<", "<span>test RMSE<", "<span>test MAE<"):
        assert text in page
    data, model = load_files("homes.csv"), load_model("run")
    frame = pd.DataFrame(data.x_test, columns=data.feature_names)  # With known names.
    predicted, truth = model.predict(frame), data.y_test
    result = json.loads(Path("run/config.json").read_text())["result"]
    assert result["test_r2"] == pytest.approx(r2_score(truth, predicted))
    assert result["test_r2"] > 0.95
    assert result["test_rmse"] == pytest.approx(root_mean_squared_error(truth, predicted))
    assert result["test_mae"] == pytest.approx(mean_absolute_error(truth, predicted))
    summary = f"test R2 {result['test_r2']:.4f}, RMSE {result['test_rmse']:,.0f}, MAE "
    assert summary in out
    mean = root_mean_squared_error(truth, np.full(len(truth), data.y_train.mean()))
    assert result["baseline_rmse"] == pytest.approx(mean)
    assert f"(the mean: RMSE {mean:,.0f}, " in out
    assert f"<b>{mean:,.0f}</b><span>RMSE of the mean<" in page
    assert 0.9 < float(history_of(Path("run"))[-1]["validation_r2"]) < 1

    Path("new.csv").write_text("area,rooms\n100,3\n")
    prediction = model.predict(pd.DataFrame({"rooms": [3.0], "area": [100.0]}))[0]
    assert mlp_xp("predict", "run", "new.csv").out == f"row  prediction\n  1  {prediction:10,.0f}\n"
    found = json.loads(mlp_xp("predict", "run", "new.csv", "--json").out)["predictions"]
    assert found == [{"file": "new.csv, row 1", "prediction": pytest.approx(prediction)}]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--learning-rate", "3"], "is the learning rate: type --learning-rate 0.001"),
        (["--learning-rate", "1e-6"], "a small learning rate: type --learning-rate 1e-05"),
        (["--max-time", "1e-3"], "is a short fit: type --max-time 0.01"),
    ],
)
def test_a_network_that_is_worse_than_the_mean_is_noted(typed, said, mlp_xp, undrawn):
    noise = np.random.default_rng(1).normal(size=(60, 2))
    Path("noise.csv").write_text("\n".join(["a,price", *(f"{a},{b}" for a, b in noise)]))
    done = mlp_xp("train", "noise.csv", "--recipe", "default", *SETTINGS, *typed)
    assert done.status == 0
    assert "test R2 -" in done.out
    note = "note: the network is worse than a constant prediction. The likeliest cause "
    assert note in done.err
    assert said in done.err


@pytest.mark.parametrize("is_useless", [False, True])
def test_a_network_is_useless_if_accuracy_and_log_loss_are_worse(is_useless):
    y = np.repeat([0, 1], [90, 10])
    p = np.where(y, 0.6, np.where(np.arange(100) < 11, 0.51, 0.05))
    p = 1.0 - p if is_useless else p  # Otherwise, accuracy is 89 %, but the rare class is found.
    both = np.column_stack([1.0 - p, p])
    test = Evaluation(np.empty(0), y, (p > 0.5).astype(int), both, (), None)
    model = MLPClassifier()
    model.classes_ = np.arange(2)
    assert task_of(("a", "b")).is_useless(test, y, model) is is_useless


def test_regression_runs_can_be_compared_with_classification_runs(mlp_xp, homes, undrawn, finished):
    assert mlp_xp(*TRAIN[:-1], "whole").status == 0
    assert re.search(r"whole .* homes.csv +0\.9\d+ ", mlp_xp("runs", ".").out)
    lines = mlp_xp("compare", "whole", finished).out.splitlines()
    cells = {line[:16].strip(): line[16:].split() for line in lines}
    assert cells["test R2"][0].startswith("0.9")
    assert len(cells["test R2"]) == len(cells["test RMSE"]) == 1
    assert cells["test accuracy"][1] == "%"


def test_a_regression_run_can_be_resumed(mlp_xp, homes, undrawn, monkeypatch, fails):
    assert mlp_xp(*TRAIN[:-1], "whole").status == 0
    with monkeypatch.context() as patched:
        patched.setattr("mlp_xp.cli.training.results.draw_results", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            mlp_xp(*TRAIN, "--checkpoint", 5)
    (checkpoint,) = Path("run.partial/checkpoints").glob("*-0010")
    assert "test R2 0.9" in mlp_xp("evaluate", checkpoint).out
    for file in Path("run.partial").glob("model*"):
        file.unlink()
    # Data that do not fit leave the run as it is; columns are found by their names.
    names, *lines = Path("homes.csv").read_text().splitlines()
    before = Path("run.partial/config.json").read_bytes()
    Path("shorter.csv").write_text("\n".join([names, *lines[:-5]]))
    resume = "train", "--resume", "run", "--data-path"
    assert "checkpoint is from" in mlp_xp(*resume, "shorter.csv").err
    assert Path("run.partial/config.json").read_bytes() == before
    Path("renamed.csv").write_text("\n".join([f"new{names}", *lines]))
    assert "no column" in fails(*resume, "renamed.csv")
    assert "after --data-path" in fails(*resume, "none.csv")
    reordered = [",".join(reversed(line.split(","))) for line in (names, *lines)]
    Path("reordered.csv").write_text("\n".join(reordered))
    assert "(regression)" in mlp_xp(*resume, "reordered.csv").out
    resumed, whole = load_model("run"), load_model("whole")
    np.testing.assert_array_equal(resumed.coefs_[-1], whole.coefs_[-1])


def test_task_option_overrides_the_detected_task(mlp_xp, undrawn, fails):
    Path("ages.csv").write_text("a,age\n" + "".join(f"{i},{i % 4}\n" for i in range(40)))
    Path("words.csv").write_text("a,b\n1,x\n2,y\n3,z\n4,x\n")
    Path("pets").mkdir()
    train = ["train", "--data", "ages.csv", *SETTINGS, "--out", "run"]
    assert "target: age, 4 classes (classification)" in mlp_xp(*train).out
    out = mlp_xp(*train[:-1], "numbers", "--task", "regression").out
    assert "target: age, numbers from 0 to 3 (regression)" in out
    line = fails(*train[:-1], "other", "--task", "regression", "--label-smoothing", 0.1)
    assert re.search("is for classification, but .*it out, or type --task classification", line)
    Path("numbers").rename("numbers.partial")
    for option, value, said in (
        ("--data", "digits", "for your own data, not for digits"),
        ("--data", "pets", "leave out --task regression, which is for tables"),
        ("--data", "words.csv", "'b', the column to predict, has 'x', which is not a number"),
        ("--resume", "numbers", "--task cannot be combined with --resume"),
    ):
        assert said in fails("train", option, value, "--task", "regression")


def test_targets_are_standardized_if_the_loss_allows_it(mlp_xp, homes, undrawn):
    losses = {'"huber"': "standardize", '"poisson"': None, '{class = "Huber"}': None}
    for number, (loss, scaling) in enumerate(losses.items()):
        Path("mine.toml").write_text(
            f'description = "homes"\ndata = "digits"\nloss = {loss}\nhidden_layer_sizes = [8]\n'
            'max_iter = 3\ninput_scaling = "standardize"\nbackend = "numpy"\n'
        )
        recipe = ["--recipe", "mine.toml", "--task", "regression", "--out", f"run{number}"]
        done = mlp_xp("train", "--data", "homes.csv", *recipe)
        assert done.status == 0
        assert "RMSE" not in done.out[: done.out.index("saved in")], loss
        config = json.loads(Path(f"run{number}", "config.json").read_text())
        assert config["settings"]["params"]["target_scaling"] == scaling, loss
        assert load_model(f"run{number}").target_scaling == scaling


def test_a_table_is_learned_with_constraints_by_name(mlp_xp, fails, undrawn):
    rng = np.random.default_rng(0)
    dates = np.datetime64("2020-01-01") + np.arange(300)
    towns, incomes = ["Bern", "Oslo"] * 150, rng.normal(size=300)
    lines = [
        f"{income:.3f},{day},{town},{income + 0.3 * rng.normal():.3f}\n"
        for income, day, town in zip(incomes, dates, towns, strict=True)
    ]
    Path("paid.csv").write_text("income,since,town,paid\n" + "".join(lines))
    train = ["train", "--data", "paid.csv", "--epochs", 3, "--out", "run"]
    assert mlp_xp(*train, "--monotonic-cst", "income=1,since=-1").status == 0
    model = load_model("run")
    assert list(model.monotonic_cst) == [1, -1, 0]
    assert "since: days since 1970" in model.columns_.input_names
    rows = pd.read_csv("paid.csv", parse_dates=["since"]).drop(columns="paid")
    later = rows.assign(income=rows["income"] - 1, since=rows["since"] + pd.Timedelta(days=9))
    assert np.all(model.predict(later) <= model.predict(rows))
    assert mlp_xp("predict", "run", "paid.csv").status == 0
    for typed, said in (
        ("incme=1", "X has no column 'incme', which `monotonic_cst` constrains: did you mean 'inc"),
        ("town=1", "column 'town' has categories, which have no order, so `monotonic_cst` cannot"),
        ("income=2", "argument --monotonic-cst: has 'income=2': type names with 1 (never decreas"),
        ("income=1,income=-1", "argument --monotonic-cst: constrains 'income' twice: type it once"),
    ):
        assert said in fails(*train[:-1], "new", "--monotonic-cst", typed), typed
