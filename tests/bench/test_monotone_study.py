"""Losses and violations of constrained models on real tables."""

import pandas as pd
import pytest

from mlp_xp import MLPRegressor


@pytest.fixture
def study(module):
    return module("bench.studies.monotone")


@pytest.mark.parametrize(("slope", "some"), [(1.0, False), (-1.0, True)])
def test_predictions_in_the_wrong_direction_are_counted(study, slope, some):
    X = pd.DataFrame({"a": [0.0, 1.0, 2.0], "b": [1.0, 0.0, 1.0]})
    settings = {"hidden_layer_sizes": (), "solver": "lbfgs", "alpha": 0.0, "random_state": 0}
    model = MLPRegressor(**settings).fit(X, slope * X["a"] + 3.0 * X["b"])
    assert (study.violations(model, X, {"a": 1}, 0, 50) == 50) is some


def test_losses_are_compared_with_the_constrained_recipe(study):
    def runs(rmse):
        return [{"seconds": 1.0, "rmse": rmse, "violations": 2}]

    done = {study.OURS: runs(1.0), study.THEIRS: runs(1.1)}
    (found,) = study.tables({"slid": done, "loans": {study.OURS: runs(1.0)}})
    assert found.rows == [
        ["slid", "education rises", "1.0000 (+0.0%)", "1.1000 (+10.0%)", "2"],
        ["mean", "", "+0.0%", "+10.0%", ""],
    ]
