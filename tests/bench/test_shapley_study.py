"""The study of Shapley values beside shap."""


def test_values_add_up_and_errors_are_within_the_tolerance(module):
    study, options = module("bench.studies.shapley"), module("bench.suite.turns").Options
    chosen = options(1, quick=True, contenders=[study.OURS])
    found = study.measure(chosen, lambda turn: None)
    (table,) = study.tables(found)
    assert not table.missing
    assert [row[:2] for row in table.rows] == [
        ["exact, 10 columns", study.OURS],
        ["exact, float64, 10 columns", study.OURS],
        ["sampled, 25 columns", study.OURS],
    ]
    exact, double, sampled = (found[case][study.OURS][0] for case in study.CASES)
    assert max(run["additivity"] for run in (exact, double, sampled)) < 1e-6
    assert exact["standard_error"] == 0 < sampled["standard_error"] <= 0.01


def test_a_missing_package_is_a_reason(module, monkeypatch):
    study, options = module("bench.studies.shapley"), module("bench.suite.turns").Options
    reason = {"cannot_run": "ModuleNotFoundError: No module named 'shap'"}
    monkeypatch.setattr(study, "call", lambda *_: reason)
    found = study.measure(options(1, contenders=[study.SHAP]), lambda turn: None)
    (table,) = study.tables(found)
    assert table.missing == {study.SHAP: reason["cannot_run"]}
    assert not table.rows
