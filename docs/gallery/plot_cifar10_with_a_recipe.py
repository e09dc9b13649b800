"""
CIFAR-10 with a recipe and three epochs
=======================================

A recipe is a file with all settings of a training: layers, optimizer, schedule, augmentation, and
the time that it may take. ``MLPClassifier.from_recipe`` reads one by its name or path, and any
setting can be replaced.

The recipe ``default`` is what ``mlp-xp train`` does: two hidden layers of 512 neurons, AdamW, a
learning rate that rises and falls. Here it gets three epochs instead of twelve. The rate falls to
nothing by the last of them, so this is a whole training, only a shorter one. With ``max_time=8`` it
would end after eight seconds, and the rate would follow the clock.

CIFAR-10 has 50,000 color images of ten classes. Where it is not on the machine that builds this
page, the page says so and uses scikit-learn's digits; ``mlp-xp train`` downloads it.
"""

import numpy as np

from mlp_xp import MLPClassifier
from mlp_xp.datasets import load_cifar10, load_digits, locate

if locate("cifar10") is not None:
    data = load_cifar10()
else:
    print("CIFAR-10 is not on this machine: these are scikit-learn's digits instead.")
    data = load_digits()
print(len(data.y_train), "images of", *data.class_names)

# %%
# The training
# ------------
# Inputs are the bytes of the file; the recipe scales them. ``evaluate`` returns the loss and the
# accuracy of the test images in one pass.

model = MLPClassifier.from_recipe("default", max_iter=3, random_state=0)
model.fit(data.x_train, data.y_train)
result = model.evaluate(data.x_test, data.y_test)
guessing = np.bincount(data.y_test).max() / len(data.y_test)
print(f"epochs: {model.n_iter_}; {100 * result['accuracy']:.1f} % of test images right")
print(f"the most frequent class is {100 * guessing:.1f} % of them")
assert result["accuracy"] > 0.5

# %%
# Other recipes reach more in more time: ``one-minute``, ``five-minutes``, ``ten-minutes`` and
# ``hour``.
#
# Which classes are confused
# --------------------------
# Cats and dogs, cars and trucks, airplanes and ships. The network sees a row of 3,072 numbers and
# does not know which pixels are neighbors; color and background help it most.

from mlp_xp.plotting import ConfusionMatrixDisplay, MistakesDisplay

ConfusionMatrixDisplay.from_estimator(
    model, data.x_test, data.y_test, display_labels=data.class_names
)

# %%
# The surest mistakes
# -------------------
# Above each image: what the network takes it for, how sure it is, and what it is.

MistakesDisplay.from_estimator(
    model,
    data.x_test[:2000].astype("float32"),
    data.y_test[:2000],
    image_shape=data.image_shape,
    class_names=data.class_names,
)
