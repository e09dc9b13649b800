"""The files that get_wheels.sh writes to wheels/: reduced wheels, and images of CIFAR-10.

python -m bench.gpu.wheels CUDA      (12 or 13, as the wheel of cuda-bindings)

Files that are not needed to import cuBLASLt's bindings are removed from the wheels, which reduces
their size from 20 to 15 MB. For example, cuda-core has each module for CUDA 12 and for CUDA 13.
Licenses are kept, and `RECORD` lists the remaining files. The images (20 MB in the official binary
format) are for machines that cannot download CIFAR-10.
"""

import io
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np

MOST_BYTES = 16_000_000  # The total size of all wheels.
N_TRAIN, N_TEST = 6_000, 1_000
_OTHER_CUDA = {"12": "cuda/core/cu13/", "13": "cuda/core/cu12/"}
_NEVER_IMPORTED = ("cuda/bindings/_v2/", "nvmath/device/", "nvmath/distributed/")
_FOR_COMPILERS = (".pxd", ".pyi", ".h", ".hpp")


def trim(path: Path, cuda: str) -> int:
    """Remove unneeded files from a wheel; return its size in bytes."""

    def is_read(name: str) -> bool:
        unread = (*_NEVER_IMPORTED, _OTHER_CUDA[cuda])
        return not name.startswith(unread) and not name.endswith(_FOR_COMPILERS)

    partial = path.with_suffix(".partial")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(partial, "w") as target:
        for entry in filter(lambda entry: is_read(entry.filename), source.infolist()):
            content = source.read(entry)
            if entry.filename.endswith(".dist-info/RECORD"):
                lines = content.splitlines(keepends=True)
                content = b"".join(x for x in lines if is_read(x.decode().partition(",")[0]))
            target.writestr(entry, content, zipfile.ZIP_DEFLATED, 9)
    os.replace(partial, path)
    return path.stat().st_size


def write_images(folder: Path, n_train: int = N_TRAIN, n_test: int = N_TEST) -> Path:
    """Write the first images of CIFAR-10 as an archive that `load_cifar10` reads; return it."""
    from mlp_xp.datasets import load_cifar10

    cifar = load_cifar10()
    parts = {
        f"data_batch_{i + 1}": (cifar.x_train[rows], cifar.y_train[rows])
        for i, rows in enumerate(np.array_split(np.arange(n_train), 5))
    }
    parts["test_batch"] = cifar.x_test[:n_test], cifar.y_test[:n_test]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, (x, y) in parts.items():
            content = np.column_stack([y.astype(np.uint8), x]).tobytes()
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


if __name__ == "__main__":
    wheels = Path(__file__).parents[2] / "wheels"
    total = sum(trim(path, sys.argv[1]) for path in sorted(wheels.glob("*.whl")))
    print(f"wheels: {total / 1e6:.1f} MB")
    if total > MOST_BYTES:
        sys.exit(f"More than {MOST_BYTES / 1e6:.0f} MB: see what {__file__} can leave out.")
    print(write_images(wheels / "data"))
