"""Displays: the numbers they show, where they draw, and their files."""

import sys
from xml.etree import ElementTree

import numpy as np
import pytest
import sklearn.calibration
from matplotlib import pyplot
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.metrics import PredictionErrorDisplay, confusion_matrix

from mlp_xp import MLPClassifier, MLPRegressor, MLPTunedClassifier, plotting
from mlp_xp.nn.hidden import Blocks

RNG = np.random.default_rng(0)
X = RNG.random((60, 16))
Y = np.asarray(["ant", "bee", "cat"])[RNG.integers(0, 3, 60)]
SHORT = {"hidden_layer_sizes": 4, "max_iter": 4, "learning_rate": "cosine", "random_state": 0}


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def model():
    settings = SHORT | {"hidden_layer_sizes": 8, "max_iter": 6, "batch_size": 20}
    return MLPClassifier(early_stopping=True, **settings).fit(X, Y)


def by_label(axes, read):
    return {line.get_label(): read(line) for line in axes.lines if len(line.get_ydata()) > 1}


def test_plot_shows_the_training_curves_of_an_estimator(model):
    display = model.plot(X, Y)
    loss, accuracy, rate = display.axes_
    drawn = by_label(loss, lambda line: line.get_ydata())
    np.testing.assert_array_equal(drawn["training"], model.loss_curve_)
    np.testing.assert_array_equal(drawn["validation"], model.validation_loss_curve_)
    percent = 100 * np.asarray(model.validation_scores_)
    drawn = by_label(accuracy, lambda line: line.get_ydata())
    np.testing.assert_allclose(drawn["validation"], percent)
    rates = [record.learning_rate for record in model.history_]
    np.testing.assert_array_equal(rate.lines[0].get_ydata(), rates)
    # The best epoch, and the test result.
    best = int(np.argmax(model.validation_scores_)) + 1
    assert display.best_epoch == best
    test = 100 * model.score(X, Y)
    texts = [text.get_text() for text in accuracy.get_legend().texts]
    score = 100 * model.best_validation_score_
    said = [f"validation {score:.3g}", f"test {test:.3g}", f"kept: epoch {best}"]
    assert texts == said
    (diamond,) = (line for line in accuracy.lines if line.get_label() == "test")
    assert diamond.get_xydata().tolist() == [[best, pytest.approx(test)]]
    # A curve has the same color in every panel.
    colors = by_label(loss, lambda line: line.get_color())
    assert colors["training"] != colors["validation"]
    assert accuracy.lines[0].get_color() == colors["validation"]


def test_refinement_is_drawn_as_a_loss():
    settings = SHORT | {"early_stopping": True, "scoring": "refinement"}
    model = MLPClassifier(calibration="temperature", **settings).fit(X, Y)
    loss, _ = model.plot().axes_
    drawn = by_label(loss, lambda line: line.get_ydata())
    np.testing.assert_array_equal(drawn["refinement"], -np.asarray(model.validation_scores_))
    assert min(drawn["refinement"]) > 0.0


def test_a_legend_covers_no_curve(model):
    figure = plotting.new_figure(5, 4)
    runs = {f"run {i} with a long name": [1.0, 0.5] for i in range(4)}
    display = plotting.TrainingCurvesDisplay({"loss": runs}).plot(ax=figure.subplots())
    figure.draw_without_rendering()
    (axes,) = display.axes_
    assert axes.get_legend().get_window_extent().y0 >= axes.get_window_extent().y1
    assert axes.get_window_extent().height > 200


@pytest.mark.parametrize("values", [[], [1.0], [1.0, np.inf, np.nan, None], [1.0] * 100], ids=len)
def test_any_curve_can_be_drawn_and_saved(values, tmp_path):
    panels = {"loss": {"training": values, "validation": values, "test": values}}
    display = plotting.TrainingCurvesDisplay(panels, colors={"test": "red"}).plot()
    plotting.save_figure(display.figure_, tmp_path / "curves.png")
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 400
    if values:  # Whole epochs, and curves of different colors.
        ticks = display.axes_[0].get_xticks()
        np.testing.assert_array_equal(ticks, np.round(ticks))
    if len(values) > 1:
        drawn = by_label(display.axes_[0], lambda line: line.get_color())
        assert drawn == {**plotting.curve_colors(panels), "test": "red"}
        assert len(set(drawn.values())) == 3


def test_plot_panels_match_the_fit_settings():
    y = X[:, 0]
    model = MLPRegressor(early_stopping=True, **SHORT).fit(X, y)
    display = model.plot(X, y)
    assert list(display.panels) == ["loss", "R²", "learning rate"]
    assert display.test["R²"] == pytest.approx(model.score(X, y))
    model.set_params(scoring="neg_mean_absolute_error").fit(X, y)
    panels = model.plot().panels
    assert list(panels) == ["loss", "neg mean absolute error", "learning rate"]
    panels = model.set_params(scoring="loss").fit(X, y).plot().panels
    assert list(panels) == ["loss", "learning rate"]
    assert panels["loss"]["validation"] == model.validation_loss_curve_
    model = MLPRegressor(**SHORT | {"solver": "lbfgs", "max_iter": 100, "tol": 0.01}).fit(X, y)
    assert list(model.plot().panels) == ["loss"]


