"""The estimators for collections of dask."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from mlp_xp._utils.optional import optional
from mlp_xp.estimators.base import BaseMLP
from mlp_xp.estimators.classifier import MLPClassifier as LocalClassifier
from mlp_xp.estimators.on_dask.partitions import is_lazy
from mlp_xp.estimators.regressor import MLPRegressor as LocalRegressor


class OnDask(BaseMLP):
    """The methods of both estimators that take collections of dask."""

    _local: type[BaseMLP]
    _client: Any = None

    @property
    def client(self) -> Any:
        """The client of the cluster; by default, the client that was created last."""
        if self._client is not None:
            return self._client
        try:
            return optional("distributed", "dask").default_client()
        except ValueError:
            raise ValueError(
                f"{type(self).__name__} needs a cluster: create one first, e.g. client = "
                "distributed.Client(n_workers=2, threads_per_worker=1), or Client(address)."
            ) from None

    @client.setter
    def client(self, client: Any) -> None:
        self._client = client

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
        resume: Any = None,
    ) -> Self:
        """Fit the network on the workers that have the partitions of X.

        Each worker trains on the rows of its partitions. The result equals a fit on all rows, in
        the order of the partitions, up to rounding.

        Parameters
        ----------
        X : dask DataFrame, or dask Array of shape (samples, features)
        y : str, or dask Series, DataFrame or Array
            The name of a column of X, or class labels (values for a regressor) with the partitions
            of X.
        sample_weight : dask Series or Array, optional
        X_val, y_val, sample_weight_val : as X, y and sample_weight, optional
            Validation data, of dask or in memory.
        resume : str or path-like, optional
            Folder with checkpoints of this fit, which the first worker reads.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If data or settings are invalid, or if the weights become infinite or NaN.
        RankError
            If a worker is lost; the message names the last checkpoint.
        """
        from mlp_xp.estimators.on_dask.fitting import fit_on_workers  # Predictions do not need it.

        self._validate_params()
        if self.distributed is not None:
            raise ValueError(
                f"`distributed` must be None, got {self.distributed!r}: the workers of dask are "
                "connected without it."
            )
        given, held_out = (X, y, sample_weight), (X_val, y_val, sample_weight_val)
        content = fit_on_workers(self.client, self.to_local(), given, held_out, resume)
        fitted = optional("cloudpickle", "dask").loads(content)
        kept = {**self._params(), "_client": self._client}
        for name in list(vars(self)):
            delattr(self, name)
        self.__setstate__({**fitted.__getstate__(), **kept})
        return self

    def to_local(self) -> Any:
        """Return the same estimator for data in memory, fitted if this one is.

        Returns
        -------
        mlp_xp.MLPClassifier or mlp_xp.MLPRegressor
        """
        model = self._local.__new__(self._local)
        model.__setstate__(self.__getstate__())
        return model

    def __getstate__(self) -> dict[str, Any]:
        attributes = super().__getstate__()
        attributes.pop("_client", None)  # A client cannot be pickled.
        return attributes

    def _call(self, X: Any, method: str, **options: Any) -> Any:
        """Call a method of the local estimator, lazily if X is a collection."""
        if not is_lazy(X):
            return getattr(super(), method)(X, **options)
        from mlp_xp.estimators.on_dask.predicting import predict_lazily

        return predict_lazily(self.to_local(), X, method, options)

    def predict(self, X: Any, **options: Any) -> Any:
        """Predict class labels or values.

        Parameters
        ----------
        X : dask DataFrame or Array, or samples in memory
        **options
            As for the estimator of `mlp_xp`, e.g. ``return_std=True`` of a regressor.

        Returns
        -------
        dask Series, DataFrame or Array
            Lazy, with the index of X if it has one. In memory, if X is.
        """
        return self._call(X, "predict", **options)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy of a classifier, or R2 of a regressor.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`, or samples in memory.

        Returns
        -------
        float
        """
        if not is_lazy(X):
            score: float = super().score(X, y, sample_weight)
            return score
        truth = X[y] if isinstance(y, str) else y
        found = optional("dask", "dask").compute(truth, self.predict(X), sample_weight)
        y, predicted, weights = (None if a is None else np.asarray(a) for a in found)
        return float(self._state.targets.score(y, predicted, weights))


class MLPClassifier(OnDask, LocalClassifier):
    """Multilayer perceptron classifier for collections of dask, trained on the cluster's workers.

    The parameters are those of `mlp_xp.MLPClassifier`, except for `distributed`. As in XGBoost's
    dask interface, `client` is an attribute. Callbacks run on the first worker.

    Attributes
    ----------
    client : distributed.Client
        The client of the cluster; by default, the one that was created last.

    See Also
    --------
    mlp_xp.MLPClassifier : The estimator for data in memory, with all parameters and attributes.

    Examples
    --------
    >>> from distributed import Client  # doctest: +SKIP
    >>> import dask.dataframe as dd  # doctest: +SKIP
    >>> from mlp_xp.dask import MLPClassifier  # doctest: +SKIP
    >>> client = Client(n_workers=2, threads_per_worker=1)  # doctest: +SKIP
    >>> frame = dd.read_parquet("s3://bucket/table")  # doctest: +SKIP
    >>> model = MLPClassifier.from_recipe("table-fast").fit(frame, "target")  # doctest: +SKIP
    >>> model.predict_proba(frame).to_parquet("s3://bucket/probabilities")  # doctest: +SKIP
    """

    _local = LocalClassifier

    def predict_proba(self, X: Any, **options: Any) -> Any:
        """Predict probabilities; see `predict`.

        Parameters
        ----------
        X : dask DataFrame or Array, or samples in memory
        **options
            As for `mlp_xp.MLPClassifier.predict_proba`.

        Returns
        -------
        dask DataFrame with a column per class, or dask Array
        """
        return self._call(X, "predict_proba", **options)

    def predict_log_proba(self, X: Any) -> Any:
        """Predict logarithms of probabilities; see `predict_proba`.

        Parameters
        ----------
        X : dask DataFrame or Array, or samples in memory

        Returns
        -------
        dask DataFrame with a column per class, or dask Array
        """
        return self._call(X, "predict_log_proba")


class MLPRegressor(OnDask, LocalRegressor):
    """Multilayer perceptron regressor for collections of dask, trained on the cluster's workers.

    The parameters are those of `mlp_xp.MLPRegressor`, except for `distributed`. As in XGBoost's
    dask interface, `client` is an attribute. Callbacks run on the first worker.

    Attributes
    ----------
    client : distributed.Client
        The client of the cluster; by default, the one that was created last.

    See Also
    --------
    mlp_xp.MLPRegressor : The estimator for data in memory, with all parameters and attributes.

    Examples
    --------
    >>> from mlp_xp.dask import MLPRegressor  # doctest: +SKIP
    >>> model = MLPRegressor.from_recipe("table-fast")  # doctest: +SKIP
    >>> model.fit(frame, "price").predict(frame).compute()  # doctest: +SKIP
    """

    _local = LocalRegressor
