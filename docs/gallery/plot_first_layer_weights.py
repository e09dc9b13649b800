"""
What the first layer looks for
==============================

A neuron of the first layer has a weight for each pixel, so its weights are a picture: red where a
bright pixel excites the neuron, blue where it calms it.

The same network is trained three times on the digits: without any penalty, with the usual squared
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
# Every pixel has a weight, also those at the edges that are black in nearly every image: their
# weights stay what the random start made them.

free = trained(alpha=0.0, learning_rate_init=0.01)
WeightsDisplay.from_estimator(free, image_shape=(8, 8), n_neurons=16)

# %%
# With a squared penalty
# ----------------------
# A penalty shrinks what is not needed. The noise is gone, and strokes appear: edges of digits, gaps
# between lines. A penalty as strong as this one is for reading weights: it costs some accuracy.

penalized = trained(alpha=0.3, learning_rate_init=0.01)
WeightsDisplay.from_estimator(penalized, image_shape=(8, 8), n_neurons=16)

# %%
# With weights that are zero
# --------------------------
# beta-LASSO (`Neyshabur, 2020 <https://arxiv.org/abs/2007.13657>`_) also shrinks, and cuts to zero
# what falls below a threshold. Seven connections in eight are gone, and each neuron looks at a few
# pixels.

sparse = trained(alpha=0.0, solver=BetaLasso(l1=1e-3), learning_rate_init=0.1)
WeightsDisplay.from_estimator(sparse, image_shape=(8, 8), n_neurons=16)
