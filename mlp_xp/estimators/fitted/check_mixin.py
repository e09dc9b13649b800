"""The method of estimators and ensembles that compares new data with the training data."""

from typing import Any

from sklearn.utils.validation import check_is_fitted


class CheckMixin:
    """A mixin with a comparison of new data with the training data."""

    def check(self: Any, X: Any, *, drift_limit: float = 0.25, unseen_limit: float = 0.01) -> Any:
        """Compare the columns of new data with the data of the fit.

        The fit keeps the distribution of each column of a table in ``columns_.distributions``:
        deciles, range, frequent categories, and missing values.

        Parameters
        ----------
        X : data frame or array-like of shape (samples, features), of any library
            Or a table that is read in parts, such as `mlp_xp.datasets.Parquet`.
        drift_limit : float of at least 0, default=0.25
            The largest population stability index of a column. The index is only compared if it is
            larger than chance explains, since it is large for few rows.
        unseen_limit : float of at least 0, default=0.01
            The largest fraction of rows that are outside the range of the fit; whose category is
            not an input, beyond the fraction in the fit; or that have no value, if none was missing
            in the fit. Again, numbers of rows that chance explains are accepted.

        Returns
        -------
        TableCheck
            It prints as a table. ``exceeded`` has the columns that exceed a limit.

        Raises
        ------
        ValueError
            If X has other columns than the fit, or a column with values of another kind; or if the
            model has no distributions, because it was not fitted on a table, or was saved by an
            earlier version.

        Examples
        --------
        >>> import numpy as np
        >>> from mlp_xp import MLPRegressor
        >>> X, y = np.random.default_rng(0).normal(size=(500, 2)), np.zeros(500)
        >>> model = MLPRegressor(missing_values="impute", max_iter=1, learning_rate="cosine")
        >>> model = model.fit(X, y)
        >>> model.check(X[:200]).exceeded
        {}
        >>> model.check(X[:200] + [0, 3]).exceeded
        {'x1': ('drift', 'range')}
        """
        check_is_fitted(self)
        # Import only if needed.
        from mlp_xp.estimators.tables.drift import check_table

        model = self if hasattr(self, "columns_") else getattr(self, "estimators_", [self])[0]
        return check_table(model, X, drift_limit=drift_limit, unseen_limit=unseen_limit)
