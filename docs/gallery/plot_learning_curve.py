"""
Would more data help?
=====================

A learning curve answers this question: train on increasing numbers of samples, and compare the
accuracy on held-out samples. If the curve still rises, more data will help. If it is flat and close
to the training accuracy, only a different model will help.

``mlp_xp.model_selection.learning_curve`` works like scikit-learn's function, but trains all
networks together. Here it trains a hundred networks: two architectures, ten sizes of the training
set, and five folds.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from mlp_xp import MLPClassifier
from mlp_xp.model_selection import learning_curve

X, y = load_digits(return_X_y=True)
settings = {
    "learning_rate": "cosine",
    "learning_rate_init": 0.03,
    "batch_size": 50,
    "max_iter": 30,
    "n_iter_no_change": float("inf"),
    "input_scaling": "standardize",
    "random_state": 0,
}
models = {
    "4 neurons": MLPClassifier(4, **settings),
    "64 neurons": MLPClassifier(64, **settings),
}
sizes = np.geomspace(0.05, 1, 10)
curves = {
    name: learning_curve(model, X, y, train_sizes=sizes, cv=5, shuffle=True, random_state=0)
    for name, model in models.items()
}
for name, (_, _, held_out) in curves.items():
    print(f"{name}: {held_out[-1].mean():.2f} of held-out images right with all samples")
print(f"guessing: {np.bincount(y).max() / len(y):.2f}")

# %%
# The large network memorizes its training samples, however many there are. Its held-out accuracy
# rises with every doubling of the data, but less each time, so a penalty would now help more than
# data. The small network still benefits from new samples. The shaded areas show the spread over the
# five folds.

figure, axis = plt.subplots(figsize=(8, 4.4), layout="constrained")
for (name, (counts, train, held_out)), color in zip(
    curves.items(), ["#0072B2", "#D55E00"], strict=True
):
    for scores, style, kind in ((train, "--", "training"), (held_out, "-", "held out")):
        mean, spread = 100 * scores.mean(axis=1), 100 * scores.std(axis=1)
        axis.plot(counts, mean, style, color=color)
        axis.fill_between(counts, mean - spread, mean + spread, color=color, alpha=0.15)
        axis.annotate(
            f"{name}, {kind}",
            (counts[-1], mean[-1]),
            (6, 0),
            textcoords="offset points",
            color=color,
            va="center",
        )
axis.set_xscale("log")
axis.set_xticks([100, 200, 500, 1000], ["100", "200", "500", "1,000"])
axis.minorticks_off()
axis.set(title="accuracy by the number of training samples", xlabel="training samples")
axis.set(ylabel="accuracy [%]")
axis.spines[["top", "right"]].set_visible(False)
axis.grid(alpha=0.3)
small, large = (held_out.mean(axis=1)[-1] for _, _, held_out in curves.values())
assert large > small
