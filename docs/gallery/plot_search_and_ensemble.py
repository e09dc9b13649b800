"""
A search and an ensemble of the best settings
=============================================

To use the searches of ``mlp_xp.model_selection``, change one import. They train many networks at
once with one copy of the data; results and attributes are the same as scikit-learn's.

This example compares twenty settings of a small network with cross-validation. Then it averages ten
networks with the best setting.
"""

import matplotlib.pyplot as plt
import numpy as np

from mlp_xp import MLPClassifier, MLPEnsembleClassifier
from mlp_xp.datasets import load_digits
from mlp_xp.model_selection import GridSearchCV  # instead of sklearn.model_selection

digits = load_digits()
model = MLPClassifier(
    32, learning_rate="cosine", max_iter=15, input_scaling="standardize", random_state=0
)
grid = {"learning_rate_init": [0.003, 0.01, 0.03, 0.1, 0.3], "alpha": [0.01, 0.1, 1.0, 10.0]}
search = GridSearchCV(model, grid, cv=3).fit(digits.x_train, digits.y_train)
print(f"best of 20 settings: {search.best_params_}, accuracy {search.best_score_:.3f}")
print(f"guessing {np.bincount(digits.y_train).max() / len(digits.y_train):.3f}")

# %%
# ``cv_results_`` has the same form as in scikit-learn. Several neighboring settings are about
# equally good, so a finer grid is not necessary.

scores = 100 * search.cv_results_["mean_test_score"].reshape(4, 5)
figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
image = axis.imshow(scores, cmap="viridis", vmin=scores.max() - 8)
for (row, column), score in np.ndenumerate(scores):
    color = "black" if score > scores.max() - 4 else "white"
    axis.text(column, row, f"{score:.1f}", ha="center", va="center", color=color)
axis.set_xticks(range(5), grid["learning_rate_init"])
axis.set_yticks(range(4), grid["alpha"])
axis.set(xlabel="learning_rate_init", ylabel="alpha")
axis.set_title("accuracy in cross-validation [%]")
figure.colorbar(image, label="accuracy [%]", extend="min")

# %%
# Ten networks instead of one
# ---------------------------
# An ensemble averages the probabilities of networks with different seeds. All networks are trained
# together, and the ensemble is used like a single classifier.

ensemble = MLPEnsembleClassifier(search.best_estimator_, n_estimators=10, random_state=0)
ensemble.fit(digits.x_train, digits.y_train)
single = [100 * network.score(digits.x_test, digits.y_test) for network in ensemble.estimators_]
together = 100 * ensemble.score(digits.x_test, digits.y_test)
print(f"one network {np.mean(single):.1f} % on average, ten together {together:.1f} %")
assert together > np.mean(single)

# %%
# Where the networks disagree
# ---------------------------
# ``return_std=True`` also returns the standard deviation of the ten probabilities. If it is large,
# the networks disagree, and most of the mistakes are among these images.

probabilities, spread = ensemble.predict_proba(digits.x_test, return_std=True)
disagreement = spread.max(axis=1)
right = ensemble.predict(digits.x_test) == digits.y_test
figure, axis = plt.subplots(figsize=(6.4, 3), layout="constrained")
places = np.random.default_rng(0).uniform(-0.3, 0.3, len(right))
for row, (chosen, color) in enumerate([(right, "#0072B2"), (~right, "#D55E00")]):
    axis.plot(disagreement[chosen], row + places[chosen], "o", color=color, alpha=0.5)
axis.set_yticks([0, 1], [f"right\n({right.sum()})", f"wrong\n({(~right).sum()})"])
axis.set(ylim=(1.5, -0.5), xlabel="standard deviation of the ten probabilities")
axis.set_title("test images by disagreement of the networks")
axis.grid(alpha=0.3, axis="x")
