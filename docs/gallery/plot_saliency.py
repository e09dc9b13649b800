"""
What a prediction depends on
============================

``input_gradient`` returns the derivative of the loss with respect to each input, on every
backend. Its absolute value is a saliency map, which shows how much each pixel matters. Its sign
shows how to fool the network: which pixels to brighten and which to darken.
"""

import matplotlib.pyplot as plt
import numpy as np

from mlp_xp import MLPClassifier
from mlp_xp.datasets import load_digits

digits = load_digits()
X_train, X_test = digits.x_train / 16, digits.x_test / 16
model = MLPClassifier(
    (64, 64),
    alpha=1.0,
    learning_rate="cosine",
    learning_rate_init=0.01,
    max_iter=30,
    random_state=0,
)
model.fit(X_train, digits.y_train)
guessing = np.bincount(digits.y_test).max() / len(digits.y_test)
print(f"{100 * model.score(X_test, digits.y_test):.1f} % of test images right")
print(f"always the most frequent digit: {100 * guessing:.1f} %")

# %%
# Which pixels matter
# -------------------
# The plot shows one image of each digit, and below it the mean absolute gradient over all test
# images of that digit. At dark pixels, a small change has the largest effect on the prediction. The
# left and right edges are empty in almost every image and have no effect, because the penalty
# ``alpha`` has reduced their weights to zero.

gradient = model.input_gradient(X_test, digits.y_test)
figure, axes = plt.subplots(2, 10, figsize=(10, 2.6), layout="constrained")
for digit, (above, below) in enumerate(axes.T):
    rows = digits.y_test == digit
    above.imshow(X_test[rows][0].reshape(8, 8), cmap="gray_r")
    below.imshow(np.abs(gradient[rows]).mean(axis=0).reshape(8, 8), cmap="magma_r")
    above.set_title(digit)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
axes[0, 0].set_ylabel("image")
axes[1, 0].set_ylabel("saliency")

# %%
# How to fool the network
# -----------------------
# We change every pixel slightly in the direction that increases the loss (`Goodfellow et al., 2015
# <https://arxiv.org/abs/1412.6572>`_). Random changes of the same size have almost no effect, but
# with these changes most predictions are wrong.

sizes = np.linspace(0, 0.3, 13)
noise = np.sign(np.random.default_rng(0).normal(size=X_test.shape))
aimed = [model.score(X_test + size * np.sign(gradient), digits.y_test) for size in sizes]
random = [model.score(X_test + size * noise, digits.y_test) for size in sizes]
figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
axis.plot(sizes, 100 * np.asarray(random), "o-", color="#0072B2")
axis.plot(sizes, 100 * np.asarray(aimed), "o-", color="#D55E00")
axis.text(0.2, 100 * random[8] + 3, "random changes", color="#0072B2")
axis.text(0.17, 100 * aimed[6] + 2, "changes along the gradient", color="#D55E00")
axis.set(
    title="accuracy on changed images",
    xlabel="change of each pixel [fraction of the range]",
    ylabel="accuracy [%]",
    ylim=(0, 102),
)
axis.grid(alpha=0.3)
assert aimed[-1] < random[-1]

# %%
# These are eight images that the network misclassifies after each pixel was changed by a tenth of
# its range. People can still read them.

changed = X_test + 0.1 * np.sign(gradient)
fooled = (model.predict(X_test) == digits.y_test) & (model.predict(changed) != digits.y_test)
rows = np.flatnonzero(fooled)[:8]
figure, axes = plt.subplots(2, 8, figsize=(9, 2.9), layout="constrained")
for row, (above, below) in zip(rows, axes.T, strict=False):
    above.imshow(X_test[row].reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
    below.imshow(changed[row].reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
    above.set_title(f"is {digits.y_test[row]}", fontsize="small")
    below.set_title(f"predicted {model.predict(changed[[row]])[0]}", fontsize="small")
for axis in axes.flat:
    axis.set_axis_off()
