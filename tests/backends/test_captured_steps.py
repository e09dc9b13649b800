"""Steps in CUDA graphs compute what they do one by one, on each backend that has graphs."""

import numpy as np
import pytest
from helpers import problem, small
from loop_problem import CASES, Problem, numbers

from mlp_xp.backends._cuda import captured
from mlp_xp.estimators.many import FitTask, fit_many

pytestmark = [pytest.mark.matrix, pytest.mark.libraries("cupy", "torch:cuda")]


@pytest.mark.parametrize("name", CASES)
def test_captured_steps_match_eager_steps(backend, name, soon, monkeypatch, caplog):
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


def test_steps_of_stacked_models_are_captured(on, soon, monkeypatch, caplog):
    captures, graph = [], captured._Steps.graph
    noted = lambda *given: captures.append(1) or graph(*given)  # noqa: E731
    monkeypatch.setattr(captured._Steps, "graph", noted)
    models = [small(alpha=alpha, batch_size=10, **on) for alpha in (1e-4, 1e-2, 1.0)]
    results = fit_many([FitTask(model, *problem(62)) for model in models])
    assert [result.error for result in results] == [None] * 3
    assert captures
    assert not caplog.messages  # Nothing was refused.
