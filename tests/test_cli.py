"""The command ``mlp-xp``, from what is typed to what is printed and written."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mlp_xp import MLP
from mlp_xp.cli import _parser, lab, machine, main, runs, train
from mlp_xp.cli.predict import read_image
from mlp_xp.cli.runs import Images
from mlp_xp.cli.train import Settings
from mlp_xp.datasets import Dataset, load_digits, split_dataset
from mlp_xp.saving import load_model

COMMANDS = ["train", "evaluate", "predict", "lab", "data", "backends"]
TINY = ["train", "--data", "digits", "--hidden", "16", "--learning-rate", "0.01"]
FILES = {
    "config.json",
    "history.csv",
    "model.safetensors",
    "model.json",
    "curves.png",
    "confusion.png",
}
# SIGINT is ignored by what a shell started in the background, and by all that this starts.
CODE = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from mlp_xp.cli import main; sys.exit(main())"
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLP_XP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def mlp_xp(capsys):
    """Run the command; give status, stdout and stderr."""

    def run(*argv: object) -> SimpleNamespace:
        status = main([str(word) for word in argv])
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, out=out, err=err)

    return run


@pytest.fixture
def fails(mlp_xp):
    """Run the command; check that it fails as it should, and give its one line."""

    def run(*argv: object) -> str:
        done = mlp_xp(*argv)
        assert done.status == 2
        assert done.err.startswith("mlp-xp: error: ")
        assert done.err.count("\n") == 1
        return done.err

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that no test changes."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert main([*TINY, "--epochs", "8", "--validation", "0.25", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def digits_run(finished, tmp_path):
    """A copy of that run that a test may change."""
    folder = tmp_path / "run"
    folder.mkdir()
    for file in finished.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def history_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# --- train ---------------------------------------------------------------------------------------


def test_train_prints_an_epoch_a_line_and_the_result_last(mlp_xp, tmp_path):
    done = mlp_xp(*TINY, "--epochs", 3, "--out", tmp_path / "run")
    assert done.status == 0
    lines = done.out.splitlines()
    assert lines[0] == "digits: 1,438 images to train on, 359 to test"
    assert lines[1] == "network: 64-16-10, relu, adamw"
    assert lines[2].startswith("backend: library ")
    epoch = r"epoch \d/3  loss \d\.\d{3}  acc [\d.]+ %  [\d,]+ images/s  \d:\d\d left"
    assert all(re.fullmatch(epoch, line) for line in lines[3:6])
    assert lines[6] == f"saved in {tmp_path / 'run'}"
    assert re.fullmatch(r"test accuracy [\d.]+ %, [\d.]+ s, [\d,]+ images/s", lines[7])
    assert len(lines) == 8


def test_train_leaves_a_whole_run_folder_and_nothing_beside_it(finished):
    assert {path.name for path in finished.iterdir()} == FILES
    assert [path.name for path in finished.parent.iterdir()] == ["digits"]
    for name in ("curves.png", "confusion.png"):
        with Image.open(finished / name) as image:
            assert min(image.size) > 500


def test_the_configuration_says_how_to_do_it_again(finished):
    config = json.loads((finished / "config.json").read_text())
    assert config["settings"]["data"] == "digits"
    assert config["settings"]["hidden"] == [16]
    assert config["settings"]["seed"] == 0
    assert config["backend"]["name"] in ("numpy", "cupy", "torch", "jax")
    assert config["versions"]["numpy"] == np.__version__
    digits = load_digits()
    accuracy = load_model(finished).score(digits.x_test, digits.y_test)
    assert config["result"]["test_accuracy"] == accuracy > 0.5
    assert config["result"]["interrupted"] is False


def test_the_history_has_a_row_an_epoch(finished):
    rows = history_of(finished)
    assert [row["epoch"] for row in rows] == [str(epoch) for epoch in range(1, 9)]
    assert all(row["n_samples"] == "1078" for row in rows)
    losses = [float(row["loss"]) for row in rows]
    assert losses == load_model(finished).loss_curve_
    assert losses[-1] < losses[0]


def test_validation_images_are_held_out_of_the_training_set(finished):
    digits = load_digits()
    *_, x_held, y_held = split_dataset(digits.x_train, digits.y_train, 0.75, seed=0)
    score = load_model(finished).score(x_held, y_held)
    assert float(history_of(finished)[-1]["validation_accuracy"]) == score


def test_validation_does_not_change_the_training(tmp_path, monkeypatch):
    def run(name: str, *options: str) -> MLP:
        assert main([*TINY, "--epochs", "3", "--out", name, *options]) == 0
        return load_model(name)

    held = run("held", "--validation", "0.25")
    digits = load_digits()
    x, y, *_ = split_dataset(digits.x_train, digits.y_train, 0.75, seed=0)
    monkeypatch.setitem(train.LOADERS, "digits", lambda: digits._replace(x_train=x, y_train=y))
    plain = run("plain")
    assert plain.coefs_[0].tobytes() == held.coefs_[0].tobytes()


def test_the_test_set_is_read_once(monkeypatch, mlp_xp):
    seen = []

    class Watched(MLP):
        def predict(self, X):
            seen.append(X)
            return super().predict(X)

    digits = load_digits()
    monkeypatch.setitem(train.LOADERS, "digits", lambda: digits)
    monkeypatch.setattr(train, "MLPClassifier", Watched)
    assert mlp_xp(*TINY, "--epochs", 3, "--validation", "0.25", "--out", "run").status == 0
    assert [X is digits.x_test for X in seen] == [False, False, False, True]


def test_a_seed_decides_everything(mlp_xp):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert mlp_xp(*TINY, "--epochs", 1, "--seed", seed, "--out", name).status == 0
    a, b, c = (Path(name, "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_options_reach_the_estimator(mlp_xp):
    options = (
        "--hidden 8 4 --activation tanh --solver sgd --schedule cosine --epochs 2 --batch-size 99 "
        "--alpha 0.5 --backend array_api_strict --precision float64 --placement streamed --seed 7"
    )
    assert mlp_xp(*TINY, *options.split(), "--out", "run").status == 0
    params = load_model("run").get_params()
    expected = {
        "hidden_layer_sizes": (8, 4),
        "activation": "tanh",
        "solver": "sgd",
        "learning_rate": "cosine",
        "learning_rate_init": 0.01,
        "max_iter": 2,
        "batch_size": 99,
        "alpha": 0.5,
        "backend": "array_api_strict",
        "precision": "float64",
        "placement": "streamed",
        "random_state": 7,
        "input_scaling": "standardize",
        "n_iter_no_change": float("inf"),
    }
    assert {name: params[name] for name in expected} == expected


def test_without_options_the_settings_are_the_defaults():
    args = vars(_parser().parse_args(["train"]))
    assert Settings(**{name: args[name] for name in vars(Settings())}) == Settings()
    assert (Settings().data, Settings().activation, len(Settings().hidden)) == (
        "cifar10",
        "relu",
        2,
    )


def test_no_hidden_layer_is_a_linear_classifier(mlp_xp):
    assert mlp_xp(*TINY, "--hidden", "--epochs", 1, "--out", "run").status == 0
    assert [W.shape for W in load_model("run").coefs_] == [(64, 10)]


def test_runs_without_a_name_get_one_each(mlp_xp, monkeypatch):
    monkeypatch.setattr(runs.time, "strftime", lambda _: "20260102-030405")
    for _ in range(2):
        assert mlp_xp(*TINY, "--epochs", 1).status == 0
    names = {path.name for path in Path("runs").iterdir()}
    assert names == {"20260102-030405-digits", "20260102-030405-digits-2"}


@pytest.mark.parametrize("taken", ["run", "run.partial"])
def test_nothing_is_overwritten(taken, fails):
    Path(taken).mkdir()
    line = fails(*TINY, "--out", "run")
    assert f"error: {taken} is already there" in line
    assert "type --out run-2" in line
    assert [path.name for path in Path().iterdir()] == [taken]


def test_a_run_that_fails_leaves_nothing(fails, monkeypatch):
    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(train, "confusion_figure", fail)
    assert "No space left" in fails(*TINY, "--epochs", 1, "--out", "run")
    assert list(Path().iterdir()) == []


def test_a_loss_that_is_not_finite_is_pointed_out(mlp_xp):
    with np.errstate(all="ignore"):
        done = mlp_xp(*TINY, "--solver", "sgd", "--learning-rate", "1e30", "--out", "run")
    assert "not a finite number: try a smaller --learning-rate" in done.out
    assert done.status == 0


def test_on_a_terminal_there_is_a_bar(mlp_xp, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    done = mlp_xp(*TINY, "--epochs", 3, "--out", "run")
    assert "3/3" in done.out
    assert "━" in done.out
    assert re.search(r"loss \d\.\d{3}  acc [\d.]+ %  [\d,]+ images/s", done.out)
    assert "test accuracy" in done.out.splitlines()[-1]


def start(*argv: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-c", CODE, *map(str, argv)]
    return subprocess.Popen(command, stdout=-1, stderr=-1, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")
def test_ctrl_c_keeps_the_network_so_far(tmp_path):
    process = start(*TINY, "--epochs", 1_000_000, "--out", tmp_path / "run")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch       3/"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == ""
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    rows = history_of(tmp_path / "run")
    assert 3 <= len(rows) < 1_000_000
    assert f"interrupted in epoch {len(rows)}; the network is kept" in out
    assert re.fullmatch(r"test accuracy .*", out.splitlines()[-1])
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    digits = load_digits()
    accuracy = load_model(tmp_path / "run").score(digits.x_test, digits.y_test)
    assert config["result"]["test_accuracy"] == accuracy
    assert config["result"]["interrupted"] is True


def test_ctrl_c_ends_at_the_end_of_the_step(mlp_xp, monkeypatch):
    steps = []

    def pressed_in_the_second_epoch(done: int, n_steps: int) -> None:
        steps.append((done, n_steps))
        if len(steps) == n_steps + 3:
            signal.raise_signal(signal.SIGINT)

    real = train.display

    @contextlib.contextmanager
    def display(n_epochs: int, n_images: int):
        with real(n_epochs, n_images) as shown:
            yield shown._replace(after_step=pressed_in_the_second_epoch)

    monkeypatch.setattr(train, "display", display)
    done = mlp_xp(*TINY, "--epochs", 5, "--out", "run")
    assert done.status == 130
    assert steps[-1] == (3, 12)
    assert [row["n_samples"] for row in history_of(Path("run"))] == ["1438", "384"]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")
def test_ctrl_c_twice_leaves_nothing(tmp_path):
    process = start(*TINY, "--epochs", 1_000_000, "--out", tmp_path / "run")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch       3/"):
            break
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)  # By now it is evaluating or drawing.
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert list(tmp_path.iterdir()) == []


# --- evaluate and predict ------------------------------------------------------------------------


def test_evaluate_tells_what_train_told(mlp_xp, finished):
    done = mlp_xp("evaluate", finished)
    assert done.status == 0
    lines = done.out.splitlines()
    accuracy = json.loads((finished / "config.json").read_text())["result"]["test_accuracy"]
    assert lines[-1] == f"test accuracy {100 * accuracy:.2f} % of 359 images"
    assert lines[0] == "class  images   right"
    rows = [line.split() for line in lines[1:-1]]
    assert [row[0] for row in rows] == [str(digit) for digit in range(10)]
    right = sum(int(row[1]) * float(row[2]) for row in rows)
    assert right / 359 == pytest.approx(100 * accuracy, abs=0.05)


@pytest.mark.parametrize("name", ["numpy", "torch", "jax", "array_api_strict"])
def test_a_run_is_evaluated_on_any_backend(name, mlp_xp, finished):
    pytest.importorskip(name)
    done = mlp_xp("evaluate", finished, "--backend", name)
    assert (done.status, done.err) == (0, "")
    assert done.out == mlp_xp("evaluate", finished).out


def draw(path: Path, row: np.ndarray, size: tuple[int, int] = (8, 8)) -> Path:
    pixels = np.rint(row.reshape(8, 8) * (255 / 16)).astype(np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST).save(path)
    return path


def test_predict_names_the_classes_that_the_model_gives(mlp_xp, finished):
    digits, model = load_digits(), load_model(finished)
    paths = [draw(Path(f"{i}.png"), row) for i, row in enumerate(digits.x_test[:5])]
    done = mlp_xp("predict", finished, *paths)
    assert done.status == 0
    assert done.err == ""
    p = model.predict_proba(digits.x_test[:5])
    for line, path, row in zip(done.out.splitlines(), paths, p, strict=True):
        best = np.argsort(-row)[:3]
        assert line == f"{path}: " + ", ".join(f"{i} {100 * row[i]:.1f} %" for i in best)


def test_predict_notes_that_it_resizes(mlp_xp, finished):
    row = load_digits().x_test[0]
    small = mlp_xp("predict", finished, draw(Path("small.png"), row))
    large = mlp_xp("predict", finished, draw(Path("large.png"), row, (64, 32)))
    assert large.err == "note: large.png is 64x32, resized to 8x8\n"
    assert large.out.split()[1] == small.out.split()[1]


COLOUR = Images("cifar10", None, ("a", "b"), (3, 2, 4), 255)
GREY = Images("fashion-mnist", None, ("a", "b"), (1, 2, 4), 255)
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 4, 3), dtype=np.uint8)


def test_a_picture_becomes_channel_planes():
    Image.fromarray(PIXELS).save("a.png")
    row = read_image(Path("a.png"), COLOUR)
    np.testing.assert_array_equal(row.reshape(3, 2, 4), PIXELS.transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
@pytest.mark.parametrize("images", [COLOUR, GREY])
def test_pictures_of_any_mode_are_converted(mode, images):
    name = "a.jpg" if mode == "CMYK" else "a.png"
    Image.fromarray(PIXELS).convert(mode).save(name)
    assert read_image(Path(name), images).shape == (8 * images.image_shape[0],)


def test_a_picture_is_turned_as_the_camera_was_held():
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(PIXELS).save("a.png", exif=exif)
    row = read_image(Path("a.png"), COLOUR)
    np.testing.assert_array_equal(row.reshape(3, 2, 4), PIXELS[::-1, ::-1].transpose(2, 0, 1))


def test_an_unreadable_picture_is_an_error_before_anything_is_printed(fails, finished, capsys):
    good = draw(Path("good.png"), load_digits().x_test[0])
    whole = good.read_bytes()
    cases = {
        "text.png": b"no picture",
        "empty.png": b"",
        "cut.png": whole[: len(whole) // 2],
        "other.gif": b"GIF89a",
    }
    for name, content in cases.items():
        Path(name).write_bytes(content)
        assert f"error: {name} cannot be read as a PNG or JPEG file" in fails(
            "predict", finished, good, name
        )
    assert "none.png cannot be read as a PNG or JPEG file: No such file" in fails(
        "predict", finished, "none.png"
    )
    assert ". cannot be read as a PNG or JPEG file: Is a directory" in fails(
        "predict", finished, "."
    )


def test_a_folder_from_elsewhere_is_an_error(fails):
    Path("empty").mkdir()
    Path("file").write_text("")
    for folder, reason in (("empty", "No such file"), ("none", "No such"), ("file", "Not a dir")):
        for command in (["evaluate", folder], ["predict", folder, "a.png"]):
            line = fails(*command)
            assert f"error: {folder}/config.json cannot be read ({reason}" in line
            assert "expected a folder that `mlp-xp train` wrote" in line


@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "config.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"\x00" * 100])
def test_a_damaged_run_is_an_error(name, content, fails, digits_run):
    (digits_run / name).write_bytes(content)
    assert f"{digits_run / name}" in fails("evaluate", digits_run)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "mnist"}, "name is 'mnist', expected one of cifar10"),
        ({"name": ["digits"]}, "unhashable"),
        ({"path": 3}, "path is 3"),
        ({"max_value": 0}, "max_value is 0"),
        ({"class_names": ["a"]}, r"class_names do not fit the model's classes [0, 1, 2"),
        ({"class_names": list(range(10))}, "class_names do not fit"),
        ({"image_shape": [8, 8]}, "image_shape is (8, 8), and the model has 64 inputs"),
        ({"image_shape": [1, 4, 8]}, "image_shape is (1, 4, 8)"),
        ({"image_shape": None}, "'data': "),
    ],
)
def test_a_tampered_configuration_is_an_error(changes, message, fails, digits_run):
    path = digits_run / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"data": config["data"] | changes}))
    line = fails("evaluate", digits_run)
    assert f"{path}, 'data': " in line
    assert message in line


# --- lab -----------------------------------------------------------------------------------------


@pytest.fixture
def small_cifar(monkeypatch):
    rng = np.random.default_rng(0)
    y = np.arange(120) % 10
    x = (25 * y[:, None] + rng.integers(0, 5, (120, 12))).astype(np.uint8)
    small = Dataset(x[:100], y[:100], x[100:], y[100:], tuple("abcdefghij"), (3, 2, 2))
    monkeypatch.setattr(lab, "load_cifar10", lambda path: small)


def test_lab_prints_every_ten_epochs_and_draws_the_curves(mlp_xp, small_cifar):
    done = mlp_xp("lab", "--epochs", 25, "--hidden", 8)
    assert done.status == 0
    lines = done.out.splitlines()
    assert lines[0] == "108 images to train on, 8 hidden neurons, 25 epochs"
    for line, epoch in zip(lines[1:4], (10, 20, 25), strict=True):
        assert re.fullmatch(rf"epoch  {epoch}  training accuracy [\d.]+ %", line)
    assert lines[4] == "curves saved in results/mlp.png"
    assert re.fullmatch(r"test accuracy [\d.]+ %", lines[5])
    with Image.open("results/mlp.png") as image:
        assert image.format == "PNG"


@pytest.mark.parametrize("name", ["torch", "jax", "array_api_strict"])
def test_lab_gives_the_same_on_any_backend(name, mlp_xp, small_cifar):
    pytest.importorskip(name)
    options = ["--epochs", 5, "--learning-rate", 1]
    done = mlp_xp("lab", *options, "--backend", name)
    assert done.status == 0
    assert done.out == mlp_xp("lab", *options).out


def test_lab_scales_pixels_to_one(mlp_xp, small_cifar, monkeypatch):
    def watched(data_train, labels_train, data_test, *rest, **options):
        for data in (data_train, data_test):
            assert data.dtype == np.float32
            assert 0 <= data.min() < 0.05
            assert 0.85 < data.max() <= 1
        return [0.5], 0.5, [1.0]

    monkeypatch.setattr(lab, "run_mlp_training", watched)
    assert mlp_xp("lab", "--epochs", 1, "--backend", "numpy").status == 0


def test_lab_refuses_a_folder_before_it_trains(fails):
    Path("results").mkdir()
    assert "results is a folder: type --out results/mlp.png" in fails("lab", "--out", "results")


# --- data and backends ---------------------------------------------------------------------------


def test_data_says_what_is_here_and_what_is_not(mlp_xp):
    Path("data/cifar-10-batches-py").mkdir(parents=True)
    Path("data/cifar-10-batches-py/test_batch").write_bytes(bytes(3_000_000))
    lines = mlp_xp("data").out.splitlines()
    assert lines[0] == "cifar10           3.0 MB  data/cifar-10-batches-py"
    assert lines[1] == "cifar100       not here; mlp-xp data --fetch cifar100"
    assert lines[3].startswith("digits ")
    assert mlp_xp("data", "cifar100").out.splitlines() == [lines[1]]


def test_data_fetches(mlp_xp, monkeypatch):
    lines = mlp_xp("data", "--fetch", "digits").out.splitlines()
    assert lines[0].startswith("digits: 1,438 images to train on, 359 to test, 10 classes")
    assert lines[1].startswith("digits ")
    assert len(lines) == 2


def test_damaged_data_is_an_error(fails):
    Path("data/cifar-10-batches-py").mkdir(parents=True)
    assert "data/cifar-10-batches-py" in fails("data", "--fetch", "cifar10")
    assert "data/cifar-10-batches-py" in fails("train", "--out", "run")
    assert "nowhere" in fails("lab", "--data-path", "nowhere")


def test_backends_lists_all_and_why_one_cannot_be_used(mlp_xp, monkeypatch):
    def get_backend(name, device=None):
        if name == "torch":
            raise OSError("libtorch.so: cannot open\nshared object file")
        return real(name, device)

    real = machine.get_backend
    monkeypatch.setattr(machine, "installed", lambda name: name != "jax")
    monkeypatch.setattr(machine, "get_backend", get_backend)
    done = mlp_xp("backends")
    assert done.status == 0
    lines = {tuple(line.split()[:2]): line for line in done.out.splitlines()}
    assert f"library numpy {np.__version__}, device cpu, blas" in lines["numpy", "cpu"]
    assert "threads" in lines["numpy", "cpu"]
    assert lines["jax", "not"].endswith("not installed: pip install mlp-xp[jax]")
    reason = "unusable: libtorch.so: cannot open shared object file"
    assert lines["torch", "cpu"].endswith(reason)
    assert lines["torch", "cuda:0"].endswith(reason)
    assert re.search(r"^auto takes \w+ on ", done.out, re.MULTILINE)


# --- errors and help -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", "required: COMMAND (see mlp-xp --help)"),
        ("trian", "invalid choice: 'trian'"),
        ("train --epoch 0", "--epochs: '0', expected an integer of at least 1"),
        ("train --epochs 1.5", "--epochs: '1.5', expected an integer of at least 1"),
        ("train --hidden 512 -1", "--hidden: '-1'"),
        ("train --hidden 8 --hidden x", "--hidden: 'x', expected an integer of at least 1"),
        ("train --learning-rate 0", "--learning-rate: '0', expected a number above 0"),
        ("train --learning-rate nan", "--learning-rate: 'nan'"),
        ("train --alpha -1", "--alpha"),
        ("train --alpha inf", "--alpha: 'inf', expected a number of at least 0"),
        ("train --validation 1", "--validation: '1', expected a number above 0 below 1"),
        ("train --seed 4294967296", "--seed: '4294967296', expected an integer of at least 0"),
        ("train --activation rely", "invalid choice: 'rely'"),
        ("train --backend numpi", "invalid choice: 'numpi'"),
        ("train --data mnist", "invalid choice: 'mnist'"),
        ("train --no-such-option", "unrecognized arguments: --no-such-option"),
        ("train --data digits --data-path x", "digits come with scikit-learn and have no path"),
        ("train --data digits --device gpu9", "device is 'gpu9'"),
        ("train --data digits --hidden 99999999999999999999", "too large"),
        ("train --data digits --hidden 999999999999", "Unable to allocate"),
        ("train --data cifar10 --data-path nowhere", "nowhere"),
        ("train --data digits --validation 0.0001", "at least one in each part"),
        ("evaluate", "required: RUN (see mlp-xp evaluate --help)"),
        ("predict run", "required: IMAGE (see mlp-xp predict --help)"),
        ("lab --epochs -3", "--epochs"),
        ("data mnist", "invalid choice: 'mnist'"),
        ("data --fetch mnist", "invalid choice: 'mnist'"),
    ],
)
def test_what_is_typed_wrong_is_an_error_in_one_line(typed, message, fails):
    assert message in fails(*shlex.split(typed))


def test_a_library_that_is_absent_is_an_error(fails, finished, monkeypatch):
    picture = draw(Path("a.png"), load_digits().x_test[0])
    cases = {
        "matplotlib": [*TINY, "--out", "run"],
        "safetensors": [*TINY, "--out", "run"],
        "safetensors.numpy": ["evaluate", finished],
        "PIL.Image": ["predict", finished, picture],
    }
    for module, argv in cases.items():
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            line = fails(*argv)
        package = module.partition(".")[0]
        assert f"module '{package}' is not installed: pip install \"mlp-xp[cli]\"" in line


def test_a_backend_that_is_absent_is_an_error(fails, finished, monkeypatch, small_cifar):
    monkeypatch.setattr("mlp_xp.backends.installed", lambda name: name == "numpy")
    picture = draw(Path("a.png"), load_digits().x_test[0])
    run = ["--out", "run"]
    for argv in ([*TINY, *run], ["evaluate", finished], ["predict", finished, picture], ["lab"]):
        line = fails(*argv, "--backend", "torch")
        assert "needs torch, which is not installed: pip install mlp-xp[torch]" in line


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    with start("data") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_ctrl_c_before_training_is_no_traceback(mlp_xp, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setitem(train.LOADERS, "digits", interrupted)
    done = mlp_xp(*TINY)
    assert (done.status, done.err) == (130, "")


def test_help_and_version_in_a_process_of_their_own():
    def run(*argv: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", CODE, *argv], capture_output=True, text=True, check=True
        )
        return done.stdout

    shown = run("--help")
    assert all(command in shown for command in COMMANDS)
    assert re.fullmatch(r"mlp-xp \d+\.\d+\.\d+\n", run("--version"))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_that_can_be_typed(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    examples = capsys.readouterr().out.partition("examples:\n")[2].splitlines()
    assert examples
    for example in examples:
        name, *argv = shlex.split(example)
        assert name == "mlp-xp"
        assert argv[0] == command
        _parser().parse_args(argv)
