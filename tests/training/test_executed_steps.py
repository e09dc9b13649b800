"""How steps and epochs are executed: in how many calls, by which programs and memory."""

import threading
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import trainers
from sklearn.datasets import load_iris
from trainers import BATCH, CLASSES, FEATURES, N, assert_close, learned, make_trainer, place_bytes

import mlp_xp.training.divergence.guard
from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp._utils.tree import leaves
from mlp_xp.augmentation import Flip, Mixup
from mlp_xp.backends import get_backend
from mlp_xp.backends._numpy.tracing.compiled_step import CompiledLoop
from mlp_xp.nn.network import Network
from mlp_xp.optimizers import SGD
from mlp_xp.optimizers.schedules import Constant, Cosine
from mlp_xp.training.data.epoch_plan import plan_epoch
from mlp_xp.training.divergence.finite import NonFiniteError
from mlp_xp.training.loop.multi_epoch import MultiEpoch
from mlp_xp.training.loop.time_budget import Budget
from mlp_xp.training.step.step import make_step

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.libraries("jax")
@pytest.mark.parametrize("everything", [False, True])
def test_jax_compiles_a_step_once_and_donates_its_state(backend, monkeypatch, everything):
    traces = []

    def counted(*args, **kwargs):
        step = make_step(*args, **kwargs)
        return lambda *inner: traces.append(1) or step(*inner)

    monkeypatch.setattr("mlp_xp.training.step.base_trainer._step", counted)
    network = Network((FEATURES, 9, 9, CLASSES), "gelu", "batch", 0.2, 0.1, residual=True)
    settings = {"network": network, "ema_decay": 0.9, "max_grad_norm": 0.3}
    settings |= {"augmentation": (Flip((1, 1, FEATURES), alternate=True), Mixup())}
    trainer = make_trainer(backend, x=trainers.byte_data()[0], **settings if everything else {})
    first, data = trainer.state, place_bytes(backend)
    trainers.train(trainer, data, n_epochs=3)
    assert len(traces) == 1
    assert trainer._loop._cache_size() == 1
    assert all(leaf.is_deleted() for leaf in leaves(first[:4]))
    assert not data.x.is_deleted()


@pytest.mark.libraries("jax", "numpy", "cupy")
def test_many_steps_run_in_one_call_unless_a_callback_needs_each(backend, monkeypatch):
    network = Network((FEATURES, 9, CLASSES), dropout=0.3)
    plan = trainers.plan_for(backend, weights=np.random.default_rng(1).random(N))
    work = BATCH * (FEATURES * 9 + 9 + 9 * CLASSES + CLASSES)
    monkeypatch.setattr(type(backend), "work_at_once", 4 * work)
    # Steps between two readings of the clock.
    monkeypatch.setattr(Budget, "next_steps", lambda self, most: min(most, 2))
    heard, results = [], []

    def train_for(n_epochs, *, loop=True, stops=False, **options):
        # Another schedule would follow the clock.
        trainer = make_trainer(backend, network=network, schedule=Constant())
        if not loop:
            trainer._loop = None
        options |= {"after_step": lambda done, n_steps: heard.append(done) or stops}
        for _ in range(n_epochs):
            record = trainer.run_epoch(place_bytes(backend), plan, n_epochs=2, **options)
        results.append((np.asarray(record.loss), *learned(trainer)))
        return trainer

    at_once = {"step_by_step": False}
    train_for(2, loop=False)
    train_for(2)
    train_for(2, **at_once)
    train_for(2, budget=Budget(1000.0), **at_once)
    train_for(2, budget=Budget(1000.0), **at_once, loop=False)
    each = [1, 2, 3, 4, 5, 6] * 2
    # A shorter last batch is a separate call.
    last = [6] if backend.fixed_shapes else [5, 6]
    assert heard == each * 2 + [4, *last] * 2 + [2, 4, *last] * 2 + each
    for reference, found in ((0, 1), (0, 4)):
        assert_close(results[found], results[reference], rtol=1e-10)
    for found in (2, 3):
        assert_close(results[found], results[1])
    stopped = train_for(1, stops=True, **at_once)
    assert stopped.n_steps == 4
    if backend.name == "jax":
        assert stopped._loop._cache_size() == 1
    # Ctrl-C waits for a call, and a step takes time however little it computes.
    monkeypatch.setattr("mlp_xp.training.trainer._STEPS_AT_ONCE", 2)
    heard.clear()
    train_for(1, **at_once)
    assert heard == [2, 4, *last]


@pytest.mark.parametrize("where", ["a step", "what looks at it"])
def test_failed_epoch_releases_its_data_feed(where, backend):
    """The thread ends even if the caller keeps the error, whose traceback refers to the batches."""
    trainer, data = make_trainer(backend), place_bytes(backend, placement="streamed")

    def fail(*_):
        raise ZeroDivisionError

    if where == "a step":
        trainer._step = fail
    with pytest.raises(ZeroDivisionError) as error:
        trainer.run_epoch(data, plan_epoch(N, BATCH), n_epochs=1, after_step=fail)
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("mlp_xp-feed")]
    assert error.traceback


