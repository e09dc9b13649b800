"""The comparison with peers: its arithmetic, and what it writes."""

from __future__ import annotations

import copy
import json

import pytest

OURS = "mlp_xp, NumPy"


def test_the_roofline_is_that_of_a_count_by_hand(module):
    roofline = module("roofline")
    # Forward 3*4 + 4*2, the same again for dW, and dx of the last layer only; 2 for each of 5 rows.
    assert roofline.operations((3, 4, 2), 5, train=True) == 2 * 5 * (20 + 20 + 8)
    assert roofline.operations((3, 4, 2), 5, train=False) == 2 * 5 * 20
    assert roofline.n_parameters((3, 4, 2)) == 3 * 4 + 4 + 4 * 2 + 2
    for rule, arrays, steps in (("adam", 7, 6), ("sgd", 5, 6), ("descent", 3, 1)):
        found = roofline.update_bytes((3, 4, 2), rule, steps=steps)
        assert found == 26 * 4 * arrays * steps, rule
    assert roofline.state_bytes((3, 4, 2), "adam") == 26 * 4 * 3
    # Products and updates follow one another.
    workload = module("workloads").SUITE[0]._replace(widths=(3, 4, 2), batch_size=2)
    least = roofline.roofline(workload, 5, product_rate=480.0, copy_rate=26 * 4 * 7.0)
    assert (least.product_seconds, least.update_seconds, least.seconds) == (1.0, 3.0, 4.0)
    assert roofline.roofline(workload._replace(kind="predict"), 5, 200.0, 1.0).seconds == 1.0


def test_a_change_is_one_beyond_the_noise(module):
    # A slow turn of the machine doubles both, and leaves their ratio alone.
    got = module("spread").ratio([2.0, 4.0, 2.0], [1.0, 2.0, 1.0])
    assert (got.median, got.noise) == (2.0, 0.0)
    for after, said in (
        ([2.0, 2.0, 2.0], "100% slower"),
        ([0.5, 0.5, 0.5], "50% faster"),
        ([1.02, 1.02, 1.02], "within the noise"),  # less than 3 %
        ([0.9, 1.3, 1.7], "within the noise"),  # less than its own spread
    ):
        assert module("compare").verdict([1.0, 1.0, 1.0], after) == said


def test_compare_tells_changes_versions_and_what_is_missing(module, result, tmp_path, capsys):
    after = copy.deepcopy(result)
    contenders = after["workloads"]["medium"]["contenders"]
    contenders["JAX"]["seconds"] = [2 * t for t in contenders["JAX"]["seconds"]]
    del contenders["torch"]
    after["environment"]["versions"]["numpy"] = "2.5"
    for name, run in {"before": result, "after": after}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps(run))
    module("compare").main([str(tmp_path / "before"), str(tmp_path / "after")])
    text = capsys.readouterr().out
    assert "- numpy: 2.4, then 2.5" in text
    assert "| medium | JAX | 800 ms | 1.6 s | 100% slower |" in text
    assert "1 changed, " in text
    assert "- medium, torch: timed, then not measured" in text
    assert "- medium, thinc: cannot run (ModuleNotFoundError" in text
    with pytest.raises(SystemExit):
        module("compare").main([str(tmp_path), str(tmp_path)])
    assert "result.json does not exist; expected a folder that" in capsys.readouterr().err


def test_a_ratio_below_its_floor_is_reported(module, result):
    shortfalls, medium = module("regressions").shortfalls, result["workloads"]["medium"]
    floors = {
        "medium": {"JAX": 1.1},
        "one-row": {"scikit-learn": 1.9},
        "lbfgs, iris, threads 1": {"scikit-learn": 1.7},
    }
    assert shortfalls(result, floors) == []
    (problem,) = shortfalls(result, {"medium": {"JAX": 1.3}})
    assert problem.startswith("medium: JAX takes 1.14 times our seconds")
    # A peer that cannot run does not pass.
    without = shortfalls(result, {"medium": {"thinc": 1.0}, "wide": {"JAX": 1.0}})
    assert without[0] == (
        "medium, thinc: not compared; thinc: ModuleNotFoundError: No module named 'thinc'"
    )
    assert without[1].startswith("wide, JAX: not compared; ")
    # Noise is not held against a ratio.
    medium["contenders"]["JAX"]["seconds"] = [0.5, 0.7, 0.8, 0.9, 1.2]
    assert shortfalls(result, {"medium": {"JAX": 1.2}}) == []
    # The fraction of the roofline has a floor too.
    medium["contenders"][OURS]["seconds"] = [0.4] * 5
    medium["floor"]["seconds"] = 0.2
    assert shortfalls(result, {"medium": {"roofline": 0.5}}) == []
    (problem,) = shortfalls(result, {"medium": {"roofline": 0.6}})
    assert problem.startswith("medium: roofline takes 0.50 times our seconds")


