"""
Train on CIFAR-10 with a recipe
===============================

A recipe is a file with all settings of a training: layers, optimizer, schedule, augmentation, and
time limit. ``MLPClassifier.from_recipe`` reads a recipe by its name or path, and you can override
any setting.

``mlp-xp train`` uses the recipe ``default``: two hidden layers of 512 neurons, AdamW, and a
learning rate that rises and falls. In this example, it trains for three epochs instead of twelve.
The learning rate still decreases to zero by the last epoch. With ``max_time=8``, the training would
end after eight seconds, and the learning rate would follow the clock.

CIFAR-10 has 50,000 color images in ten classes. If the data set is not on the machine that builds
this page, the page says so and uses scikit-learn's digits. ``mlp-xp train`` downloads it.
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
# The inputs are the bytes of the file; the recipe scales them. ``evaluate`` computes the loss and
# the accuracy on the test images in one pass.

model = MLPClassifier.from_recipe("default", max_iter=3, random_state=0)
model.fit(data.x_train, data.y_train)
result = model.evaluate(data.x_test, data.y_test)
guessing = np.bincount(data.y_test).max() / len(data.y_test)
print(f"epochs: {model.n_iter_}; {100 * result['accuracy']:.1f} % of test images right")
print(f"the most frequent class is {100 * guessing:.1f} % of them")
assert result["accuracy"] > 0.5

# %%
# Other recipes need more time and reach higher accuracies: ``one-minute``, ``five-minutes``,
# ``ten-minutes`` and ``hour``.
#
# Which classes are confused
# --------------------------
# The network confuses cats and dogs, cars and trucks, airplanes and ships. Its input is a row of
# 3,072 numbers, without information about which pixels are neighbors, so it relies mostly on color
# and background.

from mlp_xp.plotting import ConfusionMatrixDisplay, MistakesDisplay

ConfusionMatrixDisplay.from_estimator(
    model, data.x_test, data.y_test, display_labels=data.class_names
)

# %%
# The most confident mistakes
# ---------------------------
# The title of each image shows the predicted class, its probability, and the true class.

MistakesDisplay.from_estimator(
    model,
    data.x_test[:2000].astype("float32"),
    data.y_test[:2000],
    image_shape=data.image_shape,
    class_names=data.class_names,
)
