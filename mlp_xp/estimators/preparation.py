"""The preparation of a fit, in the order in which the parts need each other."""

from __future__ import annotations

import warnings
from typing import Any

from scipy import sparse

from mlp_xp.estimators.config import check_params, resolve_config, resolve_layers, training_backend
from mlp_xp.estimators.fitting import (
    Sample,
    Training,
    continue_state,
    new_state,
    place_sample,
    split_sample,
    trainer_for,
)
from mlp_xp.estimators.held_out import HeldOut
from mlp_xp.estimators.ported import check_overrides
from mlp_xp.estimators.reporting import check_callbacks
from mlp_xp.estimators.state import fitted_state, publish
from mlp_xp.estimators.validation import check_weights, check_x, check_y
from mlp_xp.training.fit_loop import FitLoop
from mlp_xp.training.history import History

__all__ = ["prepare_fit"]


def prepare_fit(
    model: Any,
    given: tuple[Any, Any, Any],
    held_out: tuple[Any, Any, Any],
    *,
    continues: bool,
    classes: Any = None,
) -> FitLoop:
    """Check everything, put it on the device, and publish the network before its first step.

    Parameters
    ----------
    model : estimator
    given, held_out : tuple
        X, y and sample_weight; the second of None where no samples are given.
    continues : bool
        Whether to train the network that exists.
    classes : (classes,) array, optional
        All labels there will be.

    Returns
    -------
    FitLoop
        Not begun.
    """
    check_overrides(model)
    params = model._params()
    check_callbacks(params["callbacks"])
    check_params(params)
    layers = resolve_layers(params["hidden_layer_sizes"])
    state = fitted_state(model) if continues and hasattr(model, "coefs_") else None
    sample = _check_sample(model, *given, reset=state is None)
    validation = _check_held_out(model, *held_out)
    if state is None:
        targets = model._targets_type.learn(
            sample.y,
            classes=classes,
            output_activation=params["output_activation"],
            is_sparse=sparse.issparse(given[1]),
        )
        config, history = resolve_config(params, model.n_features_in_, targets, layers), History()
    else:
        targets, history = state.targets, History.read(vars(model))
        targets.check_known(sample.y, params["output_activation"], warm_start=model.warm_start)
        kept = state.network.widths[1:-1]
        config = resolve_config(params, state.n_features, targets, kept)
    targets.check_loss(sample.y, config.rules.loss)
    if validation is not None:
        targets.check_loss(validation.y, config.rules.loss, "y_val")
    backend = training_backend(params, sample.X)
    if state is None:
        state = new_state(config, targets, backend, sample.X, params["random_state"])
        model._training = None
    else:
        if layers != kept:
            warnings.warn(
                f"hidden_layer_sizes is now {params['hidden_layer_sizes']!r}, and the fit goes on "
                f"with the network that is there, of {list(kept)}, as in scikit-learn: fit with "
                "warm_start=False to start a new one.",
                stacklevel=5,
            )
        state = continue_state(state, config)
    if state is not vars(model).get("_state"):
        publish(model, state, history)  # Scorers and callbacks see the network.
    if config.loop.stops_by_score and validation is None:
        fraction = params["validation_fraction"]
        sample, validation = split_sample(sample, targets, fraction, state.seed)
    weights = targets.weigh(sample.y, sample.weights, params.get("class_weight"))
    sample = sample._replace(weights=weights)
    trainer = trainer_for(state, config, backend, model._training)
    trainer.with_accuracy = any(
        getattr(callback, "wants_accuracy", False) for callback in params["callbacks"] or ()
    )
    data = place_sample(trainer, sample, targets, params["placement"], params["batch_size"])
    model._training = Training(trainer, ())
    measured = None
    if validation is not None:
        measured = HeldOut(model, params, trainer, targets, validation, sample.X, data)
    return FitLoop(
        trainer,
        data,
        config.loop,
        weights=weights,
        validation=measured,
        history=history,
        position=state.position,
    )


def _check_sample(
    model: Any, X: Any, y: Any, sample_weight: Any, *, reset: bool, suffix: str = ""
) -> Sample:
    X = check_x(model, X, reset=reset)
    n_samples = X.shape[0]
    y = check_y(model, y, n_samples, f"y{suffix}")
    return Sample(X, y, check_weights(sample_weight, n_samples, name=f"sample_weight{suffix}"))


def _check_held_out(model: Any, X: Any, y: Any, weights: Any) -> Sample | None:
    if X is None and y is None:
        if weights is not None:
            raise ValueError("sample_weight_val is given without X_val and y_val.")
        return None
    if X is None or y is None:
        missing = "X_val" if X is None else "y_val"
        raise ValueError(f"X_val and y_val belong together, and {missing} is None.")
    return _check_sample(model, X, y, weights, reset=False, suffix="_val")
