"""
Digits in twenty lines
======================

A classifier of handwritten digits: load, train, score, look at the training.

The images are the 1,797 digits that come with scikit-learn, 8 by 8 pixels each, so nothing is
downloaded. The classifier has one hidden layer of 128 neurons. A tenth of the training images is
held out to validate each epoch, and the weights of the best epoch are kept.
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
# What happened in the training
# -----------------------------
# The training loss falls all the time; the validation loss shows when there is no more to learn.
# The dotted line is the epoch whose weights were kept, and the diamonds are the test images, which
# had no say in any of this.

TrainingCurvesDisplay.from_estimator(model, X_test, digits.y_test)

# %%
# Which digits are confused
# -------------------------
# Colors are for mistakes alone, in percent of the images of each digit.

from mlp_xp.plotting import ConfusionMatrixDisplay

ConfusionMatrixDisplay.from_estimator(model, X_test, digits.y_test)

# %%
# The mistakes that it is surest of
# ---------------------------------
# Above each image: what the classifier says and how sure it is, then the label. Some of these
# images puzzle people, too.

from mlp_xp.plotting import MistakesDisplay

MistakesDisplay.from_estimator(model, X_test, digits.y_test, image_shape=(8, 8), n_images=8)
assert accuracy > 0.95
