"""Log a fit to Weights & Biases."""

from __future__ import annotations

import sys
import tempfile
import warnings
from typing import Any

from mlp_xp._utils.optional import optional
from mlp_xp.callbacks._base import Live
from mlp_xp.callbacks._logs import scalars
from mlp_xp.estimators.checks.processes import text_of
from mlp_xp.estimators.fitted.state import host_copy
from mlp_xp.training.loop.records import Record

_PLAIN = bool, int, float, str, type(None)


class WandB(Live):
    """A Weights & Biases log of a fit: parameters, scalars and model; requires the ``wandb`` extra.

    The parameters become the run's ``config``, with the name of the class as ``estimator``. The
    numbers in each epoch's record are plotted by ``epoch``. Set the environment variable
    ``WANDB_MODE=offline`` to log without a network or an account; ``wandb sync`` uploads the run
    later.

    Parameters
    ----------
    project : str, optional
        The project of a new run; by default the environment variable ``WANDB_PROJECT``.
    new_run : bool, default=False
        Whether to start a run for each fit, as needed for a search. Otherwise the fit is logged in
        the active run, or in a new run if none is active.
    log_model : bool, default=True
        Whether to log the fitted model as an artifact, without callbacks and optimizer state.
        ``mlp_xp.saving.load_model(run.use_artifact(...).download())`` loads it.

    Examples
    --------
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.callbacks import WandB
    >>> model = MLPClassifier((512,), callbacks=[WandB("digits")])
    """

    wants_accuracy = True

    def __init__(
        self, project: str | None = None, *, new_run: bool = False, log_model: bool = True
    ) -> None:
        self.project = project
        self.new_run = new_run
        self.log_model = log_model

    def on_fit_begin(self, model: Any) -> None:
        """Start a run, unless one is active, and log the parameters."""
        wandb = optional("wandb", "wandb")
        run, is_new = wandb.run, self.new_run or wandb.run is None
        if is_new:
            run = wandb.init(project=self.project, reinit="create_new")
        self._live = run, is_new
        given = {"estimator": type(model).__name__} | model.get_params()
        config = {k: v if isinstance(v, _PLAIN) else text_of(v) for k, v in given.items()}
        try:
            run.config.update(config)
        except wandb.Error as error:
            raise ValueError(
                "The active W&B run already has the parameters of another fit: use "
                "WandB(new_run=True), or start a new run for each fit."
            ) from error
        for name in (*Record._fields, "samples_per_second"):
            run.define_metric(name, step_metric="epoch")

    def on_fit_resume(self, model: Any) -> None:
        """Start a run, and log the epochs so far, unless the active run is resumed, too."""
        self.on_fit_begin(model)
        for record in () if self._live[0].resumed else model.history_:
            self.on_epoch_end(model, record)

    def on_epoch_end(self, model: Any, record: Record) -> None:
        """Log the scalars of the epoch."""
        run, _ = self._live
        run.log(scalars(record) | {"epoch": record.epoch})

    def on_fit_end(self, model: Any) -> None:
        """Log the model, and finish the run if it was started here."""
        (run, is_new), self._live = self._live or (None, False), None
        if run is None:
            return
        has_failed = sys.exception() is not None
        if self.log_model and not has_failed:
            _log_model(run, host_copy(model))
        if is_new:
            run.finish(exit_code=int(has_failed))


def _log_model(run: Any, model: Any) -> None:
    """Log a model as an artifact of a run, after removing its callbacks; warn if this fails."""
    from mlp_xp.saving import save_model  # Import only if a model is logged.

    model.callbacks = None
    artifact = optional("wandb", "wandb").Artifact(f"{type(model).__name__}-{run.id}", "model")
    try:
        with tempfile.TemporaryDirectory() as folder:
            save_model(model, f"{folder}/model")
            artifact.add_dir(f"{folder}/model")
            run.log_artifact(artifact)
    except Exception as error:
        warnings.warn(f"The model was not logged to W&B: {error}", stacklevel=2)
