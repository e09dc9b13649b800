"""
A data frame with text and missing values
=========================================

This example predicts who survived the Titanic, from a data frame with numbers, text, missing ages
and home towns.

The recipe ``table`` encodes the columns: categories are one-hot encoded or embedded, missing
numbers are replaced with medians and an indicator, and numbers are embedded. The recipe keeps the
epoch with the best validation loss and calibrates the probabilities. scikit-learn contains the data
for its tests, so nothing is downloaded.
"""

from pathlib import Path

import pandas as pd
import sklearn
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from mlp_xp import MLPClassifier

columns = "pclass survived name sex age sibsp parch ticket fare cabin embarked boat body home"
folder = Path(sklearn.__file__).parent / "datasets/tests/data/openml/id_40945"
file = folder / "data-v1-dl-16826755.arff.gz"
table = pd.read_csv(file, skiprows=17, names=columns.split(), na_values="?")
X = table[["pclass", "sex", "age", "sibsp", "parch", "fare", "embarked", "home"]]
y = table["survived"].map({0: "lost", 1: "saved"})
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
