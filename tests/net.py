"""A grid of trainings and what they compute, recorded before a redesign that may change none of it.

``python tests/net.py --record`` writes `tests/net.json`, which `tests/test_net.py` compares with.
To compare two revisions bit for bit on one machine, on every backend that it has::

    PYTHONPATH=old python tests/net.py --dump FILE
    PYTHONPATH=new python tests/net.py --against FILE
"""

import argparse
import contextlib
import hashlib
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")  # As conftest.py.

import joblib
import numpy as np
import scipy
import sklearn
from net_cases import CASES, data
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_info

from mlp_xp import MLPClassifier, get_backend

REFERENCE = Path(__file__).with_suffix(".json")
# Backends, and for NumPy who computes a step: numpy's functions, or machine code.
NUMPY_MODES = ("numpy", "numpy+machine code")
MODES = (*NUMPY_MODES, "numpy+machine code+all threads", "torch:cpu", "jax:cpu", "array_api_strict")
# --- what is observed -----------------------------------------------------------------------------

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
    if case.precision == "bfloat16" and not spec.startswith(("torch", "jax")):
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

    The seam is the backend's `training(work, n_steps, sparse_work)` and `predicting(work)`.
    """
    kind, most = type(get_backend("numpy")), 10**12
    training, predicting = kind.training, kind.predicting

    def train(self, work, n_steps=1, sparse_work=0):
        return training(self, most if all_threads else work, most if is_wanted else 0)

    kind.training = train
    kind.predicting = lambda self, work: predicting(self, most if is_wanted else 0)
    try:
        yield
    finally:
        kind.training, kind.predicting = training, predicting


# --- how it is kept and compared ------------------------------------------------------------------

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
    try:
        import numba

        compiler = numba.__version__
    except ImportError:
        compiler = None
    keys, pools = ("internal_api", "version", "architecture", "num_threads"), threadpool_info()
    blas = [{key: pool.get(key) for key in keys} for pool in pools if pool["user_api"] == "blas"]
    blas = sorted({json.dumps(pool, sort_keys=True) for pool in blas})
    return {
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "sklearn": sklearn.__version__,
        "numba": compiler,
        "blas": blas,
        "cpu": np.show_config(mode="dicts")["SIMD Extensions"]["found"],
        "cores": joblib.cpu_count(),
    }


def entry(array: np.ndarray) -> dict[str, Any]:
    """Return what a file keeps of an array."""
    kept = {"shape": list(array.shape), "dtype": array.dtype.name}
    return kept | {"values": short(array)[0].tolist(), "digest": digest(array)}


def compute_all(modes: tuple[str, ...], cases: Any = CASES) -> dict[str, Any]:
    """Return entries by mode, case and array, and print the time of each mode."""
    found: dict[str, Any] = {}
    for mode in modes:
        start, slowest = time.perf_counter(), (0.0, "")
        for case in cases:
            begun = time.perf_counter()
            arrays = compute(case, mode)
            if arrays is not None:
                found.setdefault(mode, {})[case] = {n: entry(a) for n, a in arrays.items()}
            slowest = max(slowest, (time.perf_counter() - begun, case))
        seconds, (longest, case) = time.perf_counter() - start, slowest
        print(f"{mode}: {seconds:.1f} s, the longest is {case!r}, {longest:.1f} s", flush=True)
    return found


def usable_modes() -> tuple[str, ...]:
    """Return the modes whose libraries are installed."""
    usable = []
    for mode in MODES:
        spec, *by = mode.split("+")
        name, _, device = spec.partition(":")
        with contextlib.suppress(ImportError, RuntimeError):
            get_backend(name, device or None)
            if by:
                import numba  # noqa: F401
            usable.append(mode)
    return tuple(usable)


def record() -> None:
    """Write the reference: values of the first mode that can train a case, and NumPy's digests."""
    found = compute_all(NUMPY_MODES)
    found |= compute_all(("torch:cpu",), [name for name in CASES if name not in found["numpy"]])
    lines = []
    for case in CASES:
        plain = found["numpy"].get(case) or found["torch:cpu"][case]
        for array, kept in plain.items():
            both = [found[mode].get(case, {}).get(array) for mode in NUMPY_MODES]
            kept = {key: value for key, value in kept.items() if key != "digest"}
            kept["digests"] = [found and found["digest"] for found in both]
            lines.append(f"{json.dumps(f'{case}/{array}')}: {json.dumps(kept)}")
    head = f'"fingerprint": {json.dumps(fingerprint())}'
    REFERENCE.write_text("{\n" + ",\n".join([head, *lines]) + "\n}\n")
    print(f"{REFERENCE}: {len(CASES)} cases, {len(lines)} arrays")


def compare(old: dict[str, Any], modes: tuple[str, ...]) -> int:
    """Compare with a dump bit for bit; print what differs and return for how many arrays."""
    n_different = 0
    for mode in modes:
        new = compute_all((mode,))[mode]
        if mode not in old:
            print(f"{mode}: not in the dump")
            continue
        differences = []
        for case in dict.fromkeys([*old[mode], *new]):
            then, now = old[mode].get(case, {}), new.get(case, {})
            for array in dict.fromkeys([*then, *now]):
                told = difference(then.get(array), now.get(array))
                differences += [f"{case!r}, {array}: {told}"] if told else []
        n_different += len(differences)
        print(f"{mode}: {len(new)} cases, {len(differences)} arrays differ")
        for line in differences[:10]:
            print(f"  {line}")
    return n_different


def difference(old: dict[str, Any] | None, new: dict[str, Any] | None) -> str:
    """Return how two entries differ, "" if they do not."""
    if old is None or new is None:
        return "only in the " + ("new" if old is None else "old")
    for key in ("dtype", "shape"):
        if old[key] != new[key]:
            return f"{key} was {old[key]} and is {new[key]}"
    if old["digest"] == new["digest"]:
        return ""
    gaps = np.abs(np.asarray(old["values"]) - np.asarray(new["values"]))
    if not np.any(gaps > 0):
        return "bits differ, its recorded numbers do not"
    at = int(np.nanargmax(gaps))
    return f"was {old['values'][at]!r} and is {new['values'][at]!r} (number {at} that is kept)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--record", action="store_true", help=f"write {REFERENCE.name}")
    action.add_argument("--dump", type=Path, metavar="FILE", help="write what all modes compute")
    action.add_argument("--against", type=Path, metavar="FILE", help="compare with such a file")
    parser.add_argument("--modes", default="", help=f"comma-separated, of {', '.join(MODES)}")
    options = parser.parse_args()
    modes = tuple(filter(None, options.modes.split(","))) or usable_modes()
    if options.record:
        record()
        return 0
    if options.dump:
        found: dict[str, Any] = {}
        for mode in modes:  # What is done is kept if the rest is interrupted.
            found |= compute_all((mode,))
            options.dump.write_text(json.dumps(found))
        return 0
    return int(compare(json.loads(options.against.read_text()), modes) > 0)


if __name__ == "__main__":
    sys.exit(main())
