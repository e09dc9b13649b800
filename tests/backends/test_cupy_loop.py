"""CuPy's steps on the stand-in: as CUDA graphs, and one by one where no graph can hold them."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import cupy
import numpy as np
import pytest
from cupy import _launch
from loop_problem import BATCH, CASES, FEATURES, N, Problem, assert_same, network_of, numbers
from scipy import sparse

from mlp_xp import MLPClassifier
from mlp_xp._utils.tree import leaves
from mlp_xp.augmentation import Flip
from mlp_xp.backends import get_backend
from mlp_xp.backends._cuda import captured as _captured
from mlp_xp.backends._cupy import captured, cublaslt
from mlp_xp.backends._cupy.backend import CupyBackend
from mlp_xp.backends._cupy.captured import CupyGraphs
from mlp_xp.nn.network import init_params
from mlp_xp.optimizers import Adam
from mlp_xp.training.data import placement
from mlp_xp.training.data.placement import put_data
from mlp_xp.training.loop.time_budget import Budget
from mlp_xp.training.trainer import Trainer

pytestmark = [pytest.mark.matrix, pytest.mark.libraries("cupy")]
pytestmark += [pytest.mark.usefixtures("no_counts")]
DEVICES = ["cuda:0", "cuda:1"]


def check_both_ways(monkeypatch, train):
    with monkeypatch.context() as patch:
        patch.setattr(CupyBackend, "loop", lambda self, body: None)
        expected = train()
    assert not _launch.launches["graph"]
    assert_same(train(), expected)
    assert _launch.launches["graph"]


def test_graph_memory_is_kept_until_graphs_are_freed():
    def free():
        cupy.get_default_memory_pool().free_all_blocks()
        return cupy.cuda.runtime.memGetInfo()[0]

    before = free()
    memory = CupyGraphs(cupy, cupy.cuda.Device()).new_pool()
    memory.malloc(1 << 20)  # Freed at once: only a graph writes to it.
    memory._pool.free_all_blocks()  # As CuPy does where memory is short.
    assert free() == before - (1 << 20)
    memory.malloc(1 << 20)  # Free in the pool, which CuPy does not free with it.
    del memory
    assert free() == before


def test_an_epoch_runs_as_graphs_of_32_steps(monkeypatch):
    monkeypatch.setattr(_captured, "_STEPS_BEFORE_CAPTURE", 0)
    backend, problem = get_backend("cupy"), Problem(n=330 * BATCH)
    trainer = problem.trainer(backend)
    data = put_data(backend, problem.x, problem.y, problem.dtype)
    counts = []
    for epoch in range(2):
        _launch.launches.clear()
        trainer.run_epoch(data, problem.plan(epoch), n_epochs=2, step_by_step=False)
        counts.append(_launch.launches.copy())
    # 330 steps are 10 graphs of 32 steps, one of 8 and one of 2. The very first step is no graph.
    assert [count["graph"] for count in counts] == [12, 12]
    # Beside them an epoch's arguments and sums, and copies of the state by the clock: no steps.
    assert sum(counts[1].values()) - counts[1]["graph"] < 100


def test_a_graph_launches_few_more_kernels_than_its_steps(soon):
    """But for copies of their arguments, the position, and the state that is not in its place."""
    backend, problem = get_backend("cupy"), Problem(n=100 * BATCH, dtype="float32")
    trainer = problem.trainer(backend)
    problem.train(trainer, 2)
    graphs = _launch.launches["graph"]
    _launch.launches.clear()
    trainer._loop = None
    problem.train(trainer, 1)
    a_step = sum(_launch.launches.values()) / 100
    assert sum(_launch.replayed.values()) < 200 * a_step + 8 * graphs


def test_the_next_epoch_is_planned_while_the_previous_graphs_run(soon, monkeypatch):
    events, plan, read = [], placement.plan_epoch, Trainer.read_sums

    def noted(*arguments, epoch, **options):
        events.append(f"plan {epoch}, {_launch.launches['graph'] > 0}")
        return plan(*arguments, epoch=epoch, **options)

    monkeypatch.setattr(placement, "plan_epoch", noted)
    monkeypatch.setattr(Trainer, "read_sums", lambda self: events.append("wait") or read(self))
    draw = Flip.draw
    monkeypatch.setattr(Flip, "draw", lambda *given: events.append("draw") or draw(*given))
    x, flip = np.arange(160.0).reshape(40, 4), Flip((1, 2, 2))
    model = MLPClassifier(8, batch_size=8, max_iter=2, augmentation=[flip], backend="cupy")
    model.fit(x, np.arange(40) % 2)
    assert events == ["plan 0, False", "draw", "plan 1, True", "draw", "wait", "wait"]
    events.clear()
    model.partial_fit(x, np.arange(40) % 2)  # No epoch follows that would need its plan.
    assert events == ["plan 2, True", "draw", "wait"]


def test_each_batch_shape_has_its_own_graphs(soon, monkeypatch):
    trainer = Problem().check(get_backend("cupy"), monkeypatch, n_epochs=5)
    full, last = trainer._loop._shapes.values()
    assert set(full._graphs) <= {4, 2, 1}
    assert set(last._graphs) == {1}


def test_graphs_are_kept_for_a_limited_number_of_shapes(soon):
    backend, problem = get_backend("cupy"), Problem(n=400)
    trainer = problem.trainer(backend)
    data = put_data(backend, problem.x, problem.y, problem.dtype)
    for n in range(100, 200, 10):
        trainer.run_epoch(data, problem.plan(0, n), n_epochs=10, step_by_step=False)
    assert len(trainer._loop._shapes) == _captured._MOST_SHAPES


def test_a_short_training_captures_nothing(monkeypatch):
    begun = []
    monkeypatch.setattr(cupy.cuda.Stream, "begin_capture", lambda *args: begun.append(args))
    backend, problem = get_backend("cupy"), Problem(n=6 * BATCH)
    problem.train(problem.trainer(backend), 10)
    assert not begun
    assert not _launch.launches["graph"]


def test_steps_with_callbacks_run_as_single_step_graphs(soon, monkeypatch):
    Problem().check(get_backend("cupy"), monkeypatch, step_by_step=True)
    assert _launch.launches["graph"] == 3 * 6 - 2 - 2


def test_steps_between_clock_checks_run_as_graphs(soon, monkeypatch):
    monkeypatch.setattr(Budget, "next_steps", lambda self, most: min(most, 2))
    Problem().check(get_backend("cupy"), monkeypatch, budget=Budget(1000.0))
    assert _launch.launches["graph"] > 4


@pytest.mark.parametrize("non_blocking", [False, True])
def test_caller_can_use_another_cuda_stream(non_blocking, soon, monkeypatch):
    """The stand-in finds work that nothing orders."""
    backend, problem = get_backend("cupy", "cuda:1"), Problem(**CASES["all together"])
    expected = problem.eagerly(backend, monkeypatch)
    with cupy.cuda.Device(1), cupy.cuda.Stream(non_blocking=non_blocking) as stream:
        trainer = problem.trainer(backend)
        found = numbers(trainer, problem.train(trainer))
        assert cupy.cuda.get_current_stream() == stream
    assert_same(found, expected)
    assert _launch.launches["graph"]


def test_training_can_continue_in_another_thread(soon, monkeypatch):
    """Each has a stream for graphs, which it captures on, and launches those of the others."""
    backend, problem = get_backend("cupy"), Problem()
    expected = problem.eagerly(backend, monkeypatch)
    trainer = problem.trainer(backend)
    data = put_data(backend, problem.x, problem.y, problem.dtype)
    records, options = [], {"n_epochs": 3, "step_by_step": False}
    for epoch in range(3):
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(trainer.run_epoch, data, problem.plan(epoch), **options)
            records.append(run.result())
    assert_same(numbers(trainer, records), expected)
    assert _launch.launches["graph"]


def test_another_thread_may_compute_on_the_default_stream(soon, monkeypatch, caplog):
    """The default stream waits for blocking streams, which breaks their captures."""
    backend, other, sums = get_backend("cupy"), cupy.ones(3), []

    def accompanied(x, *, xp):
        if cupy.cuda.get_current_stream().is_capturing():
            with ThreadPoolExecutor(1) as pool:
                sums.append(pool.submit(cupy.add, other, other, out=other).result())
        return cupy.ascontiguousarray(x), lambda dy: dy  # This cannot be traced.

    problem = Problem(network=network_of(9, activation=accompanied))
    problem.check(backend, monkeypatch)
    assert not caplog.messages
    assert other.get().tolist() == [2.0 ** len(sums)] * 3
    assert sums


def test_new_data_trigger_a_new_capture(soon, monkeypatch):
    """Even where they lie in the memory of those before."""
    backend, problem = get_backend("cupy"), Problem()

    def train():
        trainer, records = problem.trainer(backend), []
        for seed in range(3):
            x = np.random.default_rng(seed).standard_normal(problem.x.shape)
            records += problem.train(trainer, data=put_data(backend, x, problem.y, "float64"))
            trainer.guard.release()
            gc.collect()
        return numbers(trainer, records)

    check_both_ways(monkeypatch, train)


def test_data_are_not_kept_alive(soon):
    backend, problem = get_backend("cupy"), Problem()
    trainer = problem.trainer(backend)
    data = put_data(backend, problem.x, problem.y, problem.dtype)
    array = weakref.ref(data.x)
    problem.train(trainer, data=data)
    assert _launch.launches["graph"]
    trainer.guard.release()
    del data
    assert array() is None


@pytest.mark.parametrize("device", DEVICES)
def test_sparse_rows_are_captured(device, soon, monkeypatch, caplog):
    backend, problem = get_backend("cupy", device), Problem()
    x = sparse.random(N, FEATURES, 0.5, format="csr", random_state=0)
    data = put_data(backend, x, problem.y, "float64", multiplies_sparse=True)
    problem.check(backend, monkeypatch, data=data)
    assert not caplog.messages
    assert _launch.launches["graph"] > 4


def test_state_can_be_replaced_between_epochs(soon, monkeypatch):
    backend, problem = get_backend("cupy"), Problem(ema_decay=0.9)

    def train():
        trainer, other = problem.trainer(backend), problem.trainer(backend)
        records = problem.train(trainer)
        kept = [backend.get(leaf).copy() for leaf in leaves(trainer.state)]
        copied = trainer.copy()
        other.resume(trainer.progress())
        records += problem.train(other)
        trainer.set_learned(init_params(problem.network, 9), ())
        records += problem.train(trainer)
        trainer.restore(copied, 18)
        assert_same([backend.get(leaf) for leaf in leaves(trainer.state)], kept)
        records += problem.train(trainer)
        return numbers(trainer, records)

    check_both_ways(monkeypatch, train)


class Swapped(Adam):
    """A rule that returns its state in each other's place, as a rule may."""

    def update(self, p, g, state, coefs, *, kind, xp):
        p, (mean, variance) = super().update(p, g, state, coefs, kind=kind, xp=xp)
        mean *= mean
        return p, type(state)(variance, mean)


