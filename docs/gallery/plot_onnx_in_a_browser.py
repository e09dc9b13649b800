"""
Run a classifier in a web page
==============================

``to_onnx`` writes a fitted model as an ONNX file: input scaling, network, probabilities and
class labels in one graph. onnxruntime runs the graph without Python, on a server, on a phone, or in
a browser.

This example trains a classifier for digits, exports it, and writes the two files for `a web page
that classifies the digits you draw <../_static/browser/index.html>`_.
"""

import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime

from mlp_xp import MLPClassifier
from mlp_xp.datasets import load_digits
from mlp_xp.export import to_onnx

digits = load_digits()
model = MLPClassifier(
    (64,),
    alpha=1.0,
    learning_rate="cosine",
    learning_rate_init=0.01,
    max_iter=30,
    random_state=0,
)
model.fit(digits.x_train.astype("float32"), digits.y_train)
accuracy = model.score(digits.x_test.astype("float32"), digits.y_test)
guessing = np.bincount(digits.y_test).max() / len(digits.y_test)
print(f"{100 * accuracy:.1f} % right, guessing {100 * guessing:.1f} %")

# %%
# Export
# ------
# Browsers compute in float32. The input of the graph is rows of 64 pixels, from 0 to 16 as in the
# data set, and its outputs are labels and probabilities.

here = Path("../_static/browser")  # Exists only in the documentation.
folder = here if here.is_dir() else Path(tempfile.mkdtemp())
graph = to_onnx(model, folder / "digits.onnx", precision="float32").graph
print(*(node.op_type for node in graph.node))
print(f"{(folder / 'digits.onnx').stat().st_size / 1000:.0f} kB")

# %%
# The web page has a button for one test image of each digit. It reads these images from a file.

rows = [int(np.flatnonzero(digits.y_test == digit)[0]) for digit in range(10)]
samples = [
    {"pixels": digits.x_test[row].tolist(), "label": int(digits.y_test[row])} for row in rows
]
(folder / "samples.json").write_text(json.dumps(samples))

# %%
# Compare the predictions
# -----------------------
# onnxruntime returns the same values as ``predict`` and ``predict_proba``. A test of this library
# opens the web page in Chromium, presses each button, and compares the probabilities.

X = digits.x_test[rows].astype("float32")
session = onnxruntime.InferenceSession(folder / "digits.onnx")
labels, probabilities = session.run(None, {"X": X})
difference = np.max(np.abs(probabilities - model.predict_proba(X)))
print(f"largest difference of a probability: {difference:.0e}")
assert (labels == model.predict(X)).all()
assert difference < 1e-5

# %%
# The ten images with the predictions from onnxruntime:

figure, axes = plt.subplots(2, 5, figsize=(8, 4), layout="constrained")
for axis, image, label, row in zip(axes.flat, X, labels, probabilities, strict=True):
    axis.imshow(image.reshape(8, 8), cmap="gray_r")
    axis.set_title(f"{label}, {100 * row.max():.0f} % sure")
    axis.set_axis_off()

# %%
# The web page
# ------------
# With `onnxruntime-web <https://onnxruntime.ai/docs/tutorials/web/>`_, a prediction needs three
# lines of JavaScript:
#
# .. code-block:: javascript
#
#     const session = await ort.InferenceSession.create("digits.onnx");
#     const X = new ort.Tensor("float32", pixels, [1, 64]);
#     const { label, probabilities } = await session.run({ X });
#
# `Open the page <../_static/browser/index.html>`_. Its source is
# ``docs/_static/browser/index.html``. To serve your own copy, run ``python -m http.server
# --directory FOLDER``.
