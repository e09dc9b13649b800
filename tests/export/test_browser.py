"""The page of the documentation that classifies digits in a browser."""

import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import served

DOCS = Path(__file__).parents[2] / "docs"
# The probabilities on the page.
SHOWN = "return [...document.querySelectorAll('.row')].map(r => Number(r.dataset.probability))"


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The names of the gallery's example, which writes the files of the page."""
    pytest.importorskip("ziglang")
    shutil.copytree(DOCS / "_static" / "browser", tmp_path / "_static" / "browser")
    (tmp_path / "gallery").mkdir()
    monkeypatch.chdir(tmp_path / "gallery")
    return runpy.run_path(str(DOCS / "gallery" / "plot_digits_in_a_browser.py"))


def test_browser_page_gives_the_probabilities_of_predict_proba(example, tmp_path, chromium):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    page = tmp_path / "_static" / "browser"
    assert (page / "digits.wasm").stat().st_size < 140_000  # A hundredth of a runtime for ONNX.
    wait = WebDriverWait(chromium, 20, poll_frequency=0.02)
    with served(page) as url:
        chromium.get(url)
        status = chromium.find_element(By.ID, "status")
        wait.until(lambda _: "Loading" not in status.text)
        assert status.text == "Ready."
        buttons = chromium.find_elements(By.CSS_SELECTOR, "#samples button")
        label = chromium.find_element(By.ID, "label")
        model, X = example["model"], example["X"]
        for button, row, predicted in zip(
            buttons, model.predict_proba(X), model.predict(X), strict=True
        ):
            button.click()
            assert label.text == f"It is a {predicted}"
            shown = np.asarray(chromium.execute_script(SHOWN), dtype=float)
            np.testing.assert_allclose(shown, row, atol=1e-5)
        assert not chromium.get_log("browser")