def test_optimizer_can_swap_its_state_arrays(soon, monkeypatch):
    Problem(optimizer=Swapped()).check(get_backend("cupy"), monkeypatch)
    assert _launch.launches["graph"]


def test_an_idle_trainer_releases_its_graphs(soon):
    backend, problem = get_backend("cupy"), Problem()
    trainer = problem.trainer(backend)
    first = problem.train(trainer)
    graphs = [weakref.ref(shape._pool) for shape in trainer._loop._shapes.values() if shape._graphs]
    assert graphs
    trainer.release_memory()
    assert not any(pool() for pool in graphs)
    assert problem.train(trainer)[-1].loss < first[-1].loss


def test_interleaved_fits_on_two_devices_match_separate_fits(soon, monkeypatch):
    problem = Problem()
    trainers = [problem.trainer(get_backend("cupy", device)) for device in DEVICES]
    placed = [put_data(t.backend, problem.x, problem.y, "float64") for t in trainers]
    records = [[], []]
    for epoch in range(3):
        for trainer, data, own in zip(trainers, placed, records, strict=True):
            plan = problem.plan(epoch)
            own.append(trainer.run_epoch(data, plan, n_epochs=3, step_by_step=False))
    expected = problem.eagerly(get_backend("cupy"), monkeypatch)
    for trainer, own in zip(trainers, records, strict=True):
        assert_same(numbers(trainer, own), expected)