def test_confusion_matrix_rows_are_percentages_of_the_true_class(model):
    display = model.plot.confusion(X, Y)
    counts = confusion_matrix(Y, model.predict(X))
    expected = 100 * counts / counts.sum(axis=1, keepdims=True)
    shown = [[float(text.get_text()) for text in row] for row in display.text_]
    np.testing.assert_allclose(shown, expected, atol=0.5)
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == ["ant", "bee", "cat"]
    assert len(display.figure_.axes) == 2  # The matrix and its color bar.
    perfect = plotting.ConfusionMatrixDisplay.from_predictions(Y, Y)
    assert (len(perfect.figure_.axes), perfect.im_.get_clim()) == (1, (0.0, 1.0))
    few = model.plot.confusion(X, Y, labels=["cat", "ant"])
    assert [label.get_text() for label in few.ax_.get_yticklabels()] == ["cat", "ant"]


def test_confusion_color_scale_ends_at_the_largest_mistake():
    pytest.importorskip("sklearn.callback", reason="scikit-learn before 1.9")
    from_predictions = plotting.ConfusionMatrixDisplay.from_predictions
    truth, predicted = [0] * 95 + [1] * 5 + [1] * 100, [0] * 100 + [1] * 100
    display = from_predictions(truth, predicted)
    assert display.im_.get_clim() == (0, pytest.approx(100 * 5 / 105))
    np.testing.assert_allclose(display.im_.get_array(), [[0, 0], [100 * 5 / 105, 0]])
    # Without mistakes, there is still a color scale. With many classes, cells show no numbers.
    many = from_predictions(range(40), range(40), normalize=None)
    assert many.text_ is None
    many.figure_.draw_without_rendering()
    counts = from_predictions([0, 0, 1], [0, 1, 1], normalize=None)
    assert [text.get_text() for text in counts.text_.flat] == ["1", "1", "0", "1"]


def test_plot_shows_the_neurons_with_the_largest_weights(model):
    display = model.plot.weights(image_shape=(4, 4), n_neurons=3)
    largest = np.argsort(-np.linalg.norm(model.coefs_[0], axis=0))[:3]
    expected = model.coefs_[0][:, largest].T.reshape(3, 4, 4)
    np.testing.assert_array_equal(display.weights.T.reshape(3, 4, 4), expected)
    for axes, weights in zip(display.axes_, expected, strict=True):
        red, _, blue = np.moveaxis(np.asarray(axes.images[0].get_array(), dtype=int), -1, 0)
        # Colors go from blue through white (0) to red.
        strong = np.abs(weights) > 0.2 * np.abs(weights).max()
        np.testing.assert_array_equal((red > blue)[strong], (weights > 0)[strong])
        largest_place = np.unravel_index(np.argmax(np.abs(weights)), weights.shape)
        assert min(red[largest_place], blue[largest_place]) < 50
    display = plotting.WeightsDisplay(RNG.normal(size=(12, 5)), (3, 2, 2)).plot()  # In color.
    image = np.asarray(display.axes_[0].images[0].get_array())
    assert (image.shape, image.dtype) == ((2, 2, 3), np.uint8)
    assert max(image.max() - 127, 128 - image.min()) in (127, 128)  # The largest weight.


def test_plot_shows_the_most_confident_mistakes(model):
    display = model.plot.mistakes(X, Y, image_shape=(4, 4), n_images=5)
    p, predicted = model.predict_proba(X).max(axis=1), model.predict(X)
    wrong = np.flatnonzero(predicted != Y)
    rows = wrong[np.argsort(-p[wrong], kind="stable")][:5]
    titles = [axes.get_title() for axes in display.axes_]
    assert titles == [f"{predicted[i]}, {100 * p[i]:.0f} %\nis {Y[i]}" for i in rows]
    drawn = np.asarray(display.axes_[0].images[0].get_array())
    np.testing.assert_allclose(drawn[..., 0] / 255, X[rows[0]].reshape(4, 4), atol=0.5 / 255)
    settings = {"image_shape": (4, 4), "class_names": ["x", "y", "z"], "n_images": 1}
    named = model.plot.mistakes(X, Y, **settings)
    dark = model.plot.mistakes((16 * X).astype(np.uint8), Y, image_shape=(4, 4), n_images=9)
    assert max(picture.max() for picture in dark.pictures()) > 200  # Scaled by X's maximum.
    assert named.truth[0] == {"ant": "x", "bee": "y", "cat": "z"}[Y[rows[0]]]
    unseen = model.plot.mistakes(X, np.full(len(X), "dog"), image_shape=(4, 4), n_images=1)
    assert unseen.truth.tolist() == ["dog"]


