"""`mlp-xp data`, `backends` and `bench`, errors and help."""

import contextlib
import importlib
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from helpers import PATIENCE
from running import CODE, TINY, draw

from mlp_xp.cli import main
from mlp_xp.cli.commands import COMMANDS, bench, listings, parse, train
from mlp_xp.cli.terminal import process
from mlp_xp.datasets import LOADERS, load_digits

TYPING_ERRORS = [
    ("", "required: COMMAND (see mlp-xp --help)"),
    ("trian", "invalid choice: 'trian', did you mean train? choose from train, evaluate, "),
    ("train --epoch 0", "--epochs: must be an integer of at least 1, got '0'"),
    ("train --hidden 8 --hidden x", "--hidden: must be an integer of at least 1, got 'x'"),
    ("train --learning-rate 0", "--learning-rate: must be a number above 0, got '0'"),
    ("train --seed 4294967296", "an integer of at least 0 below 4294967296"),
    ("train --dropout 1", "--dropout: must be a number of at least 0 below 1, got '1'"),
    ("train --no-such-option", "arguments: --no-such-option (see mlp-xp train --help)"),
    ("train --lernrate 1", "arguments: --lernrate, did you mean --learning-rate? (see"),
    ("train --max-iter=5", "arguments: --max-iter=5, did you mean --epochs? (see"),
    ("train --learning_rate=1", "--learning_rate=1, did you mean --learning-rate? (see"),
    ("train --activation sigmoid", "invalid choice: 'sigmoid', did you mean logistic? choose"),
    ("train --hidden 64 .", "an integer of at least 1, got '.': type . before the options"),
    ("train --hidden 64,32", "of at least 1, got '64,32': separate several with spaces"),
    ("train --data cifr10", "invalid choice: 'cifr10', did you mean cifar10? choose cifar10"),
    ("train --data digits --data-path x", "digits come with scikit-learn and have no path"),
    ("train --data digits --device gpu9", "`device` must be 'cpu' for backend 'numpy', got 'gpu9'"),
    ("train --data digits --hidden 99999999999999999999", "too large"),
    ("train --data digits --hidden 999999999999", "Unable to allocate"),
    ("train --data digits --validation 0.0001", "holds out 0 of 1,438 samples: set a"),
    ("train --data digits --calibration temperature", "samples: type --validation 0.1, or --early"),
    ("train --data digits --scoring acuracy", "unknown scoring 'acuracy', did you mean accuracy?"),
    ("train --data digits --scoring f1_macro", "--scoring f1_macro needs held-out samples: type"),
    ("train --recipe five-minute", "did you mean 'five-minutes'?"),
    ("evaluate", "required: RUN (see mlp-xp evaluate --help)"),
    ("train --backend gpu", "invalid choice: 'gpu', did you mean auto? choose"),
]


def test_data_command_lists_present_and_missing_data_sets_and_downloads(mlp_xp, fails):
    Path("data/cifar-10-batches-py").mkdir(parents=True)
    Path("data/cifar-10-batches-py/test_batch").write_bytes(bytes(3_000_000))
    lines = mlp_xp("data").out.splitlines()
    assert lines[0] == "cifar10           3.0 MB  data/cifar-10-batches-py"
    assert lines[1] == "cifar100       not found; to download it, type mlp-xp data --fetch cifar100"
    assert lines[3].startswith("digits ")
    assert mlp_xp("data", "cifar100").out.splitlines() == [lines[1]]
    first, second = mlp_xp("data", "--fetch", "digits").out.splitlines()
    assert first.startswith("digits: 1,438 images to train on, 359 to test, 10 classes")
    assert second.startswith("digits ")
    assert "data/cifar-10-batches-py" in fails("data", "--fetch", "cifar10")  # Damaged files.
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
    lines = {tuple(line.split()[:2]): line for line in done.out.splitlines()}
    assert f"library numpy {np.__version__}, device cpu, blas" in lines["numpy", "cpu"]
    assert re.search(r'not installed: type \S+ -m pip install -e ".*\[jax\]"', lines["jax", "not"])
    reason = "unusable: libtorch.so: cannot open shared object file"
    assert lines["torch", "cpu"].endswith(reason)
    assert lines["torch", "cuda:0"].endswith(reason)
    assert "leave out" not in done.out
    assert re.search(r"^auto selects \w+ on ", done.out, re.MULTILINE)


def test_bench_options_are_passed_to_the_suite_in_a_clone(mlp_xp, fails, monkeypatch):
    started = []

    @contextlib.contextmanager
    def popen(words, env):
        started.append((words[1:], env["PYTHONPATH"].split(os.pathsep)[0]))
        yield SimpleNamespace(wait=lambda: 3)

    monkeypatch.setattr(bench.subprocess, "Popen", popen)
    words = ["bench", "--quick", "--only", "lab", "wide", "--out", "a b"]
    assert mlp_xp(*words).status == 3
    assert started == [(["-m", *words], str(Path(bench.__file__).parents[3]))]
    monkeypatch.setattr(bench, "_ROOT", Path("site-packages"))
    assert "install from a clone with " in fails("bench", "--quick")


