"""The installation of packages that a machine may lack, and the path of CIFAR-10."""

import importlib.util
import re
import sys
from pathlib import Path

from bench.gpu.run import LEAST, Check, Ended
from bench.suite.records import ROOT

WHEELS = ROOT / "wheels"  # See get_wheels.sh.
IMAGES = WHEELS / "data" / "cifar-10-binary.tar.gz"
PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--retries", "0",
       "--disable-pip-version-check"]  # fmt: skip
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


def install(check: Check) -> None:
    """Install missing packages from the folder of wheels or the index; report packages that remain
    missing."""
    end = check.now() + check.left("install")

    def pip(name: str, *options: str) -> Ended | None:
        return check.run({name: [*PIP, *options]}, end - check.now()).get(name)

    if wheels := missing_wheels():
        print("  from wheels/:", ", ".join(Path(wheel).name for wheel in wheels))
        folder = str(WHEELS / "installed")
        ended = pip("wheels", "--no-index", "--no-deps", "--upgrade", "--target", folder, *wheels)
        if ended and ended.status != 0:
            check.add("problems", f"wheels: {ended.last}")
    for name, text in requirements(check.result["gpus"], check.wanted).items():
        line = f"{name}: pip install '{text}'"
        # A package may have been installed with an earlier one.
        if not is_there(name) and end - check.now() >= LEAST:
            ended = pip(name, "--timeout", "5", text)
            line += f" ({ended.last})" if ended and ended.status else ""
        if not is_there(name):
            check.add("missing", line)
    cure = "mlp-xp data cifar10, or bench/gpu/get_wheels.sh on a machine that has it"
    print(f"  CIFAR-10: {find_cifar10() or f'missing: {cure}'}")
    print(f"  compute-sanitizer: {check.sanitizer or 'not installed'}")


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
    """Whether a module can be imported, perhaps from wheels/installed (see check.sh)."""
    importlib.invalidate_caches()
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # The parent package is missing.
        return False


def missing_wheels() -> list[str]:
    """Return the local wheels of missing packages; other wheels would shadow installed packages."""
    found = {path: path.name.split("-")[0].lower() for path in sorted(WHEELS.glob("*.whl"))}
    return [str(path) for path, name in found.items() if not is_there(MODULES.get(name, name))]


def find_cifar10() -> Path | None:
    """Return the path of CIFAR-10 or of the images in wheels/, or None."""
    from mlp_xp.datasets import locate

    return locate("cifar10") or (IMAGES if IMAGES.exists() else None)
