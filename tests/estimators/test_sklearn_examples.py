"""What scikit-learn's examples do with an MLP, in our own short versions: the same figures.

Up to 200 samples are one batch, so that another order of the samples changes nothing but rounding.
"""

import numpy as np
import pytest
import sklearn.neural_network as theirs
from sklearn import ensemble, multioutput
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_diabetes, load_digits, load_wine
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import scale

import mlp_xp as ours

WINES, CULTIVARS = load_wine(return_X_y=True)
WINES = scale(WINES)
HOMES, PRICES = (array[:200] for array in load_diabetes(return_X_y=True))
HOMES, PRICES = 20 * HOMES, PRICES / 100
SEVERAL = np.column_stack([PRICES, np.sin(PRICES)])
ANSWERS = np.column_stack([CULTIVARS, CULTIVARS == 1])
LINEAR, RIDGE = ("linear", LogisticRegression()), ("ridge", RidgeCV())
ONCE = {"n_estimators": 2, "random_state": 0}
EXAMPLES = {
    "calibrated": (CULTIVARS, lambda mlp: CalibratedClassifierCV(mlp, cv=3)),
    "isotonic": (CULTIVARS, lambda mlp: CalibratedClassifierCV(mlp, method="isotonic", cv=3)),
    "one against the rest": (CULTIVARS, OneVsRestClassifier),
    "stacking": (CULTIVARS, lambda mlp: ensemble.StackingClassifier([("mlp", mlp), LINEAR], cv=3)),
    "voting": (CULTIVARS, lambda mlp: ensemble.VotingClassifier([("mlp", mlp), LINEAR])),
    "bagging": (CULTIVARS, lambda mlp: ensemble.BaggingClassifier(mlp, **ONCE)),
    "boosting": (CULTIVARS, lambda mlp: ensemble.AdaBoostClassifier(mlp, **ONCE)),
    "several answers": (ANSWERS, multioutput.MultiOutputClassifier),
    "several outputs": (SEVERAL, lambda mlp: mlp),
    "chain": (SEVERAL, multioutput.RegressorChain),
    "stacked regression": (PRICES, lambda mlp: ensemble.StackingRegressor([("mlp", mlp), RIDGE])),
}
SETTINGS = {"hidden_layer_sizes": 10, "max_iter": 60, "random_state": 0, "learning_rate_init": 0.01}
pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.matrix,
]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_figures_are_the_same(name):
    y, make = EXAMPLES[name]
    X, kind = (HOMES, "MLPRegressor") if y.dtype.kind == "f" else (WINES, "MLPClassifier")
    pair = [make(getattr(library, kind)(**SETTINGS)) for library in (theirs, ours)]
    np.testing.assert_allclose(*(np.asarray(model.fit(X, y).predict(X)) for model in pair), 1e-4)
    if hasattr(pair[0], "predict_proba"):
        np.testing.assert_allclose(*(np.asarray(m.predict_proba(X)) for m in pair), atol=1e-4)
    if y.ndim == 1:
        np.testing.assert_allclose(*(cross_val_score(model, X, y, cv=2) for model in pair), 1e-4)


def test_the_figures_of_inspections_and_of_an_autoencoder_are_the_same():
    figures, pictures = [], load_digits().data[:150] / 16
    for library in (theirs, ours):
        model = library.MLPRegressor(**SETTINGS).fit(HOMES, PRICES)
        found = partial_dependence(model, HOMES, [2, 8], grid_resolution=5)["average"].ravel()
        by_chance = permutation_importance(model, HOMES, PRICES, n_repeats=2, random_state=0)
        loss = model.fit(pictures, pictures).loss_
        figures.append([*found, *by_chance.importances_mean, loss])
    np.testing.assert_allclose(*figures, atol=1e-4)
