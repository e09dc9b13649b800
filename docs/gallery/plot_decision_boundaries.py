"""
Decision boundaries by activation and penalty
=============================================

The activation determines the shape of the decision boundary: straight pieces with ReLU, smooth
curves with tanh, rounded corners with SiLU. The penalty ``alpha`` determines how complex the
boundary is.

The data are two spirals, which no straight line can separate. Each network has two hidden layers of
32 neurons. Darker colors mean higher confidence. On the white line, both classes have the same
probability.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.inspection import DecisionBoundaryDisplay

from mlp_xp import MLPClassifier

generator = np.random.default_rng(0)
turns = np.sqrt(generator.uniform(0.05, 1.0, 200)) * 3.2 * np.pi
spiral = np.stack([turns * np.cos(turns), turns * np.sin(turns)], axis=1) / 10
spiral += generator.normal(0.0, 0.04, spiral.shape)
X = np.concatenate([spiral, -spiral])
y = np.repeat(["first", "second"], 200)


def snake(x, *, xp):
    """X + sin(x)^2, and its derivative."""
    return x + xp.sin(x) ** 2, lambda dy: dy * (1.0 + xp.sin(2.0 * x))


# %%
# An activation is a name or your own function. ``snake`` returns its output and a pullback, which
# multiplies by the derivative. The first fit compares the derivative with a finite difference.

figure, axes = plt.subplots(4, 3, figsize=(7.5, 9.8), layout="constrained")
for row, activation in zip(axes, ["relu", "tanh", "silu", snake], strict=True):
    for axis, alpha in zip(row, [0.0, 0.1, 1.0], strict=True):
        model = MLPClassifier(
            hidden_layer_sizes=(32, 32),
            activation=activation,
            alpha=alpha,
            learning_rate="onecycle",
            learning_rate_init=0.02,
            max_iter=250,
            n_iter_no_change=float("inf"),
            random_state=0,
        ).fit(X, y)
        DecisionBoundaryDisplay.from_estimator(
            model,
            X,
            ax=axis,
            eps=0.15,
            response_method="predict_proba",
            cmap="PuOr",
            levels=10,
            alpha=0.6,
        )
        axis.scatter(*X.T, c=y == "second", cmap="PuOr", s=5)
        axis.set(xticks=[], yticks=[], xlabel="", ylabel="")
        right = f"{100 * model.score(X, y):.0f} % right"
        axis.set_title(f"alpha = {alpha:g}: {right}", fontsize="medium")
    row[0].set_ylabel(activation if isinstance(activation, str) else "snake, our own")
