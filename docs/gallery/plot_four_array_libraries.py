"""
The same model on four array libraries
======================================

Each formula in this library is written once, against the Python Array API standard, and runs on
NumPy, PyTorch, JAX or CuPy, depending on ``backend=``. The initial weights, the order of the
samples and the dropout masks are generated from the seed, so the networks are the same, up to the
rounding of sums.

This page trains a network with dropout on each library that is installed on the machine that builds
the page.
"""

import matplotlib.pyplot as plt
import numpy as np

from mlp_xp import MLPClassifier
from mlp_xp.backends import BackendError, get_backend
from mlp_xp.datasets import load_digits

digits = load_digits()
X, y = digits.x_train / 16, digits.y_train
models, missing = {}, []
for library in ("numpy", "torch", "jax", "cupy", "array_api_strict"):
    try:
        get_backend(library)
    except BackendError:
        missing.append(library)
        continue
    models[library] = MLPClassifier(
        (64, 32),
        activation="gelu",
        dropout=0.1,
        learning_rate="cosine",
        learning_rate_init=0.01,
        max_iter=10,
        backend=library,
        random_state=0,
    ).fit(X, y)
print("trained on:", ", ".join(models))
print("not on this machine:", ", ".join(missing) or "none")

# %%
# Differences between the libraries
# ---------------------------------
# The table shows the largest difference from NumPy among the weights, and among the probabilities
# of the test images. float64 has a relative precision of 2e-16. Over ten epochs, sums in a
# different order increase the difference slightly.

X_test = digits.x_test / 16
reference = models["numpy"]
apart = {}
print(f"{'library':18}{'accuracy':>10}{'weights':>12}{'probabilities':>16}")
for library, model in models.items():
    weights = [
        np.max(np.abs(np.asarray(found) - np.asarray(expected)))
        for found, expected in zip(model.coefs_, reference.coefs_, strict=True)
    ]
    difference = np.abs(model.predict_proba(X_test) - reference.predict_proba(X_test))
    apart[library] = max(weights), np.max(difference)
    accuracy = model.score(X_test, digits.y_test)
    print(f"{library:18}{accuracy:10.4f}{apart[library][0]:12.1e}{apart[library][1]:16.1e}")
    assert np.max(difference) < 1e-9
guessing = np.bincount(digits.y_test).max() / len(digits.y_test)
print(f"{'guessing':18}{guessing:10.4f}")

# %%
# The left plot shows the training loss, with one line per library. The lines have different widths
# because they coincide. The right plot shows the differences in the table. A library without a
# point has exactly the same numbers as NumPy.

figure, (losses, differences) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
colors = ["#56B4E9", "#D55E00", "#000000", "#F0E442", "#CC79A7"]
for (library, model), color, width in zip(models.items(), colors, (11, 7, 4, 1.5, 1), strict=False):
    epochs = range(1, model.n_iter_ + 1)
    losses.plot(epochs, model.loss_curve_, color=color, linewidth=width, label=library)
losses.set(title="training loss", xlabel="epoch", ylabel="loss")
losses.legend()
for marker, name, column in (("o", "weights", 0), ("D", "probabilities", 1)):
    values = [apart[library][column] or np.nan for library in models]
    differences.plot(values, range(len(models)), marker, markersize=9, label=name)
differences.set_yticks(range(len(models)), models)
differences.set(ylim=(len(models) - 0.5, -0.5), xscale="log", xlim=(1e-17, 1e-11))
differences.set(title="largest difference from NumPy", xlabel="difference")
differences.axvline(np.finfo(float).eps, color="0.5", linestyle=":")
differences.text(3e-16, 0, "precision of float64", color="0.4", va="center")
differences.legend()
for axis in (losses, differences):
    axis.grid(alpha=0.3)

# %%
# Arrays on a device
# ------------------
# Without ``backend=``, the fit uses the library and device of the data. If you pass a PyTorch
# tensor or a JAX array, the network trains with that library on the array's device, and predictions
# have the same type.

if "torch" in models:
    import torch

    tensor = torch.asarray(X)
    model = MLPClassifier(16, learning_rate="cosine", max_iter=3, random_state=0).fit(tensor, y)
    print(type(model.predict_proba(tensor)))
