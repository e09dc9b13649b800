"""
Write your own loss
===================

A loss is a function of outputs and targets that returns the loss of each sample. It is written
once, with functions of the Array API, and runs on every backend. Its gradient is derived, or, as
here, returned by a *pullback*: the gradient with respect to the outputs, with each row multiplied
by the weight of its sample. The first fit compares a pullback with a finite difference, so a wrong
sign raises an error.

The example is a bakery that must decide how many loaves to bake. Each missing loaf costs 3, and
each unsold loaf costs 1. The squared error treats both errors in the same way, but our loss does
not.
"""

import matplotlib.pyplot as plt
import numpy as np

from mlp_xp import MLPRegressor

COST_OF_TOO_FEW, COST_OF_TOO_MANY = 3.0, 1.0


def cost(outputs, targets, *, xp):
    """Cost of baking `outputs` loaves where `targets` are asked for."""
    missing = targets - outputs
    too_few = xp.astype(missing > 0, missing.dtype)
    weight = COST_OF_TOO_FEW * too_few - COST_OF_TOO_MANY * (1 - too_few)
    losses = xp.sum(weight * missing, axis=-1)
    return losses, lambda dlosses: -weight * dlosses[..., None]


# %%
# The data are sales per hour, which vary more around noon.

generator = np.random.default_rng(0)
hour = generator.uniform(7, 19, 600)
noon = np.exp(-(((hour - 12) / 2.5) ** 2))
asked = 20 + 40 * noon + generator.normal(0, 2 + 10 * noon)
X = hour[:, None]

settings = {
    "hidden_layer_sizes": (32, 32),
    "activation": "silu",
    "input_scaling": "standardize",
    "learning_rate": "cosine",
    "learning_rate_init": 0.03,
    "max_iter": 200,
    "n_iter_no_change": float("inf"),
    "random_state": 0,
}
usual = MLPRegressor(**settings).fit(X, asked)
ours = MLPRegressor(loss=cost, **settings).fit(X, asked)

# %%
# With our loss, the network predicts more loaves than the mean demand, especially where the demand
# varies most.

line = np.linspace(7, 19, 200)
figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
axis.plot(hour, asked, ".", color="0.75", zorder=0)
for model, name, color in ((usual, "squared error", "#0072B2"), (ours, "our loss", "#D55E00")):
    axis.plot(line, model.predict(line[:, None]), color=color, linewidth=2.5)
    axis.annotate(
        name,
        (12, model.predict([[12.0]])[0]),
        (14.2, model.predict([[12.0]])[0] + 4),
        color=color,
        arrowprops={"arrowstyle": "-", "color": color},
    )
axis.set(title="loaves to bake with each loss", xlabel="hour of the day", ylabel="loaves")
axis.grid(alpha=0.3)

# %%
# On new days, we can measure the difference in money. With these costs, the optimal number of
# loaves is the 75 % quantile of the demand, and the network has learned to predict it.

hour = generator.uniform(7, 19, 5000)
noon = np.exp(-(((hour - 12) / 2.5) ** 2))
asked = 20 + 40 * noon + generator.normal(0, 2 + 10 * noon)
costs = {}
for name, model in (("squared error", usual), ("our loss", ours)):
    baked = model.predict(hour[:, None])
    missing = asked - baked
    paid = np.where(missing > 0, COST_OF_TOO_FEW, -COST_OF_TOO_MANY) * missing
    costs[name] = paid.mean()
    suffices = 100 * np.mean(missing <= 0)
    print(f"{name:14} costs {paid.mean():.2f} an hour; suffices in {suffices:.0f} % of the hours")
assert costs["our loss"] < costs["squared error"]

# %%
# Check the gradient
# ------------------
# If the gradient has the wrong sign, the first fit raises an error.


def wrong_cost(outputs, targets, *, xp):
    """Compute the same losses with the opposite gradient."""
    losses, pullback = cost(outputs, targets, xp=xp)
    return losses, lambda dlosses: -pullback(dlosses)


try:
    MLPRegressor(loss=wrong_cost, **settings).fit(X, X[:, 0])
except ValueError as error:
    print(error)
