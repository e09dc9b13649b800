"""
Are the predicted probabilities right?
======================================

Of all predictions with a probability of 90 %, nine in ten should be correct. Networks that are
trained until the training loss is almost zero are overconfident.

The data are a hard problem with noisy labels: one label in seven is wrong, so no classifier can be
certain. We compare a network that was trained for a long time with three remedies: early stopping,
label smoothing, and an average of ten networks.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import make_classification
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from mlp_xp import MLPClassifier, MLPEnsembleClassifier
from mlp_xp.plotting import CalibrationDisplay

X, y = make_classification(
    6000, n_features=20, n_informative=8, flip_y=0.28, class_sep=1.2, random_state=0
)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.5, random_state=0)

settings = {
    "hidden_layer_sizes": (64, 64),
    "input_scaling": "standardize",
    "learning_rate": "cosine",
    "learning_rate_init": 0.01,
    "n_iter_no_change": float("inf"),
    "random_state": 0,
}
trained_for_long = MLPClassifier(max_iter=40, **settings)
models = {
    "trained for long": trained_for_long,
    "stopped early": MLPClassifier(
        max_iter=40, early_stopping=True, scoring="neg_log_loss", **settings
    ),
    "smoothed labels": MLPClassifier(max_iter=40, label_smoothing=0.3, **settings),
    "ten averaged": MLPEnsembleClassifier(trained_for_long, n_estimators=10, random_state=0),
}

# %%
# Each point is a bin of test samples. It shows the mean predicted probability of the second class
# and the fraction of the samples that belong to this class. On the dotted line, both are equal. The
# bars show the fraction of samples in each bin. The curve of the first network is too flat: it
# usually predicts 0 or 100 %, but a sixth of these samples belong to the other class.
#
# The calibration error is the mean distance from the line over all samples.

figure, axes = plt.subplots(1, 4, figsize=(11, 3.5), layout="constrained", sharey=True)
colors = ["#D55E00", "#0072B2", "#009E73", "#CC79A7"]
print(f"{'':18}{'accuracy':>9}{'log loss':>10}{'calibration error':>20}")
errors = {}
for axis, (name, model), color in zip(axes, models.items(), colors, strict=True):
    model.fit(X_train, y_train)
    display = CalibrationDisplay.from_estimator(model, X_test, y_test, ax=axis, color=color)
    errors[name] = display.calibration_error
    axis.set(xlabel="predicted probability", ylabel="", aspect="equal")
    axis.set_title(f"{name}\ncalibration error {100 * errors[name]:.1f} %")
    accuracy, loss = model.score(X_test, y_test), log_loss(y_test, model.predict_proba(X_test))
    print(f"{name:18}{100 * accuracy:7.1f} %{loss:10.3f}{100 * errors[name]:18.1f} %")
guessing = max(y_test.mean(), 1 - y_test.mean())
print(f"{'guessing':18}{100 * guessing:7.1f} %")
axes[0].set_ylabel("share of the second class")
assert errors["stopped early"] < errors["trained for long"]

# %%
# All three remedies bring the probabilities closer to the line. Early stopping with the validation
# loss also improves the accuracy most.
