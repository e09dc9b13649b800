"""`restart_factor`: a network that overfits is trained again, and the better one is kept."""

import signal

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.backends._numpy.backend import NumpyBackend
from mlp_xp.callbacks import Callback, Checkpoint, ProgressBar
from mlp_xp.cli.training.fit import ending_of
from mlp_xp.estimators.many import FitTask, fit_many
from mlp_xp.plotting import TrainingCurvesDisplay

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 5)).astype(np.float32)
NOISE = RNG.integers(2, size=400)  # Any fit of these labels overfits.
HELD_OUT = {"X_val": X[200:], "y_val": NOISE[200:]}
N_FIRST, N_SECOND = 8, 5
SETTINGS = {
    "hidden_layer_sizes": (16,),
    "max_iter": N_FIRST,
    "early_stopping": True,
    "n_iter_no_change": np.inf,
    "learning_rate": "coslog4",
    "learning_rate_init": 0.02,
    "batch_size": 50,
    "scoring": "loss",
    "random_state": 0,
}


class Scripted:
    """A scorer that returns the given scores, one per epoch."""

    def __init__(self, first, second):
        self.left = [-9.0, *first, *second]  # It is called once before the first epoch.

    def __call__(self, model, X, y, sample_weight=None):
        return self.left.pop(0)


EARLY = [-1.0, -0.5, -0.6, -0.7, -0.8, -0.9, -1.0, -1.1]
LATE = [-1.0, -0.9, -0.8, -0.7, -0.5, -0.6, -0.7, -0.8]


def fit(scores=None, model=MLPClassifier, held_out=None, **settings):
    own = SETTINGS | {"restart_factor": 3.0} | settings
    if scores is not None:
        own["scoring"] = Scripted(*scores)
    return model(**own).fit(X[:200], NOISE[:200], **(held_out or HELD_OUT))


def same_weights(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one.coefs_, other.coefs_, strict=True))


@pytest.mark.parametrize(
    ("second", "is_kept", "best"),
    [
        ([-0.7, -0.48, -0.47, -0.9, -0.9], False, -0.5),  # Better by 6 %, which may be chance.
        ([-0.7, -0.48, -0.45, -0.9, -0.9], True, -0.45),
    ],
)
def test_the_second_network_is_kept_if_it_is_better_by_eight_percent(second, is_kept, best):
    first = fit((EARLY, []), restart_factor=None)
    model = fit((EARLY, second))
    assert model.n_iter_ == len(model.history_) == N_FIRST + N_SECOND
    assert model.loss_curve_[:N_FIRST] == first.loss_curve_
    assert model.validation_scores_ == [*EARLY, *second]
    assert model.best_validation_score_ == best
    assert same_weights(model, first) != is_kept
    plt.switch_backend("agg")
    assert TrainingCurvesDisplay.from_estimator(model).best_epoch == (11 if is_kept else 2)
    kept = "the network of epoch 11" if is_kept else "the network of epoch 2"
    assert ending_of(model, is_interrupted=False).text.startswith(kept)
    plt.close("all")
    rates = [record.learning_rate for record in model.history_]
    assert max(rates[N_FIRST:]) > 2 * max(rates[:N_FIRST])
    # The second training also begins with the initial weights: its first loss is about as high.
    assert model.loss_curve_[N_FIRST] > 0.9 * model.loss_curve_[0]


@pytest.mark.parametrize(
    ("scores", "settings"),
    [
        (LATE, {}),
        (None, {"max_time": 1000.0}),
        (EARLY, {"restart_factor": None}),
        (EARLY, {"held_out": {"X_val": X[251:], "y_val": NOISE[251:]}}),  # 149 samples.
    ],
)
def test_other_fits_do_not_restart(scores, settings):
    assert fit(scores and (scores, []), **settings).n_iter_ == N_FIRST


def test_a_fitted_network_does_not_restart():
    model = fit(restart_factor=None, warm_start=True)
    model.set_params(restart_factor=3.0, scoring=Scripted([-0.7, *EARLY], []))
    model.fit(X[:200], NOISE[:200], **HELD_OUT)
    assert model.n_iter_ == N_FIRST


class Interrupt(Callback):
    """Press Ctrl-C after an epoch."""

    def __init__(self, epoch):
        self._epoch = epoch

    def on_epoch_end(self, model, record):
        if record.epoch == self._epoch:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("epoch", [N_FIRST, N_FIRST + 2])
@pytest.mark.filterwarnings("ignore:Training interrupted by user")
def test_an_interrupted_second_training_resumes(epoch, tmp_path):
    whole = fit()
    assert whole.n_iter_ == N_FIRST + N_SECOND
    saving = Checkpoint(tmp_path)
    assert fit(callbacks=[saving, Interrupt(epoch)]).n_iter_ == epoch
    model = MLPClassifier(**SETTINGS, restart_factor=3.0)
    model.fit(X[:200], NOISE[:200], **HELD_OUT, resume=tmp_path)
    assert same_weights(model, whole)
    assert model.loss_curve_ == whole.loss_curve_


def test_stacked_fits_restart_as_alone():
    own = SETTINGS | {"restart_factor": 3.0, "backend": "array_api_strict"}
    models = [MLPClassifier(**own | {"random_state": seed}) for seed in range(3)]
    tasks = [FitTask(model, X[:200], NOISE[:200], fit_params=HELD_OUT) for model in models]
    assert [result.error for result in fit_many(tasks)] == [None] * 3
    for seed, model in enumerate(models):
        alone = fit(backend="array_api_strict", random_state=seed)
        assert model.n_iter_ == alone.n_iter_
        np.testing.assert_allclose(model.loss_curve_, alone.loss_curve_, rtol=1e-4)
    assert any(model.n_iter_ == N_FIRST + N_SECOND for model in models)


def test_regressors_with_weights_restart_and_show_it(capsys):
    own = SETTINGS | {"restart_factor": 3.0, "learning_rate_init": 0.1}
    model = MLPRegressor(**own, callbacks=[ProgressBar()])
    weights = RNG.uniform(0.5, 1.5, size=200)
    held_out = HELD_OUT | {"y_val": RNG.normal(size=200)}
    model.fit(X[:200], RNG.normal(size=200), weights, **held_out)
    assert model.n_iter_ == N_FIRST + N_SECOND
    printed = capsys.readouterr().out
    assert f"epoch {N_FIRST}/{N_FIRST} " in printed
    assert f"epoch {N_FIRST + N_SECOND}/{N_FIRST + N_SECOND}" in printed


def test_a_restart_counts_the_steps_before_it(monkeypatch):
    counts, training = [], NumpyBackend.training

    def record(backend, work, n_steps, *given):
        counts.append(n_steps)
        return training(backend, work, n_steps, *given)

    monkeypatch.setattr(NumpyBackend, "training", record)
    fit()
    # Four steps an epoch. The second training would be too short for machine code by itself.
    assert counts == [4 * N_FIRST] * N_FIRST + [4 * (N_FIRST + N_SECOND)] * N_SECOND
