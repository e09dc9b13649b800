"""CuPy's steps that no CUDA graph can hold, on the stand-in: they run one by one, and say why."""

import gc

import cupy
import numpy as np
import pytest
from cupy import _launch
from loop_problem import Problem, network_of, numbers

from mlp_xp.backends import get_backend
from mlp_xp.backends._cupy import captured, cublaslt
from mlp_xp.training.data.placement import place

pytestmark = [
    pytest.mark.matrix,
    pytest.mark.libraries("cupy"),
    pytest.mark.usefixtures("no_counts"),
]


def waits(x, *, xp):
    """Return an activation that asks for a number."""
    largest = float(xp.max(xp.abs(x))) + 1.0
    return x / largest, lambda dy: dy / largest


def copies(x, *, xp):
    """Return an activation that sends numbers to the device."""
    factors = xp.asarray(np.linspace(0.5, 1.0, x.shape[-1]))
    return x * factors, lambda dy: dy * factors


@pytest.mark.parametrize(
    ("activation", "reason"), [(waits, "D2H transfers"), (copies, "H2D transfers")]
)
def test_a_function_that_waits_runs_step_by_step(activation, reason, soon, monkeypatch, caplog):
    backend = get_backend("cupy", "cuda:1")
    problem = Problem(network=network_of(9, activation=activation))
    problem.check(backend, monkeypatch)
    problem.train(problem.trainer(backend))  # The log says it once.
    (message,) = caplog.messages
    assert "run one by one" in message
    assert reason in message
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


def test_a_capture_without_memory_runs_step_by_step(soon, monkeypatch, caplog):
    backend, problem = get_backend("cupy"), Problem()

    def malloc(self, size):
        raise cupy.cuda.memory.OutOfMemoryError(size, size)

    monkeypatch.setattr(cupy.cuda.MemoryPool, "malloc", malloc)
    problem.check(backend, monkeypatch)
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
        return x, lambda dy: dy

    problem = Problem(network=network_of(9, activation=interrupted))
    trainer = problem.trainer(backend)
    with pytest.raises(KeyboardInterrupt):
        problem.train(trainer)
    assert was_on == [False]
    assert gc.isenabled()
    stream = captured._streams.on(0)[0]
    assert not stream.is_capturing()
    assert cupy.cuda.get_current_stream() == cupy.cuda.Stream.null


def test_streamed_data_run_step_by_step_and_say_so_once(soon, caplog):
    backend, problem = get_backend("cupy"), Problem()
    data = place(backend, problem.x, problem.y, problem.dtype, "streamed")
    trainer = problem.trainer(backend)
    with caplog.at_level("INFO"):
        problem.train(trainer, data=data)
    assert "graph" not in _launch.launches
    said = "Training steps run one by one, as their batches are streamed from the host."
    assert caplog.messages == [said]
