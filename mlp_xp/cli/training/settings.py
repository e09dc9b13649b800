"""The settings of a training, adapted to the user's own data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlp_xp.callbacks import Callback, Checkpoint, TensorBoard
from mlp_xp.cli.loading import DEFAULT, load_data
from mlp_xp.cli.run_folder.config import CHECKPOINTS
from mlp_xp.cli.terminal.output import Output
from mlp_xp.cli.training.tasks import ESTIMATORS
from mlp_xp.datasets import Dataset
from mlp_xp.estimators import MLPClassifier, MLPRegressor
from mlp_xp.estimators.targets import RealTargets
from mlp_xp.recipes import FILES, recipe_parameters

_MIN_STEPS = 1000  # Of a training on few samples.
_INTERVAL = "1 min"  # Between two checkpoints where none are asked for.


@dataclass(frozen=True)
class Settings:
    """All settings of a training.

    ``recipe`` is a name or a file; ``params`` are parameters of the estimator that override it.
    """

    data: str
    recipe: str = DEFAULT
    params: dict[str, Any] = field(default_factory=dict)
    data_path: str | None = None
    validation: float | None = None
    checkpoint: int | None = None
    tensorboard: bool = False
    target: str | None = None
    image_size: tuple[int, int] | None = None
    task: str | None = None
    drop: tuple[str, ...] = ()

    def load(self, output: Output | None = None) -> Dataset:
        """Load the data."""
        names = "target", "image_size", "task", "drop"
        options = {name: getattr(self, name) for name in names}
        return load_data(self.data, self.data_path, options, output, is_logged=True)

    @property
    def folder_name(self) -> str:
        """The name of the data as it appears in a run folder's name."""
        return Path(self.data_path or "").stem if self.data == FILES else self.data

    def fitting(self, data: Dataset) -> Settings:
        """Return settings adapted to the user's own data: its task and number of samples.

        The batches and epochs of the default recipe are for 50,000 images: fewer samples get
        smaller batches and more epochs, unless they are chosen.
        """
        if self.data != FILES:
            return self
        settings = replace(self, task="classification" if data.class_names else "regression")
        model, n_samples = settings.estimator(), len(data.x_train)
        params: dict[str, Any] = {}
        if isinstance(model, MLPRegressor) and _can_standardize(model):
            params["target_scaling"] = "standardize"
        if data.columns is not None and data.columns.used:
            params |= {"categorical_features": "from_dtype", "missing_values": "impute"}
        if self.recipe != DEFAULT:
            return replace(settings, params=params | self.params)
        batch_size = self.params.get("batch_size", min(model.batch_size, max(1, n_samples // 20)))
        n_steps = math.ceil(n_samples / batch_size)
        epochs = max(model.max_iter, math.ceil(_MIN_STEPS / n_steps))
        params |= {"batch_size": batch_size, "max_iter": epochs}
        return replace(settings, params=params | self.params)

    def estimator(self) -> MLPClassifier | MLPRegressor:
        """Return the unfitted estimator; a classifier until the task is known."""
        kind = ESTIMATORS[self.task or "classification"]
        known = {*recipe_parameters(kind)}
        if unknown := sorted(self.params.keys() - known):
            raise ValueError(
                f"--{unknown[0].replace('_', '-')} is for classes, and {self.data_path} has "
                "numbers to predict: leave it out, or type --task classification"
            )
        if self.params.keys() >= known:
            return kind(**self.params)  # A run's recipe may be gone.
        return kind.from_recipe(self.recipe, **self.params)

    def callbacks(self, folder: Path) -> list[Callback]:
        """Return the callbacks that write into the run folder."""
        kept = folder / CHECKPOINTS
        if self.checkpoint is None:
            watch = Checkpoint(kept, every=_INTERVAL, keep_last=2, keep_best=0)
        else:
            has_score = self.validation is not None or self.estimator().early_stopping
            watch = Checkpoint(kept, every=self.checkpoint, keep_best=int(has_score))
        callbacks: list[Callback] = [watch]
        if self.tensorboard:
            callbacks.append(TensorBoard(folder / "tensorboard"))
        return callbacks


def _can_standardize(model: MLPRegressor) -> bool:
    """Whether targets of mean 0 and deviation 1 suit a loss; a loss object has settings in units.

    A network that learns prices would spend its training on reaching their size.
    """
    if not isinstance(model.loss, str):
        return False
    return RealTargets(1).resolve_loss(model.get_params(deep=False)).takes_standardized
