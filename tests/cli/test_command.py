"""`mlp-xp data` and `backends`, errors and help."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from running import TINY, draw

from mlp_xp.cli import listings, main
from mlp_xp.cli.commands import COMMANDS, parse
from mlp_xp.datasets import LOADERS, load_digits

TYPING_ERRORS = [
    ("", "required: COMMAND (see mlp-xp --help)"),
    ("trian", "invalid choice: 'trian', did you mean train? choose from train, evaluate, "),
    ("xyz", "invalid choice: 'xyz', choose from train, evaluate, "),
    ("train --epoch 0", "--epochs: '0', expected an integer of at least 1"),
    ("train --epochs 1.5", "--epochs: '1.5', expected an integer of at least 1"),
    ("train --hidden 512 -1", "--hidden: '-1'"),
    ("train --hidden 8 --hidden x", "--hidden: 'x', expected an integer of at least 1"),
    ("train --learning-rate 0", "--learning-rate: '0', expected a number above 0"),
    ("train --learning-rate nan", "--learning-rate: 'nan'"),
    ("train --alpha -1", "--alpha"),
    ("train --alpha inf", "--alpha: 'inf', expected a number of at least 0"),
    ("train --validation 1", "--validation: '1', expected a number above 0 below 1"),
    ("train --seed 4294967296", "an integer of at least 0 below 4294967296"),
    ("train --dropout 1", "--dropout: '1', expected a number of at least 0 below 1"),
    ("train --label-smoothing -0.1", "--label-smoothing: '-0.1'"),
    ("train --max-grad-norm 0", "--max-grad-norm: '0', expected a number above 0"),
    ("train --ema-decay 1", "--ema-decay: '1'"),
    ("train --checkpoint 0", "--checkpoint: '0', expected an integer of at least 1"),
    ("train --normalization group", "invalid choice: 'group'"),
    ("train --solver bfgs", "invalid choice: 'bfgs'"),
    ("train --activation rely", "--activation: invalid choice: 'rely', did you mean relu?"),
    ("train --backend numpi", "invalid choice: 'numpi'"),
    ("train --data mnist", "invalid choice: 'mnist'"),
    ("train --no-such-option", "arguments: --no-such-option (see mlp-xp train --help)"),
    ("train --lernrate 1", "arguments: --lernrate 1, did you mean --learning-rate? (see"),
    ("train --activation sigmoid", "invalid choice: 'sigmoid', did you mean logistic? choose"),
    ("train --hidden 64,32", "'64,32', expected an integer of at least 1, several with spaces"),
    ("train --data cifr10", "invalid choice: 'cifr10', did you mean cifar10? expected cifar10"),
    ("train --data digits --data-path x", "digits come with scikit-learn and have no path"),
    ("train --data digits --device gpu9", "device is 'gpu9'"),
    ("train --data digits --hidden 99999999999999999999", "too large"),
    ("train --data digits --hidden 999999999999", "Unable to allocate"),
    ("train --data cifar10 --data-path nowhere", "nowhere"),
    ("train --data digits --validation 0.0001", "holds out 0 of 1,438 samples, expected at"),
    ("evaluate", "required: RUN (see mlp-xp evaluate --help)"),
    ("predict run", "required: IMAGE (see mlp-xp predict --help)"),
    ("lab --epochs -3", "--epochs"),
    ("lab --foo", "arguments: --foo (see"),
    ("train --backend gpu", "invalid choice: 'gpu', did you mean auto? choose"),
    ("data mnist", "invalid choice: 'mnist'"),
    ("data --fetch mnist", "invalid choice: 'mnist'"),
]

# --- data and backends ---------------------------------------------------------------------------


def test_data_lists_what_is_here_and_what_is_not_and_fetches(mlp_xp):
    Path("data/cifar-10-batches-py").mkdir(parents=True)
    Path("data/cifar-10-batches-py/test_batch").write_bytes(bytes(3_000_000))
    lines = mlp_xp("data").out.splitlines()
    assert lines[0] == "cifar10           3.0 MB  data/cifar-10-batches-py"
    assert lines[1] == "cifar100       not here; mlp-xp data --fetch cifar100"
    assert lines[3].startswith("digits ")
    assert mlp_xp("data", "cifar100").out.splitlines() == [lines[1]]
    lines = mlp_xp("data", "--fetch", "digits").out.splitlines()
    assert lines[0].startswith("digits: 1,438 images to train on, 359 to test, 10 classes")
    assert lines[1].startswith("digits ")
    assert len(lines) == 2


def test_damaged_data_is_an_error(fails):
    Path("data/cifar-10-batches-py").mkdir(parents=True)
    assert "data/cifar-10-batches-py" in fails("data", "--fetch", "cifar10")
    assert "data/cifar-10-batches-py" in fails("train", "--out", "run")
    assert "nowhere" in fails("lab", "--data-path", "nowhere")


def test_backends_lists_all_and_why_one_is_unusable(mlp_xp, monkeypatch):
    def get_backend(name, device=None):
        if name == "torch":
            raise OSError("libtorch.so: cannot open\nshared object file")
        return real(name, device)

    real = listings.get_backend
    monkeypatch.setattr(listings, "installed", lambda name: name != "jax")
    monkeypatch.setattr(listings, "get_backend", get_backend)
    done = mlp_xp("backends")
    assert done.status == 0
    lines = {tuple(line.split()[:2]): line for line in done.out.splitlines()}
    assert f"library numpy {np.__version__}, device cpu, blas" in lines["numpy", "cpu"]
    assert "threads" in lines["numpy", "cpu"]
    assert re.search(r'not installed: type \S+ -m pip install -e ".*\[jax\]"', lines["jax", "not"])
    reason = "unusable: libtorch.so: cannot open shared object file"
    assert lines["torch", "cpu"].endswith(reason)
    assert lines["torch", "cuda:0"].endswith(reason)
    assert re.search(r"^auto takes \w+ on ", done.out, re.MULTILINE)


# --- errors and help -----------------------------------------------------------------------------


def test_no_message_tells_the_user_to_delete_another_folder(fails):
    line = fails("train", "--data-path", "/etc")
    assert "/etc holds none of the data set's files: name a folder like cifar-10-batches-py" in line
    for path in ("/etc", "/etc/passwd", "/etc/passwd.tar.gz"):
        for data in ("cifar10", "cifar100", "fashion-mnist"):
            assert "elete" not in fails("train", "--data", data, "--data-path", path)


def test_without_a_network_one_line_says_what_to_do(fails, monkeypatch):
    def refuse(*_, **__):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # Between two attempts.
    monkeypatch.setenv("PATH", "")
    line = fails("train")
    assert "cifar-10-python.tar.gz cannot be reached (Temporary failure in name resolution)" in line
    assert "put it into the folder data" in line
    assert "type --data digits" in line
    assert "urllib3" not in line
    assert "Pool" not in line


def test_a_typing_error_is_one_line(fails):
    for typed, message in TYPING_ERRORS:
        assert message in fails(*shlex.split(typed)), typed


def test_a_missing_library_is_an_error(fails, finished, monkeypatch, small_cifar):
    picture, new = draw(Path("a.png"), load_digits().x_test[0]), [*TINY, "--out", "run"]
    commands = {
        "matplotlib": new,
        "safetensors": new,
        "safetensors.numpy": ["evaluate", finished],
        "PIL.Image": ["predict", finished, picture],
    }
    for module, argv in commands.items():
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            line = fails(*argv)
        package = module.partition(".")[0]
        assert re.search(rf"'{package}' is not installed: type .* install -e \".*\[cli\]\"", line)
    monkeypatch.setattr("mlp_xp.backends.installed", lambda name: name == "numpy")
    for argv in (new, ["evaluate", finished], ["predict", finished, picture], ["lab"]):
        line = fails(*argv, "--backend", "torch")
        assert re.search(r'needs torch, which is not installed: type .* -e ".*\[torch\]"', line)


def test_an_error_without_a_message_is_named_and_ctrl_c_prints_nothing(mlp_xp, monkeypatch):
    memory = "not enough memory: ask for less, e.g. a smaller --hidden or --batch-size"
    for error, status, said in (
        (MemoryError, 2, f"mlp-xp: error: {memory}\n"),
        (ValueError, 2, "mlp-xp: error: ValueError\n"),
        (KeyboardInterrupt, 130, ""),
    ):
        monkeypatch.setitem(LOADERS, "digits", Mock(side_effect=error))
        done = mlp_xp(*TINY)
        assert (done.status, done.err) == (status, said)


def test_control_characters_in_files_and_paths_are_escaped(mlp_xp, fails, digits_run, undrawn):
    evil = "\x1b[2J\x1b]0;owned\x07\u202e"
    run = digits_run.rename(digits_run.with_name(f"run{evil}"))
    config = json.loads((run / "config.json").read_text())
    config["data"]["class_names"][3] = f"three{evil}"
    (run / "config.json").write_text(json.dumps(config))
    picture = draw(Path(f"a{evil}.png"), load_digits().x_test[0], (16, 16))
    shown = [mlp_xp("evaluate", run), mlp_xp("predict", run, *[picture] * 9)]
    shown.append(mlp_xp(*TINY, "--epochs", 1, "--out", f"new{evil}"))
    text = "".join(done.out + done.err for done in shown) + fails("evaluate", f"none{evil}")
    assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert r"three\x1b[2J\x1b]0;owned\x07\u202e" in text
    assert r"new\x1b[2J" in text


def test_control_characters_in_the_classes_of_a_file_are_escaped(mlp_xp, tmp_path):
    names = np.asarray(["\x1b[31mred", "b"] * 30)
    np.savez(tmp_path / "data.npz", X=np.random.default_rng(0).random((60, 3)), y=names)
    options = ["--hidden", 4, "--epochs", 1, "--out", "run"]
    done = mlp_xp("train", "--data", tmp_path / "data.npz", *options)
    assert "\x1b" not in done.out + done.err
    assert r"\x1b[31mred" in Path("run", "report.html").read_text(encoding="utf-8")


def test_a_reader_that_closes_the_output_is_no_error(monkeypatch, capsys):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

        def fileno(self):
            return number

    with Path("out").open("wb") as file:
        number = file.fileno()
        monkeypatch.setattr(sys, "stdout", Closed())
        assert main(["data"]) == 1
        os.write(number, b"What Python flushes at its exit goes nowhere.")
    assert Path("out").read_bytes() == b""
    assert capsys.readouterr().err == ""


def test_the_package_runs_as_the_command():
    command = [sys.executable, "-m", "mlp_xp", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"mlp-xp \d+\.\d+\.\d+\n", done.stdout)


def help_of(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([*argv, "--help"])
    assert stopped.value.code == 0
    return capsys.readouterr().out


def test_help_is_in_groups_that_fit_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    overview = help_of(capsys)
    assert all(command in overview for command in COMMANDS)
    for group in ("train and use networks", "see what this machine has"):
        assert f"\n\n{group}:\n" in overview
    text = help_of(capsys, "train").partition("\nexamples:")[0]
    groups = ["options", "data", "network", "training", "regularization", "where to compute"]
    groups += ["run folder and output"]
    assert re.findall(r"^\n(\w.*):$", text, re.MULTILINE) == groups
    assert max(map(len, [*overview.splitlines(), *text.splitlines()])) <= 80


def test_help_fits_a_narrow_terminal_and_breaks_no_word(capsys, monkeypatch):
    for argv in ([], *([command] for command in COMMANDS)):
        monkeypatch.setenv("COLUMNS", "50")
        narrow = help_of(capsys, *argv)
        monkeypatch.setenv("COLUMNS", "500")
        wide = help_of(capsys, *argv)
        assert max(map(len, narrow.splitlines())) <= 50, argv
        # The first paragraph, the usage, is filled otherwise.
        narrow, wide = (text.partition("\n\n")[2] for text in (narrow, wide))
        # A path is wider than its column.
        narrow = re.sub(r"(<da)\s+(te>)", r"\1\2", narrow)
        assert narrow.replace(" \\\n", "\n").split() == wide.split(), argv


@pytest.mark.parametrize("width", ["50", "80"])
def test_help_has_examples_that_can_be_typed(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", width)
    for command in COMMANDS.keys() - {"compile"}:  # That one has a comment.
        text = help_of(capsys, command).partition("examples:\n")[2]
        examples = text.replace("\\\n", "").splitlines()  # As a shell reads it.
        assert examples, command
        for example in examples:
            name, *argv = shlex.split(example)
            assert (name, argv[0]) == ("mlp-xp", command)
            parse(argv)


def test_help_imports_no_heavy_library():
    code = (
        "import sys\n"
        "from mlp_xp.cli import main\n"
        "heavy = {'numpy', 'scipy', 'sklearn', 'torch', 'numba'}\n"
        "for line in sys.argv[1:]:\n"
        "    try: main(line.split())\n"
        "    except SystemExit: pass\n"
        "    print('loaded', *heavy & set(sys.modules))"
    )
    light = ["--help", "trian"]
    others = [*(f"{command} --help" for command in COMMANDS), "train --epochs 0"]
    command = [sys.executable, "-c", code, *light, *others]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("loaded")]
    assert len(loaded) == len(light + others)
    for argv, heavy in zip(light + others, loaded, strict=True):
        assert set(heavy) <= (set() if argv in light else {"numpy"}), argv
