"""Estimators for DataFrames and Arrays of dask.

``MLPClassifier(...).fit(frame, "target")`` trains on the workers that have the partitions of the
frame. The classes are named as in `mlp_xp`; as in XGBoost's dask interface, `client` is an
attribute. Requires the ``dask`` extra.
"""

from mlp_xp.estimators.on_dask.classes import MLPClassifier, MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
