"""Tuned and bagged contenders on real tables: folds, ensembles, time limits and reports."""

import json
import time

import numpy as np
import pandas as pd
import pytest
from scipy.stats import uniform
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss

SETS = ["slid", "cars"]
WHO = ["mlp_xp, recipe table-tuned", "CatBoost, tuned and bagged", "mlp_xp, recipe table"]


@pytest.fixture
def study(module):
    return module("bench.studies.tuned_tables")


@pytest.fixture
def tuned(module):
    return module("bench.studies.tables.tuned")


def test_no_setting_was_chosen_by_the_sets(study, module):
    sets = module("bench.studies.tables.sets")
    assert len(study.SETS) == 12
    assert not study.SETS.keys() & sets.DEVELOPMENT.keys()


def test_an_ensemble_is_selected_by_its_loss(tuned):
    y = np.asarray([0.0, 0.0, 0.0])
    values = np.asarray([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0], [9.0, 9.0, 9.0]])
    weights = tuned.select(values, lambda mean: float(np.mean((mean - y) ** 2)))
    assert weights.tolist() == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("is_regression", [False, True])
def test_configurations_are_tried_on_the_same_folds_and_bagged(tuned, monkeypatch, is_regression):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(60, 3)))
    y = X[0].to_numpy() if is_regression else np.where(X[0] > 0, "b", "a")
    seen = []

    def fit_one(**settings):
        strength = settings.get("strength", 1e-4)

        def fit(X, y, X_val, y_val, stop):
            seen.append((strength, tuple(X_val.index)))
            kind = Ridge(1 / strength) if is_regression else LogisticRegression(C=strength)
            return kind.fit(X, y)

        return fit

    monkeypatch.setattr(tuned, "_MOST_CONFIGURATIONS", 3)
    space = {"strength": uniform(50, 50)}
    model = tuned.BaggedTrees(fit_one, space, is_regression=is_regression, seed=0, budget=1e9)
    model.fit(X, y)
    assert len(seen) == 4 * tuned.N_FOLDS
    folds = {s: [rows for other, rows in seen if other == s] for s, _ in seen}
    assert len(folds) == 4
    assert all(each == folds[1e-4] for each in folds.values())
    assert sorted(row for rows in folds[1e-4] for row in rows) == [*range(60)]
    if is_regression:
        assert np.corrcoef(model.predict(X), y)[0, 1] > 0.99
    else:  # The first configuration predicts 0.5 for every row.
        assert model.classes_.tolist() == ["a", "b"]
        assert log_loss(y, model.predict_proba(X)) < 0.4
        assert np.mean(model.predict(X) == y) > 0.9


def test_a_budget_ends_the_search_and_each_fold(tuned):
    X, y = pd.DataFrame(np.zeros((20, 1))), np.arange(20.0)
    stops = []

    def fit_one(**settings):
        def fit(X, y, X_val, y_val, stop):
            stops.append(stop)
            return Ridge().fit(X, y)

        return fit

    start = time.perf_counter()
    settings = {"is_regression": True, "seed": 0, "budget": -1.0}
    tuned.BaggedTrees(fit_one, {"a": uniform(0, 1)}, **settings).fit(X, y)
    assert len(stops) == tuned.N_FOLDS  # The first configuration is always tried.
    assert all(stop < start + 1 for stop in stops)


def test_ranges_have_both_ends(tuned):
    rng = np.random.RandomState(0)
    drawn = {tuned.LIGHTGBM["num_leaves"].rvs(random_state=rng) for _ in range(3000)}
    assert {min(drawn), max(drawn)} == {2, 200}
    depths = {tuned.CATBOOST["depth"].rvs(random_state=rng) for _ in range(200)}
    assert depths == {4, 5, 6, 7, 8}


def test_a_run_keeps_its_budget_and_says_where_others_win(
    study, module, monkeypatch, tmp_path, capsys
):
    tables, file, budgets = module("bench.studies.real_tables"), tmp_path / "a.json", set()

    def measure(fit, name, contender, splits, own):
        budgets.add(own["budget"])
        for split in splits:
            loss = (1.0, 1.1, 1.2)[WHO.index(contender)] * (1 + split / 10)
            if contender == WHO[1] and name == "cars":
                loss /= 2
            yield split, {"seconds": 2.0, "rmse": loss}

    monkeypatch.setattr(tables, "measure", measure)
    words = ["--sets", *SETS, "--contenders", *WHO, "--budget", "20", "--into", str(file)]
    study.main(words)
    printed = capsys.readouterr().out
    assert budgets == {20.0}
    names, every = study.measured(json.loads(file.read_text())[study.PART]["results"])
    everyone, tuned = study.tables(names, every)
    assert "better than tuned CatBoost on" in everyone.columns
    assert [row[0] for row in tuned.rows] == [*WHO[:2]]
    won = "Others have the lowest loss on 1 of 2 sets: cars (CatBoost, tuned and bagged)."
    assert study.trees_win(names, every) == won
    assert won in printed
    words[words.index("20")] = "30"
    with pytest.raises(SystemExit, match=r"has budget 20.0, not 30.0: "):
        study.main(words)


def test_a_run_says_where_to_write(study, capsys):
    with pytest.raises(SystemExit):
        study.main(["--budget", "20"])
    assert "the following arguments are required: --into" in capsys.readouterr().err
