"""`mlp-xp evaluate`, `predict` and `lab`."""

import json
import os
import re
import signal
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from helpers import bounded, matrix
from PIL import Image
from running import draw

from mlp_xp import MLPRegressor
from mlp_xp.cli.commands import lab
from mlp_xp.cli.new_data import read_images
from mlp_xp.cli.run_folder.config import DataInfo
from mlp_xp.datasets import load_digits
from mlp_xp.saving import load_model, save_model


def test_evaluate_prints_the_accuracy_that_train_printed(mlp_xp, finished):
    head, *rows, last = mlp_xp("evaluate", finished).out.splitlines()
    accuracy = json.loads((finished / "config.json").read_text())["result"]["test_accuracy"]
    assert last == f"test accuracy {100 * accuracy:.2f} % of 359 images"
    assert head == "class  images   right"
    names, counts, shares = zip(*(line.split()[:3] for line in rows), strict=True)
    assert names == tuple("0123456789")
    right = sum(int(count) * float(share) for count, share in zip(counts, shares, strict=True))
    assert right / 359 == pytest.approx(100 * accuracy, abs=0.05)


@pytest.mark.parametrize("name", ["array_api_strict", *matrix("torch", "jax")])
def test_evaluate_and_lab_print_the_same_on_every_backend(name, mlp_xp, finished, small_cifar):
    pytest.importorskip(name)
    for words in (["evaluate", finished], ["lab", "--epochs", 5, "--learning-rate", 1]):
        done = mlp_xp(*words, "--backend", name)
        assert (done.status, done.err) == (0, "")
        assert done.out == mlp_xp(*words, "--backend", "numpy").out


def test_predict_prints_the_most_likely_classes(mlp_xp, finished):
    digits, model = load_digits(), load_model(finished)
    paths = [draw(Path(f"{i}.png"), row) for i, row in enumerate(digits.x_test[:5])]
    done = mlp_xp("predict", finished, *paths)
    assert (done.status, done.err) == (0, "")
    p = model.predict_proba(digits.x_test[:5])
    head, *lines = done.out.splitlines()
    assert head == "file   label  probability  next"
    for line, path, row in zip(lines, paths, p, strict=True):
        first, *others = (f"{i} {100 * row[i]:.1f} %" for i in np.argsort(-row)[:3])
        assert line.split() == f"{path} {first} {', '.join(others)}".split()
    large = mlp_xp("predict", finished, draw(Path("large.png"), digits.x_test[0], (64, 32)))
    assert large.err == "note: large.png is 64x32, resized to 8x8\n"
    assert large.out.split()[4:6] == ["large.png", done.out.split()[5]]


COLOR = DataInfo("cifar10", class_names=("a", "b"), image_shape=(3, 2, 4))
GRAY = DataInfo("fashion-mnist", class_names=("a", "b"), image_shape=(1, 2, 4))
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 4, 3), dtype=np.uint8)


def test_images_of_any_mode_become_channel_planes():
    for mode in ("L", "P", "RGBA", "1", "CMYK", "RGB"):
        name = "a.jpg" if mode == "CMYK" else "a.png"
        Image.fromarray(PIXELS).convert(mode).save(name)
        rows = [read_images([Path(name)], images)[0] for images in (COLOR, GRAY)]
        assert [row.shape for row in rows] == [(24,), (8,)], mode
    np.testing.assert_array_equal(rows[0].reshape(3, 2, 4), PIXELS.transpose(2, 0, 1))
    exif = Image.Exif()
    exif[0x0112] = 3  # The camera was upside down.
    Image.fromarray(PIXELS).save("a.png", exif=exif)
    (row,) = read_images([Path("a.png")], COLOR)
    np.testing.assert_array_equal(row.reshape(3, 2, 4), PIXELS[::-1, ::-1].transpose(2, 0, 1))


def test_an_unreadable_image_is_an_error_before_anything_is_printed(fails, finished):
    good = draw(Path("good.png"), load_digits().x_test[0])
    contents = {"text.png": b"no picture", "empty.png": b"", "other.gif": b"GIF89a"}
    contents["cut.png"] = good.read_bytes()[:60]
    for name, content in contents.items():
        Path(name).write_bytes(content)
    reasons = dict.fromkeys(contents, "") | {"none.png": ": No such file"}
    Path("empty").mkdir()
    assert "contains no file that ends in .png, .jpg, .jpeg" in fails("predict", finished, "empty")
    for name, reason in reasons.items():
        line = fails("predict", finished, good, name)
        assert f"error: {name} cannot be read as a PNG or JPEG file{reason}" in line


def test_an_image_too_large_for_memory_is_an_error(tmp_path):
    path = tmp_path / "a.png"
    Image.new("L", (9000, 9000)).save(path)
    said = "a.png cannot be read as .* has 9000x9000 pixels, but at most 16,777,216 are read from"
    with bounded(), pytest.raises(ValueError, match=said):
        read_images([path], COLOR)
    Image.new("L", (4000, 3000)).save(path)
    with bounded():
        assert read_images([path], COLOR).shape == (1, 24)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["a.png", "model.safetensors", "model.json", "config.json"])
