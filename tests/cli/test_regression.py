"""`mlp-xp` with numbers to predict: a table of homes with their prices."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from running import FILES, history_of
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from mlp_xp.datasets import load_files
from mlp_xp.saving import load_model

PRICED = FILES - {"confusion.png"} | {"predictions.png"}
SMALL = ["--hidden", "16", "--learning-rate", "0.02", "--epochs", "20", "--backend", "numpy"]
TRAIN = ["train", "--data", "homes.csv", *SMALL, "--out", "run"]


@pytest.fixture(autouse=True)
def homes(elsewhere) -> np.ndarray:
    """Rooms, area and price, which are in homes.csv; prices are whole numbers."""
    rng = np.random.default_rng(0)
    rooms, area = rng.integers(1, 6, 300), rng.uniform(30, 200, 300).round(1)
    price = (40_000 * rooms + 3_000 * area + rng.normal(0, 20_000, 300)).round()
    rows = np.stack([rooms, area, price], axis=1)
    lines = [f"{a:.0f},{b},{c:.0f}\n" for a, b, c in rows]
    Path("homes.csv").write_text("rooms,area,price\n" + "".join(lines))
    return rows


def test_numbers_are_learned(mlp_xp, homes):
    out = mlp_xp(*TRAIN, "--validation", 0.2).out
    assert re.search(r"target: numbers from \d+,\d+ to \d+,\d+ \(regression\)\n", out)
    assert re.search(r"epoch 20/20  loss 0.\d+  val R2 0.9\d+  RMSE \d+,\d+  ", out)
    assert {path.name for path in Path("run").iterdir()} == PRICED
    page = Path("run/report.html").read_text(encoding="utf-8")
    titles = ["Command and settings", "Training", "Errors", "Predictions"]
    titles += ["Network", "Machine and versions"]
    assert re.findall("<h2>(.*?)</h2>", page) == titles
    assert "trained on homes.csv" in page
    for caption in ("R² by epoch", "test samples: true against predicted"):
        assert f"<figcaption>{caption}</figcaption>" in page
    assert "<figcaption>test samples: residuals</figcaption>" in page
    for name in ("test R2", "test RMSE", "test MAE"):
        assert f"<span>{name}</span>" in page
    data, model = load_files("homes.csv"), load_model("run")
    predicted, truth = model.predict(data.x_test), data.y_test
    result = json.loads(Path("run/config.json").read_text())["result"]
    assert result["test_r2"] == pytest.approx(r2_score(truth, predicted))
    assert result["test_r2"] > 0.95
    assert result["test_rmse"] == pytest.approx(root_mean_squared_error(truth, predicted))
    assert result["test_mae"] == pytest.approx(mean_absolute_error(truth, predicted))
    summary = f"test R2 {result['test_r2']:.4f}, RMSE {result['test_rmse']:,.0f}, MAE "
    assert summary in out
    assert 0.9 < float(history_of(Path("run"))[-1]["validation_r2"]) < 1

    tested = mlp_xp("evaluate", "run").out
    assert summary in tested
    assert tested.endswith("of 60 samples\n")
    Path("new.csv").write_text("area,rooms\n100,3\n")
    prediction = model.predict([[3.0, 100.0]])[0]
    assert mlp_xp("predict", "run", "new.csv").out == f"new.csv, row 1: {prediction:,.0f}\n"
    found = json.loads(mlp_xp("predict", "run", "new.csv", "--json").out)["predictions"]
    assert found == [{"file": "new.csv, row 1", "prediction": pytest.approx(prediction)}]


@pytest.mark.matrix
def test_a_network_that_predicts_numbers_is_exported(mlp_xp, homes):
    runtime = pytest.importorskip("onnxruntime")
    assert mlp_xp(*TRAIN).status == 0
    model = load_model("run")
    assert mlp_xp("export", "run", "--to", "onnx").out.endswith("outputs: prediction\n")
    session = runtime.InferenceSession("run/model.onnx")
    (graph,) = session.run(None, {"X": homes[:5, :2]})
    np.testing.assert_allclose(graph.reshape(-1), model.predict(homes[:5, :2]), rtol=1e-6)


def test_runs_are_listed_and_compared_with_those_of_classes(mlp_xp, undrawn, finished):
    assert mlp_xp(*TRAIN).status == 0
    assert re.search(r"run .* homes.csv +0\.9\d+ ", mlp_xp("runs", ".").out)
    lines = mlp_xp("compare", "run", finished).out.splitlines()
    cells = {line[:16].strip(): line[16:].split() for line in lines}
    assert cells["test R2"][0].startswith("0.9")
    assert len(cells["test R2"]) == 1
    assert cells["test accuracy"][1] == "%"
    assert len(cells["test RMSE"]) == 1


def test_a_killed_training_goes_on_and_its_checkpoints_predict_prices(mlp_xp, undrawn, monkeypatch):
    assert mlp_xp(*TRAIN[:-1], "whole").status == 0
    with monkeypatch.context() as patched:
        patched.setattr("mlp_xp.cli.train.draw_results", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            mlp_xp(*TRAIN, "--checkpoint", 5)
    (checkpoint,) = Path("run.partial/checkpoints").glob("*-0010")
    assert "test R2 0.9" in mlp_xp("evaluate", checkpoint).out
    for file in ("model.json", "model.safetensors"):
        Path("run.partial", file).unlink()
    assert "(regression)" in mlp_xp("train", "--resume", "run").out
    resumed, whole = load_model("run"), load_model("whole")
    np.testing.assert_array_equal(resumed.coefs_[-1], whole.coefs_[-1])


def test_a_training_that_diverges_is_reported(mlp_xp, undrawn):
    done = mlp_xp(*TRAIN, "--solver", "sgd", "--learning-rate", "1e30")
    assert done.status == 1
    assert "try a smaller --learning-rate" in done.err
    result = json.loads(Path("run/config.json").read_text())["result"]
    assert -np.inf < result["test_r2"] < 0
    assert mlp_xp("evaluate", "run").status == 0


def test_the_best_network_is_kept(mlp_xp, undrawn):
    out = mlp_xp(*TRAIN, "--epochs", 200, "--early-stopping", 3).out
    assert "val R2 0.9" in out
    assert len(history_of(Path("run"))) < 200


def test_the_task_can_be_typed(mlp_xp, undrawn, fails):
    Path("ages.csv").write_text("a,age\n" + "".join(f"{i},{i % 4}\n" for i in range(40)))
    Path("words.csv").write_text("a,b\n1,x\n2,y\n3,z\n4,x\n")
    Path("pets").mkdir()
    train = ["train", "--data", "ages.csv", *SMALL, "--out", "run"]
    assert "target: 4 classes (classification)" in mlp_xp(*train).out
    out = mlp_xp(*train[:-1], "numbers", "--task", "regression").out
    assert "target: numbers from 0 to 3 (regression)" in out
    line = fails(*train, "--task", "regression", "--label-smoothing", 0.1)
    assert "--label-smoothing is for classes, and " in line
    assert "leave it out, or type --task classification" in line
    Path("numbers").rename("numbers.partial")
    for option, value, said in (
        ("--data", "digits", "for data of your own, not for digits"),
        ("--data", "pets", "leave out --task regression, which is for tables"),
        ("--data", "words.csv", "'b', the column to predict, has values that are no numbers"),
        ("--resume", "numbers", "--task cannot be given with --resume"),
    ):
        assert said in fails("train", option, value, "--task", "regression")


def test_numbers_are_standardized_where_the_loss_allows(mlp_xp, undrawn):
    train = load_files("homes.csv").y_train
    standard = pytest.approx([train.mean(), train.std()])
    losses = {'"huber"': standard, '"poisson"': None, '{class = "Huber"}': None}
    for number, (loss, scaling) in enumerate(losses.items()):
        Path("mine.toml").write_text(
            f'description = "homes"\ndata = "digits"\nloss = {loss}\nhidden_layer_sizes = [8]\n'
            "max_iter = 3\nn_iter_no_change = inf\n"
            'input_scaling = "standardize"\nbackend = "numpy"\n'
        )
        recipe = ["--recipe", "mine.toml", "--task", "regression", "--out", f"run{number}"]
        done = mlp_xp("train", "--data", "homes.csv", *recipe)
        assert done.status == 0
        assert "RMSE" not in done.out[: done.out.index("saved in")], loss
        config = json.loads(Path(f"run{number}", "config.json").read_text())
        assert config["data"]["target_scaling"] == scaling, loss
