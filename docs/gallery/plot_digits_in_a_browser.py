"""
Run a classifier in a web page
==============================

``to_c`` writes a fitted model as a C header. Compiled to WebAssembly, it predicts in a browser: a
file of 21 kB, without a runtime and without a server.

This example trains a classifier for digits, compiles it, and writes the two files for `a web page
that classifies the digits you draw <../_static/browser/index.html>`_.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from mlp_xp import MLPClassifier
from mlp_xp.datasets import load_digits
from mlp_xp.export import to_c

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
# Export and compile
# ------------------
# The page needs two functions: one returns the address of the 64 pixels, from 0 to 16 as in the
# data set, and the other predicts, and returns the address of the probabilities. The package
# ziglang contains a compiler for WebAssembly.

here = Path("../_static/browser")  # Exists only in the documentation.
folder = here if here.is_dir() else Path(tempfile.mkdtemp())
header = to_c(model, folder / "digits.h")
source = """
#include "digits.h"

static float image[64], out[DIGITS_OUTPUTS];
__attribute__((export_name("pixels"))) float *pixels(void) { return image; }
__attribute__((export_name("predict"))) float *predict(void)
{
    digits_predict(image, out);
    return out + DIGITS_PROBABILITIES;
}
"""
(folder / "digits.c").write_text(source)


def compile_c(*options):
    """Compile in the folder."""
    subprocess.run([sys.executable, "-m", "ziglang", "cc", *options], cwd=folder, check=True)


wasm = ("-target", "wasm32-wasi", "-mexec-model=reactor", "-Os", "-s")
compile_c(*wasm, "digits.c", "-o", "digits.wasm")
print(f"{(folder / 'digits.wasm').stat().st_size / 1000:.0f} kB")

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
# The header is also a program for this machine, which reads rows of a CSV file. It returns the same
# probabilities as ``predict_proba``. A test of this library opens the web page in Chromium, presses
# each button, and compares the probabilities, too.

X = digits.x_test[rows].astype("float32")
program = Path(tempfile.mkdtemp(), "digits")
compile_c("-O2", "-DDIGITS_MAIN", "-x", "c", "digits.h", "-o", program, "-lm")
table = "\n".join(",".join(map(str, row)) for row in X.tolist())
printed = subprocess.run([program], input=table, capture_output=True, text=True, check=True).stdout
probabilities = np.loadtxt(printed.splitlines(), delimiter=",")
difference = np.max(np.abs(probabilities - model.predict_proba(X)))
print(f"largest difference of a probability: {difference:.0e}")
assert difference < 1e-5

# %%
# The ten images with the predictions from C:

figure, axes = plt.subplots(2, 5, figsize=(8, 4), layout="constrained")
for axis, image, row in zip(axes.flat, X, probabilities, strict=True):
    axis.imshow(image.reshape(8, 8), cmap="gray_r")
    axis.set_title(f"{row.argmax()}, {100 * row.max():.0f} % sure")
    axis.set_axis_off()

# %%
# The web page
# ------------
# A prediction needs four lines of JavaScript:
#
# .. code-block:: javascript
#
#     const { instance } = await WebAssembly.instantiateStreaming(fetch("digits.wasm"));
#     const { memory, pixels, predict } = instance.exports;
#     new Float32Array(memory.buffer, pixels(), 64).set(drawing);
#     const probabilities = new Float32Array(memory.buffer, predict(), 10);
#
# `Open the page <../_static/browser/index.html>`_. Its source is
# ``docs/_static/browser/index.html``. To serve your own copy, run ``python -m http.server
# --directory FOLDER``.
#
# ``to_onnx`` exports the same model to `onnxruntime-web
# <https://onnxruntime.ai/docs/tutorials/web/>`_, whose runtime has 14 MB and also runs other kinds
# of networks.
