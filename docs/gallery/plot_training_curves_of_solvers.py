"""
Training curves of seven solvers
================================

scikit-learn's example `Compare Stochastic learning strategies
<https://scikit-learn.org/stable/auto_examples/neural_networks/plot_mlp_training_curves.html>`_
plots the training loss of SGD and Adam on small data sets. It also runs with mlp_xp if you change
the import. This example adds the solvers that scikit-learn does not have.

To use a solver with its default settings, pass its name. To change the settings, pass an object of
``mlp_xp.optimizers``. The learning rate matters more than the solver, and each solver needs a
different one.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits, load_iris, make_circles, make_moons
from sklearn.preprocessing import MinMaxScaler

from mlp_xp import MLPClassifier
from mlp_xp.optimizers import SGD

solvers = {
    "SGD": (SGD(momentum=0.0), 0.2),
    "SGD, momentum": (SGD(momentum=0.9, nesterov=True), 0.2),
    "RMSprop": ("rmsprop", 0.01),
    "Adam": ("adam", 0.01),
    "AdamW": ("adamw", 0.01),
    "Lion": ("lion", 0.005),
    "Muon": ("muon", 0.02),
}
data_sets = {
    "iris": load_iris(return_X_y=True),
    "digits": load_digits(return_X_y=True),
    "circles": make_circles(noise=0.2, factor=0.5, random_state=1),
    "moons": make_moons(noise=0.3, random_state=0),
}

# %%
# Each plot has one curve per solver, with the same network, initial weights and order of samples.
# The scale is logarithmic.

figure, axes = plt.subplots(2, 2, figsize=(9, 6.5), layout="constrained")
styles = ["-", "--", "-.", ":", "-", "--", "-"]
colors = ["#999999", "#000000", "#E69F00", "#0072B2", "#56B4E9", "#CC79A7", "#D55E00"]
for axis, (name, (X, y)) in zip(axes.flat, data_sets.items(), strict=True):
    X = MinMaxScaler().fit_transform(X)
    for (label, (solver, rate)), color, style in zip(solvers.items(), colors, styles, strict=True):
        model = MLPClassifier(
            solver=solver,
            learning_rate_init=rate,
            max_iter=15 if name == "digits" else 400,
            n_iter_no_change=float("inf"),
            learning_rate="cosine",
            random_state=0,
        ).fit(X, y)
        axis.semilogy(
            range(1, model.n_iter_ + 1), model.loss_curve_, style, color=color, label=label
        )
    axis.set(title=name, xlabel="epoch", ylabel="training loss")
    axis.grid(alpha=0.3)
figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=7)
