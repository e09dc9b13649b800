"""Requirements of check.py that a machine may lack, and the places of data and tools."""

import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path

from bench.suite.records import ROOT

WHEELS = ROOT / "wheels"  # See get_wheels.sh.
# By module: what to install, with the major version of CUDA that the driver has.
PACKAGES = {
    "cupy": "cupy-cuda{cuda}x[ctk]>=14",
    "nvmath": "nvmath-python>=1.0",
    "torch": "torch>=2.6",
    "jax": "jax[cuda{cuda}]>=0.8",
    "pytest": "pytest>=8.2",
    "pytest_benchmark": "pytest-benchmark>=5.1",
    "hypothesis": "hypothesis>=6.100",
    "pandas": "pandas>=2.2",
    "array_api_strict": "array-api-strict>=2.4",
    "matplotlib": "matplotlib>=3.9",
    "rich": "rich>=13.7",
    "safetensors": "safetensors>=0.5",
    "sklearn": "scikit-learn>=1.7",
    "array_api_compat": "array-api-compat>=1.12",
    "array_api_extra": "array-api-extra>=0.9",
}
# By wheel: the module, where its name is another one.
MODULES = {
    "nvmath_python": "nvmath",
    "cuda_bindings": "cuda.bindings",
    "cuda_core": "cuda.core",
    "cuda_pathfinder": "cuda.pathfinder",
    "py_cpuinfo": "cpuinfo",
}


def requirements(gpus: list[str], wanted: list[str]) -> dict[str, str]:
    """Return what is missing for some backends: by module, what pip is to install."""
    driver = re.search(r"driver (\d+)", " ".join(gpus))
    cuda = 13 if driver and int(driver[1]) >= 580 else 12
    absent = {"cupy", "torch", "jax"} - {spec.partition(":")[0] for spec in wanted}
    if "cupy" in absent:
        absent.add("nvmath")  # For CuPy's products.
    needed = {name: text for name, text in PACKAGES.items() if name not in absent}
    return {name: text.format(cuda=cuda) for name, text in needed.items() if not is_there(name)}


def is_there(name: str) -> bool:
    """Whether a module can be imported by the parts, which look in the folder of wheels too."""
    if (WHEELS / "installed" / name.replace(".", "/")).exists():
        return True
    importlib.invalidate_caches()
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # Not even the package around it.
        return False


def pip(*options: str) -> list[str]:
    """Return the command that installs something, and asks nothing."""
    return [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--retries", "0",
            "--disable-pip-version-check", *options]  # fmt: skip


def missing_wheels() -> list[str]:
    """Return the wheels at hand of what is missing; others would hide what this machine has."""
    found = {path: path.name.split("-")[0].lower() for path in sorted(WHEELS.glob("*.whl"))}
    return [str(path) for path, name in found.items() if not is_there(MODULES.get(name, name))]


def environment(**more: str) -> dict[str, str]:
    """Return the environment of the parts: this tree first, and memory for several libraries."""
    given = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    # Whole, as the recipe runs in another folder.
    paths = [str(Path(path).resolve()) for path in (ROOT, *given, WHEELS / "installed")]
    known = {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "MPLBACKEND": "agg",
    }
    return os.environ | known | more


def find_cifar10() -> Path | None:
    """Return the folder to train in: ``data`` in it, or the cache, has CIFAR-10, or some images."""
    from mlp_xp.datasets import locate

    here = Path.cwd()
    for folder in filter(Path.is_dir, (ROOT, WHEELS)):
        os.chdir(folder)  # The loader looks in `data` of the folder that Python runs in.
        try:
            if locate("cifar10") is not None:
                return folder
        finally:
            os.chdir(here)
    return None


def find_sanitizer() -> str | None:
    """Return compute-sanitizer, which CUDA's toolkit has."""
    known = os.pathsep.join(filter(None, [os.environ.get("PATH"), "/usr/local/cuda/bin"]))
    return shutil.which("compute-sanitizer", path=known)