def test_recorded_floors_name_what_a_quick_run_measures(module):
    regressions, drop_in, contenders = map(module, ("regressions", "drop_in", "contenders"))
    quick = {
        workload.name: set(contenders.entries(workload, quick=True))
        for workload in module("workloads").QUICK
    }
    quick |= {name: {"scikit-learn"} for name in drop_in.quick_names()}
    floors = json.loads(regressions.FLOORS.read_text())
    assert floors
    for name, peers in floors.items():
        assert set(peers) <= quick[name] | {"roofline"}
    # Each case of the drop-in part that a quick run measures, and each kind, is held to a floor.
    assert set(drop_in.quick_names()) <= set(floors)
    assert {case.kind for case in drop_in.CASES.values() if case.quick} == set(drop_in.WANTED)


def test_targets_are_of_our_own_and_of_the_fastest_peer_in_float32(module, result):
    reached = {target.name: target for target in module("targets").targets(result)}
    medium = reached[f"medium: {OURS} against the fastest float32 peer (JAX)"]
    assert (medium.measured, medium.met) == ("1.14 (1.14 to 1.14)", False)
    bf16 = reached["medium: mlp_xp, torch, bf16 against torch, bfloat16 autocast"]
    assert bf16.met
    name = "mlp-xp train: peak memory beyond uint8 images, parameters and optimizer state"
    memory = reached[name]
    assert (memory.measured, memory.met) == ("300 MB", False)
    name = "import of MLPClassifier, after that of scikit-learn's"
    assert (reached[name].measured, reached[name].met) == ("30 ms", True)
    assert reached[f"{OURS}: first step after the import"].met
    assert not any(name.startswith("wide") for name in reached)
    result["settings"]["images"] = 64  # Fewer images have no target.
    assert module("targets").targets(result) == []


@pytest.mark.matrix
def test_import_after_scikit_learns_is_shorter(module):
    startup = module("startup")
    alone, after = startup.measure_process("mlp_xp"), startup.measure_process(startup.AFTER)
    assert 0 < after[0] < alone[0] / 2
    assert after[1] > 0


def test_charts_are_drawn_from_a_record(module, result, tmp_path):
    charts = module("charts")
    (tmp_path / "result.json").write_text(json.dumps(result))
    charts.main([str(tmp_path), "--out", str(tmp_path)])
    for name in ("epochs.png", "growth.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        (tmp_path / name).unlink()
    axis = charts.epochs_figure([result["workloads"]["medium"]]).axes[0]
    lengths = [bar.get_width() for bar in axis.patches]
    assert lengths == sorted(lengths, reverse=True)
    assert {text.get_text() for text in axis.texts} == {f"{length:,.0f}" for length in lengths}
    # They need no contender that ran.
    result["workloads"]["medium"]["contenders"] = {OURS: {"cannot_run": "killed"}}
    result["workloads"]["one-row"]["contenders"] = {}
    charts.draw(result | {"growth": {}}, tmp_path)
    assert not (tmp_path / "epochs.png").exists()


def test_a_chart_has_the_fastest_way_of_each_library_and_precision(module):
    def run(seconds, precision="float32"):
        return {"seconds": [seconds] * 2, "precision": precision}

    contenders = {
        "mlp_xp, NumPy": run(2.0),
        "mlp_xp, NumPy, from uint8": run(1.0),
        "torch": run(4.0),
        "torch, compiled": run(5.0),
        "torch, bfloat16 autocast": run(8.0, "bfloat16"),
        "thinc": {"cannot_run": "missing", "precision": "float32"},
    }
    ways = module("charts").fastest_ways({"images": 8, "contenders": contenders})
    assert {name: bar.median for name, bar in ways.items()} == {
        "mlp_xp, NumPy, from uint8": 8.0,
        "torch": 2.0,
        "torch, bfloat16 autocast": 1.0,
    }
