"""
Learning-rate schedules
=======================

A learning rate that starts large and decreases to zero trains fast at first and converges at the
end. The parameter ``learning_rate`` selects the schedule: a name, or an object with settings.

This example compares six schedules for training the same network on the digits for
twelve epochs.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.exceptions import ConvergenceWarning

from mlp_xp import MLPClassifier
from mlp_xp.datasets import load_digits
from mlp_xp.optimizers.schedules import Cosine, LinearWarmup

schedules = {
    "constant": "constant",
    "linear": "linear",
    "cosine": "cosine",
    "onecycle": "onecycle",
    "warm-up, then constant": LinearWarmup(0.2),
    "warm-up, then cosine": LinearWarmup(0.2, then=Cosine()),
}
warnings.simplefilter("ignore", ConvergenceWarning)  # The constant rate does not converge.

digits = load_digits()
models = {
    name: [
        MLPClassifier(
            64,
            batch_size=32,
            learning_rate=schedule,
            learning_rate_init=0.04,
            max_iter=12,
            n_iter_no_change=float("inf"),
            input_scaling="standardize",
            random_state=seed,
        ).fit(digits.x_train, digits.y_train, X_val=digits.x_test, y_val=digits.y_test)
        for seed in range(5)
    ]
    for name, schedule in schedules.items()
}

# %%
# The left plot shows the learning rate in each epoch, and the right plot shows the training loss. A
# learning rate of 0.04 is too large for this network, and with a constant rate the loss does not
# converge. A warm-up alone does not help. The four schedules that end near zero reduce the loss by
# a factor of a hundred.

colors = ["#000000", "#E69F00", "#0072B2", "#D55E00", "#999999", "#009E73"]
styles = ["-", "-", "-", "-", "--", "--"]
figure, (rates, losses) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for (name, (model, *_)), color, style in zip(models.items(), colors, styles, strict=True):
    epochs = range(1, model.n_iter_ + 1)
    curve = [record.learning_rate for record in model.history_]
    rates.plot(epochs, curve, style, color=color, label=name)
    losses.semilogy(epochs, model.loss_curve_, style, color=color)
rates.set(title="learning rate", xlabel="epoch", ylabel="learning rate")
losses.set(title="training loss", xlabel="epoch", ylabel="loss")
for axis in (rates, losses):
    axis.grid(alpha=0.3)
figure.legend(loc="outside lower center", ncols=3)

# %%
# A single network proves little, so we train each with five seeds. Each point is one seed, and the
# bar is the mean. The schedules that end near zero are also better on test images, and depend less
# on the seed. The differences among these four schedules are small.

figure, axis = plt.subplots(figsize=(9, 3.2), layout="constrained")
for place, (name, fits) in enumerate(models.items()):
    scores = [100 * model.validation_scores_[-1] for model in fits]
    axis.plot(scores, [place] * len(scores), "o", color=colors[place], alpha=0.5)
    axis.plot([np.mean(scores)] * 2, [place - 0.3, place + 0.3], color=colors[place], linewidth=3)
    print(f"{name:24}{np.mean(scores):.1f} % of test images right")
guessing = np.bincount(digits.y_test).max() / len(digits.y_test)
print(f"{'guessing':24}{100 * guessing:.1f} %")
axis.set_yticks(range(len(models)), models)
axis.invert_yaxis()
axis.set(title="test accuracy after twelve epochs, five seeds", xlabel="accuracy [%]")
axis.grid(alpha=0.3, axis="x")

scores = {name: [fit.validation_scores_[-1] for fit in fits] for name, fits in models.items()}
assert np.mean(scores["cosine"]) > np.mean(scores["constant"])
