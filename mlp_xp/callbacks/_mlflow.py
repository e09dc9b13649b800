"""Log a fit to MLflow."""

from __future__ import annotations

import contextlib
import sys
import warnings
from typing import Any

import numpy as np
from sklearn.utils import estimator_html_repr

from mlp_xp import __version__
from mlp_xp._utils.optional import optional
from mlp_xp.callbacks._base import Live
from mlp_xp.callbacks._logs import scalars
from mlp_xp.estimators.fitted.state import fitted_state, host_copy
from mlp_xp.training.loop.records import Record


class MLflow(Live):
    """An MLflow log of a fit's parameters, scalars and model; requires the ``mlflow`` extra.

    ``mlflow.sklearn.autolog`` records only scikit-learn's own estimators, such as pipelines and
    searches that contain a network. This callback records the fit of a network in the same way:
    parameters, the tags ``estimator_name`` and ``estimator_class``, ``estimator.html``, and the
    model in ``mlflow.sklearn``'s format. It also records the numbers in each epoch's record.

    Parameters
    ----------
    nested : bool, default=False
        Whether to start a run for each fit within the active run, as needed for a search. Otherwise
        the fit is recorded in the active run, or in a new run if none is active.
    log_model : bool, default=True
        Whether to log the fitted model, without callbacks and optimizer state, as a skops file.
        ``mlflow.sklearn.load_model`` and ``mlflow.pyfunc.load_model`` open it.

    Examples
    --------
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.callbacks import MLflow
    >>> model = MLPClassifier((512,), callbacks=[MLflow()])
    """

    wants_accuracy = True

    def __init__(self, *, nested: bool = False, log_model: bool = True) -> None:
        self.nested = nested
        self.log_model = log_model

    def on_fit_begin(self, model: Any) -> None:
        """Start a run, unless one is active, and log the parameters."""
        mlflow = optional("mlflow", "mlflow")
        if self.log_model:
            optional("skops", "mlflow")
        self._live = contextlib.ExitStack()
        if self.nested or mlflow.active_run() is None:
            self._live.enter_context(mlflow.start_run(nested=self.nested))
        try:
            mlflow.log_params(model.get_params())
        except mlflow.MlflowException as error:
            raise ValueError(
                "The active MLflow run already has the parameters of another fit: use "
                "MLflow(nested=True), or start a new run for each fit."
            ) from error
        kind = type(model)
        names = {"name": kind.__name__, "class": f"{kind.__module__}.{kind.__name__}"}
        mlflow.set_tags({f"estimator_{key}": name for key, name in names.items()})

    def on_fit_resume(self, model: Any) -> None:
        """Start a run, and log the epochs so far."""
        self.on_fit_begin(model)
        for record in model.history_:
            self.on_epoch_end(model, record)

    def on_epoch_end(self, model: Any, record: Record) -> None:
        """Log the scalars of the epoch."""
        optional("mlflow", "mlflow").log_metrics(scalars(record), step=record.epoch)

    def on_fit_end(self, model: Any) -> None:
        """Log the model, and end the run if it was started here."""
        resources, self._live = self._live, None
        if resources is None:
            return
        if sys.exception() is None:
            mlflow = optional("mlflow", "mlflow")
            mlflow.log_text(estimator_html_repr(model), "estimator.html")
            if self.log_model:
                _log_model(host_copy(model))
        resources.__exit__(*sys.exc_info())  # Mark the run of a failed fit as failed.


def _log_model(model: Any) -> None:
    """Log a model in the active run, after removing its callbacks; warn if this fails."""
    sklearn, skops = optional("mlflow.sklearn", "mlflow"), optional("skops.io", "mlflow")
    model.callbacks = None
    try:
        types = skops.get_untrusted_types(data=skops.dumps(model))
        sklearn.log_model(
            model,
            name="model",
            signature=_signature(model),
            serialization_format="skops",
            skops_trusted_types=types,
            # Without a list, MLflow infers the requirements by loading the model in another
            # process.
            pip_requirements=[
                f"mlp-xp=={__version__}",
                *sklearn.get_default_pip_requirements(include_skops=True),
            ],
        )
    except Exception as error:
        warnings.warn(f"The model was not logged to MLflow: {error}", stacklevel=2)


def _signature(model: Any) -> Any:
    """Return the MLflow signature of inputs and predictions, or None for a table."""
    state, names = fitted_state(model), getattr(model, "feature_names_in_", None)
    if state.columns is not None:
        return None
    X: Any = np.zeros((1, state.n_features), dtype=state.dtype)
    if names is not None:
        X = optional("pandas", "mlflow").DataFrame(X, columns=names)
    return optional("mlflow.models", "mlflow").infer_signature(X, model.predict(X))
