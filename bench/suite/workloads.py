"""The workloads: networks with their data, the interface of a contender, and our epochs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

MOMENTUM = 0.9  # The Nesterov momentum of "sgd".


class Workload(NamedTuple):
    """A network, its batches, and whether training or prediction is timed."""

    name: str
    widths: tuple[int, ...]
    activation: str  # "relu" or "logistic"
    batch_size: int  # The number of rows for full-batch training without shuffling.
    n_images: int  # Per epoch or prediction.
    data: str = "cifar10"
    solver: str = "adam"  # or "sgd" with Nesterov momentum, or "descent" without momentum
    learning_rate: float = 0.001
    repeats: int = 1  # Epochs or calls per turn, because one may be too short to time.
    kind: str = "train"  # or "predict"

    @property
    def title(self) -> str:
        widths = "-".join(map(str, self.widths))
        return f"{self.name} {widths}, {self.activation}, batch {self.batch_size}"

    @property
    def momentum(self) -> dict[str, Any]:
        return {"momentum": MOMENTUM, "nesterov": True} if self.solver == "sgd" else {}


class Task(NamedTuple):
    """A network to train, and its data in memory."""

    net: Workload
    x: np.ndarray  # (images, features), float32, or uint8 for contenders that scale by themselves
    y: np.ndarray  # (images,), int32
    threads: int


class Contender(NamedTuple):
    """The functions of a prepared contender."""

    train: Callable[[int], float]  # trains for n more epochs and returns the last loss
    predict: Callable[[np.ndarray], object] | None = None  # returns the classes of rows


# An epoch of each network takes about a second on two cores.
WORKLOADS = (
    Workload("tiny", (64, 100, 10), "relu", 32, 1_797, data="digits"),
    Workload("lab", (3072, 64, 10), "logistic", 128, 20_000),
    Workload("medium", (3072, 512, 512, 10), "relu", 128, 5_120),
    Workload("wide", (3072, 2048, 2048, 2048, 10), "relu", 1024, 2_048),
)
_TINY, _LAB, _MEDIUM, _WIDE = WORKLOADS
_LAB_SGD = _LAB._replace(solver="sgd", learning_rate=0.01)
_FULL_BATCH = {"batch_size": 54_000, "n_images": 54_000, "solver": "descent", "learning_rate": 0.1}

SUITE = (
    _TINY._replace(repeats=20),
    _LAB_SGD._replace(repeats=2),
    _LAB._replace(name="lab-full", data="cifar10-unit", repeats=10, **_FULL_BATCH),
    _MEDIUM._replace(n_images=10_240),
    _WIDE._replace(n_images=5_120),
    _MEDIUM._replace(name="predict", n_images=10_000, kind="predict", repeats=2),
    _TINY._replace(name="one-row", n_images=1, kind="predict", repeats=1_000),
)
QUICK = (
    _TINY._replace(repeats=10),
    _LAB_SGD._replace(n_images=10_240),
    _MEDIUM._replace(n_images=2_560),
    _WIDE._replace(n_images=1_024),
)


def load(data: str, n_images: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Return at most `n_images` uint8 images, int32 labels, and the name of their source.

    If this machine lacks CIFAR-10, random images of the same shape are used, because the speed does
    not depend on the content.
    """
    # Imported here because a peer's process imports this file and must load only the peer.
    from mlp_xp.datasets import load_cifar10, load_digits, locate

    if data == "digits" or locate("cifar10") is not None:
        found, source = (load_digits(), data) if data == "digits" else (load_cifar10(), "CIFAR-10")
        x, y = found.x_train, found.y_train
        if n_images > len(x):
            x, y = np.concatenate([x, found.x_test]), np.concatenate([y, found.y_test])
    else:
        generator = np.random.default_rng(0)
        x = generator.integers(256, size=(min(n_images, 60_000), 3072), dtype=np.uint8)
        y, source = generator.integers(10, size=len(x)), "random images of CIFAR-10's shape"
    # Copy the data into memory, because the cache is memory-mapped.
    return np.array(x[:n_images]), y[:n_images].astype(np.int32), source


def backend_of(spec: str, precision: str = "float32") -> Any:
    """Return the backend with a name such as torch:cuda."""
    from mlp_xp.backends import get_backend

    name, _, device = spec.partition(":")
    backend = get_backend(name, device or None)
    return backend if precision == "float32" else backend.with_precision(precision)


def make_epoch(
    backend: Any, workload: Workload, x: np.ndarray, y: np.ndarray, placement: Any
) -> Callable[[], None]:
    """Return a function that runs an epoch of this library and waits for the device."""
    from mlp_xp.nn.losses import SoftmaxCrossEntropy
    from mlp_xp.nn.network import Network, init_params
    from mlp_xp.optimizers import Adam
    from mlp_xp.training.data.epoch_plan import plan_epoch
    from mlp_xp.training.data.input_scaling import standardization
    from mlp_xp.training.data.placement import put_data
    from mlp_xp.training.step.step_settings import Rules
    from mlp_xp.training.trainer import Trainer

    network = Network(workload.widths, workload.activation)
    trainer = Trainer(
        backend,
        Rules(network, SoftmaxCrossEntropy(), Adam(), learning_rate=0.001),
        params=init_params(network, 0),
        dtype="float32",
        scaling=standardization(backend, x, "float32"),
    )
    data = put_data(backend, x, y, "float32", placement)
    own = {"seed": 0, "pad": backend.fixed_shapes}

    def epoch() -> None:
        plan = plan_epoch(len(x), workload.batch_size, epoch=trainer.n_epochs, **own)
        trainer.run_epoch(data, plan, n_epochs=1, step_by_step=False)
        backend.synchronize()

    return epoch
