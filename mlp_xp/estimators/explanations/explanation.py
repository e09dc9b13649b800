"""The result of an explanation: shap's, or a small object with the same attributes."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from itertools import accumulate
from numbers import Real
from typing import Any

import numpy as np
from narwhals.stable import v2 as narwhals
from sklearn.base import is_classifier
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from mlp_xp._utils.columns.table import as_matrix
from mlp_xp._utils.dataclass import dataclass
from mlp_xp.backends import host
from mlp_xp.estimators.explanations.game import Game
from mlp_xp.estimators.explanations.gradients import integrated_values
from mlp_xp.estimators.explanations.shapley import exact_values, is_exact, sampled_values
from mlp_xp.estimators.fitted.groups import names_of_columns
from mlp_xp.estimators.tables.frames import as_frame


@dataclass(frozen=True, eq=False)
class Explanation:
    """How much each column contributes to each prediction.

    If the package shap is installed, methods return its ``shap.Explanation`` instead, which has the
    same attributes.

    Attributes
    ----------
    values : (rows, columns) or (rows, columns, outputs) array
        The contributions. A row's contributions and ``base_values`` add up to its prediction.
    base_values : (rows,) or (rows, outputs) array
        The mean prediction of the background rows, the same in each row.
    data : (rows, columns) array
        The explained rows.
    feature_names : list of str
    output_names : list of str, str or None
        The classes, one per output; None for values of a regressor.
    error_std : array in the shape of ``values``, or None
        The standard error of each value; None if the values are exact.
    """

    values: np.ndarray
    base_values: np.ndarray
    data: np.ndarray
    feature_names: list[str]
    output_names: Any = None
    error_std: np.ndarray | None = None


def has_shap() -> bool:
    """Whether the package shap is installed."""
    return importlib.util.find_spec("shap") is not None


def as_shap(found: Explanation | list[Explanation]) -> Any:
    """Return an explanation, or each of a list, as shap's, if shap is installed."""
    if isinstance(found, list):
        return [*map(as_shap, found)]
    if not has_shap():
        return found
    with warnings.catch_warnings():  # Importing shap calls deprecated functions of matplotlib.
        warnings.simplefilter("ignore")
        shap: Any = importlib.import_module("shap")
    return shap.Explanation(**vars(found))


def explain(
    model: Any,
    X: Any,
    background: Any,
    *,
    output: str = "auto",
    exact: bool | None = None,
    tolerance: float = 0.01,
    random_state: Any = None,
) -> Explanation | list[Explanation]:
    """Return the Shapley values of an estimator or ensemble; see `ExplanationMixin.shap_values`.

    The result is a list for several targets with classes.
    """
    _check(model, output, exact, tolerance)
    generator, errors = check_random_state(random_state), None
    settings: Any = {"is_raw": output == "raw", "random_state": generator}
    game = Game(model, X, background, **settings, method="shap_values")
    if is_exact(len(game.columns), exact):
        values = exact_values(game)
    else:
        values, errors = sampled_values(game, tolerance, generator)
    return _as_explanations(model, X, game, values, errors)


def explain_by_gradients(
    model: Any,
    X: Any,
    background: Any,
    *,
    output: str = "auto",
    tolerance: float = 0.01,
    random_state: Any = None,
) -> Explanation | list[Explanation]:
    """Return integrated gradients; see `ExplanationMixin.integrated_gradients`."""
    _check(model, output, None, tolerance)
    generator = check_random_state(random_state)
    settings: Any = {"is_raw": output == "raw", "random_state": generator}
    game = Game(model, X, background, **settings, method="integrated_gradients")
    if not game.is_sum:
        raise ValueError(
            "`output='raw'` is for a single network, since the raw outputs of several are computed "
            "from their mean probabilities: leave out `output`."
        )
    return _as_explanations(model, X, game, integrated_values(game, tolerance), None)


def _check(model: Any, output: str, exact: bool | None, tolerance: float) -> None:
    check_is_fitted(model)
    choices = ["auto", "probability", "raw"] if is_classifier(model) else ["auto"]
    if output not in choices:
        hint = "" if is_classifier(model) else " for a regressor, whose values are explained"
        raise ValueError(
            f"`output` must be {' or '.join(map(repr, choices))}{hint}, got {output!r}."
        )
    if exact not in (None, True, False):
        raise ValueError(f"`exact` must be True, False or None, got {exact!r}.")
    if not (isinstance(tolerance, Real) and 0.0 < tolerance < np.inf):
        raise ValueError(f"`tolerance` must be a number above 0, got {tolerance!r}.")


def _as_explanations(
    model: Any, X: Any, game: Game, values: np.ndarray, errors: np.ndarray | None
) -> Explanation | list[Explanation]:
    """Return an explanation, or a list of them for several targets with classes.

    ``values`` and their standard ``errors`` have the shape (rows, columns of the game, outputs).
    """
    names = names_of_columns(model)
    data, base = _rows(X, names), np.mean(game.of_background, axis=0)
    # Columns that are no inputs of the network have values of 0.
    arrays: dict[str, Any] = {"values": _spread(game, values)}
    arrays["error_std"] = None if errors is None else _spread(game, errors)
    arrays["base_values"] = np.repeat(base[None], game.n_rows, axis=0)

    def part(outputs: slice, labels: Any) -> Explanation:
        fields: Any = {name: _cut(array, outputs) for name, array in arrays.items()}
        return Explanation(**fields, data=data, feature_names=names, output_names=labels)

    classes: Any = getattr(model, "classes_", None)
    if not isinstance(classes, list):
        labels = None if classes is None else [*map(str, classes)]
        is_single = labels is not None and len(base) == 1
        return part(slice(None), labels[-1] if labels and is_single else labels)
    ends = list(accumulate(map(len, classes)))
    slices = map(slice, [0, *ends], ends)
    return [part(own, [*map(str, labels)]) for own, labels in zip(slices, classes, strict=True)]


def _spread(game: Game, values: np.ndarray) -> np.ndarray:
    """Return values for all columns of the table, (rows, columns, outputs)."""
    spread = np.zeros((game.n_rows, game.n_columns, values.shape[-1]))
    spread[:, game.columns] = values
    return spread


def _cut(array: np.ndarray | None, outputs: slice) -> np.ndarray | None:
    """Return some outputs; a single one has no axis."""
    if array is None:
        return None
    return array[..., 0] if array.shape[-1] == 1 else array[..., outputs]


def _rows(X: Any, names: list[str]) -> np.ndarray:
    """Return the rows of a frame or an array on the host, as an array with the named columns."""
    if not narwhals.dependencies.is_into_dataframe(X):
        X = host(as_matrix(X))
        return np.asarray(X.toarray() if hasattr(X, "toarray") else X)
    frame = as_frame(X)
    if not set(names) & set(frame.columns):  # The fit had no names.
        return np.asarray(frame.to_numpy())
    missing = np.full(len(frame), None)
    columns = [frame[name].to_numpy() if name in frame.columns else missing for name in names]
    kinds = {column.dtype.kind for column in columns}
    return np.stack([c if kinds <= set("biuf") else c.astype(object) for c in columns], axis=1)
