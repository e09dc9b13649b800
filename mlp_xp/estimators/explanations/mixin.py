"""The methods of estimators and ensembles that explain predictions."""

from typing import Any


class ExplanationMixin:
    """A mixin with explanations of predictions."""

    def shap_values(
        self: Any,
        X: Any,
        background: Any = 100,
        *,
        output: str = "auto",
        exact: bool | None = None,
        tolerance: float = 0.01,
        random_state: Any = None,
    ) -> Any:
        r"""Return the Shapley value of each column for each prediction.

        A column's value is its average effect if the columns of a background row are replaced by
        the explained row's columns, one after the other in any order (interventional Shapley
        values). A row's values add up to the difference between its prediction and the mean
        prediction of the background. A column of a table is replaced as a whole, with its
        categories and its indicator of missing values. Dropout and `tta` are not used.

        Parameters
        ----------
        X : array-like, sparse matrix or data frame of shape (samples, features), of any library
            The rows to explain.
        background : int, or rows like X, default=100
            The rows to compare with, best some 100 rows of the training data. An integer draws this
            many rows of X, or uses all if X has fewer. The time grows with their number.
        output : {"auto", "probability", "raw"}, default="auto"
            What to explain. "auto" is what the model predicts: probabilities of a classifier,
            values of a regressor. "raw" are a classifier's raw outputs, which are log-odds for two
            classes.
        exact : bool or None, default=None
            Whether to evaluate all :math:`2^n` sets of n columns. By default, values of up to 15
            columns are exact. Otherwise, permutations of the columns are drawn, and the result has
            standard errors.
        tolerance : float above 0, default=0.01
            Without `exact`, draw until each standard error is at most this fraction of the output's
            standard deviation. The errors do not include the choice of the background.
        random_state : int, RandomState instance or None, default=None
            Seed for the background rows and the permutations.

        Returns
        -------
        shap.Explanation, or Explanation if shap is not installed
            With the attributes ``values``, ``base_values``, ``data``, ``feature_names``,
            ``output_names`` and, if sampled, ``error_std``. ``values`` are in NumPy and have the
            shape (samples, columns) for two classes (of the second class) or a single value, and
            otherwise (samples, columns, outputs). For several targets with classes, a list with one
            explanation per target.

        Raises
        ------
        ValueError
            If there are more than 15 columns with ``exact=True``, or `background` has other
            columns than X.

        References
        ----------
        Lundberg, Lee, "A unified approach to interpreting model predictions" (2017),
        arXiv:1705.07874; Mitchell, Cooper, Frank, Holmes, "Sampling permutations for Shapley value
        estimation" (2022), arXiv:2104.12199, for the pairs of permutations.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from mlp_xp import MLPClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> model = MLPClassifier(max_iter=200, random_state=0).fit(X, y)
        >>> found = model.shap_values(X[:5], background=X)
        >>> found.values.shape
        (5, 4, 3)
        >>> total = found.base_values + found.values.sum(axis=1)
        >>> bool(abs(total - model.predict_proba(X[:5])).max() < 1e-6)
        True
        """
        # Import only if needed.
        from mlp_xp.estimators.explanations.explanation import as_shap, explain

        settings: Any = {"exact": exact, "tolerance": tolerance, "random_state": random_state}
        return as_shap(explain(self, X, background, output=output, **settings))

    def integrated_gradients(
        self: Any,
        X: Any,
        background: Any = 100,
        *,
        output: str = "auto",
        tolerance: float = 0.01,
        random_state: Any = None,
    ) -> Any:
        r"""Return the integrated gradient of each column for each prediction.

        The prediction changes along a straight line from a background row to the explained row. A
        column's value is the part of this change that the column causes, averaged over the
        background. Like Shapley values, a row's values add up to the difference between its
        prediction and the mean prediction of the background, but the time hardly grows with the
        number of columns. The line connects what the columns add to the first layer, so categories
        and embedded numbers are moved as a whole.

        Parameters
        ----------
        X, background, output, random_state
            As for `shap_values`.
        tolerance : float above 0, default=0.01
            The steps along the line are halved until each value, and the sum of each row, is
            accurate to about this fraction of the output's standard deviation.

        Returns
        -------
        shap.Explanation, or Explanation if shap is not installed
            As from `shap_values`, without ``error_std``.

        Raises
        ------
        ValueError
            If `background` has other columns than X, or for ``output="raw"`` of several networks.

        References
        ----------
        Sundararajan, Taly, Yan, "Axiomatic attribution for deep networks" (2017), arXiv:1703.01365;
        Erion, Janizek, Sturmfels, Lundberg, Lee, "Improving performance of deep learning models
        with axiomatic attribution priors and expected gradients" (2021), arXiv:1906.10670.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from mlp_xp import MLPClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> model = MLPClassifier(max_iter=200, random_state=0).fit(X, y)
        >>> found = model.integrated_gradients(X[:5], background=X[::10])
        >>> total = found.base_values + found.values.sum(axis=1)
        >>> bool(abs(total - model.predict_proba(X[:5])).max() < 0.01)
        True
        """
        # Import only if needed.
        from mlp_xp.estimators.explanations.explanation import as_shap, explain_by_gradients

        settings: Any = {"tolerance": tolerance, "random_state": random_state}
        return as_shap(explain_by_gradients(self, X, background, output=output, **settings))

    def permutation_importance(
        self: Any,
        X: Any,
        y: Any,
        groups: Any = None,
        *,
        loss: Any = None,
        n_repeats: int = 5,
        level: float = 0.9,
        random_state: Any = None,
    ) -> Any:
        r"""Measure how much the loss rises if columns are permuted, alone or in groups.

        If columns are correlated, each may seem unimportant, because the others replace it: permute
        them together, as a group. The intervals include the chance of the test rows and of the
        permutations, but not of the fit.

        Parameters
        ----------
        X : array-like, sparse matrix or data frame of shape (samples, features), of any library
            Rows that were not used in the fit, at least 2.
        y : array-like of shape (samples,), (samples, outputs) or (samples, targets), or str
            Their targets, or the name of a column of X.
        groups : dict of str to list of str or int, optional
            Names or positions of the columns of each group. All other columns are permuted alone.
        loss : callable, optional
            A function of ``(y, predictions)`` that returns each row's loss, (samples,).
            ``predictions`` are probabilities of a classifier, and values of a regressor, in NumPy.
            By default, the log loss, summed over labels or targets, or the squared error, averaged
            over outputs.
        n_repeats : int of at least 1, default=5
            The number of permutations, which are the same for all groups.
        level : float between 0 and 1, default=0.9
            The confidence level of each interval.
        random_state : int, RandomState instance or None, default=None

        Returns
        -------
        PermutationImportance
            With the attributes ``names``, ``importances``, ``importances_mean``,
            ``importances_std``, ``standard_errors`` and ``intervals``, in the loss's unit.

        Raises
        ------
        ValueError
            If a group has no columns or an unknown one, a column is in two groups, or y has another
            length than X.

        References
        ----------
        Fisher, Rudin, Dominici, "All models are wrong, but many are useful: learning a variable's
        importance by studying an entire class of prediction models simultaneously" (2019),
        arXiv:1801.01489, for the importance as a U-statistic, whose variance is from Hoeffding, "A
        class of statistics with asymptotically normal distribution" (1948).

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from mlp_xp import MLPClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> model = MLPClassifier(max_iter=200, random_state=0).fit(X[::2], y[::2])
        >>> groups = {"sepal": [0, 1], "petal": [2, 3]}
        >>> found = model.permutation_importance(X[1::2], y[1::2], groups, random_state=0)
        >>> found.names
        ['sepal', 'petal']
        >>> bool(found.intervals[1, 0] > found.intervals[0, 1])
        True
        """
        # Import only if needed.
        from mlp_xp.estimators.explanations.importance import measure_importance

        settings: Any = {"loss": loss, "n_repeats": n_repeats, "level": level}
        return measure_importance(self, X, y, groups, **settings, random_state=random_state)
