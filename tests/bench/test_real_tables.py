"""Real tables: scores, differences, and runs that continue."""

import json

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import log_loss

SETS = ["diabetes", "cells"]
WHO = ["mlp_xp, recipe table", "scikit-learn MLP, pipeline", "LightGBM"]


@pytest.fixture
def study(module):
    return module("bench.studies.real_tables")


@pytest.fixture
def models(module):
    return module("bench.studies.tables.models")


def test_both_tasks_have_enough_data_sets_and_six_are_set_aside(study):
    kinds = [table.task for table in study.SETS.values()]
    assert len(kinds) >= 18
    assert min(kinds.count("classification"), kinds.count("regression")) >= 8
    assert len(study.ASIDE) == 6


def test_a_fit_is_scored_on_the_held_out_fifth(models, monkeypatch):
    def make(X, is_regression, seed, threads):
        return DummyRegressor() if is_regression else DummyClassifier(strategy="prior")

    monkeypatch.setitem(models.CONTENDERS, "LightGBM", make)
    X, y = models.ALL["breast_cancer"].load(most_rows=100)
    assert (X.shape, y.shape) == ((100, 30), (100,))
    found = models.fit("breast_cancer", "LightGBM", 0, rows=100)
    least = np.unique(y, return_counts=True)[1].min() / 100
    assert found["error"] == pytest.approx(least, abs=0.03)
    assert models.fit("diabetes", "LightGBM", 0)["rmse"] == pytest.approx(1, abs=0.1)


def test_log_loss_matches_scikit_learn_and_is_finite_for_unseen_classes(models):
    X, y = np.zeros((8, 1)), np.asarray(["a", "b", "b", "b"] * 2)
    model = DummyClassifier(strategy="prior").fit(X, y)
    found = models.scores(model, X, y, None)
    assert found == {"log_loss": pytest.approx(log_loss(y, model.predict_proba(X))), "error": 0.25}
    assert models.scores(model, X[:1], np.asarray(["c"]), None)["log_loss"] < 17


@pytest.fixture
def file(study, monkeypatch, tmp_path):
    """A run of two sets, three contenders and four splits, which a failure stopped once."""
    measured = []

    def measure(fit, name, contender, splits, own):
        for split in splits:
            measured.append((name, contender, split))
            if len(measured) == 15:  # Once.
                raise KeyboardInterrupt
            loss = (1.0, 1.1, 1.21)[WHO.index(contender)] * (1 + split / 10)
            if contender == WHO[2] and name == "diabetes":
                loss /= 2
            keys = ("rmse",) if name == "diabetes" else ("log_loss", "error")
            yield split, {"seconds": 2.0, **dict.fromkeys(keys, loss)}

    monkeypatch.setattr(study, "measure", measure)
    file = tmp_path / "a.json"
    words = ["--sets", *SETS, "--contenders", *WHO, "--splits", "4", "--into", str(file)]
    with pytest.raises(KeyboardInterrupt):
        study.main(words)
    study.main(words)
    assert (len(measured), len({*measured})) == (25, 24)
    return file


def test_an_interrupted_study_resumes_and_compares_paired_splits(study, file):
    results = json.loads(file.read_text())[study.ON_CORES]["results"]
    assert sum(len(runs) for each in results.values() for runs in each.values()) == 24
    names, every = study.measured(results)
    assert names == WHO
    table = study.contenders_table(names, every)
    # LightGBM is best on one set and worst on the other.
    ranks = [[WHO[0], "1.50", "1", "2"], [WHO[2], "2.00", "1", "1"], [WHO[1], "2.50", "0", ""]]
    assert [row[:4] for row in table.rows] == ranks
    by_name = {row[0]: row[4:] for row in table.rows}
    assert by_name[WHO[0]] == ["", "2 s"]
    assert by_name[WHO[1]] == ["9.5 ± 0.0", "2 s"]  # log(1.1) on both sets
    networks, *_ = study.differences_tables(names, every)
    assert networks.rows[0][1] == "9.5 ± 0.0"
    heads = study.by_set(study.CONTENDERS, {}).columns
    assert max(map(len, heads)) < 12  # Nine columns fit the page.


def test_confidence_interval_accounts_for_overlapping_training_sets(study):
    ours, theirs = np.ones(4), np.exp([0.1, 0.2, 0.3, 0.4])
    mean, half = study.over_splits(ours, theirs)
    assert mean == pytest.approx(0.25)
    # t of 3 degrees of freedom, 3.182, times the deviation, times sqrt(1 / 4 + 0.2 / 0.8)
    assert half == pytest.approx(3.1824 * 0.1290994 * 0.5**0.5, rel=1e-4)


def test_a_record_does_not_mix_numbers_of_rows(study, file):
    with pytest.raises(SystemExit, match="has rows 20000, not 50: "):
        study.main(["--sets", "cells", "--into", str(file), "--rows", "50"])
