"""``mlp-xp train``: train a network and leave a run folder."""

from __future__ import annotations

import argparse
import csv
import json
import math
import platform
import warnings
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from mlp_xp._optional import optional
from mlp_xp.backends import Backend, get_backend
from mlp_xp.callbacks import Callback, Checkpoint, TensorBoard
from mlp_xp.cli.options import MAX_SEED, add_backend, command, describe, load_data, number
from mlp_xp.cli.progress import Watch, display
from mlp_xp.cli.runs import CHECKPOINTS, CONFIG, Images, new_run
from mlp_xp.datasets import LOADERS, Dataset, split_dataset
from mlp_xp.estimators import MLPClassifier
from mlp_xp.layers import ACTIVATIONS
from mlp_xp.optimizers import OPTIMIZERS, AdamW, Lion, Muon, Optimizer
from mlp_xp.report import confusion_figure, curves_figure, save_figure
from mlp_xp.saving import save_model
from mlp_xp.schedules import SCHEDULES
from mlp_xp.stopping import interrupts

__all__ = ["Settings", "add_to"]

_EXAMPLES = """\
  mlp-xp train
  mlp-xp train --epochs 5 --hidden 1024 1024 512 --activation silu
  mlp-xp train --data fashion-mnist --validation 0.1 --out runs/fashion
  mlp-xp train --hidden 512 512 512 --normalization batch --residual --dropout 0.2 --epochs 30
  mlp-xp train --validation 0.1 --checkpoint 5 --tensorboard
  mlp-xp train --backend torch --device cuda:0 --batch-size 1024"""
_DECAYING: dict[str, type[AdamW | Lion | Muon]] = {"adamw": AdamW, "lion": Lion, "muon": Muon}