@pytest.mark.libraries("jax")
def test_large_arrays_reach_jax_unchanged(backend):
    """Arrays that do not begin at a cache line are copied in another way if they are large."""
    numbers = np.arange((1 << 22) + 128, dtype=np.uint8)
    for offset in range(2):
        start = -numbers.ctypes.data % 64 + offset
        given = numbers[start : start + (1 << 22)].reshape(1 << 10, 1 << 12)
        for array in (given, given.T, given[:, ::-1]):
            np.testing.assert_array_equal(np.asarray(backend.put(array)), array)


def test_identical_fits_share_a_compiled_step(backend):
    def compiled(**settings):
        step = make_trainer(backend, **settings)._step
        # A plan belongs to a trainer, with its memory; what is planned is the same function.
        return getattr(step, "_function", step)

    assert compiled() is compiled()
    assert compiled(optimizer=SGD()) is not compiled()


def test_an_idle_trainer_passes_its_small_plan_to_the_next():
    backend = get_backend("numpy")
    data = place_bytes(backend)
    results = []
    for rests in (False, True):
        first, second = make_trainer(backend), make_trainer(backend)
        trainers.train(first, data)
        plans, kept = first._loop.programs, first.copy_learned()
        if rests:
            first.release_memory()
            assert not first._loop.programs
        trainers.train(second, data)
        assert (second._loop.programs is plans) == rests
        # The second has written to memory that was the first one's.
        assert_close(first.copy_learned(), kept)
        trainers.train(first, data)
        results.append([*learned(first), *learned(second)])
    assert_close(*results)
    large = make_trainer(backend, network=Network((FEATURES, 9_000, CLASSES)))
    trainers.train(large)
    plans = weakref.WeakSet(large._loop.programs)
    assert plans
    large.release_memory()
    assert not plans


@pytest.mark.libraries("torch")
def test_training_builds_no_torch_autograd_graph(backend):
    import torch

    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        trainer = make_trainer(backend, network=Network((FEATURES, CLASSES)))
        for leaf in leaves(trainer.state.params):
            leaf.requires_grad_(True)
        trainers.train(trainer)
    assert saved == []
    assert all(leaf.grad_fn is None for leaf in leaves(trainer.state))


def test_the_loss_is_read_once_per_epoch(backend, monkeypatch):
    trainer, data = make_trainer(backend, with_accuracy=True), place_bytes(backend)
    monkeypatch.setattr(mlp_xp.training.divergence.guard, "_COPY_SHARE", 1e-9)
    monkeypatch.setattr(mlp_xp.training.divergence.guard, "_LOOK_SECONDS", np.inf)
    trainers.train(trainer, data, n_epochs=1)  # Before the first epoch the state is copied.
    reads = []
    get = type(backend).get
    monkeypatch.setattr(type(backend), "get", lambda self, a: reads.append(1) or get(self, a))
    trainers.train(trainer, data, n_epochs=3)
    assert len(reads) == 3  # With the accuracy.


X, Y = load_iris(return_X_y=True)
WEIGHTS = np.random.default_rng(0).random(len(X))
LONG = 100_000  # Epochs of a training that would wait for machine code.
FIELDS = "loss_curve_", "validation_scores_", "validation_loss_curve_", "best_validation_score_"
# Has every epoch run by itself.
WATCHING = SimpleNamespace(on_epoch_end=lambda model, record: None)


@pytest.fixture
def lengths(monkeypatch):
    """Return a list that gets the epochs of each call."""
    train, found = MultiEpoch.train, []

    def counting(self, request):
        trained = train(self, request)
        found.append(len(trained))
        return trained

    monkeypatch.setattr(MultiEpoch, "train", counting)
    return found


def results(model, y=Y, **given):
    model.fit(X, y, **given)
    curves = {name: getattr(model, name, None) for name in FIELDS}
    rates = [record.learning_rate for record in model.history_]
    return [model.n_iter_, model.t_, curves, rates], [*model.coefs_, *model.intercepts_]