def test_help_lists_benchmark_parts_and_contenders(monkeypatch, capsys):
    monkeypatch.syspath_prepend(Path(bench.__file__).parents[3])
    suite = importlib.import_module("bench.__main__")
    text = " ".join(help_of(capsys, "bench").split()).replace("- ", "-")
    assert all(name in text for name in (*suite.NAMES, *suite.KEYS))
    for words, said in (
        (["--only", "iris"], 'no part of this run is called \'iris\': choose from "tiny"; "lab"; '),
        (["--quick", "--only", "predict"], "no part of this run is called 'predict': choose from "),
        (["--contenders", "keras"], "no contender of this run is called 'keras': choose from "),
    ):
        with pytest.raises(SystemExit, match="2"):
            suite.parse(words)
        text = capsys.readouterr().err
        assert text.startswith("mlp-xp: error: ")
        assert text.count("\n") == 1
        assert said in text


@pytest.mark.matrix
def test_the_smallest_benchmark_writes_a_page_figures_and_a_chart(mlp_xp):
    few = ["--only", "tiny", "--images", 64, "--rounds", 1, "--threads", 1, "--out", "out"]
    both = ["mlp_xp, NumPy", "scikit-learn"]
    assert mlp_xp("bench", "--quick", *few, "--contenders", *both).status == 0
    ((name, workload),) = json.loads(Path("out/result.json").read_text())["workloads"].items()
    counts = {who: len(run["seconds"]) for who, run in workload["contenders"].items()}
    assert (name, counts) == ("tiny", dict.fromkeys(both, 1))
    assert "| scikit-learn | " in Path("out/report.md").read_text()
    assert Path("out/epochs.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.matrix
@pytest.mark.skipif(sys.platform == "win32", reason="signals of one process to another")
def test_ctrl_c_keeps_completed_benchmark_parts():
    words = "bench --quick --only tiny lab --images 64 --rounds 1 --threads 1 --out out"
    command = [sys.executable, "-u", "-c", CODE, *words.split(), "--contenders", "mlp_xp, NumPy"]
    process = subprocess.Popen(command, stdout=-1, stderr=-1, text=True, start_new_session=True)
    next(line for line in process.stderr if line.startswith("part 2 of 2"))
    os.killpg(process.pid, signal.SIGINT)  # A terminal signals the whole process group.
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert err.endswith("interrupted; what was measured is in out\n")
    assert "Traceback" not in out + err
    assert list(json.loads(Path("out/result.json").read_text())["workloads"]) == ["tiny"]


def test_no_message_tells_the_user_to_delete_another_folder(fails):
    line = fails("train", "--data-path", "/etc")
    assert "/etc contains none of the data set's files: pass a folder like cifar-10-b" in line
    for path in ("/etc", "/etc/passwd", "/etc/passwd.tar.gz"):
        for data in ("cifar10", "cifar100", "fashion-mnist"):
            assert "elete" not in fails("train", "--data", data, "--data-path", path)


def test_one_line_says_what_to_do_without_internet_access(fails, monkeypatch):
    error = socket.gaierror(-3, "Temporary failure in name resolution")
    monkeypatch.setattr(socket, "getaddrinfo", Mock(side_effect=error))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # Do not wait between attempts.
    monkeypatch.setenv("PATH", "")
    line = fails("train")
    assert "cifar-10-python.tar.gz cannot be reached (Temporary failure in name resolution)" in line
    assert re.search("put it into the folder data.*type --data digits", line)
    assert "urllib3" not in line


@pytest.mark.parametrize(("typed", "message"), TYPING_ERRORS)
def test_a_typing_error_is_one_line(typed, message, fails):
    assert message in fails(*shlex.split(typed))


def test_a_missing_library_is_an_error(fails, finished, monkeypatch, small_cifar):
    picture, new = draw(Path("a.png"), load_digits().x_test[0]), [*TINY, "--out", "run"]
    commands = {"matplotlib": new, "safetensors": new, "tensorboardX": [*new, "--tensorboard"]}
    commands |= {"safetensors.numpy": ["evaluate", finished]}
    commands |= {"PIL.Image": ["predict", finished, picture]}
    for module, argv in commands.items():
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            line = fails(*argv)
        extra = "tensorboard" if module == "tensorboardX" else "cli"
        package = module.partition(".")[0]
        assert re.search(rf"{package}.* is not installed: type .* -e \".*\[{extra}\]\"", line)
    monkeypatch.setattr("mlp_xp.backends.installed", lambda name: name == "numpy")
    for argv in (new, ["evaluate", finished], ["predict", finished, picture], ["lab"]):
        line = fails(*argv, "--backend", "torch")
        assert re.search(r'needs torch, which is not installed: type .* -e ".*\[torch\]"', line)


def test_errors_without_a_message_and_an_early_ctrl_c_are_reported(
    mlp_xp, monkeypatch, partial_run
):
    early = "note: interrupted before the training began: "
    for error, status, said in (
        (MemoryError, 2, "mlp-xp: error: not enough memory: use less, e.g. a smaller --hidden"),
        (ValueError, 2, "mlp-xp: error: ValueError\n"),
        (KeyboardInterrupt, 130, f"{early}nothing was saved\n"),
    ):
        monkeypatch.setitem(LOADERS, "digits", Mock(side_effect=error))
        done = mlp_xp(*TINY)
        assert (done.status, done.err[: len(said)]) == (status, said)
    assert mlp_xp("train", "--resume", "run").err == f"{early}run is unchanged\n"
    monkeypatch.setitem(LOADERS, "digits", load_digits)
    monkeypatch.setattr(train, "fit", Mock(side_effect=KeyboardInterrupt))
    done = mlp_xp(*TINY)
    said = "note: interrupted before the first checkpoint: nothing was saved\n"
    assert (done.status, done.err, [*Path("runs").iterdir()]) == (130, said, [])


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


def test_closing_the_output_pipe_is_not_an_error(monkeypatch, capsys):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

        def fileno(self):
            return number

    with Path("out").open("wb") as file:
        number = file.fileno()
        monkeypatch.setattr(sys, "stdout", Closed())
        assert main(["data"]) == 141
        os.write(number, b"What Python flushes at its exit goes nowhere.")
    assert Path("out").read_bytes() == b""
    assert capsys.readouterr().err == ""


def test_python_m_mlp_xp_runs_the_command():
    out = subprocess.check_output([sys.executable, "-m", "mlp_xp", "--version"], text=True)
    assert re.fullmatch(r"mlp-xp \d+\.\d+\.\d+\n", out)


def test_characters_missing_from_the_output_encoding_are_escaped(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    monkeypatch.setattr(sys, "stderr", None)  # Standard error was closed when the process started.
    process.open_streams(is_process=True)
    print("µ", flush=True)
    assert sys.stdout.buffer.getvalue() == rb"\xb5" + os.linesep.encode()
    sys.stderr.close()


def help_of(capsys, *argv):
    with pytest.raises(SystemExit, match="0"):
        main([*argv, "--help"])
    return capsys.readouterr().out


def test_help_fits_a_terminal_breaks_no_word_and_has_examples(capsys, monkeypatch):
    assert all(command in help_of(capsys) for command in COMMANDS)
    monkeypatch.setenv("COLUMNS", "500")
    assert "gelu, silu, softplus, leaky_relu, elu, selu, mish (relu)" in help_of(capsys, "train")
    for argv in ([], *([command] for command in COMMANDS)):
        texts = {}
        for width in (50, 80, 500):
            monkeypatch.setenv("COLUMNS", str(width))
            text = texts[width] = help_of(capsys, *argv)
            assert width == 500 or max(map(len, text.splitlines())) <= width, argv
            if argv and argv != ["compile"]:  # Its example has a comment.
                examples = text.partition("examples:\n")[2].replace("\\\n", "")  # Join lines.
                assert examples, argv
                for name, *typed in map(shlex.split, examples.splitlines()):
                    assert (name, typed[0]) == ("mlp-xp", *argv)
                    parse(typed)
        # The first paragraph, the usage, is filled otherwise, and a path is wider than its column.
        narrow, wide = (texts[width].partition("\n\n")[2] for width in (50, 500))
        narrow = re.sub(r"(<da)\s+(te>)", r"\1\2", narrow)
        assert narrow.replace(" \\\n", "\n").split() == wide.split(), argv


def test_help_imports_no_heavy_library():
    code = """if True:
        import sys
        from mlp_xp.cli import main
        for line in sys.argv[1:]:
            try: main(line.split())
            except SystemExit: pass
            print("loaded", *{"numpy", "scipy", "sklearn", "torch", "numba"} & set(sys.modules))
    """
    light = ["--help", "trian"]
    others = [*(f"{command} --help" for command in COMMANDS), "train --epochs 0"]
    command = [sys.executable, "-c", code, *light, *others]
    lines = subprocess.run(command, stdout=-1, stderr=-1, text=True).stdout.splitlines()
    loaded = [line.split()[1:] for line in lines if line.startswith("loaded")]
    for argv, heavy in zip(light + others, loaded, strict=True):
        assert set(heavy) <= (set() if argv in light else {"numpy"}), argv


def test_the_command_loads_libraries_without_importing_pandas(monkeypatch):
    monkeypatch.delitem(sys.modules, "pandas", raising=False)
    with process.without_pandas(is_process=True):
        assert importlib.util.find_spec("pandas") is None
    assert "pandas" not in sys.modules
