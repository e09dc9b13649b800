"""The page of the documentation that classifies digits in a browser."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import served

from mlp_xp import MLPClassifier
from mlp_xp._utils.storage.paths import cache_dir
from mlp_xp.datasets import load_digits
from mlp_xp.export import to_onnx

PAGE = Path(__file__).parents[2] / "docs" / "_static" / "browser" / "index.html"
CDN = re.compile(r"https://cdn\.jsdelivr\.net/npm/onnxruntime-web@([\d.]+)/dist/")
NEEDED = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
# The probabilities on the page.
SHOWN = "return [...document.querySelectorAll('.row')].map(r => Number(r.dataset.probability))"


def test_the_page_classifies_as_predict_proba_does(tmp_path, chromium):
    pytest.importorskip("ndonnx")
    text = PAGE.read_text(encoding="utf-8")
    (version,) = CDN.findall(text)
    runtime = cache_dir() / f"onnxruntime-web-{version}"
    if not runtime.is_dir():
        pytest.skip(f"{runtime} does not exist: bash tests/export/get_onnxruntime_web.sh")
    for name in NEEDED:
        shutil.copy(runtime / name, tmp_path)
    (tmp_path / "index.html").write_text(CDN.sub("./", text), encoding="utf-8")
    digits = load_digits()
    model = MLPClassifier(32, input_scaling="standardize", learning_rate="cosine", max_iter=5)
    model.fit(digits.x_train.astype("float32"), digits.y_train)
    to_onnx(model, tmp_path / "digits.onnx", precision="float32")
    X = digits.x_test[:10].astype("float32")
    samples = [{"pixels": row.tolist(), "label": 0} for row in X]
    (tmp_path / "samples.json").write_text(json.dumps(samples))
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    wait = WebDriverWait(chromium, 20, poll_frequency=0.02)
    with served(tmp_path) as url:
        chromium.get(url)
        status = chromium.find_element(By.ID, "status")
        wait.until(lambda _: "Loading" not in status.text)
        assert status.text == "Ready."
        buttons = chromium.find_elements(By.CSS_SELECTOR, "#samples button")
        label = chromium.find_element(By.ID, "label")
        expected = model.predict_proba(X)
        for button, row, predicted in zip(buttons, expected, model.predict(X), strict=True):
            chromium.execute_script("arguments[0].textContent = ''", label)
            button.click()
            wait.until(lambda _: label.text)
            assert label.text == f"It is a {predicted}"
            shown = np.asarray(chromium.execute_script(SHOWN), dtype=float)
            np.testing.assert_allclose(shown, row, atol=1e-5)
        assert not chromium.get_log("browser")
