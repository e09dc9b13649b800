"""
Digits in twenty lines
======================

This example loads handwritten digits, trains and scores a classifier, and plots its training.

The images are the 1,797 digits in scikit-learn, with 8 by 8 pixels each, so nothing is
downloaded. The classifier has one hidden layer of 128 neurons. A tenth of the training images is
held out for validation after each epoch, and the weights of the best epoch are kept.
"""

import numpy as np

from mlp_xp import MLPClassifier
from mlp_xp.datasets import load_digits
from mlp_xp.plotting import TrainingCurvesDisplay

digits = load_digits()
X_train, X_test = digits.x_train / 16, digits.x_test / 16  # Pixels from 0 to 1.
model = MLPClassifier(
    hidden_layer_sizes=(128,),
    input_scaling="standardize",
    learning_rate="cosine",
    learning_rate_init=0.01,
    max_iter=30,
    early_stopping=True,
    random_state=0,
)
model.fit(X_train, digits.y_train)
accuracy = model.score(X_test, digits.y_test)
guessing = np.bincount(digits.y_test).max() / len(digits.y_test)
print(f"accuracy on {len(digits.y_test)} test images: {100 * accuracy:.1f} %")
print(f"always the most frequent digit: {100 * guessing:.1f} %")

# %%
# Training curves
# ---------------
# The training loss decreases all the time; the validation loss shows when training no longer helps.
# The dotted line marks the epoch whose weights were kept. The diamonds are results on the test
# images, which were not used for training or validation.

TrainingCurvesDisplay.from_estimator(model, X_test, digits.y_test)

# %%
# Which digits are confused
# -------------------------
# The colors show only mistakes, in percent of the images of each digit.

from mlp_xp.plotting import ConfusionMatrixDisplay

ConfusionMatrixDisplay.from_estimator(model, X_test, digits.y_test)

# %%
# The most confident mistakes
# ---------------------------
# The title of each image shows the predicted digit, its probability, and the label. Some of these
# images are also hard for people.

from mlp_xp.plotting import MistakesDisplay

MistakesDisplay.from_estimator(model, X_test, digits.y_test, image_shape=(8, 8), n_images=8)
assert accuracy > 0.95