def test_invalid_plots_are_an_error(model):
    said = r"`image_shape` must be .* 16 values in total, got \(3, 3\)"
    with pytest.raises(ValueError, match=said):
        model.plot.weights(image_shape=(3, 3))
    blocks = MLPClassifier(**SHORT | {"hidden_layer_sizes": (Blocks((4, 4), (0,)),)}).fit(X, Y)
    with pytest.raises(ValueError, match="only a dense layer has a weight"):
        blocks.plot.weights(image_shape=(4, 4))
    ended = MLPClassifier(solver="lbfgs", tol=1e9, random_state=0).fit(X, Y)
    with pytest.raises(ValueError, match=r"no curves to draw.* with a tol below 1000000000"):
        ended.plot()
    with pytest.raises(ValueError, match="All 60 samples are classified"):
        model.plot.mistakes(X, model.predict(X), image_shape=(4, 4))


def test_displays_draw_into_the_given_axes(model):
    figure, (left, right) = pyplot.subplots(1, 2)
    display = model.plot(ax=left)
    assert display.figure_ is figure
    assert len(display.axes_) == 3
    assert model.plot.confusion(X, Y, ax=right).ax_ is right
    own = plotting.new_figure(9, 3).subplots(1, 3)
    assert model.plot(ax=own).axes_ == list(own)
    with pytest.raises(ValueError, match="must be 3 axes, a single Axes, or None, got 2 axes"):
        model.plot(ax=[left, right])


def test_a_missing_matplotlib_is_an_error_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"'matplotlib'.*pip install -e \".*\[cli\]\""):
        plotting.new_figure(3, 3)


def test_inline_figures_use_the_colors_of_the_page(model):
    given = lambda figure: model.plot(ax=figure.subplots()), 9, 3, 'curves of "a" & <b>'
    svg = plotting.inline_svg(*given)
    assert svg.startswith("<svg")
    assert "curves of &quot;a&quot; &amp; &lt;b>" in svg
    assert "currentColor" in svg
    assert "var(--line-0,#0072B2)" in svg
    assert "#010203" not in svg
    ElementTree.fromstring(svg)


def test_multiclass_calibration_error_matches_its_definition(model):
    display = model.plot.calibration(X, Y, n_bins=5)
    p = model.predict_proba(X)
    sure, correct = p.max(axis=1), model.classes_[p.argmax(axis=1)] == Y
    gaps = []
    for low in np.arange(5) / 5:
        of_bin = (sure > low) & (sure <= low + 0.2)
        if of_bin.any():
            gaps.append(np.mean(of_bin) * abs(sure[of_bin].mean() - correct[of_bin].mean()))
    assert display.calibration_error == pytest.approx(sum(gaps))
    y = Y == "ant"  # With two classes, the positive one counts.
    model = MLPClassifier(**SHORT).fit(X, y)
    display = model.plot.calibration(X, y)
    peer = sklearn.calibration.CalibrationDisplay.from_estimator(model, X, y, n_bins=10)
    np.testing.assert_array_equal(display.prob_true, peer.prob_true)
    assert display.ax_.get_xlabel() == "probability of the positive class of True"


def test_plot_methods_create_the_displays(model):
    assert list(model.plot(X, Y).test) == ["loss", "accuracy [%]"]
    assert len(model.plot.weights(image_shape=(4, 4)).axes_) == 8
    real = MLPRegressor(**SHORT).fit(X, X[:, 0])
    display = real.plot.predictions(X, X[:, 0], scatter_kwargs={"c": "red"})
    assert isinstance(display, PredictionErrorDisplay)
    np.testing.assert_array_equal(display.y_pred, real.predict(X))
    with pytest.raises(NotFittedError):
        MLPClassifier().plot()


def test_search_display_shows_all_configurations_tried():
    results = {
        "name": ["base", "wide", "random MLP", "random TabM"],
        "loss": [0.5, 0.4, 0.7, np.nan],
        "seconds": [1.0, 2.0, 0.5, 0.0],
        "status": ["complete", "complete", "dropped after 2 folds", "failed: too hot"],
        "weight": [0.0, 1.0, 0.0, 0.0],
    }
    _, ax = pyplot.subplots()
    display = plotting.SearchDisplay(results, loss=0.3).plot(ax=ax)
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    points = {points.get_label(): points.get_offsets().tolist() for points in ax.collections}
    assert points["in the ensemble"] == [[3.0, 0.4]]
    assert points["trained on all folds"] == [[1.0, 0.5]]
    assert points["on some folds"][0] == [3.5, 0.7]
    best, ensemble = ax.lines
    assert best.get_ydata().tolist() == [0.5, 0.4, 0.4, 0.4]
    assert ensemble.get_label() == "ensemble 0.3"
    assert [text.get_text() for text in ax.texts] == ["wide"]
    none = results | {"status": ["not finished"] * 4, "weight": [1.0, 0.0, 0.0, 0.0]}
    assert len(plotting.SearchDisplay(none).plot().ax_.lines) == 1  # The clock ended the first.
    with pytest.raises(NotFittedError):
        plotting.SearchDisplay.from_estimator(MLPTunedClassifier())
