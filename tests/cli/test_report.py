"""report.html of a run and of several: its content, escaped, in light, dark and on a phone."""

import json
import os
import re
import shutil
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from browser import headless_chromium
from helpers import bounded
from PIL import Image
from running import FILES, RECIPE, TINY, history_of

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.cli import main
from mlp_xp.cli.report import Evaluation, write_report
from mlp_xp.cli.run_folder.run_summary import RunSummary

HOSTILE = ("<script>alert(1)</script>", "a & b\x1b[2J", "$x^2$", '"quoted"')
SECTIONS = ["Training", "Classes", "Confusion", "Reliability", "Surest mistakes", "First layer"]
SECTIONS += ["Command and settings", "Network", "Machine and versions"]
RNG = np.random.default_rng(0)
X = RNG.random((80, 16))
QUICK = {"max_iter": 3, "learning_rate": "cosine", "random_state": 0}


def write(path, model, test, score):
    """Write the report of a run whose settings are markup, and return it."""
    config = {"backend": {"name": "numpy"}, "platform": "Linux", "versions": {"python": "3"}}
    config |= {"settings": {"data": "<b>mine</b>", "params": {"hidden_layer_sizes": 4}}}
    config |= {"result": {score: 0.5, "epochs": 3, "seconds": 1.0, "images_per_second": 240.0}}
    history = [record._asdict() for record in model.history_]
    write_report(path, "run & <i>", config, history, model, test)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The report of a classifier whose class names and settings are markup."""
    y = RNG.integers(0, 4, 80)
    model = MLPClassifier(4, **QUICK).fit(X, y)
    test = Evaluation(X, y, model.predict(X), model.predict_proba(X), HOSTILE, (1, 4, 4))
    path = tmp_path_factory.mktemp("report") / "report.html"
    write(path, model, test, "test_accuracy")
    return path


def test_the_report_contains_all_sections_and_results(finished):
    page = (finished / "report.html").read_text(encoding="utf-8")
    result = json.loads((finished / "config.json").read_text())["result"]
    assert f"<title>{finished.name}, digits" in page
    assert re.findall("<h2>(.*?)</h2>", page) == SECTIONS
    assert f"<b>{100 * result['test_accuracy']:.2f} %</b>" in page
    assert "mlp-xp train --data digits --hidden 16" in page
    assert "<th>hidden_layer_sizes</th><td>16</td>" in page
    for caption in ("loss by epoch", "accuracy [%] by epoch", "learning rate by epoch"):
        assert f"<figcaption>{caption}</figcaption>" in page
    assert "validation" in page[page.index("<svg") : page.index("</svg>")]
    assert re.search(r"calibration error \(ECE\) is \d+\.\d %", page)
    mistakes = page[page.index("Surest mistakes") : page.index("First layer")]
    pictures = re.findall(r"data:image/png;base64,([^\"]+)", mistakes)
    brightest = [Image.open(BytesIO(b64decode(text))).getextrema() for text in pictures]
    assert min(np.max(extremes) for extremes in brightest) > 200
    # The page loads nothing from elsewhere and runs no scripts.
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "<script" not in page


def test_report_escapes_text_from_data(hostile):
    page = hostile.read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "\x1b" not in page
    assert "<b>mine" not in page
    assert "$x^2$" in page  # The text is not a formula.


def test_the_report_of_a_regressor_shows_residuals(tmp_path):
    y = X[:, 1]
    model = MLPRegressor(hidden_layer_sizes=4, **QUICK).fit(X, y)
    test = Evaluation(X, y, model.predict(X), None, (), None)
    page = write(tmp_path / "report.html", model, test, "test_r2")
    titles = re.findall("<h2>(.*?)</h2>", page)
    assert titles == ["Training", "Errors", "Predictions", *SECTIONS[-3:]]
    error = np.sqrt(np.mean((y - model.predict(X)) ** 2))
    assert f">{error:.4g}<" in page
    assert "<figcaption>test samples: residuals</figcaption>" in page
    assert "<b>0.5000</b>" in page


def test_a_report_without_mistakes_or_images(tmp_path):
    y = (X[:, 0] > 0.5).astype(int)
    model = MLPClassifier(4, **QUICK).fit(X, y)
    predicted = model.predict(X)
    test = Evaluation(X, predicted, predicted, model.predict_proba(X), ("no", "yes"), (1, 4, 4))
    path = tmp_path / "report.html"
    said = "None: all predictions are correct."
    assert said in write(path, model, test, "test_accuracy")
    page = write(path, model, test._replace(image_shape=None), "test_accuracy")
    assert "First layer" not in page
    assert "<img" not in page


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    """Another complete run, with another activation and fewer epochs."""
    folder = tmp_path_factory.mktemp("others") / "tanh"
    assert main([*TINY, "--activation", "tanh", "--epochs", "2", "--out", str(folder)]) == 0
    return folder


def test_runs_are_listed_and_sorted(mlp_xp, finished, other, fails, partial_run):
    scores = {}
    for path in (finished, other):
        shutil.copytree(path, Path("some", path.name))
        config = json.loads((path / "config.json").read_text())
        scores[path.name] = config["result"]["test_accuracy"]
    ranking = sorted(scores, key=scores.__getitem__, reverse=True)
    lines = mlp_xp("runs", "some", "--sort", "score").out.splitlines()
    assert lines[0].split()[:4] == ["run", "date", "data", "score"]
    assert [line.split()[0] for line in lines[1:]] == ranking
    assert f"{100 * scores[ranking[0]]:.2f} %" in lines[1]
    rows = json.loads(mlp_xp("runs", "some", "--sort", "epochs", "--reverse", "--json").out)
    assert [(row["run"], row["epochs"]) for row in rows] == [("tanh", 2), ("digits", 8)]
    assert rows[0]["score"] == scores["tanh"]
    assert "nowhere contains no runs" in fails("runs", "nowhere")
    # A run in progress is listed, another folder is not.
    Path("broken").mkdir()
    Path("broken", "config.json").write_text("{}")
    (line,) = mlp_xp("runs", ".").out.splitlines()[1:]
    assert re.match("run.partial .*not ended", line)


def test_a_damaged_run_is_listed_as_damaged(mlp_xp, fails, digits_run):
    path = digits_run / "config.json"
    config = json.loads(path.read_text())
    damages = {"result": None}, {"result": [1]}, {"backend": "numpy"}, {"versions": 3}
    results = {"seconds": "long"}, {"test_accuracy": {}}, {"images_per_second": 10**400}
    damages += tuple({"result": config["result"] | damage} for damage in results)
    for damage in damages:
        path.write_text(json.dumps(config | damage))
        assert re.fullmatch(r".*\nrun +[\d-]+ [\d:]+ +damaged\n", mlp_xp("runs", ".").out)
        assert "run is damaged or not a run (" in fails("compare", "run", "run"), damage
    path.write_text("{")
    assert json.loads(mlp_xp("runs", ".", "--json").out)[0]["state"] == "damaged"


HISTORIES = {
    "a pipe": lambda path: os.mkfifo(path),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a gigabyte of nothing": lambda path: [path.touch(), os.truncate(path, 2**30)],
    "many rows": lambda path: path.write_text("a\n" + "1\n" * 1_100_000),
    "many columns": lambda path: path.write_text("," * 990_000 + "\n1" * 9_000),
    "no header": lambda path: path.write_text(""),
    "text": lambda path: path.write_text("a\nb\n"),
    "not UTF-8": lambda path: path.write_bytes(b"a\n\xff\n"),
    "a long field": lambda path: path.write_text("a\n" + "1" * 200_000 + "\n"),
}


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs named pipes and devices")
@pytest.mark.parametrize("kind", HISTORIES)
def test_a_malicious_history_file_is_rejected_quickly(kind, mlp_xp, fails, digits_run):
    path = digits_run / "history.csv"
    path.unlink()
    HISTORIES[kind](path)
    with bounded():
        said = fails("compare", "run", "run")
    assert "run is damaged or not a run (" in said
    assert "history.csv" in said
    assert json.loads(mlp_xp("runs", ".", "--json").out)[0]["state"] == "damaged"


def test_comparison_shows_what_differs(mlp_xp, finished, other, fails, monkeypatch):
    done = mlp_xp("compare", finished, other)
    table = {line.split("  ")[0]: line.split() for line in done.out.splitlines()}
    assert table["activation"][1:] == ["relu", "tanh"]
    assert table["epochs"][1:] == ["8", "2"]
    assert not {"solver", "hidden_layer_sizes"} & set(table)
    page = Path("comparison.html").read_text(encoding="utf-8")
    assert re.findall("<h2>(.*?)</h2>", page) == ["Results", "Training", "What differs"]
    assert "<figcaption>training loss by epoch</figcaption>" in page
    svg = page[page.index("<svg") : page.index("</svg>")]
    assert all(name in svg for name in ("digits", "tanh"))
    assert "type two or more" in fails("compare", finished)
    with monkeypatch.context() as patched:  # Each loss has its own axis.
        losses = {"digits": "log loss", "tanh": "squared error (standardized)"}
        patched.setattr(RunSummary, "loss", property(lambda run: losses[run.folder.name]))
        mlp_xp("compare", finished, other)
    page = Path("comparison.html").read_text(encoding="utf-8")
    captions = re.findall("<figcaption>(.*?)</figcaption>", page)
    assert captions[0] == "training log loss by epoch"
    assert captions[1] == "training squared error (standardized) by epoch"
    assert captions[-1] == "learning rate by epoch"
    first, second = re.findall("<svg.*?</svg>", page, re.DOTALL)[:2]
    assert ("tanh" in first, "tanh" in second, "digits" in second) == (False, True, False)
    assert "nowhere" in fails("compare", finished, "nowhere")


@pytest.mark.matrix
def test_an_lbfgs_run_without_any_epoch_is_plotted(mlp_xp, recipe):
    recipe.write_text(re.sub("solver = .*", 'solver = "lbfgs"\ntol = 1e9', RECIPE))
    done = mlp_xp("train", "--recipe", recipe, "--out", "run")
    assert (done.status, done.err, history_of(Path("run"))) == (0, "", [])
    assert {path.name for path in Path("run").iterdir()} == FILES


def test_the_report_marks_the_kept_epoch(train_digits):
    train_digits("--early-stopping", "2", "--learning-rate", "0.1", "--epochs", "30")
    result = json.loads(Path("run/config.json").read_text())["result"]
    assert result["kept_epoch"] < result["epochs"] < 30
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert page.count(f"kept: epoch {result['kept_epoch']}<") == 3  # Loss, accuracy and rate.
    said = "the validation score did not improve by more than 0.0001 (tol) for 2 epochs"
    assert f"Stopped early after epoch {result['epochs']} of 30: {said}; the network of" in page


SCRIPT = """
const style = getComputedStyle(document.body), all = name => [...document.querySelectorAll(name)];
return {
  headings: all("h2").map(h => h.textContent),
  width: document.documentElement.scrollWidth,
  colors: [style.backgroundColor, style.color, getComputedStyle(all("svg text")[0]).fill],
  images: all("img").length > 10 && all("img").every(i => i.complete && i.naturalWidth > 0),
  headline: all(".tile b")[0].offsetHeight,
  widest: Math.max(...all("svg").map(s => s.getBoundingClientRect().right)),
};
"""


@pytest.mark.matrix
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_reports_render_correctly_in_a_browser(finished, hostile, tmp_path_factory, scheme):
    with headless_chromium(tmp_path_factory.mktemp("chromium")) as driver:
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        size = {"width": 360, "height": 700, "deviceScaleFactor": 1, "mobile": True}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        for path in (finished / "report.html", hostile):
            driver.get(path.as_uri())
            assert driver.get_log("browser") == []
            facts = driver.execute_script(SCRIPT)
            assert (facts["headings"], facts["images"]) == (SECTIONS, True)
            assert facts["headline"] < 50  # Pixels of a single line.
            assert facts["widest"] <= facts["width"] == 360  # The page does not scroll sideways.
            colors = [re.findall(r"\d+", color)[:3] for color in facts["colors"]]
            page, ink, figure_ink = np.asarray(colors, float).mean(axis=1)
            assert (page > 200) == (scheme == "light")
            assert abs(page - ink) > 150
            assert figure_ink == ink
