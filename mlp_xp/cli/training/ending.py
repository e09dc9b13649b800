"""The end of a training: what ended it, and which epoch's network was kept."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Ending", "ending_of"]


class Ending(NamedTuple):
    """The end of a training.

    Attributes
    ----------
    epochs, kept_epoch : int
        The last epoch, and the one whose network was kept.
    is_interrupted, is_early : bool
        Whether Ctrl-C ended the training, or a plateau of the loss or the validation score.
    text : str
        It for a reader; empty where all epochs were done, or the time ended the training.
    """

    epochs: int
    kept_epoch: int
    is_interrupted: bool
    is_early: bool
    text: str


def ending_of(model: Any, *, is_interrupted: bool) -> Ending:
    """Return how the training of a model ended."""
    records = model.history_
    is_descent = model.solver != "lbfgs"
    by_score = model.early_stopping and is_descent
    scores = [record.validation_score for record in records]
    is_over = model._training is not None and model._training.is_at_plateau
    epochs = kept = len(records)
    if by_score and model.best_validation_score_ in scores:
        kept = 1 + scores.index(model.best_validation_score_)
    is_early = is_descent and not is_interrupted and 0 < epochs < model.max_iter and is_over
    text = ""
    if is_interrupted:
        text = f"interrupted in epoch {epochs}; "
    elif is_early:
        what = "better validation score" if by_score else "lower loss"
        text = (
            f"stopped early after epoch {epochs} of {model.max_iter}: no {what} for "
            f"{model.n_iter_no_change} epochs; "
        )
    if text and kept == epochs:
        text += "the network is kept as it now is"
    elif text:
        text += f"the network of epoch {kept} is kept, the best on validation data"
    return Ending(epochs, kept, is_interrupted, is_early, text)
