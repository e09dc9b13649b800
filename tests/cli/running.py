"""Helpers of the tests of the command."""

import csv
import json

import numpy as np
import processes
from PIL import Image

from mlp_xp.cli.commands import parse
from mlp_xp.cli.settings import typed_settings
from mlp_xp.cli.training import settings as training

TINY = ["train", "--data", "digits", "--hidden", "16", "--learning-rate", "0.01"]
DRAWN = {"curves.png", "confusion.png", "report.html"}  # These files take time to write.
FILES = {"config.json", "history.csv", "model.safetensors", "model.json"} | DRAWN
# SIGINT is ignored by what a shell started in the background, and by all that this starts.
CODE = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from mlp_xp.cli import main; sys.exit(main())"
)
HOLD = """
import sys
from mlp_xp.cli.terminal.output import Output

def held(output, text, real=Output.print):
    real(output, text)
    if text.startswith({beginning!r}):
        sys.stdin.readline()

Output.print = held
"""
# Does something when a module is imported, before the command runs.
FINDER = """
import gc, os, signal, sys, weakref

class Finder:
    def find_spec(name, path=None, target=None):
        {found}

class Object: pass

def press(*_):
    os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder)
"""
RECIPE = """
description = "digits"
data = "digits"
hidden_layer_sizes = [16]
solver = {class = "Muon", ns_steps = 3, weight_decay = 0.02}
learning_rate = "linear"
learning_rate_init = 0.01
batch_size = 128
max_iter = 3
n_iter_no_change = inf
input_scaling = "standardize"
residual = true
backend = "numpy"
"""


def history_of(folder):
    with (folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def complete(*words):
    return training.complete_settings(typed_settings(vars(parse(["train", *map(str, words)]))))


def start(*argv, held_at=None):
    """Start the command; it waits for a line of stdin after one of stdout that begins so."""
    code = CODE if held_at is None else HOLD.format(beginning=held_at) + CODE
    return processes.start(code, *argv)


def in_progress(run):
    """Make a complete run one that is still in progress, and return its folder."""
    partial = run.rename(run.with_name(f"{run.name}.partial"))
    config = json.loads((partial / "config.json").read_text())
    del config["result"], config["precision"]
    (partial / "config.json").write_text(json.dumps(config))
    return partial


def draw(path, row, size=(8, 8)):
    pixels = np.rint(row.reshape(8, 8) * (255 / 16)).astype(np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST).save(path)
    return path
