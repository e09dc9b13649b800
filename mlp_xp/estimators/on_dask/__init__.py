"""Estimators for collections of dask, which train on the cluster's workers.

`classes` has the estimators, `partitions` checks collections, `fitting` runs in the process that
calls `fit`, `worker` on the workers, and `predicting` makes lazy predictions.
"""
