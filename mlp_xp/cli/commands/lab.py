"""``mlp-xp lab``: the one-hidden-layer network of `mlp_xp.lab` on CIFAR-10."""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from mlp_xp._utils.optional import check_installed
from mlp_xp._utils.signals import interrupts
from mlp_xp.backends import Backend
from mlp_xp.cli.loading import load_backend
from mlp_xp.cli.terminal.lines import print_line
from mlp_xp.cli.terminal.output import Output
from mlp_xp.cli.terminal.text import count_text
from mlp_xp.datasets import load_cifar10, split_dataset
from mlp_xp.lab import run_mlp_training
from mlp_xp.plotting import TrainingCurvesDisplay, new_figure, save_figure

_FRACTION = 0.9


def run(args: argparse.Namespace, output: Output) -> int:
    """Train the network, print its accuracy and plot the learning curves."""
    check_installed("matplotlib")  # Report a missing package before the work, not after it.
    if args.out.is_dir():
        raise ValueError(f"{args.out} is a folder: type --out {args.out / 'mlp.png'}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    backend = load_backend(args.backend, args.device)
    print_line("loading CIFAR-10")
    cifar = load_cifar10(args.data_path)
    data = np.concatenate([cifar.x_train, cifar.x_test])
    labels = np.concatenate([cifar.y_train, cifar.y_test])
    x_train, y_train, x_test, y_test = split_dataset(data, labels, _FRACTION, seed=args.seed)
    del data
    print_line(
        f"{len(x_train):,} images to train on, {args.hidden} hidden neurons, "
        f"{count_text(args.epochs, 'epochs')}"
    )
    next_line = 0.0

    def print_epoch(epoch: int, accuracy: float, loss: float) -> bool:
        """Print every tenth epoch, and a line at least every second; return whether to stop."""
        nonlocal next_line
        is_last = epoch == args.epochs or pressed()
        if epoch % 10 == 0 or is_last or time.perf_counter() >= next_line:
            next_line = time.perf_counter() + 1.0
            print_line(f"epoch {epoch:3}  training accuracy {100 * accuracy:.2f} %")
        return is_last

    with backend.scope(), interrupts() as pressed:
        train = _scale_pixels(backend, x_train), backend.put(y_train)
        test = _scale_pixels(backend, x_test), backend.put(y_test)
        settings = args.hidden, args.learning_rate, args.epochs
        accuracies, test_accuracy, losses = run_mlp_training(
            *train, *test, *settings, seed=args.seed, after_epoch=print_epoch
        )
        if is_interrupted := pressed() and len(accuracies) < args.epochs:
            print_line(f"interrupted in epoch {len(accuracies)}; testing its network")
    print_line(f"test accuracy {100 * test_accuracy:.2f} %")
    panels = {
        "loss": {"training": losses},
        "accuracy [%]": {"training": [100.0 * value for value in accuracies]},
    }
    curves = TrainingCurvesDisplay(panels, test={"accuracy [%]": 100.0 * test_accuracy})
    save_figure(curves.plot(ax=new_figure(11, 4).subplots(1, 2)).figure_, args.out)
    print_line(f"curves saved in {args.out}")
    return 130 if is_interrupted else 0


def _scale_pixels(backend: Backend, pixels: np.ndarray) -> Any:
    array: Any = backend.put(pixels, "float32")
    array /= 255
    return array
