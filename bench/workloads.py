"""What is timed: networks with their data."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mlp_xp.datasets import load_cifar10, load_digits, locate

__all__ = ["WORKLOADS", "Workload", "load"]


class Workload(NamedTuple):
    """A network, its batches, and how many images make an epoch of about a second on two cores."""

    name: str
    widths: tuple[int, ...]
    activation: str
    batch_size: int
    n_images: int
    data: str = "cifar10"

    @property
    def title(self) -> str:
        widths = "-".join(map(str, self.widths))
        return f"{self.name} {widths}, {self.activation}, batch {self.batch_size}"


WORKLOADS = (
    Workload("tiny", (64, 100, 10), "relu", 32, 1_797, data="digits"),
    Workload("lab", (3072, 64, 10), "logistic", 128, 20_000),
    Workload("medium", (3072, 512, 512, 10), "relu", 128, 5_120),
    Workload("wide", (3072, 2048, 2048, 2048, 10), "relu", 1024, 2_048),
)


def load(data: str, n_images: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Give uint8 images, int32 labels, and what they are; fewer images where there are fewer.

    Where CIFAR-10 has not been fetched, random images of its shape stand in: speed does not depend
    on what is in them.
    """
    if data == "digits":
        digits = load_digits()
        x = np.concatenate([digits.x_train, digits.x_test])
        y = np.concatenate([digits.y_train, digits.y_test])
        source = "digits"
    elif locate("cifar10") is not None:
        cifar = load_cifar10()
        x, y, source = cifar.x_train, cifar.y_train, "CIFAR-10"
    else:
        generator = np.random.default_rng(0)
        x = generator.integers(256, size=(min(n_images, 50_000), 3072), dtype=np.uint8)
        y, source = generator.integers(10, size=len(x)), "random images of CIFAR-10's shape"
    # A copy in memory: what the cache gives is a map of a file.
    return np.array(x[:n_images]), y[:n_images].astype(np.int32), source
