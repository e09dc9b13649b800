"""The objects defined in docs/extending.md train on every backend."""

import copy
import pickle
import re
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from gradient import check_gradient
from helpers import problem, small

from mlp_xp import MLP, MLPEnsembleRegressor, MLPRegressor
from mlp_xp.augmentation import Flip, Geometric
from mlp_xp.nn.losses import Custom
from mlp_xp.nn.network import Network, init_params
from mlp_xp.optimizers import Adam
from mlp_xp.saving import SavingError, save_model
from mlp_xp.training.step.inputs import Batch
from mlp_xp.training.step.value_and_gradient import value_and_gradient

PAGE = Path(__file__).parent.parent / "docs" / "extending.md"


def run_page():
    """Return the page's code as a module, so that its objects can be pickled."""
    module = types.ModuleType("extension")
    sys.modules["extension"] = module
    code = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    exec("\n".join(code), module.__dict__)
    return module


EXTENSION = run_page()
# The parameter for each object: the estimator and its settings.
CASES = {
    "activation": (MLP, {"activation": EXTENSION.snake}),
    "loss": (MLPRegressor, {"loss": EXTENSION.log_cosh}),
    "solver": (MLP, {"solver": EXTENSION.HeavyBall(0.8), "learning_rate_init": 0.05}),
    "hidden_layer_sizes": (MLP, {"hidden_layer_sizes": (EXTENSION.FeatureGain(), 8)}),
    "augmentation": (MLP, {"augmentation": EXTENSION.RandomScale(0.2)}),
}
SETTINGS = {"max_iter": 10, "learning_rate_init": 0.02}
WRONG = [
    ({"solver": Adam}, TypeError, "solver has the class Adam: pass an instance, Adam(...)."),
    ({"solver": Flip((1, 2, 3))}, ValueError, "'solver' parameter .* 'mlp_xp.optimizers.*Opt"),
    ({"hidden_layer_sizes": [EXTENSION.FeatureGain]}, TypeError, "the class FeatureGain: pass"),
    ({"hidden_layer_sizes": [Adam()]}, ValueError, "hidden_layer_sizes must be integers, got"),
    ({"augmentation": [Adam()]}, TypeError, "augmentation has Adam.* not an Augmentation of your"),
    ({"loss": EXTENSION.HeavyBall}, TypeError, "loss is the class HeavyBall: pass an instance"),
]


def fitted(name, **settings):
    kind, own = CASES[name]
    X, y = problem()
    y = X[:, 0] - X[:, 1] if kind is MLPRegressor else y
    return small(kind, **(SETTINGS | own | settings)).fit(X, y), X


@pytest.mark.parametrize("name", CASES)
def test_documented_extensions_reduce_the_loss_and_match_numpy(name, backend):
    model, X = fitted(name, backend=backend.name, device=backend.device)
    assert model.loss_curve_[-1] < 0.8 * model.loss_curve_[0]
    reference, _ = fitted(name, backend="numpy")
    if backend.has_float64:
        np.testing.assert_allclose(model.loss_curve_, reference.loss_curve_, rtol=1e-9)
        method = "predict" if name == "loss" else "predict_proba"
        outputs = (getattr(each, method)(X) for each in (model, reference))
        np.testing.assert_allclose(*outputs, rtol=1e-8)
    if name == "hidden_layer_sizes":
        assert re.search(r"hidden 0: gainblock +6 +6\n", str(model.summary()))


class Unturned(EXTENSION.GainBlock):
    """A block whose weights must not have an axis for several networks."""

    def forward(self, params, x, context):
        assert params.gain.ndim == 1
        return super().forward(params, x, context)


class OwnLayer(EXTENSION.FeatureGain):
    def build(self, fan_in, around):
        return Unturned(fan_in)


def test_custom_layers_are_not_trained_in_a_stack(on):
    model = small(MLPRegressor, hidden_layer_sizes=(OwnLayer(), 4), max_iter=4, **on)
    X, y = problem()
    model.set_params(early_stopping=True).fit(X, y)
    ensemble = MLPEnsembleRegressor(model, 2).fit(X, y)
    assert len(ensemble.estimators_) == 2


def test_gradients_of_custom_parts_are_correct(backend, rng):
    network = Network((6, EXTENSION.FeatureGain(), 5, 2), activation=EXTENSION.snake)
    loss, xp = Custom(EXTENSION.log_cosh), backend.xp
    evaluate = value_and_gradient(network, loss, backend.kernels, xp=xp)
    x, y = rng.standard_normal((7, 6)), rng.standard_normal((7, 2))

    def function(params):
        found = evaluate(params, Batch(backend.put(x), backend.put(y)), None)
        return found.loss, found.backward(found.pull_loss())

    check_gradient(backend, function, init_params(network, 3), rng)


def test_documented_custom_loss_handles_large_errors(backend):
    with np.errstate(all="raise", under="ignore"), backend.scope():
        outputs = backend.put(np.asarray([[1e5], [-1e5], [1e30], [-1e30], [0.0]]), "float32")
        losses, pull = Custom(EXTENSION.log_cosh)(outputs, 0 * outputs, xp=backend.xp)
        slopes = backend.get(pull(backend.xp.ones_like(losses)))
    np.testing.assert_allclose(backend.get(losses), [1e5, 1e5, 1e30, 1e30, 0], 1e-5, 1e-6)
    assert slopes.tolist() == [[1], [-1], [1], [-1], [0]]


@pytest.mark.parametrize(("settings", "kind", "message"), WRONG)
def test_invalid_custom_objects_are_rejected(settings, kind, message):
    with pytest.raises(kind, match=message):
        small(**settings).fit(*problem())


@pytest.mark.parametrize("name", CASES)
def test_model_with_custom_part_can_be_pickled_but_not_saved(name, tmp_path):
    model, X = fitted(name)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        np.testing.assert_array_equal(other.predict(X), model.predict(X))
        other.partial_fit(X, np.zeros(len(X)) if name == "loss" else np.arange(len(X)) % 3)
    with pytest.raises(SavingError, match=rf"{name} is .*, or save with pickle or joblib"):
        save_model(model, tmp_path / "model")


class Rolls(NamedTuple):
    columns: Any


@dataclass(frozen=True)
class Roll(Geometric):
    """Cyclic shift of an image's columns to the left."""

    image_shape: tuple[int, int, int]

    @property
    def views(self):
        return Rolls(0), Rolls(1)

    def draw(self, epoch):
        return Rolls(epoch.new_generator().integers(0, self.image_shape[2], len(epoch.rows)))

    def source_pixels(self, lines, columns, draws, *, xp):
        return lines, (columns + draws.columns[:, None]) % self.image_shape[2], None


def test_documented_augmentation_applies_in_training_and_tta(backend):
    (X, y), roll = problem(), Roll((1, 2, 3))
    place = {"backend": backend.name, "device": backend.device}
    model = small(augmentation=roll, tta=roll, **place).fit(X, y)
    assert not np.allclose(model.coefs_[0], small(**place).fit(X, y).coefs_[0])
    rolled = np.roll(X.reshape(-1, 2, 3), -1, axis=2).reshape(X.shape)
    expected = [model.predict_proba(view, tta=None) for view in (X, rolled)]
    np.testing.assert_allclose(model.predict_proba(X), np.mean(expected, axis=0), rtol=1e-5)
    with pytest.raises(ValueError, match="1 x 2 x 2 is 4, but the data have 6 features"):
        small(augmentation=Roll((1, 2, 2))).fit(X, y)
