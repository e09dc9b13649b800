"""A grid of trainings and what they compute, recorded before a redesign that may change none of it.

``python tests/net.py --record`` writes `tests/net.json`, which `tests/test_net.py` compares with.
To compare two revisions bit for bit on one machine, on every backend that it has::

    PYTHONPATH=old python tests/net.py > old.txt
    PYTHONPATH=new python tests/net.py | diff old.txt -
"""

import argparse
import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")  # As conftest.py.

import joblib
import numpy as np
from net_cases import CASES, data
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_info

from mlp_xp import MLPClassifier, get_backend
from mlp_xp.backends._numpy.native.thread_pool import can_compile, has_bfloat16

REFERENCE = Path(__file__).with_suffix(".json")
# Backends, and for NumPy who computes a step: numpy's functions, or machine code.
NUMPY_MODES = ("numpy", "numpy+machine code")
MODES = (*NUMPY_MODES, "numpy+machine code+all threads", "torch:cpu", "jax:cpu", "array_api_strict")
LISTS = ("coefs_", "intercepts_", "norms_", "moments_")
NUMBERS = (
    "loss_", "best_loss_", "loss_curve_", "validation_scores_", "validation_loss_curve_",
    "best_validation_score_", "n_iter_", "t_", "n_layers_", "n_outputs_",
)  # fmt: skip


def observe(model: Any, X: Any) -> dict[str, np.ndarray]:
    """Return what the fitted model has learned, reports and predicts, as arrays of NumPy."""
    found: dict[str, Any] = {}
    for name in LISTS:
        for i, entry in enumerate(getattr(model, name, [])):
            for j, array in enumerate(entry if isinstance(entry, tuple) else (entry,)):
                found[f"{name}[{i}]" + (f"[{j}]" if isinstance(entry, tuple) else "")] = array
    for name in NUMBERS:
        value = getattr(model, name, None)
        found[name] = np.asarray([] if value is None else value)
    found |= getattr(model, "observed", {})
    if X.shape[1] > 500:  # Test-time averaging takes up to 50 views of a picture.
        found["predict_proba"] = model.predict_proba(X[:2])
        return {name: _host(value) for name, value in found.items()}
    found["predict"] = model.predict(X)
    if isinstance(model, MLPClassifier):
        found["predict_proba"] = model.predict_proba(X)
        found["logits"] = model.logits(X)
        if found["predict"].dtype.kind == "U":
            found["predict"] = np.searchsorted(model.classes_, found["predict"])
    return {name: _host(value) for name, value in found.items()}


def _host(value: Any) -> np.ndarray:
    is_array = hasattr(value, "shape") and not isinstance(value, np.generic)
    return np.asarray(get_backend(value).get(value) if is_array else value)


def compute(name: str, mode: str) -> dict[str, np.ndarray] | None:
    """Train a case of the grid and observe it; None where the backend cannot."""
    case, (spec, *by) = CASES[name], mode.split("+")
    has_low = spec.startswith(("torch", "jax")) or (
        spec == "numpy" and can_compile() and has_bfloat16()
    )
    if case.precision == "bfloat16" and not has_low:
        return None
    X, y = data(case.kind)
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", ConvergenceWarning)
        if spec == "numpy":
            stack.enter_context(machine_code("machine code" in by, "all threads" in by))
        return observe(case.act(case.make(spec), X, y), X)


@contextlib.contextmanager
def machine_code(is_wanted: bool, all_threads: bool = False) -> Iterator[None]:
    """Decide whether machine code computes on NumPy, which else follows from the work.

    The seam is the backend's `training(work, n_steps, ...)` and `predicting(work)`.
    """
    kind, most = type(get_backend("numpy")), 10**12
    training, predicting = kind.training, kind.predicting

    def train(self, work, n_steps=1, *sizes):
        return training(self, most if all_threads else work, most if is_wanted else 0)

    kind.training = train
    kind.predicting = lambda self, work: predicting(self, most if is_wanted else 0)
    try:
        yield
    finally:
        kind.training, kind.predicting = training, predicting


FEW, N_PROJECTIONS = 12, 3


def short(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a few numbers that stand for an array, and what their errors are measured by.

    Small arrays stand for themselves. Of others there are the sum, the sum of absolute values and
    random projections.
    """
    values = array.astype(np.float64).ravel()
    if values.size <= FEW:
        return values, np.full(values.shape, np.max(np.abs(values), initial=0.0))
    rng = np.random.RandomState(values.size % 1000)
    projections = [values @ rng.standard_normal(values.size) for _ in range(N_PROJECTIONS)]
    total, norm = float(np.sum(np.abs(values))), float(np.linalg.norm(values))
    kept = np.asarray([np.sum(values), total, *projections])
    return kept, np.asarray([total, total, *[norm] * N_PROJECTIONS])


def digest(array: np.ndarray) -> str:
    """Return the first half of the SHA-256 of an array's bytes, dtype and shape."""
    content = f"{array.dtype.str} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def fingerprint() -> dict[str, Any]:
    """Return what the last bits on NumPy depend on, beside the code."""
    keys, pools = ("internal_api", "version", "architecture", "num_threads"), threadpool_info()
    blas = [{key: pool.get(key) for key in keys} for pool in pools if pool["user_api"] == "blas"]
    blas = sorted({json.dumps(pool, sort_keys=True) for pool in blas})
    libraries = {name: version(name) for name in ("numpy", "scipy", "scikit-learn")}
    return libraries | {
        "numba": version("numba") if find_spec("numba") else None,
        "blas": blas,
        "cpu": np.show_config(mode="dicts")["SIMD Extensions"]["found"],
        "cores": joblib.cpu_count(),
    }


def lines(mode: str, cases: Iterable[str] = CASES) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a title for each array of the cases that a mode can train, and what is kept of it."""
    for case in cases:
        for name, array in (compute(case, mode) or {}).items():
            kept = {"shape": list(array.shape), "dtype": array.dtype.name}
            kept |= {"values": short(array)[0].tolist(), "digest": digest(array)}
            yield f"{case}/{name}", kept


def usable(mode: str) -> bool:
    """Whether the libraries of a mode are installed."""
    spec, *by = mode.split("+")
    name, _, device = spec.partition(":")
    try:
        get_backend(name, device or None)
    except (ImportError, RuntimeError):
        return False
    return not by or find_spec("numba") is not None


def record() -> None:
    """Write the reference: values of the first mode that can train a case, and NumPy's digests."""
    plain, compiled = (dict(lines(mode)) for mode in NUMPY_MODES)
    missing = [case for case in CASES if f"{case}/loss_" not in plain]
    content = {"fingerprint": fingerprint()}
    for title, kept in (plain | dict(lines("torch:cpu", missing))).items():
        found = [mode.get(title, {}).get("digest") for mode in (plain, compiled)]
        content[title] = {key: kept[key] for key in ("shape", "dtype", "values")}
        content[title]["digests"] = found
    rows = [f"{json.dumps(title)}: {json.dumps(kept)}" for title, kept in content.items()]
    REFERENCE.write_text("{\n" + ",\n".join(rows) + "\n}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help=f"write {REFERENCE.name}")
    parser.add_argument("--modes", default="", help=f"comma-separated, of {', '.join(MODES)}")
    options = parser.parse_args()
    if options.record:
        record()
        return
    modes = filter(None, options.modes.split(",")) if options.modes else filter(usable, MODES)
    for mode in modes:
        for title, kept in lines(mode):
            print(f"{mode}/{title}: {json.dumps(kept)}", flush=True)


if __name__ == "__main__":
    main()
