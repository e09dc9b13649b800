"""The search of tuned ensembles: configurations, folds, time, selection.

`search` calls the other parts in order; `mlp_xp.estimators.tuned` has the estimators.
"""
