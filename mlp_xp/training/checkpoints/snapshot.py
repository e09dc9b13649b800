"""The state of a training run at one point, as named arrays and JSON values."""

from __future__ import annotations

import math
import time
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np

from mlp_xp._utils.array_types import Tree
from mlp_xp._utils.tree import named_leaves, rebuild
from mlp_xp.backends import to_numpy
from mlp_xp.optimizers import family
from mlp_xp.training.loop.fit_loop import FitLoop
from mlp_xp.training.loop.history import History
from mlp_xp.training.loop.loop_settings import LoopPosition
from mlp_xp.training.loop.records import Record, ResumeState

# scikit-learn's estimators store these attributes as NumPy floats.
_NUMPY_FLOATS = ("loss", "best_loss")


class SnapshotError(ValueError):
    """Raised if a snapshot cannot be read or belongs to a different fit."""


class Snapshot(NamedTuple):
    """The state of a training run at one point, in host memory.

    ``arrays`` contains the training state, the best weights and the input scaling, by name.
    ``metadata`` contains the counts, the history and everything else, as JSON values.
    """

    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]


def take_snapshot(loop: FitLoop, step: int) -> Snapshot:
    """Return a snapshot of a fit after ``step`` steps of an epoch; 0 means between two epochs.

    Raise `NonFiniteError` if the weights are not finite.
    """
    trainer, now = loop.trainer, time.perf_counter()
    trainer.guard.check(trainer, step or None)
    trees = {"state": trainer.copy(), "best": loop.best or (), "scaling": trainer.scaling or ()}
    arrays = {
        name: np.asarray(to_numpy(leaf), order="C")
        for key, tree in trees.items()
        for name, leaf in named_leaves(tree, key)
    }
    metadata = {
        "epoch": trainer.n_epochs,
        "step": step,
        "steps": trainer.n_steps,
        "samples": trainer.n_samples,
        "rule": family(trainer.rules.optimizer),
        "rule_start": trainer.rule_start,
        "seed": trainer.seed,
        "with_accuracy": trainer.with_accuracy,
        "position": list(loop.position),
        "plateau": [_encode(float(loop.plateau.best)), loop.plateau.count],
        "has_best": loop.best is not None,
        "is_over": loop.is_stopped,
        "seconds": now - loop.start,
        "epoch_seconds": now - loop.epoch_start if step else 0.0,
        "history": _encode_history(loop.history),
        "fit": loop.identity(),
    }
    return Snapshot(arrays, metadata)


def restore_snapshot(loop: FitLoop, snapshot: Snapshot) -> None:
    """Restore a snapshot into a new fit; raise `SnapshotError` if settings or data have changed."""
    trainer, metadata = loop.trainer, snapshot.metadata
    given, found = loop.identity(), metadata["fit"]
    others = [name for name in given | found if given.get(name) != found.get(name)]
    if others:
        earlier, now = (
            ", ".join(f"{name}={texts.get(name)}" for name in others) for texts in (found, given)
        )
        cure = "resume with the same settings and data, or start a new fit with checkpoints in "
        cure += "another folder"
        if others == ["max_iter"] and (more := int(given["max_iter"]) - int(found["max_iter"])) > 0:
            cure = f"to train for more epochs, resume with {earlier}, then type set_params("
            cure += f"warm_start=True, max_iter={more}) and fit again without resume"
        raise SnapshotError(
            f"the checkpoint is from a fit with {earlier}, but this fit has {now}: {cure}"
        )
    if loop.validation is not None and metadata["history"]["scores"] is None:
        raise SnapshotError("the checkpoint has no validation scores, which this fit needs")
    trainer.want_accuracy(metadata["with_accuracy"])
    state = trainer.state
    sums = state.loss if trainer.with_accuracy else ()
    state = tree_of(snapshot, "state", state._replace(accuracy=sums))
    names = "epoch", "steps", "samples", "rule", "rule_start"
    trainer.resume(ResumeState((), state.opt_state, *(metadata[name] for name in names)))
    trainer.restore(state, metadata["steps"])
    learned = trainer.learned, trainer.state.batch_stats
    loop.restore(
        best=tree_of(snapshot, "best", learned) if metadata["has_best"] else (),
        history=_decode_history(metadata["history"]),
        position=LoopPosition(*metadata["position"]),
        plateau=_decode(metadata["plateau"]),
        is_stopped=metadata["is_over"],
        first_step=metadata["step"],
        seconds=metadata["seconds"],
        epoch_seconds=metadata["epoch_seconds"],
    )


def tree_of(snapshot: Snapshot, name: str, like: Tree) -> Tree:
    """Return the arrays whose names begin with ``name`` as a tree with the structure of ``like``.

    Raise `SnapshotError` if an array is missing or has the wrong shape.
    """
    expected = {key: tuple(leaf.shape) for key, leaf in named_leaves(like, name)}
    found = {
        key: array.shape for key, array in snapshot.arrays.items() if key.startswith(f"{name}.")
    }
    for key in sorted(expected.keys() | found.keys()):
        if found.get(key) != expected.get(key):
            raise SnapshotError(
                f"array {key!r} is {_shape(found.get(key))}, but should be "
                f"{_shape(expected.get(key))}"
            )
    return rebuild(like, [snapshot.arrays[key] for key in expected])


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else f"of shape {shape}"


def _encode_history(history: History) -> dict[str, Any]:
    """Convert a history to JSON values, with infinity and NaN as text."""
    values = {field.name: getattr(history, field.name) for field in fields(history)}
    values["records"] = [list(record) for record in history.records]
    return {name: _encode(value) for name, value in values.items()}


def _encode(value: Any) -> Any:
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    return value


def _decode_history(values: dict[str, Any]) -> History:
    decoded = {name: _decode(value) for name, value in values.items()}
    decoded["records"] = [Record(*record) for record in decoded["records"]]
    decoded["losses"] = [np.float64(loss) for loss in decoded["losses"]]
    for name in _NUMPY_FLOATS:
        if decoded[name] is not None:
            decoded[name] = np.float64(decoded[name])
    return History(**decoded)


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    return float(value) if isinstance(value, str) else value
