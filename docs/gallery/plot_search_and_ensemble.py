"""
A search, and an ensemble of what it found
==========================================

``mlp_xp.model_selection`` has scikit-learn's searches with one import changed. They train many
networks at once, over data that are in memory once; results and attributes are the same.

Here twenty settings of a small network are compared by cross-validation. Then ten networks with
the best of them vote.
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
# ``cv_results_`` is scikit-learn's table. The best settings are an area rather than a point, so
# there is no need of a finer grid.

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
# An ensemble averages the probabilities of networks that differ by their seeds. It is trained in
# one go, and is used like one classifier.

ensemble = MLPEnsembleClassifier(search.best_estimator_, n_estimators=10, random_state=0)
ensemble.fit(digits.x_train, digits.y_train)
single = [100 * network.score(digits.x_test, digits.y_test) for network in ensemble.estimators_]
together = 100 * ensemble.score(digits.x_test, digits.y_test)
print(f"one network {np.mean(single):.1f} % on average, ten together {together:.1f} %")
assert together > np.mean(single)

# %%
# What they disagree about
# ------------------------
# ``return_std=True`` adds the spread of the ten probabilities. Where it is large the networks
# contradict each other, and that is where the mistakes are.

probabilities, spread = ensemble.predict_proba(digits.x_test, return_std=True)
disagreement = spread.max(axis=1)
right = ensemble.predict(digits.x_test) == digits.y_test
figure, axis = plt.subplots(figsize=(6.4, 3), layout="constrained")
places = np.random.default_rng(0).uniform(-0.3, 0.3, len(right))
for row, (chosen, color) in enumerate([(right, "#0072B2"), (~right, "#D55E00")]):
    axis.plot(disagreement[chosen], row + places[chosen], "o", color=color, alpha=0.5)
axis.set_yticks([0, 1], [f"right\n({right.sum()})", f"wrong\n({(~right).sum()})"])
axis.set(ylim=(1.5, -0.5), xlabel="standard deviation of the ten probabilities")
axis.set_title("test images by how much ten networks disagree")
axis.grid(alpha=0.3, axis="x")