def waits(x, *, xp):
    """Return an activation that asks for a number."""
    largest = float(xp.max(xp.abs(x))) + 1.0
    return x / largest, lambda dy: dy / largest


def copies(x, *, xp):
    """Return an activation that sends numbers to the device, by a function that has no trace."""
    factors = cupy.asarray(np.linspace(0.5, 1.0, x.shape[-1]))
    return cupy.multiply(x, factors), lambda dy: dy * factors


@pytest.mark.parametrize(("activation", "reason"), [(waits, "D2H"), (copies, "H2D")])
def test_a_function_that_synchronizes_runs_step_by_step(
    activation, reason, soon, monkeypatch, caplog
):
    backend = get_backend("cupy", "cuda:1")
    problem = Problem(network=network_of(9, activation=activation))
    problem.check(backend, monkeypatch)
    problem.train(problem.trainer(backend))  # The log says it once.
    (message,) = caplog.messages
    assert "run one by one" in message
    assert f"{reason} transfers" in message
    assert not _launch.launches["graph"]
    with backend.scope():
        assert not cupy.cuda.get_current_stream().is_capturing()


def test_products_by_cublas_run_step_by_step(soon, monkeypatch, caplog):
    backend, problem = get_backend("cupy"), Problem()
    fused = problem.eagerly(backend, monkeypatch)
    monkeypatch.setattr(cublaslt, "_library", lambda: None)
    trainer = problem.trainer(backend)
    found = numbers(trainer, problem.train(trainer))
    for array, other in zip(found, fused, strict=True):
        np.testing.assert_allclose(array, other, rtol=1e-9, atol=1e-12)
    (message,) = caplog.messages
    assert "cuBLAS" in message
    assert not _launch.launches["graph"]


