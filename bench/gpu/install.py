"""Requirements of check.py that a machine may lack, and the paths of data and tools."""

import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path

from bench.suite.records import ROOT

WHEELS = ROOT / "wheels"  # See get_wheels.sh.
# The package to install for each module; {cuda} is the driver's major CUDA version.
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
# The modules of wheels that have another name.
MODULES = {
    "nvmath_python": "nvmath",
    "cuda_bindings": "cuda.bindings",
    "cuda_core": "cuda.core",
    "cuda_pathfinder": "cuda.pathfinder",
    "py_cpuinfo": "cpuinfo",
}


def requirements(gpus: list[str], wanted: list[str]) -> dict[str, str]:
    """Return the missing packages that the wanted backends need, by module."""
    driver = re.search(r"driver (\d+)", " ".join(gpus))
    cuda = 13 if driver and int(driver[1]) >= 580 else 12
    absent = {"cupy", "torch", "jax"} - {spec.partition(":")[0] for spec in wanted}
    if "cupy" in absent:
        absent.add("nvmath")  # CuPy needs this for matrix products.
    needed = {name: text for name, text in PACKAGES.items() if name not in absent}
    return {name: text.format(cuda=cuda) for name, text in needed.items() if not is_there(name)}


def is_there(name: str) -> bool:
    """Whether the parts can import a module, which may be in the folder of wheels."""
    if (WHEELS / "installed" / name.replace(".", "/")).exists():
        return True
    importlib.invalidate_caches()
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # The parent package is missing.
        return False


def pip(*options: str) -> list[str]:
    """Return the command that installs a package without asking questions."""
    return [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--retries", "0",
            "--disable-pip-version-check", *options]  # fmt: skip


def missing_wheels() -> list[str]:
    """Return the local wheels of missing packages; other wheels would shadow installed packages."""
    found = {path: path.name.split("-")[0].lower() for path in sorted(WHEELS.glob("*.whl"))}
    return [str(path) for path, name in found.items() if not is_there(MODULES.get(name, name))]


def environment(**more: str) -> dict[str, str]:
    """Return the environment variables of the parts: this clone comes first on the path, and JAX
    leaves GPU memory to other libraries."""
    given = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    # An absolute path, because the recipe runs in another folder.
    paths = [str(Path(path).resolve()) for path in (ROOT, *given, WHEELS / "installed")]
    known = {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "MPLBACKEND": "agg",
    }
    return os.environ | known | more


def find_cifar10() -> Path | None:
    """Return a folder to train in where the loader finds CIFAR-10 or some of its images."""
    from mlp_xp.datasets import locate

    here = Path.cwd()
    for folder in filter(Path.is_dir, (ROOT, WHEELS)):
        os.chdir(folder)  # The loader searches `data` in the current folder.
        try:
            if locate("cifar10") is not None:
                return folder
        finally:
            os.chdir(here)
    return None


def find_sanitizer() -> str | None:
    """Return the path of compute-sanitizer, which is part of the CUDA toolkit."""
    known = os.pathsep.join(filter(None, [os.environ.get("PATH"), "/usr/local/cuda/bin"]))
    return shutil.which("compute-sanitizer", path=known)