@dataclass(frozen=True)
class Settings:
    """All that decides a training, with the defaults of the command line."""

    data: str = "cifar10"
    data_path: str | None = None
    validation: float | None = None
    hidden: tuple[int, ...] = (512, 512)
    activation: str = "relu"
    normalization: str | None = None
    residual: bool = False
    dropout: float = 0.0
    label_smoothing: float = 0.0
    solver: str = "adamw"
    weight_decay: float = 1.0
    learning_rate: float = 0.001
    schedule: str = "onecycle"
    epochs: int = 12
    batch_size: int = 128
    alpha: float = 0.0
    max_grad_norm: float | None = None
    ema_decay: float | None = None
    backend: str = "auto"
    device: str | None = None
    precision: str = "auto"
    placement: str = "auto"
    seed: int = 0
    checkpoint: int | None = None
    tensorboard: bool = False

    def estimator(self) -> MLPClassifier:
        """Give the estimator that these settings describe."""
        solver: str | Optimizer = self.solver
        if self.solver in _DECAYING:
            solver = _DECAYING[self.solver](weight_decay=self.weight_decay)
        return MLPClassifier(
            self.hidden,
            self.activation,
            solver=solver,
            alpha=self.alpha,
            batch_size=self.batch_size,
            learning_rate=self.schedule,
            learning_rate_init=self.learning_rate,
            max_iter=self.epochs,
            random_state=self.seed,
            n_iter_no_change=math.inf,
            label_smoothing=self.label_smoothing,
            dropout=self.dropout,
            normalization=self.normalization,
            residual=self.residual,
            max_grad_norm=self.max_grad_norm,
            ema_decay=self.ema_decay,
            backend=self.backend,
            device=self.device,
            precision=self.precision,
            input_scaling="standardize",
            placement=self.placement,
        )

    def callbacks(self, folder: Path) -> list[Callback]:
        """Give what writes into the run folder during the training."""
        watching: list[Callback] = []
        if self.checkpoint is not None:
            watching.append(Checkpoint(folder / CHECKPOINTS, every=self.checkpoint))
            if self.validation is not None:
                watching.append(Checkpoint(folder / CHECKPOINTS, best_only=True))
        if self.tensorboard:
            watching.append(TensorBoard(folder / "tensorboard"))
        return watching


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser = command(
        commands, "train", run, "train a network on a data set of small images", _EXAMPLES
    )
    add = parser.add_argument
    add("--data", choices=list(LOADERS), help="data set (%(default)s)")
    add("--data-path", metavar="PATH", help="its file or folder (looked for, else fetched)")
    add(
        "--validation",
        type=number(float, above=0, below=1),
        metavar="FRACTION",
        help="share of the training images to hold out and measure the accuracy on, each epoch",
    )
    add(
        "--hidden",
        type=number(int, at_least=1),
        nargs="*",
        metavar="WIDTH",
        help=f"width of each hidden layer ({' '.join(map(str, Settings().hidden))})",
    )
    add("--activation", choices=list(ACTIVATIONS), help="of the hidden layers (%(default)s)")
    share = number(float, at_least=0, below=1)
    add(
        "--normalization",
        choices=["layer", "batch"],
        help="between each hidden layer and its activation (none)",
    )
    add(
        "--residual",
        action="store_true",
        help="add its input to the output of each hidden layer as wide as the one before it",
    )
    add("--dropout", type=share, help="share of hidden outputs to drop (%(default)s)")
    add("--label-smoothing", type=share, help="share of the uniform distribution (%(default)s)")
    add("--solver", choices=list(OPTIMIZERS), help="update rule (%(default)s)")
    add(
        "--weight-decay",
        type=number(float, at_least=0),
        help=f"of {', '.join(_DECAYING)}; others have none (%(default)s)",
    )
    add("--learning-rate", type=number(float, above=0), help="initial or peak rate (%(default)s)")
    add("--schedule", choices=list(SCHEDULES), help="of the learning rate (%(default)s)")
    add("--epochs", type=number(int, at_least=1), help="times through the data (%(default)s)")
    add("--batch-size", type=number(int, at_least=1), help="images a step (%(default)s)")
    add("--alpha", type=number(float, at_least=0), help="strength of the L2 penalty (%(default)s)")
    add("--max-grad-norm", type=number(float, above=0), help="hold gradients to this norm (none)")
    add("--ema-decay", type=share, help="test a moving average of the weights, e.g. 0.999 (none)")
    add_backend(parser)
    add(
        "--precision",
        choices=["auto", "float32", "float64", "bf16"],
        help="of the products (%(default)s)",
    )
    add(
        "--placement",
        choices=["auto", "resident", "streamed"],
        help="whether the data lie on the device or arrive batch by batch (%(default)s)",
    )
    seed = number(int, at_least=0, below=MAX_SEED + 1)
    add("--seed", type=seed, help="of weights, order and validation images (%(default)s)")
    add(
        "--checkpoint",
        type=number(int, at_least=1),
        metavar="N",
        help="keep the network of every Nth epoch, and with --validation the best (none)",
    )
    add("--tensorboard", action="store_true", help="write a log for TensorBoard")
    add("--out", type=Path, metavar="DIR", help="new run folder (runs/<date>-<time>-<data>)")
    parser.set_defaults(**asdict(Settings()))


def run(args: argparse.Namespace) -> int:
    """Train as the options say."""
    given = {field.name: getattr(args, field.name) for field in fields(Settings)}
    settings = Settings(**given | {"hidden": tuple(args.hidden)})
    for module in ("matplotlib", "safetensors"):  # Before the work, not after it.
        optional(module)
    if settings.tensorboard:
        optional("tensorboardX", "tensorboard")
    data = load_data(settings.data, settings.data_path)
    backend = get_backend(settings.backend, settings.device)
    if settings.precision == "bf16":
        backend.with_bf16()  # Refused before there is a run folder.
    with new_run(args.out, settings.data) as (partial, final), interrupts() as pressed:
        _announce(settings, data, backend)
        model = settings.estimator()
        with display(settings.epochs, len(data.x_train)) as shown:
            watching = [Watch(shown, pressed), *settings.callbacks(partial)]
            is_finite = _fit(model, settings, data, watching)
        # What was trained on is not needed any more, and tests need memory too.
        data = data._replace(x_train=data.x_train[:0].copy())
        history = _rows(model)
        if pressed():
            print(f"interrupted in epoch {len(history)}; the network is kept as it now is")
        if not is_finite:
            print("the loss is not a finite number: try a smaller --learning-rate")
        predicted = model.predict(data.x_test)
        seconds = sum(row["seconds"] for row in history)
        result = {
            "test_accuracy": float(np.mean(predicted == data.y_test)),
            "epochs": len(history),
            "interrupted": pressed(),
            "seconds": seconds,
            "images_per_second": sum(row["n_samples"] for row in history) / seconds,
        }
        _write(partial, settings, data, backend, model, history, predicted, result)
        status = 130 if pressed() else 0
    print(f"saved in {final}")
    print(
        f"test accuracy {100 * result['test_accuracy']:.2f} %, {seconds:.1f} s, "
        f"{result['images_per_second']:,.0f} images/s"
    )
    return status