def test_running_out_of_memory_during_capture_falls_back_to_single_steps(soon, monkeypatch, caplog):
    def malloc(self, size):
        raise cupy.cuda.memory.OutOfMemoryError(size, size)

    monkeypatch.setattr(cupy.cuda.MemoryPool, "malloc", malloc)
    Problem().check(get_backend("cupy"), monkeypatch)
    (message,) = caplog.messages
    assert "OutOfMemoryError" in message


def test_an_interrupt_ends_the_capture(soon, monkeypatch):
    """And the garbage collector, which stands still during a capture, runs again."""
    backend = get_backend("cupy")
    was_on = []

    def interrupted(x, *, xp):
        if cupy.cuda.get_current_stream().is_capturing():
            was_on.append(gc.isenabled())
            raise KeyboardInterrupt
        return cupy.ascontiguousarray(x), lambda dy: dy  # This cannot be traced.

    problem = Problem(network=network_of(9, activation=interrupted))
    trainer = problem.trainer(backend)
    with pytest.raises(KeyboardInterrupt):
        problem.train(trainer)
    assert was_on == [False]
    assert gc.isenabled()
    stream = captured._streams.on(0)[0]
    assert not stream.is_capturing()
    assert cupy.cuda.get_current_stream() == cupy.cuda.Stream.null


def test_streamed_data_run_step_by_step_and_log_it_once(soon, caplog):
    backend, problem = get_backend("cupy"), Problem()
    data = put_data(backend, problem.x, problem.y, problem.dtype, "streamed")
    trainer = problem.trainer(backend)
    with caplog.at_level("INFO"):
        problem.train(trainer, data=data)
    assert "graph" not in _launch.launches
    said = "Training steps run one by one, as their batches are streamed from the host."
    assert caplog.messages == [said]
