"""The installation of packages that a machine may lack, and images of CIFAR-10.

`python -m bench.gpu.install` writes images for machines that cannot download them (20 MB in the
official binary format) to wheels/data; see get_wheels.sh.
"""

import importlib.metadata
import importlib.util
import io
import re
import sys
import tarfile
from pathlib import Path

import numpy as np

from bench.gpu.run import LEAST, Check
from bench.suite.records import ROOT

WHEELS = ROOT / "wheels"  # See get_wheels.sh.
IMAGES = WHEELS / "data" / "cifar-10-binary.tar.gz"
PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--retries", "0",
       "--disable-pip-version-check"]  # fmt: skip
# The package to install for each module; {cuda} is the driver's major CUDA version.
PACKAGES = {
    "cupy": "cupy-cuda{cuda}x[ctk]>=14", "nvmath": "nvmath-python>=1.0", "torch": "torch>=2.6",
    "jax": "jax[cuda{cuda}]>=0.8", "pytest": "pytest>=9.0",
    "pytest_benchmark": "pytest-benchmark>=5.1", "hypothesis": "hypothesis>=6.100",
    "pandas": "pandas>=2.2", "array_api_strict": "array-api-strict>=2.4",
    "matplotlib": "matplotlib>=3.9", "rich": "rich>=13.7", "safetensors": "safetensors>=0.5",
    "sklearn": "scikit-learn>=1.7", "array_api_compat": "array-api-compat>=1.12",
    "array_api_extra": "array-api-extra>=0.9",
}  # fmt: skip


def install(check: Check) -> None:
    """Install missing packages from wheels/ or the index; report those that remain missing."""
    end = check.now() + check.left("install")

    def run_pip(name: str, *options: str) -> str:
        """Run pip; return the last line of its output if it fails."""
        ended = check.run({name: [*PIP, *options]}, end - check.now()).get(name)
        return ended.last if ended and ended.status != 0 else ""

    if wheels := missing_wheels():
        print("  from wheels/:", ", ".join(Path(wheel).name for wheel in wheels))
        options = "--no-index", "--no-deps", "--upgrade", "--target", str(WHEELS / "installed")
        if reason := run_pip("wheels", *options, *wheels):
            check.add("problems", f"wheels: {reason}")
    for name, text in requirements(check.result["gpus"], check.wanted).items():
        if is_there(name):  # Perhaps because it was installed with an earlier one.
            continue
        reason = run_pip(name, "--timeout", "5", text) if end - check.now() >= LEAST else ""
        if not is_there(name):
            check.add("missing", f"{name}: pip install '{text}'" + f" ({reason})" * bool(reason))
    cure = "mlp-xp data cifar10, or bench/gpu/get_wheels.sh on a machine that has it"
    print(f"  CIFAR-10: {find_cifar10() or f'missing: {cure}'}")
    print(f"  compute-sanitizer: {check.sanitizer or 'not installed'}")


def requirements(gpus: list[str], wanted: list[str]) -> dict[str, str]:
    """Return the packages that the wanted backends need, by module."""
    driver = re.search(r"driver (\d+)", " ".join(gpus))
    cuda = 13 if driver and int(driver[1]) >= 580 else 12
    unwanted = {"cupy", "torch", "jax"} - {spec.partition(":")[0] for spec in wanted}
    if "cupy" in unwanted:
        unwanted.add("nvmath")  # CuPy needs this for matrix products.
    return {name: text.format(cuda=cuda) for name, text in PACKAGES.items() if name not in unwanted}


def is_there(name: str) -> bool:
    """Whether a module can be imported, perhaps from wheels/installed (see check.sh)."""
    importlib.invalidate_caches()
    return importlib.util.find_spec(name) is not None


def missing_wheels() -> list[str]:
    """Return the local wheels of missing packages; other wheels would shadow installed packages."""
    missing = []
    for wheel in sorted(WHEELS.glob("*.whl")):
        try:
            importlib.metadata.distribution(wheel.name.partition("-")[0])
        except importlib.metadata.PackageNotFoundError:
            missing.append(str(wheel))
    return missing


def find_cifar10() -> Path | None:
    """Return the path of CIFAR-10 or of the images in wheels/, or None."""
    from mlp_xp.datasets import locate

    return locate("cifar10") or (IMAGES if IMAGES.exists() else None)


def write_images(n_train: int = 6_000, n_test: int = 1_000) -> None:
    """Write the first images as an archive that `load_cifar10` reads."""
    from mlp_xp.datasets import load_cifar10

    cifar = load_cifar10()
    parts = {
        f"data_batch_{i + 1}": (cifar.x_train[rows], cifar.y_train[rows])
        for i, rows in enumerate(np.array_split(np.arange(n_train), 5))
    }
    parts["test_batch"] = cifar.x_test[:n_test], cifar.y_test[:n_test]
    IMAGES.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(IMAGES, "w:gz") as archive:
        for name, (x, y) in parts.items():
            content = np.column_stack([y.astype(np.uint8), x]).tobytes()
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    print(IMAGES)


if __name__ == "__main__":
    write_images()