def _announce(settings: Settings, data: Dataset, backend: Backend) -> None:
    widths = [data.x_train.shape[1], *settings.hidden, len(data.class_names)]
    print(
        f"{settings.data}: {len(data.x_train):,} images to train on, {len(data.x_test):,} to test"
    )
    parts = ["-".join(map(str, widths)), settings.activation, settings.solver]
    if settings.normalization is not None:
        parts.append(f"{settings.normalization} normalization")
    if settings.residual:
        parts.append("residual")
    if settings.dropout > 0:
        parts.append(f"dropout {settings.dropout}")
    print(f"network: {', '.join(parts)}")
    print(f"backend: {describe(backend)}")


def _fit(model: MLPClassifier, settings: Settings, data: Dataset, watching: list[Callback]) -> bool:
    """Train; tell whether loss and weights are finite."""
    x, y = data.x_train, data.y_train
    held: dict[str, Any] = {}
    if settings.validation is not None:
        x, y, x_held, y_held = split_dataset(x, y, 1 - settings.validation, seed=settings.seed)
        held = {"X_val": x_held, "y_val": y_held}
    model.set_params(callbacks=watching)
    try:
        with warnings.catch_warnings():
            # The epochs are as many as were asked for, converged or not.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, y, **held)
    except ValueError:
        # A network that has diverged is kept, and so is its history, which shows where.
        if not getattr(model, "history_", None) or _is_finite(model):
            raise
        return False
    return True


def _is_finite(model: MLPClassifier) -> bool:
    arrays = (*model.coefs_, *model.intercepts_)
    return math.isfinite(model.loss_) and all(np.all(np.isfinite(array)) for array in arrays)


def _rows(model: MLPClassifier) -> list[dict[str, Any]]:
    """Give a row of the history for each epoch."""
    names = {"validation_score": "validation_accuracy"}
    return [
        {names.get(name, name): value for name, value in record._asdict().items()}
        for record in model.history_
    ]


def _write(
    folder: Path,
    settings: Settings,
    data: Dataset,
    backend: Backend,
    model: MLPClassifier,
    history: list[dict[str, Any]],
    predicted: np.ndarray,
    result: dict[str, Any],
) -> None:
    """Write all files of the run folder."""
    path = None if settings.data_path is None else str(Path(settings.data_path).resolve())
    images = Images(settings.data, path, data.class_names, data.image_shape, data.max_value)
    libraries = ("mlp-xp", "numpy", "scikit-learn", "array-api-compat")
    config = {
        "settings": asdict(settings),
        "data": asdict(images),
        "backend": {"name": backend.name, **backend.describe()},
        "precision": "bf16" if settings.precision == "bf16" else str(model.coefs_[0].dtype),
        "versions": {"python": platform.python_version()} | {n: version(n) for n in libraries},
        "platform": platform.platform(),
        "result": result,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2))
    with (folder / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, history[0])
        writer.writeheader()
        writer.writerows(history)
    save_model(model, folder)
    accuracies = {"training": [row["accuracy"] for row in history]}
    if settings.validation is not None:
        accuracies["validation"] = [row["validation_accuracy"] for row in history]
    save_figure(curves_figure([row["loss"] for row in history], accuracies), folder / "curves.png")
    confusion = confusion_figure(data.y_test, predicted, data.class_names)
    save_figure(confusion, folder / "confusion.png")
