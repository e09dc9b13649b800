"""The progress bar and representations in a notebook."""

import pytest

from mlp_xp import MLPClassifier
from mlp_xp._utils.display.progress import TaskBar
from mlp_xp.callbacks import ProgressBar

pytestmark = pytest.mark.matrix
X, Y = [[0.0], [1.0]], [0, 1]


@pytest.fixture
def cell(monkeypatch):
    """A cell of a notebook: what is shown and updated in it, in order."""
    shell_module = pytest.importorskip("IPython.core.interactiveshell")
    shell = shell_module.InteractiveShell()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setattr(shell, "kernel", object(), raising=False)
    shown = []

    def publish(data, *args, update=False, transient=None, **_):
        shown.append((data, update, transient["display_id"]))

    monkeypatch.setattr(shell.display_pub, "publish", publish)
    monkeypatch.setattr(shell_module.InteractiveShell, "initialized", classmethod(lambda _: True))
    monkeypatch.setattr(shell_module.InteractiveShell, "_instance", shell)
    return shown


def make(**options):
    watch = [ProgressBar(**options)]
    return MLPClassifier(4, max_iter=3, learning_rate="cosine", callbacks=watch)


def test_notebook_bar_is_updated_in_place(cell, capsys):
    make().fit(X, Y)
    assert capsys.readouterr() == ("", "")  # No lines, and no warnings.
    (first, *others), ids = [update for _, update, _ in cell], {place for *_, place in cell}
    assert (first, len(ids)) == (False, 1)
    assert all(others)
    assert cell[0][0]["text/plain"] == "epoch 1/3  preparing the first step"
    last = cell[-1][0]
    assert "<progress max=1 value=1.0000" in last["text/html"]
    assert last["text/plain"].startswith("epoch 3/3  loss ")
    assert "<svg" not in last["text/html"]


def test_notebook_curve_ends_with_the_last_epoch(cell):
    make(curve=True).fit(X, Y)
    pages = [data["text/html"] for data, *_ in cell]
    assert pages[-1].count("<svg") == 1
    assert "loss" in pages[-1]
    n_drawings = len({page[page.index("<svg") :] for page in pages if "<svg" in page})
    assert n_drawings == 2  # After the first epoch and the last: a drawing takes longer than a fit.


def test_curve_and_parameters_follow_the_page_theme(cell, tmp_path, chromium):
    model = make(curve=True).fit(X, Y)
    body = cell[-1][0]["text/html"] + model._repr_html_()
    code = 'data-vscode-theme-kind="vscode-dark" data-vscode-theme-name="Default Dark"'
    pages = {
        "light": f'<body data-jp-theme-light="true">{body}',
        "jupyter": f'<body data-jp-theme-light="false">{body}',
        "code": f"<body {code}>{body}",
        "colab": f'<html theme="dark"><body style="color:#eee">{body}',
    }
    found = {}
    for name, page in pages.items():
        (tmp_path / f"{name}.html").write_text(f"<meta charset=utf-8>{page}", encoding="utf-8")
        chromium.get((tmp_path / f"{name}.html").as_uri())
        found[name] = chromium.execute_script(
            "const style = element => getComputedStyle(document.querySelector(element));"
            "return [style('.mlp-xp-curve').getPropertyValue('--line-0').trim(),"
            "        style('.mlp-xp-box .sk-estimator').filter]"
        )
    assert found.pop("light") == ["#0072B2", "none"]
    for line, box in found.values():
        assert line == "#4BA3E3"
        assert box.startswith("invert(")


def test_task_bar_counts_models_in_a_notebook(cell, capsys):
    bar = TaskBar("models", 2)
    bar.update("score 0.9")
    bar.update()
    bar.stop()
    lines = [data["text/plain"].split("  ")[0] for data, *_ in cell]
    assert lines == ["models 0/2", "models 1/2", "models 2/2"]
    assert capsys.readouterr().out == ""
