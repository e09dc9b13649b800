"""
Resume an interrupted training with the same bits
=================================================

A callback writes checkpoints. If a training is interrupted, such as by a reboot, it can resume from
the newest checkpoint, and it ends with the same weights as without the interruption.

In this example, one training runs without interruption, and a second training is stopped at epoch 9
and resumed. Their weights are compared bit by bit.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from mlp_xp import MLPClassifier
from mlp_xp.callbacks import Callback, Checkpoint
from mlp_xp.datasets import load_digits

digits = load_digits()
settings = {
    "hidden_layer_sizes": (64,),
    "dropout": 0.2,
    "input_scaling": "standardize",
    "learning_rate": "onecycle",
    "learning_rate_init": 0.02,
    "max_iter": 20,
    "random_state": 0,
}
whole = MLPClassifier(**settings).fit(digits.x_train, digits.y_train)

# %%
# A callback simulates the reboot: it raises an error after epoch 9. Checkpoints are written every
# four epochs, so the newest was written after epoch 8, and one epoch is lost.


class Reboot(Callback):
    """A failure after nine epochs."""

    def on_epoch_end(self, model, record):
        """Raise an error at epoch 9."""
        if record.epoch == 9:
            raise OSError("the machine was restarted")


folder = tempfile.TemporaryDirectory()
killed = MLPClassifier(**settings, callbacks=[Checkpoint(folder.name, every=4), Reboot()])
try:
    killed.fit(digits.x_train, digits.y_train)
except OSError as error:
    print("in epoch 9:", error)
print("in the folder:", *sorted(path.name for path in Path(folder.name).glob("epoch-*")))

# %%
# In a new process, call the same ``fit`` with ``resume``. Layers, settings and data must be the
# same; the weights, the optimizer state and the position in the schedule come from the checkpoint.

resumed = MLPClassifier(**settings, callbacks=[Checkpoint(folder.name, every=4)])
resumed.fit(digits.x_train, digits.y_train, resume=folder.name)
folder.cleanup()
is_same = all(np.array_equal(a, b) for a, b in zip(whole.coefs_, resumed.coefs_, strict=True))
print("all weights have the same bits:", is_same)
assert is_same

# %%
# The curve of the resumed training also contains the epochs before the reboot, and coincides with
# the other curve.

figure, axis = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
epochs = np.arange(1, whole.n_iter_ + 1)
axis.semilogy(epochs, whole.loss_curve_, color="#56B4E9", linewidth=8)
axis.semilogy(epochs[:9], resumed.loss_curve_[:9], "o-", color="black", markersize=4)
axis.semilogy(epochs[8:], resumed.loss_curve_[8:], "o-", color="#D55E00", markersize=4)
axis.axvline(8, color="0.4", linestyle=":")
axis.axvline(9, color="0.4", linestyle=":")
axis.annotate("checkpoint", (8, 1.1), ha="right", xytext=(-4, 0), textcoords="offset points")
axis.annotate("reboot", (9, 1.1), xytext=(4, 0), textcoords="offset points")
axis.text(3.2, resumed.loss_curve_[2] * 1.3, "before")
axis.text(14, resumed.loss_curve_[13] * 1.3, "resumed", color="#D55E00")
axis.text(12, 0.5, "thick: without a break", color="#0072B2")
axis.set(title="one training, killed and resumed", xlabel="epoch", ylabel="training loss")
axis.set_xticks(range(2, 21, 2))
axis.grid(alpha=0.3)
