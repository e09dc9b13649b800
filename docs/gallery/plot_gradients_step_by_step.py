r"""
The gradients of a network, step by step
========================================

``mlp_xp.lab`` contains the network of a first course: one logistic hidden layer, implemented as
functions of arrays. This page computes one step of gradient descent by hand, checks each gradient
with a finite difference, and shows that ``learn_once_cross_entropy`` computes the same step.

.. math::
    A_1 = \sigma(X W_1 + b_1), \qquad Z_2 = A_1 W_2 + b_2, \qquad A_2 = \mathrm{softmax}(Z_2)
"""

import matplotlib.pyplot as plt
import numpy as np

from mlp_xp.datasets import load_digits
from mlp_xp.lab import learn_once_cross_entropy, one_hot, train_mlp
from mlp_xp.lab import test_mlp as accuracy_of

digits = load_digits()
X, Y = digits.x_train / 16, one_hot(digits.y_train)
generator = np.random.default_rng(0)
W1, b1 = generator.normal(0, 0.1, (64, 16)), np.zeros((1, 16))
W2, b2 = generator.normal(0, 0.1, (16, 10)), np.zeros((1, 10))

# %%
# Forward
# -------
# The forward pass needs three lines. We subtract the largest logit before the exponential to avoid
# overflow; this does not change the probabilities.

A1 = 1 / (1 + np.exp(-(X @ W1 + b1)))
Z2 = A1 @ W2 + b2
A2 = np.exp(Z2 - Z2.max(axis=1, keepdims=True))
A2 /= A2.sum(axis=1, keepdims=True)
loss = -np.mean(np.sum(Y * np.log(A2), axis=1))
print(f"loss {loss:.4f}; guessing would be log(10) = {np.log(10):.4f}")

# %%
# Backward
# --------
# The gradient of the loss with respect to the logits is the difference between probabilities and
# labels, divided by the number of samples. Each further line corresponds to a line of the forward
# pass:
#
# .. math::
#     G_2 = \tfrac1n (A_2 - Y), \quad \frac{\partial L}{\partial W_2} = A_1^T G_2, \quad
#     G_1 = (G_2 W_2^T) \odot A_1 \odot (1 - A_1), \quad \frac{\partial L}{\partial W_1} = X^T G_1

G2 = (A2 - Y) / len(X)
dW2, db2 = A1.T @ G2, G2.sum(axis=0, keepdims=True)
G1 = (G2 @ W2.T) * A1 * (1 - A1)
dW1, db1 = X.T @ G1, G1.sum(axis=0, keepdims=True)

# %%
# Check
# -----
# We change the weights slightly in a random direction and in the opposite direction, and compare
# the change of the loss with the gradient. At the best step size, the two agree to ten digits. With
# larger steps, the curvature of the loss matters; with smaller steps, the rounding of its value.


def loss_at(W1, W2):
    """Compute the loss for other weights."""
    Z2 = 1 / (1 + np.exp(-(X @ W1 + b1))) @ W2 + b2
    return np.mean(np.log(np.sum(np.exp(Z2), axis=1)) - np.sum(Y * Z2, axis=1))


D1, D2 = generator.normal(size=W1.shape), generator.normal(size=W2.shape)
slope = np.sum(dW1 * D1) + np.sum(dW2 * D2)
sizes = np.logspace(-10, 0, 41)
errors = [
    abs(
        (loss_at(W1 + h * D1, W2 + h * D2) - loss_at(W1 - h * D1, W2 - h * D2)) / (2 * h) / slope
        - 1
    )
    for h in sizes
]
figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
axis.loglog(sizes, errors, "o-", color="#0072B2", markersize=4)
axis.set(title="finite difference vs. gradient", xlabel="step", ylabel="relative error")
axis.annotate("rounding", (1e-9, 3e-6), color="0.3")
axis.annotate("curvature", (2e-3, 1e-4), color="0.3", ha="right")
axis.grid(alpha=0.3)
assert min(errors) < 1e-8

# %%
# The same step in the lab
# ------------------------
# A step moves each array against its gradient. The lab's function computes the same step, and
# reports the loss used in the course, the binary cross-entropy over all outputs.

rate = 2.0
new_W1, new_b1, new_W2, new_b2, reported = learn_once_cross_entropy(
    W1, b1, W2, b2, X, digits.y_train, rate
)
print("W1 differs by", np.max(np.abs(new_W1 - (W1 - rate * dW1))))
print("W2 differs by", np.max(np.abs(new_W2 - (W2 - rate * dW2))))
np.testing.assert_allclose(new_W1, W1 - rate * dW1, rtol=1e-9, atol=1e-12)
np.testing.assert_allclose(new_b1, b1 - rate * db1, rtol=1e-9, atol=1e-12)
np.testing.assert_allclose(new_W2, W2 - rate * dW2, rtol=1e-9, atol=1e-12)
np.testing.assert_allclose(new_b2, b2 - rate * db2, rtol=1e-9, atol=1e-12)

# %%
# A thousand such steps
# ---------------------
# The whole training consists of such steps.

*weights, accuracies, losses = train_mlp(W1, b1, W2, b2, X, digits.y_train, rate, 1000)
reached = accuracy_of(*weights, digits.x_test / 16, digits.y_test)
guessing = np.bincount(digits.y_test).max() / len(digits.y_test)
print(f"{100 * reached:.1f} % of test images right, guessing {100 * guessing:.1f} %")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.semilogy(range(1, 1001), losses, color="#0072B2")
left.set(title="training loss", xlabel="step", ylabel="binary cross-entropy")
right.plot(range(1, 1001), 100 * np.asarray(accuracies), color="#0072B2")
right.axhline(100 * reached, color="#D55E00", linestyle="--")
right.text(1000, 100 * reached - 3, "test images", color="#D55E00", ha="right", va="top")
right.set(title="training accuracy", xlabel="step", ylabel="accuracy [%]")
for axis in (left, right):
    axis.grid(alpha=0.3)
assert reached > 0.9
