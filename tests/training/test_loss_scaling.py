"""Loss scaling: a step that overflows changes nothing, and the factor follows what suits."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import trainers
from helpers import small
from trainers import BATCH, CLASSES, FEATURES, N, assert_close, host, make_trainer, train

from mlp_xp.backends import BackendError, get_backend, installed, to_numpy
from mlp_xp.callbacks import Checkpoint
from mlp_xp.nn.losses import SquaredError
from mlp_xp.nn.network import Network
from mlp_xp.training.data.placement import put_data
from mlp_xp.training.step.loss_scaling import LossScale

NETWORK = Network((FEATURES, 9, CLASSES), "tanh", normalization="batch")
LIBRARIES = [pytest.param(name, marks=pytest.mark.matrix) for name in ("torch", "jax", "cupy")]


@pytest.fixture(params=["numpy", *LIBRARIES])
def scaling(request, monkeypatch):
    """Return a backend that scales the loss; on NumPy around products in float32."""
    if request.param == "numpy":
        backend = get_backend("numpy")
        monkeypatch.setattr(type(backend), "scales_loss", True)
        return backend
    if not installed(request.param):
        pytest.skip(f"{request.param} is not installed")
    try:
        return get_backend(request.param).with_precision("float16")
    except BackendError as error:
        pytest.skip(str(error))


def scaling_trainer(backend, **settings):
    return make_trainer(backend, dtype="float32", network=NETWORK, **settings)


def set_scale(trainer, factor, good_steps=0.0):
    backend = trainer.backend
    with backend.scope():
        scale = LossScale(*(backend.put(np.float32(v)) for v in (factor, good_steps)))
        trainer.state = trainer.state._replace(loss_scale=scale)


def train32(trainer, n_epochs):
    return train(trainer, trainers.place_bytes(trainer.backend, "float32", "float32"), n_epochs)


def scale_of(trainer):
    return [float(number) for number in host(trainer.backend, trainer.state.loss_scale)]


def test_an_overflowing_step_changes_nothing_and_halves_the_loss_scale(scaling):
    """Parameters, optimizer state, batch statistics and the average of the weights."""
    # In float32 only large errors overflow too.
    size, power = (2.0**50, 100) if scaling.name == "numpy" else (1.0, 40)
    trainer = scaling_trainer(scaling, loss=SquaredError(), ema_decay=0.9)
    y = size * np.random.default_rng(0).standard_normal((N, CLASSES))
    before = host(scaling, trainer.state[:4])
    set_scale(trainer, 2.0**power, 3.0)
    x, _ = trainers.byte_data("float32")
    (record,) = train(trainer, put_data(scaling, x, y.astype("float32"), "float32"), n_epochs=1)
    assert np.isfinite(record.loss)
    assert_close(host(scaling, trainer.state[:4]), before)
    assert scale_of(trainer) == [2.0 ** (power - -(-N // BATCH)), 0.0]


@pytest.mark.parametrize("scaling", LIBRARIES, indirect=True)
def test_loss_scale_recovers_and_only_float16_is_scaled(problem, scaling):
    trainer = scaling_trainer(scaling)
    set_scale(trainer, 2.0**30)
    records = train32(trainer, n_epochs=8)
    assert 2.0**8 < scale_of(trainer)[0] < 2.0**20
    assert records[-1].loss < records[0].loss
    for precision in ("float32", "bf16"):
        backend = get_backend(scaling.name).with_precision(precision)
        assert make_trainer(backend, dtype="float32").state.loss_scale == ()
    # An overflow without a scale is an error of the fit, not of the scale.
    model = small(backend=scaling.name, precision="float16", learning_rate_init=1e30)
    with pytest.raises(ValueError, match="non-finite parameter weights"):
        model.fit(*problem())


def test_many_good_steps_double_the_loss_scale_without_changing_gradients(scaling):
    """Powers of 2 round nothing, as long as no number is too small or too large."""
    trainers = [scaling_trainer(scaling) for _ in range(2)]
    assert scale_of(trainers[0]) == [2.0**16, 0.0]
    for trainer, factor in zip(trainers, (2.0**8, 2.0**10), strict=True):
        set_scale(trainer, factor, 1998.0)
        train32(trainer, n_epochs=2)
        assert scale_of(trainer) == [2 * factor, 10.0]
    assert_close(*(host(scaling, t.state.params) for t in trainers), rtol=1e-3, atol=1e-4)
    if scaling.name == "numpy":  # Values that overflow in float16 do not overflow here.
        set_scale(trainer, 2.0**24, 1999.0)
        train32(trainer, n_epochs=1)
        assert scale_of(trainer) == [2.0**24, 5.0]


def saved(model):
    """Return what a pickled model knows of its weights and of the loss scale."""
    model = pickle.loads(pickle.dumps(model))  # noqa: S301
    scale = model._state.progress.loss_scale
    assert float(scale.factor) != 2.0**16
    weights = (*model.coefs_, *model.intercepts_)
    return [to_numpy(array).tobytes() for array in (*weights, *scale)]


def test_pickles_and_checkpoints_preserve_the_loss_scale(problem, scaling, monkeypatch, tmp_path):
    def stop(model, done, n_steps):
        if (len(model.history_), done) == (1, 3):
            raise ZeroDivisionError

    # The factor doubles after seven good steps.
    monkeypatch.setattr("mlp_xp.training.step.loss_scaling._GOOD_STEPS", 7)
    precision = {} if scaling.name == "numpy" else {"precision": "float16"}
    settings = {"backend": scaling.name, "ema_decay": 0.95, **precision}
    X, y = problem()
    whole, parts = small(**settings), small(**settings)
    for _ in range(4):
        whole.partial_fit(X, y, classes=np.unique(y))
        parts = pickle.loads(pickle.dumps(parts))  # noqa: S301
        parts.partial_fit(X, y, classes=np.unique(y))
    assert saved(parts) == saved(whole)

    fails = SimpleNamespace(on_step_end=stop)
    with pytest.raises(ZeroDivisionError):
        small(**settings, callbacks=[Checkpoint(tmp_path, every="1 steps"), fails]).fit(X, y)
    resumed = small(**settings).fit(X, y, resume=tmp_path)
    assert saved(resumed) == saved(small(**settings).fit(X, y))
