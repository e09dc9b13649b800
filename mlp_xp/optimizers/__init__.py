"""Update rules: frozen settings, and pure functions that update one array.

A rule has two parts. `coefficients` runs on the host once per step, in Python floats. It computes
everything that depends only on the step number, such as Adam's bias corrections, and receives the
scheduled learning rate (`mlp_xp.training.step.step_table`). `update` runs on the device and
computes only with arrays. It receives the coefficients as 0-d arrays, because constants in a
compiled step could not change.

The caller donates the old parameters, gradients and states: `update` may overwrite them.

To add a rule, add a file, and its name in `OPTIMIZERS`, which makes it a value of the parameter
``solver``.
"""

from mlp_xp.optimizers._adam import Adam, AdamW
from mlp_xp.optimizers._base import KINDS, Kind, Optimizer, rule_of
from mlp_xp.optimizers._beta_lasso import BetaLasso
from mlp_xp.optimizers._by_kind import ByKind, family, with_decay
from mlp_xp.optimizers._lion import Lion
from mlp_xp.optimizers._muon import Muon
from mlp_xp.optimizers._rmsprop import RMSprop
from mlp_xp.optimizers._sgd import SGD
from mlp_xp.optimizers._tree import (
    Updated,
    averaged,
    clip,
    for_axes,
    init_opt_state,
    kinds,
    penalized,
    update_array,
    update_tree,
)

__all__ = [
    "KINDS",
    "OPTIMIZERS",
    "SGD",
    "Adam",
    "AdamW",
    "BetaLasso",
    "ByKind",
    "Kind",
    "Lion",
    "Muon",
    "Optimizer",
    "RMSprop",
    "clip",
    "init_opt_state",
    "kinds",
    "update_tree",
]

OPTIMIZERS: dict[str, type[SGD | Adam | RMSprop | Lion | Muon | BetaLasso]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
    "lion": Lion,
    "muon": Muon,
    "beta_lasso": BetaLasso,
}
RULES = (*OPTIMIZERS.values(), ByKind)