def test_a_named_pipe_in_a_run_folder_is_an_error(name, fails, digits_run):
    (digits_run / name).unlink(missing_ok=True)
    os.mkfifo(digits_run / name)
    assert "not a regular file" in fails("predict", digits_run, digits_run / "a.png")


def test_a_folder_that_is_not_a_run_is_an_error(fails):
    Path("empty").mkdir()
    Path("file").write_text("")
    for folder, reason in (("empty", "No such file"), ("none", "No such"), ("file", "Not a dir")):
        for command in (["evaluate", folder], ["predict", folder, "a.png"]):
            line = fails(*command)
            assert f"error: {folder}/config.json cannot be read ({reason}" in line
            assert "expected a folder that `mlp-xp train` wrote" in line


def test_a_damaged_or_tampered_run_is_an_error(fails, digits_run):
    for name in ("model.json", "model.safetensors", "config.json"):
        path = digits_run / name
        whole = path.read_bytes()
        for content in (b"", b"{}", b"[]", b"null", b"\x00" * 100):
            path.write_bytes(content)
            assert str(path) in fails("evaluate", digits_run), content
        path.write_bytes(whole)
    config = json.loads(path.read_text())
    for changes, message in (
        ({"name": "mnist"}, "name must be one of cifar10"),
        ({"name": ["digits"]}, "unhashable"),
        ({"path": 3}, "path must be text or null, got 3"),
        ({"max_value": 0}, "max_value must be an integer from 1 to 255, got 0"),
        ({"class_names": ["a"]}, "class_names do not match the model's classes [0, 1, 2"),
        ({"class_names": list(range(10))}, "class_names do not match"),
        ({"image_shape": [8, 8]}, "image_shape is (8, 8), but the model has 64 inputs"),
        ({"image_shape": None}, "'data': "),
    ):
        path.write_text(json.dumps(config | {"data": config["data"] | changes}))
        line = fails("evaluate", digits_run)
        assert f"{path}, 'data': " in line
        assert message in line
    path.write_text(json.dumps(config))
    digits = load_digits()
    save_model(MLPRegressor(max_iter=1).fit(digits.x_train[:99], digits.y_train[:99]), digits_run)
    assert "of class MLPClassifier, got MLPRegressor" in fails("evaluate", digits_run)


def test_lab_prints_every_ten_epochs_and_draws_the_curves(mlp_xp, small_cifar, monkeypatch):
    real = lab.run_mlp_training

    def watched(data_train, labels_train, data_test, *rest, **options):
        for data in (data_train, data_test):  # Pixels are scaled to 1.
            assert data.dtype == np.float32
            assert 0 <= data.min() < 0.05 < 0.85 < data.max() <= 1
        return real(data_train, labels_train, data_test, *rest, **options)

    monkeypatch.setattr(lab, "run_mlp_training", watched)
    lines = mlp_xp("lab", "--epochs", 25, "--hidden", 8, "--backend", "numpy").out.splitlines()
    assert lines[:2] == ["loading CIFAR-10", "108 images to train on, 8 hidden neurons, 25 epochs"]
    for line, epoch in zip(lines[2:6], (1, 10, 20, 25), strict=True):
        assert re.fullmatch(rf"epoch  *{epoch}  training accuracy [\d.]+ %", line)
    assert re.fullmatch(r"test accuracy [\d.]+ %", lines[6])
    assert lines[7] == "curves saved in results/mlp.png"
    assert Path("results/mlp.png").read_bytes().startswith(b"\x89PNG")


def test_lab_evaluates_and_plots_after_ctrl_c(mlp_xp, small_cifar, monkeypatch):
    real, saved = lab.run_mlp_training, []

    def press_in_the_third(*data, after_epoch, **settings):
        def after(epoch, *facts):
            if epoch == 3:
                signal.raise_signal(signal.SIGINT)
            return after_epoch(epoch, *facts)

        return real(*data, after_epoch=after, **settings)

    monkeypatch.setattr(lab, "save_figure", lambda figure, path: saved.append(path))
    monkeypatch.setattr(lab, "run_mlp_training", press_in_the_third)
    done = mlp_xp("lab", "--epochs", 1000)
    assert (done.status, done.err, saved) == (130, "", [Path("results/mlp.png")])
    said = r"interrupted in epoch 3; testing its network\n"
    (accuracy,) = re.findall(said + r"(test .* %)\ncurves saved in results/mlp.png\n$", done.out)
    assert accuracy in mlp_xp("lab", "--epochs", 3).out  # The accuracy after three epochs.


def test_lab_checks_its_output_path_first_and_plots_last(mlp_xp, fails, small_cifar, monkeypatch):
    monkeypatch.setattr(lab, "save_figure", Mock(side_effect=OSError("No space left on device")))
    done = mlp_xp("lab", "--epochs", 1)
    assert done.status == 2
    assert "test accuracy" in done.out
    assert "results is a folder: type --out results/mlp.png" in fails("lab", "--out", "results")
