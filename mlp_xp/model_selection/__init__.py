"""Scikit-learn's searches and cross-validation, training many networks at once.

Each function and class is scikit-learn's own, with the same parameters, results and errors. Only
the fits differ from scikit-learn: `mlp_xp.estimators` runs them, keeps one copy of the data on the
device and decides how many networks to train in one step.
"""

from mlp_xp.model_selection._searches import (
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    RandomizedSearchCV,
)
from mlp_xp.model_selection._validation import (
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    validation_curve,
)

__all__ = [
    "GridSearchCV",
    "HalvingGridSearchCV",
    "HalvingRandomSearchCV",
    "RandomizedSearchCV",
    "cross_val_predict",
    "cross_val_score",
    "cross_validate",
    "learning_curve",
    "validation_curve",
]
