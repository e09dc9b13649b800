"""
scikit-learn's MLP with one import changed
==========================================

scikit-learn's gallery has `an example of the penalty alpha
<https://scikit-learn.org/stable/auto_examples/neural_networks/plot_mlp_alpha.html>`_: a small
network on three toy data sets, with weak to strong penalties. We run it twice, with scikit-learn's
``MLPClassifier`` and with ours. Parameters, pipeline and solver are the same, so both must give the
same decision boundaries.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_circles, make_classification, make_moons
from sklearn.inspection import DecisionBoundaryDisplay
from sklearn.neural_network import MLPClassifier as Theirs
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlp_xp import MLPClassifier as Ours

data_sets = {
    "separable": make_classification(
        n_features=2, n_redundant=0, n_clusters_per_class=1, random_state=0
    ),
    "moons": make_moons(noise=0.3, random_state=0),
    "circles": make_circles(noise=0.2, factor=0.5, random_state=1),
}
alphas = [0.1, 1.0, 3.0]
settings = {"solver": "lbfgs", "max_iter": 2000, "random_state": 1}

# %%
# Each row is a data set. In each pair of columns, the left plot is scikit-learn's and the right
# plot is ours. A stronger penalty makes the boundary straighter.

figure, axes = plt.subplots(3, 6, figsize=(11, 5.8), layout="constrained")
for row, (name, (X, y)) in zip(axes, data_sets.items(), strict=True):
    for column, axis in enumerate(row):
        library, alpha = (Theirs, Ours)[column % 2], alphas[column // 2]
        model = make_pipeline(StandardScaler(), library([10, 10], alpha=alpha, **settings))
        model.fit(X, y)
        DecisionBoundaryDisplay.from_estimator(
            model, X, ax=axis, response_method="predict_proba", cmap="PuOr", levels=10, alpha=0.6
        )
        axis.scatter(*X.T, c=y, cmap="PuOr", s=14, edgecolors="black", linewidths=0.5)
        axis.set(xticks=[], yticks=[], xlabel="", ylabel="")
    row[0].set_ylabel(name)
for column, axis in enumerate(axes[0]):
    axis.set_title(f"{('scikit-learn', 'mlp_xp')[column % 2]}\nalpha = {alphas[column // 2]:g}")

# %%
# The same numbers
# ----------------
# The plots look the same because the networks are the same: with 100 samples, there is only one
# batch, and with the same seed, both libraries take the same steps. The probabilities differ only
# by rounding.

X, y = data_sets["moons"]
theirs = Theirs([10, 10], learning_rate_init=0.01, random_state=1, max_iter=1000).fit(X, y)
ours = Ours([10, 10], learning_rate_init=0.01, random_state=1, max_iter=1000).fit(X, y)
difference = np.max(np.abs(theirs.predict_proba(X) - ours.predict_proba(X)))
print(f"epochs: {theirs.n_iter_} and {ours.n_iter_}; largest difference: {difference:.0e}")
assert theirs.n_iter_ == ours.n_iter_
assert difference < 1e-6
