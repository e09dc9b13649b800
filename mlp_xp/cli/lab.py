"""``mlp-xp lab``: the classroom's network on CIFAR-10."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from mlp_xp._optional import check_installed
from mlp_xp.backends import Backend
from mlp_xp.cli.loading import load_backend
from mlp_xp.cli.start import printable
from mlp_xp.datasets import load_cifar10, split_dataset
from mlp_xp.lab import run_mlp_training
from mlp_xp.report import curves_figure, save_figure

__all__ = ["run"]

_SPLIT = 0.9


def run(args: argparse.Namespace) -> int:
    """Train, print the accuracies and draw the curves."""
    check_installed("matplotlib")  # Before the work, not after it.
    if args.out.is_dir():
        raise ValueError(f"{args.out} is a folder: type --out {args.out / 'mlp.png'}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    backend = load_backend(args.backend, args.device)
    cifar = load_cifar10(args.data_path)
    data = np.concatenate([cifar.x_train, cifar.x_test])
    labels = np.concatenate([cifar.y_train, cifar.y_test])
    x_train, y_train, x_test, y_test = split_dataset(data, labels, _SPLIT, seed=args.seed)
    del data
    print(
        f"{len(x_train):,} images to train on, {args.hidden} hidden neurons, {args.epochs} epochs"
    )

    def tell(epoch: int, accuracy: float, loss: float) -> None:
        if epoch % 10 == 0 or epoch == args.epochs:
            print(f"epoch {epoch:3}  training accuracy {100 * accuracy:.2f} %", flush=True)

    with backend.scope():
        accuracies, test_accuracy, losses = run_mlp_training(
            _scaled(backend, x_train),
            backend.put(y_train),
            _scaled(backend, x_test),
            backend.put(y_test),
            args.hidden,
            args.learning_rate,
            args.epochs,
            seed=args.seed,
            after_epoch=tell,
        )
    print(f"test accuracy {100 * test_accuracy:.2f} %")
    save_figure(curves_figure(losses, {"training": accuracies}), args.out)
    print(printable(f"curves saved in {args.out}"))
    return 0


def _scaled(backend: Backend, pixels: np.ndarray) -> Any:
    """Bring pixels to the device as float32 from 0 to 1."""
    array: Any = backend.put(pixels, "float32")
    array /= 255
    return array
