"""Changes of an estimator that become visible only if nothing fails."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

from mlp_xp._utils.random import RandomState


def draft_of(estimator: Any) -> Any:
    """Return a copy of an estimator to learn attributes on; it draws from a copied generator."""
    draft: Any = object.__new__(type(estimator))
    vars(draft).update(vars(estimator))
    if isinstance(estimator.random_state, RandomState):
        draft.random_state = copy.deepcopy(estimator.random_state)
    return draft


def advance_generator(estimator: Any, draft_generator: Any) -> None:
    """Advance an estimator's random generator to the position of a draft's generator."""
    if isinstance(draft_generator, RandomState):
        estimator.random_state.set_state(draft_generator.get_state())


def accept_draft(estimator: Any, draft: Any) -> None:
    """Replace an estimator's attributes by a draft's, and advance its random generator."""
    advance_generator(estimator, draft.random_state)
    attributes = {**vars(draft), "random_state": estimator.random_state}
    vars(estimator).clear()
    vars(estimator).update(attributes)


@contextlib.contextmanager
def undone_by_errors(model: Any) -> Iterator[None]:
    """Undo what callbacks have changed if one of them raises an error before the first epoch."""
    attributes = dict(vars(model))
    try:
        yield
    except BaseException:
        # Keep the attributes of scikit-learn's callbacks, which scikit-learn removes itself.
        theirs = {name: value for name, value in vars(model).items() if "_callback" in name}
        vars(model).clear()
        vars(model).update(theirs | attributes)
        raise
