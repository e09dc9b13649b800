"""Steps in CUDA graphs compute what they do one by one, on each backend that has graphs."""

import numpy as np
import pytest
from loop_problem import CASES, Problem, numbers

pytestmark = [pytest.mark.matrix, pytest.mark.libraries("cupy", "torch:cuda")]


@pytest.mark.parametrize("name", CASES)
def test_captured_steps_compute_what_eager_steps_do(backend, name, soon, monkeypatch, caplog):
    problem, captures = Problem(**CASES[name]), []
    expected = problem.eagerly(backend, monkeypatch)
    trainer = problem.trainer(backend)
    capture = trainer._loop._graphs.capture
    noted = lambda *arguments: captures.append(1) or capture(*arguments)  # noqa: E731
    monkeypatch.setattr(trainer._loop._graphs, "capture", noted)
    found = numbers(trainer, problem.train(trainer))
    assert captures
    assert not caplog.messages  # Nothing was refused.
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
