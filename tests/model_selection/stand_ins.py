"""Networks with the names and parameters of the estimators of scikit-learn's own tests."""

import numpy as np

from mlp_xp import MLPClassifier, MLPRegressor

__all__ = ["STAND_INS"]
# Fits that warn of nothing.
SIZE = {"hidden_layer_sizes": (5,), "n_iter_no_change": np.inf, "learning_rate": "cosine"}


class Classifier(MLPClassifier):
    """For classifiers whose tests read how a search handles them, and not how good they are."""

    def __init__(
        self, C=1.0, kernel="rbf", gamma="scale", degree=3, max_depth=None, n_neighbors=5,
        a=0, b=0, c=0, l=0, max_iter=2, random_state=0,  # noqa: E741
    ):  # fmt: skip
        super().__init__(**SIZE, max_iter=max_iter, random_state=random_state)
        self.C, self.kernel, self.gamma, self.degree = C, kernel, gamma, degree
        self.max_depth, self.n_neighbors = max_depth, n_neighbors
        self.a, self.b, self.c, self.l = a, b, c, l

    def decision_function(self, X):
        logits = np.log(self.predict_proba(X))
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits


class Mock(MLPClassifier):
    """For `MockClassifier`: the score depends on a parameter."""

    def __init__(self, foo_param=0):
        super().__init__(**SIZE, max_iter=1, random_state=0)
        self.foo_param = foo_param

    def score(self, X=None, y=None, sample_weight=None):
        return float(self.foo_param > 1)


class Failing(MLPClassifier):
    """For `FailingClassifier`: a fit that fails by one value of a parameter."""

    FAILING_PARAMETER = 2

    def __init__(self, parameter=None):
        super().__init__(**SIZE, max_iter=1, random_state=0)
        self.parameter = parameter

    def fit(self, X, y=None, sample_weight=None):
        if self.parameter == Failing.FAILING_PARAMETER:
            raise ValueError("Failing classifier failed as required")
        return super().fit(X, y, sample_weight)

    def score(self, X=None, y=None, sample_weight=None):
        return 0.0


class Regressor(MLPRegressor):
    def __init__(self, alpha=1e-4, fit_intercept=True, max_iter=2, random_state=0):
        super().__init__(**SIZE, alpha=alpha, max_iter=max_iter, random_state=random_state)
        self.fit_intercept = fit_intercept


CLASSIFIERS = ["LinearSVC", "SVC", "LogisticRegression", "DecisionTreeClassifier"]
CLASSIFIERS += ["KNeighborsClassifier", "FastClassifier"]
STAND_INS = dict.fromkeys(CLASSIFIERS, Classifier)
STAND_INS |= dict.fromkeys(["Ridge", "LinearRegression"], Regressor)
STAND_INS |= {"MockClassifier": Mock, "FailingClassifier": Failing}
