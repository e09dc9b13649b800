"""Figures: the numbers they show, and their files."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from mlp_xp.plotting import confusion_figure, curves_figure, save_figure


def test_curves_show_loss_and_every_accuracy():
    accuracies = {"training": [0.3, 0.5, 0.7], "validation": [0.2, 0.4, 0.55]}
    figure = curves_figure([2.0, 1.5, 1.0], accuracies)
    loss, accuracy = figure.axes
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("epoch", "loss")
    assert (accuracy.get_xlabel(), accuracy.get_ylabel()) == ("epoch", "accuracy [%]")
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), [[1, 2.0], [2, 1.5], [3, 1.0]])
    drawn = {line.get_label(): line.get_ydata() for line in accuracy.lines}
    assert list(drawn) == ["training, at last 70.0 %", "validation, at last 55.0 %"]
    np.testing.assert_allclose(drawn["validation, at last 55.0 %"], [20, 40, 55])


def test_without_accuracies_the_loss_is_drawn_alone():
    (loss,) = curves_figure([2.0, 1.5], {}).axes
    assert loss.get_ylabel() == "loss"


def test_more_accuracies_than_colors_can_be_drawn():
    _, accuracy = curves_figure([1.0], {name: [0.5] for name in "abcde"}).axes
    assert len(accuracy.lines) == 5


@pytest.mark.parametrize("n_epochs", [1, 2, 100])
def test_ticks_are_whole_epochs(n_epochs):
    figure = curves_figure([1.0] * n_epochs, {"training": [0.5] * n_epochs})
    figure.draw_without_rendering()
    ticks = figure.axes[0].get_xticks()
    np.testing.assert_array_equal(ticks, np.round(ticks))


def test_a_loss_that_is_not_finite_can_be_drawn(tmp_path):
    figure = curves_figure([1.0, float("inf"), float("nan")], {"training": [0.1, 0.1, 0.1]})
    save_figure(figure, tmp_path / "curves.png")


def test_rows_of_the_confusion_matrix_are_percent_of_the_true_class():
    figure = confusion_figure([0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 0, 1], ["cat", "dog", "owl"])
    axes = figure.axes[0]
    shares = axes.images[0].get_array()
    np.testing.assert_array_equal(shares, [[75, 25, 0], [50, 50, 0], [0, 0, 0]])
    assert [text.get_text() for text in axes.texts[:4]] == ["75", "25", "0", "50"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true class", "predicted class")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "owl"]
    assert axes.get_title() == "66.67 % of 6 images right"


def test_many_classes_get_names_but_no_numbers(tmp_path):
    names = [f"class {i}" for i in range(100)]
    figure = confusion_figure(range(100), range(100), names)
    assert not figure.axes[0].texts
    assert len(figure.axes[0].get_xticklabels()) == 100
    save_figure(figure, tmp_path / "confusion.png")


def test_a_figure_is_saved_as_a_png_and_nothing_else(tmp_path):
    save_figure(curves_figure([1.0], {"training": [0.5]}), tmp_path / "curves.png")
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 500


def test_a_missing_matplotlib_is_an_error_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"'matplotlib'.*pip install -e \".*\[cli\]\""):
        curves_figure([1.0], {"training": [0.5]})
