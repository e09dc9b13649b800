"""
A data frame with text and missing values
=========================================

This example predicts who survived the Titanic, from a data frame with numbers, text, missing ages
and home towns.

The recipe ``table`` encodes the columns: categories are one-hot encoded or embedded, missing
numbers are replaced with medians and an indicator, and numbers are embedded. The recipe keeps the
epoch with the best validation loss and calibrates the probabilities. The data come with this
package.
"""

from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from mlp_xp import MLPClassifier
from mlp_xp.datasets import load_titanic

X, y = load_titanic()
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)

model = MLPClassifier.from_recipe("table", random_state=0).fit(X_train, y_train)
accuracy = model.score(X_test, y_test)
print(f"accuracy on {len(y_test)} passengers: {100 * accuracy:.1f} %")
print(f"log loss: {log_loss(y_test, model.predict_proba(X_test)):.3f}")
print(f"always the most frequent: {100 * (y_test == 'lost').mean():.1f} %")

# %%
# How the columns were encoded
# ----------------------------
print(model.columns_)

# %%
# Training curves
# ---------------
# The learning rate has four waves, because the recipe uses RealMLP's schedule.

from mlp_xp.plotting import TrainingCurvesDisplay

TrainingCurvesDisplay.from_estimator(model, X_test, y_test)
assert accuracy > 0.75
