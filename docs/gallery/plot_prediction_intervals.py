"""
Prediction intervals
====================

A regressor predicts one number. With two losses, the same network also predicts an interval:
``Quantile`` makes no assumptions about the noise, and ``"gaussian"`` assumes that it is normal. A
90 % interval should contain nine in ten new targets, where the noise is small and where it is
large.

The data are a sine with noise that increases from left to right.
"""

import matplotlib.pyplot as plt
import numpy as np

from mlp_xp import MLPRegressor
from mlp_xp.nn.losses import Quantile

generator = np.random.default_rng(0)


def draw(n_samples):
    x = generator.uniform(0, 6, n_samples)
    return x[:, None], np.sin(x) + (0.05 + 0.1 * x) * generator.standard_normal(n_samples)


X, y = draw(2000)
X_test, y_test = draw(20_000)

settings = {
    "hidden_layer_sizes": (32, 32),
    "activation": "silu",
    "input_scaling": "standardize",
    "learning_rate": "cosine",
    "learning_rate_init": 0.01,
    "max_iter": 60,
    "n_iter_no_change": float("inf"),
    "random_state": 0,
}
models = {
    "quantiles": MLPRegressor(loss=Quantile((0.05, 0.5, 0.95)), **settings).fit(X, y),
    "gaussian": MLPRegressor(loss="gaussian", **settings).fit(X, y),
}

# %%
# With both losses, ``predict(X, quantiles=...)`` returns a column for each quantile. For
# comparison, a third band has the same width everywhere, computed from the errors of a usual
# regressor.

levels = (0.05, 0.95)
usual = MLPRegressor(**settings).fit(X, y)
errors = np.quantile(y - usual.predict(X), levels)


def interval(name, samples):
    if name in models:
        return models[name].predict(samples, quantiles=levels)
    return usual.predict(samples)[:, None] + errors


names = (*models, "same width")
print(f"{'':12}{'all':>6}{'left third':>12}{'right third':>13}")
coverage = {}
for name in names:
    low, high = interval(name, X_test).T
    inside = (low <= y_test) & (y_test <= high)
    left, right = X_test[:, 0] < 2, X_test[:, 0] > 4
    coverage[name] = [100 * np.mean(part) for part in (inside, inside[left], inside[right])]
    print("{:12}{:4.0f} %{:10.0f} %{:11.0f} %".format(name, *coverage[name]))
assert all(abs(share - 90) < 5 for name in models for share in coverage[name])

# %%
# All three bands contain nine in ten of all targets. The band of constant width contains almost all
# targets where the noise is small, and too few where it is large. With the two losses, the network
# has learned how the noise varies.

line = np.linspace(0, 6, 200)
figure, axes = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained", sharey=True)
axes[0].set_ylabel("target, and interval for 90 %")
for axis, name, color in zip(axes, names, ("#0072B2", "#009E73", "#D55E00"), strict=True):
    axis.plot(X[:, 0], y, ".", color="0.7", markersize=3, zorder=0)
    center = models.get(name, usual).predict(line[:, None])
    axis.fill_between(line, *interval(name, line[:, None]).T, color=color, alpha=0.3, linewidth=0)
    axis.plot(line, center, color=color, linewidth=2)
    _, left, right = coverage[name]
    axis.set(title=name, xlabel=f"x; {left:.0f} % inside at the left, {right:.0f} % at the right")

# %%
# The lines are the median of the quantiles and the mean of the Gaussian. With the Gaussian loss,
# you can also call ``predict(X, return_std=True)``. See :doc:`intervals </intervals>` for more.
