"""
What the first layer has learned
================================

A neuron in the first layer has a weight for each pixel, so its weights can be shown as an image.
Red weights are positive (a bright pixel increases the input of the neuron), blue weights are
negative.

We train the same network three times on the digits: without a penalty, with the usual squared
penalty ``alpha``, and with the solver ``"beta_lasso"``, which sets small weights to exactly zero.
"""

import numpy as np

from mlp_xp import MLPClassifier
from mlp_xp.datasets import load_digits
from mlp_xp.optimizers import BetaLasso
from mlp_xp.plotting import WeightsDisplay

digits = load_digits()
X_train, X_test = digits.x_train / 16, digits.x_test / 16


def trained(**settings):
    """Train a network of 32 neurons; print its accuracy and how many weights are zero."""
    model = MLPClassifier(
        32, learning_rate="cosine", batch_size=64, max_iter=40, random_state=0, **settings
    )
    model.fit(X_train, digits.y_train)
    zeros = np.mean(model.coefs_[0] == 0)
    accuracy = model.score(X_test, digits.y_test)
    print(f"{100 * accuracy:.1f} % of test images right, {100 * zeros:.0f} % of weights are zero")
    return model


guessing = np.bincount(digits.y_test).max() / len(digits.y_test)
print(f"always the most frequent digit: {100 * guessing:.1f} % right")

# %%
# Without a penalty
# -----------------
# Every pixel has a weight, even pixels at the edges that are black in almost every image. Their
# weights keep their random initial values.

free = trained(alpha=0.0, learning_rate_init=0.01)
WeightsDisplay.from_estimator(free, image_shape=(8, 8), n_neurons=16)

# %%
# With a squared penalty
# ----------------------
# The penalty shrinks weights that are not needed. The noise is gone, and strokes are visible: edges
# of digits and gaps between lines. A penalty as strong as this one makes weights easier to
# interpret, but it reduces accuracy.

penalized = trained(alpha=0.3, learning_rate_init=0.01)
WeightsDisplay.from_estimator(penalized, image_shape=(8, 8), n_neurons=16)

# %%
# With beta-LASSO
# ---------------
# beta-LASSO (`Neyshabur, 2020 <https://arxiv.org/abs/2007.13657>`_) also shrinks the weights, and
# sets weights below a threshold to zero. Seven of eight connections are removed, and each neuron
# uses only a few pixels.

sparse = trained(alpha=0.0, solver=BetaLasso(l1=1e-3), learning_rate_init=0.1)
WeightsDisplay.from_estimator(sparse, image_shape=(8, 8), n_neurons=16)