BATCHES = {"batch_size": 32, "max_iter": 25}  # The last has 22 rows.
BY_SGD = {"solver": "sgd"}
ADAPTIVE = BY_SGD | {"learning_rate": "adaptive", "tol": 1e-2}
CASES = {
    "iris": {},
    "held out": {"early_stopping": True},
    "several outputs": {"hidden_layer_sizes": (20, 10), "max_iter": 40},
    "by a metric": {"early_stopping": True, "scoring": "neg_log_loss", "max_iter": 12},
    "by the loss": {"early_stopping": True, "scoring": "loss", "n_iter_no_change": 3},
    "dropout": {"dropout": 0.3, "max_iter": 30, "early_stopping": True},
    "batch normalization": {"normalization": "batch", "early_stopping": True},
    "average": {"ema_decay": 0.9, "early_stopping": True, "learning_rate_init": 0.01},
    "schedule": {"learning_rate": Cosine(), "n_iter_no_change": np.inf, "max_iter": 50},
    "batches, weighted": BATCHES,
    "batches, dropout": BATCHES | {"dropout": 0.3, "ema_decay": 0.9},
    "batches, batch normalization": BATCHES | {"normalization": "batch", "shuffle": False},
    "batches, adaptive": BATCHES | ADAPTIVE,
    "batches, invscaling": BATCHES | BY_SGD | {"learning_rate": "invscaling"},
    "batches, standardized, AdamW": BATCHES
    | {"input_scaling": "standardize", "solver": "adamw", "learning_rate": Cosine()},
    "no patience": {"n_iter_no_change": 1, "tol": 0.1},
    "own activation": {"activation": [lambda x, *, xp: (x * 2, lambda dy: dy * 2)], "max_iter": 9},
}
FLOAT32 = {"precision": "float32", "max_iter": LONG}
CODE = {
    "machine code": {"max_iter": LONG, "tol": 1e-3, "early_stopping": True},
    "float32": FLOAT32 | {"tol": 1e-2},
    "batches, machine code": BATCHES | {"max_iter": LONG, "tol": 1e-2},
    "batches of one size, float32": BATCHES | FLOAT32 | {"batch_size": 50, "tol": 1e-1},
}


@pytest.mark.parametrize("name", [*CASES, *CODE])
def test_several_epochs_in_one_call_match_single_epochs(name, lengths, monkeypatch):
    prepare, prepared = CompiledLoop._prepare, []

    def noting(*args):
        found = prepare(*args)
        prepared.append(found[1])
        return found

    monkeypatch.setattr(CompiledLoop, "_prepare", noting)
    settings = {"hidden_layer_sizes": (20,), "random_state": 0, **(CASES | CODE)[name]}
    given = {"sample_weight": WEIGHTS} if name == "held out" or "weighted" in name else {}
    estimator, y = MLPClassifier, Y
    if name == "several outputs":
        estimator, y, given = MLPRegressor, X[:, :2], {"X_val": X[::3], "y_val": X[::3, :2]}
    mine, weights = results(estimator(**settings), y, **given)
    assert sum(lengths) == mine[0]
    assert len(lengths) < mine[0]
    if name == "iris":  # Once per call.
        assert len(prepared) == len(lengths) > 1
        assert None not in prepared  # Each call runs a program.
    lengths.clear()
    expected, arrays = results(estimator(**settings, callbacks=[WATCHING]), y, **given)
    assert not lengths
    assert str(mine) == str(expected)  # Their types too.
    assert_close(weights, arrays)


@pytest.mark.parametrize("more", [{}, {"early_stopping": True}, {"batch_size": 40}])
def test_divergence_within_several_epochs_matches_single_epochs(more):
    # Each step makes the weights some millions of times as large.
    settings = BY_SGD | {"learning_rate_init": 30.0, "random_state": 0, "alpha": 1e8}
    settings |= {"n_iter_no_change": 50, **more}
    ends = []
    for callbacks in (None, [WATCHING]):
        model = MLPClassifier(**settings, callbacks=callbacks)
        stops = "early_stopping" in more
        with pytest.warns(RuntimeWarning) if stops else pytest.raises(NonFiniteError) as caught:
            model.fit(X, Y)
        error = str(caught[0].message) if stops else (str(caught.value), vars(caught.value))
        n_steps = -(-len(X) // settings.get("batch_size", len(X)))
        assert 10 / n_steps < model.n_iter_ < 50
        ends.append([error, model.n_iter_, str(model.loss_curve_), model.coefs_[0].tolist()])
    assert ends[0] == ends[1]


@pytest.mark.parametrize("batch_size", [len(X), 20])
@pytest.mark.parametrize("what", ["activation", "loss"])
def test_a_custom_function_can_change_between_fits(what, batch_size):
    scale = 1.0

    def activation(x, *, xp):
        return x * scale, lambda dy: dy * scale

    def loss(outputs, targets, *, xp):
        error = outputs - targets
        return scale * xp.sum(error * error, axis=-1), lambda d: 2 * scale * error * d[..., None]

    own = {"activation": activation, "loss": loss}[what]
    settings = {"max_iter": 2, "learning_rate": "cosine", "random_state": 0, what: own}
    model = MLPRegressor(hidden_layer_sizes=(5,), batch_size=batch_size, **settings)
    first = model.fit(X, Y).loss_
    scale = 3.0
    assert model.fit(X, Y).loss_ > 2 * first
