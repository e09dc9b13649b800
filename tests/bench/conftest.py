"""A run of the benchmarks with made-up figures, and the modules of the folder."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
OURS = "mlp_xp, NumPy"


@pytest.fixture
def module(monkeypatch):
    """Import a file of the folder."""
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module


@pytest.fixture
def speedrun(monkeypatch):
    monkeypatch.syspath_prepend(BENCH.parent)
    return importlib.import_module("bench.speedrun")


@pytest.fixture
def result(module):
    """What a run writes, with made-up figures."""
    workloads = {workload.name: workload for workload in module("workloads").SUITE}
    roofline = module("roofline")

    def run(seconds, precision="float32"):
        noisy = [0.9 * seconds, seconds, seconds, seconds, 1.2 * seconds]
        return {
            "seconds": noisy,
            "losses": [2.0, 1.0],
            "peak_bytes": 300_000_000,
            "thread_pools": ["openblas 0.3 2 threads"],
            "precision": precision,
            "data": "scaled",
        }

    def measured(name, **contenders):
        workload = workloads[name]
        least = roofline.roofline(workload, workload.n_images, 2e11, 3e10)
        return {
            **workload._asdict(),
            "title": workload.title,
            "images": workload.n_images,
            "data": "CIFAR-10",
            "pixels": 1000,
            "steps": 80,
            "state_bytes": 4000,
            "machine": {"product, NumPy": run(0.1), "copy": run(0.01)},
            "floor": {
                **least._asdict(),
                "seconds": least.seconds,
                "product": "product, NumPy",
                "product_rate": 2e11,
                "copy_rate": 3e10,
            },
            "contenders": contenders,
        }

    reason = {"cannot_run": "ModuleNotFoundError: No module named 'thinc'"}
    broken = reason | {"precision": "float32", "data": "scaled"}
    return {
        "environment": {
            "date": "2026-01-02 03:04:05 +0000",
            "cpu": "Some CPU",
            "cpus": 2,
            "system": "Linux",
            "python": "3.13",
            "versions": {"numpy": "2.4"},
            "thread_pools": [],
        },
        "settings": {"quick": False, "rounds": 5, "threads": 2, "images": None},
        "workloads": {
            "medium": measured(
                "medium",
                **{OURS: run(0.7), "JAX": run(0.8), "torch": run(0.9), "thinc": broken},
                **{"mlp_xp, torch, bf16": run(0.3, "bfloat16")},
                **{"torch, bfloat16 autocast": run(0.45, "bfloat16")},
            ),
            "one-row": measured("one-row", **{OURS: run(1e-5), "scikit-learn": run(2e-5)}),
        },
        "startup": {
            "imports": {"mlp_xp": run(1.03), "scikit-learn": run(1.0), "thinc": reason}
            | {"mlp_xp, after scikit-learn": run(0.03)},
            "first_steps": {OURS: run(0.5), "scikit-learn": run(0.1), "thinc": reason},
        },
        "end_to_end": {
            "epochs": 12,
            "data_bytes": 150_000_000,
            "state_bytes": 50_000_000,
            "runs": {
                "mlp-xp train": {
                    "seconds": 40.0,
                    "training_seconds": 38.0,
                    "test_accuracy": 0.55,
                    "peak_bytes": 500_000_000,
                },
                "torch script": {"cannot_run": "ModuleNotFoundError: torch"},
            },
        },
        "drop_in": {
            "lbfgs, iris, threads 1": {
                "case": "lbfgs, iris",
                "threads": "1",
                "wanted": 1.1,
                "contenders": {
                    OURS: run(0.1),
                    f"{OURS}, without numba": run(0.2),
                    "scikit-learn": run(0.18),
                },
            }
        },
        "growth": {
            title: [
                {"value": value, "contenders": {OURS: run(value / 1e3), "torch": reason}
                 | {"JAX": run(1), "scikit-learn": run(2)}}
                for value in sweep
            ]
            for title, sweep in module("growth").SWEEPS.items()
        },
    }  # fmt: skip
